# SPDX-License-Identifier: MIT
"""Slabs and their objects: each test breaks one thing, and sees exactly that problem."""

from typing import Any

import numpy as np
import pytest
from audit_sample import Sample, only_problem, problems
from fake_arena import Slab

from shmalloc.audit import audit


def slot(sample: Sample, slab: Slab) -> Any:
    """The kmem_cache_cpu of a cpu slab."""
    return sample.region("cache_cpus")[slab.cpu, slab.cache]


def record(sample: Sample, slab: Slab) -> Any:
    return sample.page_record(slab.pfn)


def test_totals_of_slabs_and_objects() -> None:
    totals = audit(Sample()).totals
    assert totals["slabs_total"] == 13
    states = {key: totals[f"slabs_{key}"] for key in ("cpu", "cpu_partial", "partial", "full", "deferred")}
    assert states == {"cpu": 2, "cpu_partial": 2, "partial": 4, "full": 1, "deferred": 2}
    assert totals["slabs_full_listed"] == totals["slabs_disabled"] == 1
    small = {key: totals[f"cache.small.objects_{key}"] for key in ("total", "live", "free_slab", "free_cpu")}
    assert small == {"total": 40, "live": 28, "free_slab": 9, "free_cpu": 3}
    assert totals["objects_deferred"] == totals["cache.large.objects_deferred"] == 2


@pytest.mark.parametrize("number", [0, 99, 5])
def test_slab_of_no_cache(number: int) -> None:
    def corrupt(sample: Sample) -> None:
        record(sample, sample.large_full)["slab_cache"] = number

    found = problems(corrupt)
    assert found[0].verdict == "corruption" and "there is no such cache" in found[0].text
    assert {problem.where for problem in found[1:]} <= {"cache large node 1"}


def test_cache_of_an_impossible_layout() -> None:
    def corrupt(sample: Sample) -> None:
        sample.region("caches")["size"][1] = 24

    found = problems(corrupt)
    assert found[0].where == "cache large" and "cannot hold" in found[0].text


def word(cache: int, objects: int, page: int) -> int:
    return (cache + 1) | objects << 16 | page * 4096 << 32


def test_words_of_pages() -> None:
    sample = Sample()
    words, large = sample.region("slab_words"), sample.large_full
    words[large.pfn : large.pfn + 2] = word(1, 16, 0), word(1, 16, 1)
    assert audit(sample).ok


@pytest.mark.parametrize("wrong", [word(0, 16, 1), word(1, 15, 1), word(1, 16, 0), word(1, 16, 2), 1 << 63])
def test_word_of_a_page_that_says_something_else(wrong: int) -> None:
    def corrupt(sample: Sample) -> None:
        sample.region("slab_words")[sample.large_full.pfn + 1] = wrong

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption"
    assert f"its word is {wrong:#x}, and must be 0 or {word(1, 16, 1):#x}" in problem.text


def test_word_of_a_page_of_no_slab() -> None:
    def corrupt(sample: Sample) -> None:
        sample.region("slab_words")[sample.pcp] = word(0, 64, 0)

    assert "and must be 0" in only_problem(corrupt).text


def test_word_of_a_slab_whose_objects_are_looked_at_closer() -> None:
    def charged(sample: Sample) -> None:
        vector = sample.memory_at(sample.small_cpu.pfn)
        record(sample, sample.large_full)["obj_exts"] = vector | sample.c["MEMCG_DATA_OBJEXTS"]
        sample.region("slab_words")[sample.large_full.pfn] = word(1, 16, 0)

    def reserve(sample: Sample) -> None:
        record(sample, sample.large_full)["flags"] |= sample.c["PG_pfmemalloc"]
        sample.region("slab_words")[sample.large_full.pfn] = word(1, 16, 0)

    def unordinary(sample: Sample) -> None:
        sample.region("caches")["flags"][1] |= sample.c["SLAB_UNORDINARY"]
        sample.region("slab_words")[sample.large_full.pfn] = word(1, 16, 0)

    for corrupt in (charged, reserve, unordinary):
        assert any(problem.text.endswith("must be 0") for problem in problems(corrupt)), corrupt


