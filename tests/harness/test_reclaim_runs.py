# SPDX-License-Identifier: MIT
"""Runs with page cache, a kswapd for each node, and faults: processes start, work and end; bad syntax is explained."""

import json
from pathlib import Path
from typing import Any

import pytest
from running import ENDLESS, SMALL, Running, config, only_cell, results, run, running


def cell_of(ongoing: Running) -> dict[str, Any]:
    """The cell of a run that has ended by itself."""
    return only_cell(json.loads(ongoing.ended()[1])["runs"][0])


CACHED = 'design = "kmalloc"\npage_cache = "64MiB"\n'  # as much as there is room for


def test_kswapd_gives_page_cache_back(tmp_path: Path) -> None:
    """All memory is page cache at first, so somebody has to."""
    cell = only_cell(results(config(tmp_path, CACHED + SMALL)))
    counters = cell["counters"]
    assert cell["verdict"] == "ok"
    assert counters["page_cache_added"] > 1000
    assert counters["kswapd_woken"] >= 1
    assert counters["pgsteal_kswapd"] + counters["pgsteal_direct"] > 0


def test_without_page_cache_there_is_no_kswapd(tmp_path: Path) -> None:
    cell = only_cell(results(config(tmp_path, 'design = "kmalloc"\n' + SMALL)))
    assert cell["counters"]["kswapd_woken"] == 0


def test_the_death_of_kswapd_is_a_verdict(tmp_path: Path) -> None:
    with running(config(tmp_path, "kswapd = true\n" + ENDLESS), children=3) as ongoing:
        (kswapd,) = [child for child in ongoing.children if "harness.kswapd" in child.cmdline()]
        kswapd.kill()
        cell = cell_of(ongoing)
    assert cell["verdict"] == "dead_owner"
    assert f"kswapd of node 0 (pid {kswapd.pid}) was killed by SIGKILL" in cell["violations"][0]["text"]


def test_when_the_parent_is_killed_kswapd_ends_too(tmp_path: Path) -> None:
    with running(config(tmp_path, "kswapd = true\n" + ENDLESS), children=3) as ongoing:
        ongoing.process.kill()
        ongoing.ended()
        assert ongoing.is_gone()


def test_faults_are_injected_and_counted(tmp_path: Path) -> None:
    faults = (
        '[faults]\nfailslab = { probability = 50, ignore_gfp_wait = false }\nfail_page_alloc = "1,50,0,-1"\n'
    )
    cell = only_cell(results(config(tmp_path, 'design = "kmalloc"\n' + SMALL + faults)))
    assert cell["verdict"] == "ok"
    assert (
        0 < cell["failures"]["injected"] <= cell["counters"]["failslab"] + cell["counters"]["fail_page_alloc"]
    )


def test_nolock_requests_meet_no_faults(tmp_path: Path) -> None:
    faults = "[faults]\nfailslab = { probability = 100, ignore_gfp_wait = false }\n"
    cell = only_cell(results(config(tmp_path, 'design = "kmalloc_nolock"\n' + SMALL + faults)))
    assert cell["failures"]["injected"] == cell["counters"]["failslab"] == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('failslab = "1,2,3"', "<interval>,<probability>,<space>,<times>"),
        ('failslab = "1,200,0,1"', "probability = 200: allowed is an integer from 0 to 100"),
        ("failslab = { probabilty = 1 }", "probabilty"),
        ("fail_page_alloc = { min_order = 99 }", "min_order"),
        ("failslab = 3", "failslab"),
    ],
)
def test_bad_fault_syntax_is_explained(tmp_path: Path, text: str, says: str) -> None:
    done = run("run", config(tmp_path, SMALL + f"[faults]\n{text}\n"), cwd=tmp_path)
    assert done.returncode == 2
    assert "faults" in done.stderr and says in " ".join(done.stderr.split())


UP = 'cpus = 1\nops = 4_000\n[arena]\nup = true\ndebug_objects = true\nsize = "16MiB"\n'


def test_a_machine_without_smp_has_one_possible_cpu_and_runs_green(tmp_path: Path) -> None:
    text = 'design = "kmalloc_nolock"\nflavour = "checked"\n' + UP
    text += '[workload]\nkind = "mix"\nnmi_every = 23\n[interrupts.nmi]\nprogram = "mix"\n'
    cell = only_cell(results(config(tmp_path, text)))
    assert cell["verdict"] == "ok"
    nmi = cell["contexts"]["nmi"]  # nothing may be tried where a trylock cannot fail
    assert nmi["allocs"] == 0 and nmi["failures"]["context_refused"] > 100


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kswapd = true\n" + UP, "kswapd = true: allowed with arena.up = true is kswapd = false"),
        ('page_cache = "1MiB"\n' + UP, "allowed with arena.up = true is kswapd = false"),
        (UP.replace("cpus = 1", "cpus = 2"), "cpus = 2: allowed is 1 with arena.up = true"),
        (UP + "cpus = 4\n", "arena.cpus = 4: allowed is 1 with arena.up = true"),
    ],
)
def test_nothing_runs_beside_the_only_cpu(tmp_path: Path, text: str, says: str) -> None:
    done = run("run", config(tmp_path, text), cwd=tmp_path)
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())


def test_state_of_pagesets_is_no_counter(tmp_path: Path) -> None:
    cell = only_cell(results(config(tmp_path, 'design = "kmalloc"\n' + SMALL)))
    assert "pcp_refill" in cell["counters"]
    assert not {"vmstat_seen", "expire"} & cell["counters"].keys()


def test_what_is_set_up_for_a_run_does_not_fail(tmp_path: Path) -> None:
    """Its requests do: of bpf_mem_alloc the refills."""
    faults = "[faults.failslab]\nprobability = 100\nignore_gfp_wait = false\n"
    cell = only_cell(results(config(tmp_path, 'design = "bpf_mem_alloc"\n' + SMALL + faults)))
    assert cell["verdict"] == "ok"
    assert cell["counters"]["failslab"] > 0
