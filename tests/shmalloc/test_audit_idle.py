# SPDX-License-Identifier: MIT
"""Locks and contexts at rest: each test leaves one thing behind, and sees exactly that problem."""

from collections.abc import Callable
from typing import Any

import pytest
from audit_sample import Sample, only_problem, problems

WORD = 0x0502_0003  # generation 5, level 2, CPU 2

LOCKS: dict[str, tuple[Callable[[Sample], Any], str, str]] = {
    "slab_mutex": (lambda sample: sample.header["slab_mutex"], "arena", "slab_mutex"),
    "ipi_lock": (lambda sample: sample.header["ipi_lock"], "arena", "ipi_lock"),
    "zone": (lambda sample: sample.region("zones")[1]["lock"], "zone 1 (node 0 Normal)", "zone"),
    "pcp": (
        lambda sample: sample.region("pagesets")[2, 1]["lock"],
        "zone 2 (node 1 Normal) pageset of CPU 1",
        "pcp",
    ),
    "entropy": (
        lambda sample: sample.region("cpus")["entropy"][1:2]["lock"][0],
        "random numbers of CPU 1",
        "batched_entropy",
    ),
    "list_lock": (
        lambda sample: sample.region("cache_nodes")[0, 1]["list_lock"],
        "cache small node 1",
        "list_lock",
    ),
    "cpu_slab": (
        lambda sample: sample.region("cache_cpus")[1, 2]["lock"],
        "cache tracked cpu slab of CPU 1",
        "cpu_slab",
    ),
}


@pytest.mark.parametrize("name", LOCKS)
def test_lock_never_released(name: str) -> None:
    lock_of, where, lock_class = LOCKS[name]

    def corrupt(sample: Sample) -> None:
        lock_of(sample)["word"] = WORD

    problem = only_problem(corrupt)
    assert problem.verdict == "broken_rule" and problem.where == where
    assert problem.text == f"lock never released: {lock_class}, CPU 2 took it at level 2"


def test_lock_word_without_an_owner() -> None:
    def corrupt(sample: Sample) -> None:
        sample.region("zones")["lock"]["word"][0] = 0x10000

    assert "names no CPU" in only_problem(corrupt).text


def test_slab_bit_lock_never_released() -> None:
    def corrupt(sample: Sample) -> None:
        sample.page_record(sample.large_full.pfn)["refcount"] = WORD  # where a slab has its lock

    problem = only_problem(corrupt)
    assert problem.verdict == "broken_rule" and problem.where.startswith("slab at page")
    assert problem.text == "lock never released: slab_lock, CPU 2 took it at level 2"


@pytest.mark.parametrize(
    "field",
    ["irqs_disabled", "irq_pending", "bh_count", "preempt_count", "mems_allowed_seq", "level", "waiting_for"],
)
def test_cpu_is_not_at_rest(field: str) -> None:
    def corrupt(sample: Sample) -> None:
        sample.region("cpus")[field][1] = 1

    problem = only_problem(corrupt)
    assert problem.verdict == "broken_rule" and problem.where == "CPU 1"
    assert problem.text.startswith(f"{field} is 0x1")


def test_deferred_work_that_nobody_will_run_is_lost() -> None:
    def corrupt(sample: Sample) -> None:
        sample.region("cpus")["defer_work"]["flags"][0] = 0

    problem = only_problem(corrupt)
    assert problem.verdict == "lost_memory" and problem.where == "CPU 0"
    assert "2 objects and 1 slabs" in problem.text and "no irq_work is queued" in problem.text


def test_deferred_work_that_is_queued_is_lost_after_a_drain() -> None:
    found = problems(lambda sample: None, expect_live=False)
    assert any(p.where == "CPU 1" and "0 objects and 1 slabs" in p.text for p in found)
