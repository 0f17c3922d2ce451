# SPDX-License-Identifier: MIT
"""The stress engine end to end, on tiny configs: correct designs are green, broken ones are caught."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from leases import lease
from running import ENDLESS, SMALL, config, only_cell, results, run, running

INTERRUPTS = """
[interrupts.{kind}]
source = "{source}"
rate_hz = {rate_hz}
"""


@pytest.mark.parametrize("design", ["kmalloc", "kmalloc_nolock"])
def test_a_correct_design_is_green_in_both_flavours(tmp_path: Path, design: str) -> None:
    found = results(config(tmp_path), "--set", f"design={design}", "--set", 'flavour=["release", "checked"]')
    for cell in found["cells"]:
        assert (cell["verdict"], cell["violations"]) == ("ok", [])
        assert cell["ops"] == 20_000
        assert {when: audit["ok"] for when, audit in cell["audits"].items()} == {
            "before the drain": True,
            "after the drain": True,
        }
        assert cell["counters"]["failures_without_reason"] == 0


@pytest.mark.parametrize("kind", ["nmi", "irq"])
@pytest.mark.parametrize("source", ["timer", "injector"])
def test_interrupts_come_and_are_counted(tmp_path: Path, kind: str, source: str) -> None:
    text = SMALL.replace("ops = 20_000", "duration_s = 0.5")
    text += INTERRUPTS.format(kind=kind, source=source, rate_hz=2003.0)
    cell = only_cell(results(config(tmp_path, text), "--set", f'must_happen=["interrupts.{kind}.handled"]'))
    counts = cell["interrupts"][kind]
    assert counts["sent"] >= counts["handled"] >= counts["in_allocator"] >= counts["in_slow_path"]
    assert cell["contexts"][kind]["allocs"] > 0
    other = "irq" if kind == "nmi" else "nmi"
    assert cell["contexts"][other]["allocs"] == 0


@pytest.mark.parametrize("flavour", ["release", "checked"])
def test_nesting_nmis_do_no_harm(tmp_path: Path, flavour: str) -> None:
    text = SMALL.replace("ops = 20_000", "duration_s = 1.0").replace("cpus = 2", "cpus = 1")
    text += INTERRUPTS.format(kind="nmi", source="injector", rate_hz=60_013.0)
    settings = ("nesting=true", 'program="burst"')
    sets = [word for setting in settings for word in ("--set", f"interrupts.nmi.{setting}")]
    sets += ["--set", f"flavour={flavour}", "--set", 'must_happen=["interrupts.nmi.in_allocator"]']
    cell = only_cell(results(config(tmp_path, text), *sets))
    assert (cell["verdict"], cell["violations"]) == ("ok", [])


def test_interrupts_by_ops_are_exact(tmp_path: Path) -> None:
    text = SMALL.replace('kind = "mix"\nslots = 101\narray_ops = 2003', 'kind = "pair"\nnmi_every = 23')
    cell = only_cell(results(config(tmp_path, text)))
    nmi = cell["interrupts"]["nmi"]
    assert nmi["sent"] == nmi["handled"] == cell["contexts"]["nmi"]["allocs"] > 0


def test_the_same_seed_gives_the_same_run(tmp_path: Path) -> None:
    settings = ("--set", "cpus=1", "--set", "ops=10_007")
    first, second = (only_cell(results(config(tmp_path), *settings)) for _ in range(2))
    for key in ("ops", "allocs", "frees", "failures", "counters"):
        assert first[key] == second[key]
    other = only_cell(results(config(tmp_path), *settings, "--set", "seed=2"))
    assert other["counters"] != first["counters"]


def test_more_cpus_than_cores_is_legal(tmp_path: Path) -> None:
    cell = only_cell(results(config(tmp_path), "--set", "cpus=16", "--set", "ops=16_016"))
    assert (cell["cpus"], cell["ops"], cell["verdict"]) == (16, 16_016, "ok")


def test_exclusive_cores(tmp_path: Path) -> None:
    with lease(2):
        cell = only_cell(results(config(tmp_path), "--set", "pin=exclusive"))
    assert cell["verdict"] == "ok"


def test_cpu_processes_are_pinned_and_have_one_thread(tmp_path: Path) -> None:
    with running(config(tmp_path, ENDLESS)) as crew:
        crew.until_busy()
        pinned = [child.cpu_affinity() for child in crew.children]
        threads = [child.num_threads() for child in crew.children]
        crew.process.send_signal(signal.SIGINT)
        crew.ended()
    assert all(len(cores) == 1 for cores in pinned)
    assert threads == [1, 1]


def test_a_cpu_process_imports_nothing_that_starts_threads_or_takes_long() -> None:
    code = "import sys, harness.cpu_process, harness.injector; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"numpy", "pydantic", "rich", "psutil", "elftools"} & set(loaded)


def test_an_oracle_that_is_off_leaves_counts_and_audit(tmp_path: Path) -> None:
    cell = only_cell(results(config(tmp_path), "--set", "oracle=false"))
    assert cell["verdict"] == "ok"
    assert cell["memory"]["live_bytes"] > 0


def test_memory_that_is_never_given_back_is_caught(tmp_path: Path) -> None:
    text = 'flavour = "checked"\nbroken = "k06"\n' + SMALL.replace("ops = 20_000", "duration_s = 0.5")
    text = text.replace("slots = 101", "slots = 101\nshared_with_handlers = 23")
    text += '[interrupts.nmi]\nrate_hz = 2003.0\nprogram = "free"\n'
    found = results(config(tmp_path, text), status=1)
    assert only_cell(found)["verdict"] == "lost_memory"
    expected = text + '[[expect]]\nverdict = "lost_memory"\n'
    control = results(config(tmp_path, expected))
    assert (control["verdict"], only_cell(control)["verdict"]) == ("ok", "lost_memory")


BURSTS = """
flavour = "checked"
cpus = 2
duration_s = 60.0
[arena]
size = "32MiB"
[workload]
kind = "burst"
remote = 0.2
[interrupts.nmi]
rate_hz = 2003.0
program = "burst"
"""


@pytest.mark.parametrize(
    ("broken", "verdict", "checker", "settings"),
    [
        ("spin_in_nmi", "deadlock", "deadlock", []),
        ("shared_slot", "corruption", "oracle", []),
        ("k12", "corruption", "audit", ["arena.slab_debug=FZ", "ops=200_000"]),
        ("k13", "stall", "retry_bound", ["arena.slab_debug=FZ"]),
    ],
)
def test_a_broken_variant_is_caught_by_the_checker_meant_for_it(
    tmp_path: Path, broken: str, verdict: str, checker: str, settings: list[str]
) -> None:
    sets = [argument for text in settings for argument in ("--set", text)]
    text = BURSTS + f'[[expect]]\nverdict = "{verdict}"\n'
    found = results(config(tmp_path, text), "--set", f"broken={broken}", *sets)
    cell = only_cell(found)
    assert (found["verdict"], cell["verdict"]) == ("ok", verdict)
    violations = [violation for violation in cell["violations"] if violation["verdict"] == verdict]
    assert {violation["checker"] for violation in violations} == {checker}
    assert all(violation["stack"] for violation in violations) is (checker != "audit")


def test_spinning_in_an_nmi_is_proved_a_deadlock_in_release_too(tmp_path: Path) -> None:
    text = BURSTS.replace('"checked"', '"release"') + 'design = "kmalloc"\n'
    cell = only_cell(results(config(tmp_path, text), "--set", "design=kmalloc", status=1))
    (violation,) = cell["violations"]
    assert (cell["verdict"], violation["context"]) == ("deadlock", "nmi")
    assert violation["lock_class"] != "none"
    assert {frame["level"] for frame in violation["stack"]} == {0, 1}
    assert any("slab" in frame["symbol"] for frame in violation["stack"])


def test_a_workload_with_more_caches_than_the_table_holds_is_a_mistake(tmp_path: Path) -> None:
    done = run(
        "run", config(tmp_path), "--set", "arena.max_caches=40", "--set", "workload.caches=7", cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "arena.max_caches = 40: allowed is at least" in done.stderr