@pytest.mark.parametrize("objects", [0, 15, 32767])
def test_slab_of_the_wrong_size(objects: int) -> None:
    def corrupt(sample: Sample) -> None:
        page = record(sample, sample.large_full)
        page["counters"] = int(page["counters"]) & ~(0x7FFF << 16) | objects << 16

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption" and f"{objects} objects, the cache's slabs have" in problem.text


def test_cpu_slab_is_no_page() -> None:
    def corrupt(sample: Sample) -> None:
        slot(sample, sample.small_cpu)["slab"] += 8

    found = problems(corrupt)
    assert found[0].where == "cache small cpu slab of CPU 0" and "is no page" in found[0].text
    assert [problem.verdict for problem in found] == ["corruption", "lost_memory"]  # its slab has nobody


def test_cpu_slab_of_another_cache() -> None:
    def corrupt(sample: Sample) -> None:
        slot(sample, sample.small_cpu)["slab"] = sample.page_at(sample.large_full.pfn)

    found = problems(corrupt)
    assert "a slab of cache large" in found[0].text and found[0].verdict == "corruption"


def test_two_cpus_have_one_slab() -> None:
    def corrupt(sample: Sample) -> None:
        other = sample.region("cache_cpus")[1, 0]
        other["slab"] = slot(sample, sample.small_cpu)["slab"]

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption"
    assert "is in two places: cpu slab of CPU 0 and cpu slab of CPU 1" in problem.text


def test_cpu_slab_is_on_the_partial_list_too() -> None:
    def corrupt(sample: Sample) -> None:
        other = sample.region("cache_cpus")[1, 0]
        other["slab"] = sample.page_at(sample.small_partial.pfn)

    problem = only_problem(corrupt)
    assert "partial list of its node and cpu slab of CPU 1" in problem.text


def test_freelist_without_a_slab() -> None:
    def corrupt(sample: Sample) -> None:
        sample.region("cache_cpus")["freelist"][1, 0] = 4096

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption" and "without a slab" in problem.text


def test_slab_that_nobody_has_is_lost() -> None:
    def corrupt(sample: Sample) -> None:
        slot(sample, sample.small_cpu)["slab"] = 0
        slot(sample, sample.small_cpu)["freelist"] = 0

    found = problems(corrupt)
    assert {problem.verdict for problem in found} == {"lost_memory"}
    assert "is frozen, and no CPU has it: 8 objects" in found[0].text


@pytest.mark.parametrize("name", ["small_cpu_partial", "small_cpu_partial_2"])
def test_wrong_count_on_a_cpu_partial_list(name: str) -> None:
    def corrupt(sample: Sample) -> None:
        record(sample, getattr(sample, name))["lru"]["prev"] += 1

    problem = only_problem(corrupt)
    assert problem.where == "cache small cpu partial list of CPU 1"
    assert problem.verdict == "corruption" and "slabs from entry" in problem.text


def test_cpu_partial_list_is_circular() -> None:
    def corrupt(sample: Sample) -> None:
        record(sample, sample.small_cpu_partial_2)["lru"]["next"] = sample.page_at(
            sample.small_cpu_partial.pfn
        )

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption" and "is circular" in problem.text


def test_cpu_partial_list_cut_short_loses_slabs() -> None:
    def corrupt(sample: Sample) -> None:
        record(sample, sample.small_cpu_partial)["lru"]["next"] = 0
        record(sample, sample.small_cpu_partial)["lru"]["prev"] = 1

    problem = only_problem(corrupt)
    assert problem.verdict == "lost_memory" and "2 free objects and is on no list" in problem.text


def test_slab_off_its_partial_list_is_lost() -> None:
    def corrupt(sample: Sample) -> None:
        lru = record(sample, sample.hardened_partial)["lru"]
        head = sample.region("cache_nodes")[3, 1]["partial"]
        head["next"] = head["prev"] = sample.element_at(head)
        lru["next"] = lru["prev"] = sample.element_at(lru)

    problem = only_problem(corrupt)
    assert problem.verdict == "lost_memory" and "marked partial" in problem.text


