# SPDX-License-Identifier: MIT
"""`shmalloc stat`: lines in vmstat's manner, and counts that add up to what was done."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rig import Rig
from running import ENDLESS, LIMIT_S, command, config, run, running

from harness.top import figures, following, stat
from harness.top.following import Follower, Over, Waiting
from harness.top.observed import Observed
from harness.vocabulary import CONTEXTS
from shmalloc import Arena
from shmalloc.arena import list_segments
from shmalloc.layout import constants

ALLOCS, FREES = 101, 23
NMIS = """
[interrupts.nmi]
source = "timer"
rate_hz = 2000
program = "mix"
"""


@contextmanager
def _started(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command("stat", *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _rest(process: subprocess.Popen[str]) -> tuple[list[dict[str, Any]], str]:
    out, err = process.communicate(timeout=LIMIT_S)
    return [json.loads(line) for line in out.splitlines()], err


def _total(found: list[dict[str, Any]], key: str) -> int:
    return sum(each[key] for each in found)


# --- lines -------------------------------------------------------------------------------------------


def test_without_an_interval_there_is_one_line_since_the_start(tmp_path: Path) -> None:
    with Rig.create() as rig:
        rig.take(ALLOCS)
        done = run("stat", rig.arena.name, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    groups, names, line = done.stdout.splitlines()
    assert names.split() == [
        "ops",
        "allocs",
        "frees",
        "fail",
        "nmi",
        "irq",
        "slow",
        "free",
        "slab",
        "path%",
        "waits",
        "p50ns",
        "p99ns",
    ]
    assert len(line.split()) == len(names.split())
    assert len(groups) == len(names)
    assert float(line.split()[1]) > 0


def test_columns_stand_below_their_names() -> None:
    found = {
        "seconds": 2.0,
        **dict.fromkeys(("ops", "allocs", "frees"), 2_468_000),
        **dict.fromkeys(("failures", "nmi", "irq", "in_slow_path", "lock_waits"), 46),
        "free_pages": 14_800,
        "slab_pages": 115,
        "slow_path_share": 0.136,
        "latency_ns": {"all": {"p50": 40.0, "p99": 12_345.0}},
    }
    _, names = stat.header(stamps=False)
    line = stat.line(found)
    ends = [match.end() for match in re.finditer(r"\S+", names)]
    assert [match.end() for match in re.finditer(r"\S+", line)] == ends
    assert line.split() == [
        "1.23M",
        "1.23M",
        "1.23M",
        *["23"] * 4,
        "14.8k",
        "115",
        "13.6",
        "23",
        "40",
        "12us",
    ]


def test_latencies_are_of_all_contexts_together() -> None:
    histograms = np.zeros((len(CONTEXTS), constants()["HIST_BUCKETS"]), np.uint64)
    histograms[0, 40] = histograms[-1, 200] = 1
    made: Any = SimpleNamespace(histograms=lambda: histograms, now=SimpleNamespace(tsc_hz=1e9))
    found = figures.latencies(made)
    first, last = found[CONTEXTS[0]], found[CONTEXTS[-1]]
    assert found["all"] == {**last, "p50": first["p50"]}
    assert first["max"] < last["max"]


def test_an_interval_and_a_count(tmp_path: Path) -> None:
    with Rig.create() as rig:
        done = run("stat", rig.arena.name, "0.01", "30", cwd=tmp_path)
        once = run("stat", rig.arena.name, "0.01", "30", "-n", "-t", cwd=tmp_path)
    lines = done.stdout.splitlines()
    headers = [at for at, line in enumerate(lines) if "allocs" in line]
    assert len(lines) == 30 + 2 * len(headers)
    assert headers == [1, 1 + 22 + 2]
    lines = once.stdout.splitlines()
    assert len(lines) == 32
    for line in lines[2:]:
        time.strptime(line[-19:], "%Y-%m-%d %H:%M:%S")
    assert {len(line) for line in lines[:2]} == {len(lines[2])}


def test_the_sum_of_all_lines_is_the_arenas_total() -> None:
    with Rig.create() as rig, _started(rig.arena.name, "0.02", "--json") as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        for _ in range(3):
            for offset in rig.take(ALLOCS)[:FREES]:
                rig.free(offset)
        rig.arena.unlink()
        found, err = _rest(process)
        assert (process.returncode, err) == (0, f"shmalloc: {rig.arena.name} has ended\n")
    assert first["allocs"] + _total(found, "allocs") == 3 * ALLOCS
    assert first["frees"] + _total(found, "frees") == 3 * FREES
    assert {each["arena"] for each in found} == {rig.arena.name}


def test_the_sum_over_a_run_is_what_its_result_says(tmp_path: Path) -> None:
    path = config(tmp_path, ENDLESS.replace("duration_s = 600.0", "duration_s = 3.0") + NMIS)
    with running(path, "--no-plots") as a_run:
        done = run("stat", a_run.segment.name, "0.05", "--json", cwd=tmp_path)
        status, _, err = a_run.ended()
    assert (status, done.returncode) == (0, 0), err + done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    (cell,) = json.loads((tmp_path / "out/result.json").read_text())["cells"]
    assert _total(found, "ops") == cell["ops"] > 0
    assert _total(found, "allocs") == cell["allocs"]
    assert _total(found, "failures") == sum(cell["failures"].values())
    assert _total(found, "nmi") == cell["interrupts"]["nmi"]["handled"]
    assert found[-1]["free_pages"] > 0


def test_without_a_name_it_follows_a_run_from_cell_to_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = ENDLESS.replace("duration_s = 600.0", 'duration_s = 2.0\ndesign = ["kmalloc", "kmalloc_nolock"]')
    with running(config(tmp_path, text), "--no-plots") as a_run:
        pid = a_run.process.pid
        monkeypatch.setattr(
            following, "list_segments", lambda: [info for info in list_segments() if info.creator_pid == pid]
        )
        done = run("stat", "0.05", "--json", cwd=tmp_path)
        status, _, err = a_run.ended()
    assert (status, done.returncode) == (0, 0), err + done.stderr
    cells = json.loads((tmp_path / "out/result.json").read_text())["cells"]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    arenas = list(dict.fromkeys(each["arena"] for each in found))
    assert len(arenas) == len(cells) == 2
    for name, cell in zip(arenas, cells, strict=True):
        assert sum(each["ops"] for each in found if each["arena"] == name) == cell["ops"] > 0
    assert f"{arenas[0]} has ended; " in done.stderr
    assert f"; now {arenas[1]}\n" in done.stderr
    assert done.stderr.endswith(f"{arenas[1]} has ended, and so has the process that made it\n")


# --- usage -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["a", "0"], "INTERVAL = 0: allowed are seconds, 0.01 to 86400"),
        (["a", "soon"], "INTERVAL = soon: allowed are seconds"),
        (["a", "inf"], "INTERVAL = inf: allowed are seconds"),
        (["1", "0"], "COUNT = 0: allowed is a number of lines"),
        (["a", "1", "2.5"], "COUNT = 2.5: allowed is a number of lines"),
        (["a", "1", "2", "3"], "arguments = a 1 2 3: allowed are [NAME] [INTERVAL [COUNT]]"),
    ],
)
def test_bad_usage_says_what_is_allowed(tmp_path: Path, arguments: list[str], says: str) -> None:
    done = run("stat", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr


def test_no_such_arena_is_an_error(tmp_path: Path) -> None:
    done = run("stat", "no-such-arena", "1", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no such segment" in done.stderr


def test_ctrl_c_ends_it() -> None:
    with Rig.create() as rig, _started(rig.arena.name, "600") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(2)
        assert process.wait(LIMIT_S) == 130


# --- which arena -----------------------------------------------------------------------------------------


@pytest.fixture
def only_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the arenas of others, who test at the same time, not be seen."""
    import os

    monkeypatch.setattr(
        following,
        "list_segments",
        lambda: [info for info in list_segments() if info.creator_pid == os.getpid()],
    )


