# SPDX-License-Identifier: MIT
"""Deaths, and Ctrl-C: nothing is left, and what happened is said.

Every test waits until the CPUs are in the middle of their ops, and the fixtures of the suite check that no
segment, process or descriptor is left.
"""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from running import ENDLESS, Running, config, only_cell, running, until

INJECTED = ENDLESS + '[interrupts.nmi]\nsource = "injector"\nrate_hz = 2000.0\n'


def cell_of(run: Running) -> dict[str, Any]:
    status, out, err = run.ended()
    assert status == 1, err
    (run_json,) = json.loads(out)["runs"]
    return only_cell(run_json)


@pytest.mark.parametrize(
    ("number", "verdict"),
    [
        (signal.SIGKILL, "dead_owner"),
        (signal.SIGSEGV, "corruption"),
        (signal.SIGBUS, "corruption"),
    ],
)
def test_the_death_of_a_cpu_is_a_verdict_that_names_it(tmp_path: Path, number: int, verdict: str) -> None:
    with running(config(tmp_path, ENDLESS)) as run:
        run.until_busy()
        victim = run.children[1]
        victim.send_signal(number)
        cell = cell_of(run)
    assert cell["verdict"] == verdict
    (violation,) = cell["violations"]
    assert violation["checker"] == "supervisor"
    assert violation["cpu"] == 1
    assert f"CPU 1 (pid {victim.pid}) was killed by {signal.Signals(number).name}" in violation["text"]
    assert "it was at op" in violation["text"]
    assert cell["ops"] > 0
    assert not run.segment.exists()


def test_a_cpu_that_is_told_to_end_ends_the_run(tmp_path: Path) -> None:
    with running(config(tmp_path, ENDLESS)) as run:
        run.until_busy()
        run.children[0].terminate()
        cell = cell_of(run)
    assert cell["verdict"] == "dead_owner"
    assert not run.segment.exists()


def test_the_death_of_an_injector_is_a_verdict(tmp_path: Path) -> None:
    with running(config(tmp_path, INJECTED), children=3) as run:
        (injector,) = [child for child in run.children if "harness.injector" in child.cmdline()]
        injector.kill()
        cell = cell_of(run)
    assert cell["verdict"] == "dead_owner"
    assert f"the NMI injector (pid {injector.pid}) was killed by SIGKILL" in cell["violations"][0]["text"]


def test_when_the_parent_is_killed_the_children_end_and_remove_the_segment(tmp_path: Path) -> None:
    with running(config(tmp_path, INJECTED), children=3) as run:
        run.process.kill()
        status, _, _ = run.ended()
    assert status == -signal.SIGKILL
    until(lambda: not run.segment.exists(), "the segment's removal")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_cleans_up_and_says_so(tmp_path: Path, number: int) -> None:
    with running(config(tmp_path, INJECTED), children=3) as run:
        run.process.send_signal(number)
        status, out, err = run.ended()
    assert (status, out) == (128 + number, "")
    assert f"interrupted by {signal.Signals(number).name}: all processes ended, the arena removed" in err
    assert not run.segment.exists()
    assert not (tmp_path / "out").exists()


def test_a_terminals_ctrl_c_reaches_the_children_and_does_not_harm(tmp_path: Path) -> None:
    with running(config(tmp_path, ENDLESS)) as run:
        run.until_busy()
        for child in run.children:
            child.send_signal(signal.SIGINT)
        done = run.busy()
        until(lambda: run.busy() > done, "ops after the signal")
        run.process.send_signal(signal.SIGINT)
        status, _, err = run.ended()
    assert status == 130
    assert "Traceback" not in err