def test_slab_on_the_list_of_another_node() -> None:
    def corrupt(sample: Sample) -> None:
        lru = record(sample, sample.hardened_partial)["lru"]
        old, new = (sample.region("cache_nodes")[3, node]["partial"] for node in (1, 0))
        old["next"] = old["prev"] = sample.element_at(old)
        new["next"] = new["prev"] = sample.element_at(lru)
        lru["next"] = lru["prev"] = sample.element_at(new)

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption" and "partial list of node 0" in problem.text


def test_full_slab_off_its_list() -> None:
    def corrupt(sample: Sample) -> None:
        head = sample.region("cache_nodes")[2, 1]["full"]
        head["next"] = head["prev"] = sample.element_at(head)
        lru = record(sample, sample.tracked_full)["lru"]
        lru["next"] = lru["prev"] = 0

    found = problems(corrupt)
    assert found[-1].verdict == "lost_memory" and "is full, and is not on its node's list" in found[-1].text


@pytest.mark.parametrize("field", ["nr_partial", "nr_slabs", "total_objects"])
@pytest.mark.parametrize("change", [1, -1])
def test_cache_counter(field: str, change: int) -> None:
    def corrupt(sample: Sample) -> None:
        table = sample.region("cache_nodes")[field]
        table[2, 1] = (int(table[2, 1]) + change) % 2**64

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption" and problem.where == "cache tracked node 1"
    assert problem.text.startswith(f"{field} is ")


def test_negative_counter_is_shown_as_such() -> None:
    def corrupt(sample: Sample) -> None:
        sample.region("cache_nodes")["nr_slabs"][1, 1] = 2**64 - 1

    assert only_problem(corrupt).text == "nr_slabs is -1, counted are 1"


def test_nr_slab_pages() -> None:
    def corrupt(sample: Sample) -> None:
        sample.region("nodes")["nr_slab_pages"][1] += 1

    problem = only_problem(corrupt)
    assert problem.where == "node 1" and problem.text.startswith("nr_slab_pages is")


@pytest.mark.parametrize(
    "name", ["small_partial", "small_cpu", "large_full", "tracked_partial", "large_deferred"]
)
def test_inuse(name: str) -> None:
    def corrupt(sample: Sample) -> None:
        record(sample, getattr(sample, name))["counters"] -= np.uint64(1)

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption" and "objects in use" in problem.text


@pytest.mark.parametrize("name", ["small_partial", "small_cpu_partial", "small_cpu", "tracked_full"])
def test_frozen(name: str) -> None:
    def corrupt(sample: Sample) -> None:
        record(sample, getattr(sample, name))["counters"] ^= np.uint64(1 << 31)

    found = problems(corrupt)
    assert found[-1].verdict in ("corruption", "lost_memory") and "frozen" in found[-1].text
    assert len(found) == 1 or name == "tracked_full"  # which is then no full slab any more


def test_frozen_full_slab_is_lost() -> None:
    def corrupt(sample: Sample) -> None:
        record(sample, sample.large_full)["counters"] |= np.uint64(1 << 31)

    problem = only_problem(corrupt)
    assert problem.verdict == "lost_memory" and "no CPU has it" in problem.text


def test_partial_slab_without_a_free_object() -> None:
    def corrupt(sample: Sample) -> None:
        page = record(sample, sample.small_cpu_partial)
        sample.own(int(page["freelist"]), 64)
        page["freelist"] = 0
        page["counters"] += np.uint64(1)

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption" and "has no free object" in problem.text


def test_transaction_id_of_another_cpu() -> None:
    def corrupt(sample: Sample) -> None:
        sample.region("cache_cpus")["tid"][1, 2] = 4

    problem = only_problem(corrupt)
    assert problem.verdict == "broken_rule" and problem.where == "cache tracked cpu slab of CPU 1"


# --- freelists ------------------------------------------------------------------------------------


def link_of(sample: Sample, slab: Slab, index: int) -> int:
    """Index of the word with an object's free pointer."""
    return (sample.object_at(slab, index) + sample.caches[slab.cache].link) // 8


@pytest.mark.parametrize("target", [1, 2**64 - 64, 4096])
@pytest.mark.parametrize(("name", "index"), [("small_partial", 1), ("small_cpu", 3), ("large_deferred", 1)])
def test_freelist_leads_out_of_its_slab(name: str, index: int, target: int) -> None:
    def corrupt(sample: Sample) -> None:
        sample.words[link_of(sample, getattr(sample, name), index)] = target

    problem = only_problem(corrupt)
    assert (
        problem.verdict == "corruption" and f"leads to {target:#x}, which is no object of it" in problem.text
    )