@pytest.mark.usefixtures("only_ours")
def test_without_a_name_it_is_the_only_arena_and_then_the_next() -> None:
    follower = Follower(None, wait=False)
    for _ in range(3):
        with Arena.create(size="4MiB", nr_cpus=1) as arena:
            found = follower.find()
            assert isinstance(found, Observed)
            assert found.name == arena.name
        why = found.why_over()
        assert why == f"{arena.name} has ended"
        follower.leave(found, why)
        waiting = follower.find()
        assert isinstance(waiting, Waiting)
        assert waiting.text.startswith(f"{arena.name} has ended; waiting for the next arena of process ")


@pytest.mark.usefixtures("only_ours")
def test_several_arenas_must_be_told_apart() -> None:
    with Arena.create(size="4MiB", nr_cpus=1) as one, Arena.create(size="4MiB", nr_cpus=1) as two:
        found = Follower(None, wait=False).find()
    assert isinstance(found, Over)
    assert found.is_usage
    assert all(name in found.text for name in ("which arena?", one.name, two.name))


@pytest.mark.usefixtures("only_ours")
def test_none_is_an_error_or_waited_for() -> None:
    found = Follower(None, wait=False).find()
    assert isinstance(found, Over)
    assert found.is_usage
    assert "there is no arena in use" in found.text
    assert Follower(None, wait=True).find() == Waiting("waiting for an arena")


def test_it_is_over_when_the_process_that_made_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "list_segments", list)
    follower = Follower(None, wait=False)
    with Arena.create(size="4MiB", nr_cpus=1) as arena:
        found = Observed.attach(arena.name)
        monkeypatch.setattr(follower, "_creator", (2**22 - 1, 1))
        follower.leave(found, "it has ended")
    assert follower.find() == Over("it has ended, and so has the process that made it")


def test_a_killed_run_is_left_behind(tmp_path: Path) -> None:
    """Its segment stays, as nobody could remove it; whoever looks at it is told."""
    with running(config(tmp_path, ENDLESS), "--out", tmp_path / "out") as a_run:
        a_run.until_busy()
        with _started(a_run.segment.name, "0.05", "--json") as process:
            assert process.stdout is not None
            process.stdout.readline()
            a_run.process.kill()
            a_run.process.communicate(timeout=LIMIT_S)
            _, err = _rest(process)
    assert process.returncode == 0
    assert re.fullmatch(
        r"shmalloc: /shmalloc-\S+ (was left behind: all its processes have ended|has ended)\n", err
    )