def test_freelist_leads_into_an_object() -> None:
    def corrupt(sample: Sample) -> None:
        slab = sample.small_partial
        sample.words[link_of(sample, slab, 1)] = sample.object_at(slab, 6) + 8

    assert "which is no object of it" in only_problem(corrupt).text


def test_freelist_leads_into_another_slab() -> None:
    def corrupt(sample: Sample) -> None:
        sample.words[link_of(sample, sample.small_partial, 7)] = sample.object_at(sample.small_partial_2, 2)

    assert "which is no object of it" in only_problem(corrupt).text


@pytest.mark.parametrize(("name", "first", "last"), [("small_partial", 1, 7), ("small_cpu", 3, 5)])
def test_freelist_is_circular(name: str, first: int, last: int) -> None:
    def corrupt(sample: Sample) -> None:
        slab = getattr(sample, name)
        sample.words[link_of(sample, slab, last)] = sample.object_at(slab, first)

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption" and "is circular" in problem.text


def test_freelist_of_one_object_that_is_its_own_next() -> None:
    def corrupt(sample: Sample) -> None:
        slab = sample.small_partial_2
        sample.words[link_of(sample, slab, 2)] = sample.object_at(slab, 2)

    assert "is circular" in only_problem(corrupt).text


@pytest.mark.parametrize("bit", [0, 3, 40, 63])
def test_hardened_pointer_is_decoded(bit: int) -> None:
    def corrupt(sample: Sample) -> None:
        sample.words[link_of(sample, sample.hardened_partial, 2)] ^= np.uint64(1 << bit)

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption" and problem.where.startswith("cache hardened slab")


def test_object_on_both_freelists_of_a_cpu_slab() -> None:
    def corrupt(sample: Sample) -> None:
        slab = sample.small_cpu
        sample.words[link_of(sample, slab, 0)] = sample.object_at(slab, 5)
        sample.page_record(slab.pfn)["counters"] -= np.uint64(1)

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption"
    assert "is on the slab's freelist and on the cpu freelist" in problem.text


def test_deferred_object_is_free_already() -> None:
    def corrupt(sample: Sample) -> None:
        sample.page_record(sample.small_partial.pfn)["freelist"] = 0
        slab = sample.large_deferred
        sample.page_record(slab.pfn)["lru"]["prev"] = sample.object_at(slab, 3)
        sample.words[link_of(sample, slab, 3)] = 0

    found = problems(corrupt)
    assert any(
        "is on the freelist of its deferred slab and on a list of deferred objects" in p.text for p in found
    )


@pytest.mark.parametrize("target", [8, 2**63, 2**64 - 8])
def test_deferred_object_list_leads_out_of_memory(target: int) -> None:
    def corrupt(sample: Sample) -> None:
        sample.words[link_of(sample, sample.large_deferred, 4)] = target

    problem = only_problem(corrupt)
    assert problem.where == "deferred objects of CPU 0" and "where no entry can be" in problem.text


def test_deferred_link_in_no_object() -> None:
    def corrupt(sample: Sample) -> None:
        sample.words[link_of(sample, sample.large_deferred, 4)] = sample.memory_at(sample.page) + 8

    problem = only_problem(corrupt)
    assert problem.where == "deferred objects of CPU 0" and "lies in no object" in problem.text


def test_deferred_slab_list_is_circular() -> None:
    def corrupt(sample: Sample) -> None:
        lru = record(sample, sample.tracked_new)["lru"]
        lru["next"] = sample.element_at(lru)

    problem = only_problem(corrupt)
    assert problem.where == "deferred slabs of CPU 1" and "is circular" in problem.text


def test_object_lost_without_an_oracle() -> None:
    def corrupt(sample: Sample) -> None:
        sample.page_record(sample.small_partial.pfn)["freelist"] = 0

    problem = only_problem(corrupt, oracle=False)
    assert problem.verdict == "corruption" and "0 are on its freelist" in problem.text
