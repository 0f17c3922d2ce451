# SPDX-License-Identifier: MIT
"""The storm on trial: what a signal breaks is seen to be broken, in the way it is, and what it does not is ok.

All signals but one test's come before exact instructions: no result here is a matter of luck.
"""

import mmap
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.bench import python_rows, storm
from harness.bench.built import built
from harness.bench.peers import building, headers, preloads, python_own
from harness.bench.subjects import Subject

SOURCE = Path(__file__).resolve().parent / "bench_subjects" / "storms.c"
CALLS = 600

Storm = Callable[[str], storm.StormResult]


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if not shutil.which("gcc"):
        pytest.skip("the storm's subjects are built with gcc, and there is none")
    with pytest.MonkeyPatch.context() as patch:  # not in the user's cache
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        building._folder.cache_clear()
        yield building.build(SOURCE, ["-Wall", "-Wextra", "-Werror"])
    building._folder.cache_clear()


@pytest.fixture
def held(plugin: Path) -> Storm:
    return lambda name: storm.storm_once(Subject(name, "floor", plugin, name), "step", calls=CALLS)


@pytest.mark.parametrize(
    ("subject", "outcome", "detail"),
    [
        ("array", "corruption", "allocated already"),
        ("untagged", "corruption", "allocated already"),
        ("scribbles", "corruption", "written to while it was allocated, at byte 56"),
        ("wild", "corruption", "no memory: SIGSEGV"),
        ("unsound", "corruption", "its own audit is not content, by its own verdict"),
        ("proves", "deadlock", "deadlock, by its own verdict"),
        ("mutex", "deadlock", "sleeps on a futex in the handler's"),
        ("spin", "deadlock", "spins in the handler's"),
        ("aborts", "crash", "SIGABRT in the handler's allocation, which interrupted an allocation: entered twice"),
        ("faults", "crash", "SIGSEGV in the handler's allocation, which interrupted an allocation"),
    ],
)  # fmt: skip
def test_what_a_signal_breaks_is_found(held: Storm, subject: str, outcome: str, detail: str) -> None:
    result = held(subject)

    assert (result.outcome, detail in result.detail) == (outcome, True), result
    assert result.source == "step"


def test_what_survives_is_ok(held: Storm) -> None:
    result = held("tagged")

    assert result.outcome == "ok", result
    assert result.detail == ""
    assert result.refused == 0
    assert result.handled == result.inside  # each came where it was sent to
    assert result.handled > CALLS * 0.8  # a call that ends before its instruction gets none


def test_refusals_of_handlers_are_no_failure_and_are_counted(held: Storm) -> None:
    flag, refuses = held("flag"), held("refuses")

    assert (flag.outcome, refuses.outcome) == ("ok", "ok"), (flag, refuses)
    assert 0 < flag.refused < refuses.refused
    assert flag.detail == f"{flag.refused} allocations of handlers refused"


def test_signals_before_instructions_are_the_same_in_each_run(held: Storm) -> None:
    assert held("flag") == held("flag")


@pytest.mark.parametrize(
    ("subject", "detail"),
    [
        ("absent", "setup: not on this machine"),
        ("nobody", "has no subject nobody"),
        ("nothing", "it allocates nothing"),
    ],
)
def test_a_storm_that_cannot_be_held_has_no_outcome(held: Storm, subject: str, detail: str) -> None:
    result = held(subject)

    assert result.outcome is None
    assert detail in result.detail


def test_a_timer_storm_interrupts_the_subject(plugin: Path) -> None:
    """The subject waits for a handler in each of its allocations."""
    result = storm.storm_once(Subject("waits", "floor", plugin, "waits"), "timer", calls=1000)

    assert result.outcome == "ok", result
    assert 100 < result.inside <= result.handled


def test_a_storm_that_has_met_nothing_is_not_ok() -> None:
    """What is not Python inside has no lines to come between."""
    page = storm._Page(*(0, 1, 0, 0, 0, 1000, 50, 50, 0, 0, 0), text="")

    met_nothing = storm._judge(page, 0, None, "")
    met_something = storm._judge(replace(page, inside=1), 0, None, "")

    assert (met_nothing.outcome, met_nothing.detail) == (None, "no handler has interrupted it")
    assert met_something.outcome == "ok"


@pytest.mark.parametrize(
    ("timer", "step", "outcome", "handled", "detail"),
    [
        ("ok", "ok", "ok", 30, "3 allocations of handlers refused"),
        ("ok", "crash", "crash", 30, "by step"),
        ("ok", None, "ok", 10, "no signals at exact instructions: by step"),
        (None, "ok", None, 10, "by timer"),
        ("deadlock", "ok", "deadlock", 10, "by timer; 3 more: 2 deadlock, 1 crash"),
    ],
)
def test_both_parts_are_one_result(
    monkeypatch: pytest.MonkeyPatch, timer: str, step: str, outcome: str, handled: int, detail: str
) -> None:
    parts = {
        "timer": storm.StormResult(timer, 10, 5, 1, "by timer"),
        "step": storm.StormResult(step, 20, 5, 2, "by step"),
    }

    def part(_subject: object, source: str, *, seed: int = 1, **_: object) -> storm.StormResult:
        return replace(parts[source], outcome="crash") if seed == 3 else parts[source]

    monkeypatch.setattr(storm, "storm_once", part)

    result = storm.storm(Subject("any", "floor", Path("any"), "any"))

    assert (result.outcome, result.handled, result.detail) == (outcome, handled, detail)


@pytest.mark.parametrize(
    ("subject", "outcome"), [("python_heap", "deadlock"), ("python_shared_memory", "ok")]
)
def test_what_python_has_of_its_own(subject: str, outcome: str) -> None:
    """The heap takes a lock that knows no owner; a segment is the operating system's business."""
    result = storm.storm_once(Subject(subject, "peer", Path(), subject, sharing="python"), "step", calls=100)

    assert result.outcome == outcome, result


@pytest.mark.parametrize(
    "design", ["kmalloc_nolock", "try_kmalloc", "bpf_mem_alloc", "prealloc", "objpool", "sheaves"]
)
def test_designs_for_any_context_come_through(design: str) -> None:
    result = storm.storm_once(Subject(design, "design", built("shmalloc.so"), design), "step", calls=300)

    assert result.outcome == "ok", result
    assert result.inside > 200


def test_glibc_does_not_come_through() -> None:
    """The column makes the point of the project: malloc is for no handler."""
    glibc = next(subject for subject in preloads.find()[0] if subject.name == "glibc")

    result = storm.storm_once(glibc, "step", calls=storm.STEP_CALLS)

    assert result.outcome in ("crash", "corruption", "deadlock"), result


@pytest.mark.slow
@pytest.mark.parametrize(("peer", "outcome"), [("boost", "deadlock"), ("dpdk", "corruption")])
def test_peers_that_are_built_on_the_spot(peer: str, outcome: str) -> None:
    subjects, missing = headers.find()
    if why := [each.why for each in missing if each.peer == peer]:
        pytest.skip(f"no {peer} here: {why[0]}")

    result = storm.storm_once(next(each for each in subjects if each.name == peer), "step", calls=1000)

    assert result.outcome == outcome, result


@pytest.mark.parametrize("subject", python_rows.subjects(), ids=lambda subject: subject.name)
def test_whatever_is_called_from_python_has_a_storm_or_shares_one(subject: Subject) -> None:
    """What is C inside runs no line of Python that a handler could come before."""
    result = storm.storm_once(subject, "step", calls=30)

    if subject.name in python_own.SAME:
        assert result.detail == f"the calls are those of {python_own.SAME[subject.name]}"
    elif subject.name == "python_heap":
        assert result.outcome == "deadlock", result
    else:
        assert result.outcome == "ok" or result.detail == "no handler has interrupted it", result


_PRETENDER = """
import mmap, struct, sys, time
page = mmap.mmap(int(sys.argv[-1].partition("=")[2]), 4096)
def say(*words): page[:96] = struct.pack("12Q", *words)
"""


def _watched(monkeypatch: pytest.MonkeyPatch, program: str) -> tuple[str | None, int]:
    monkeypatch.setattr(storm, "STUCK_S", 0.2)
    fd = os.memfd_create("page")
    os.ftruncate(fd, 4096)
    process = subprocess.Popen([sys.executable, "-c", _PRETENDER + program, f"page_fd={fd}"], pass_fds=(fd,))
    try:
        with mmap.mmap(fd, 4096) as page:
            return storm._watch(process, page), storm._Page.read(page).calls
    finally:
        process.kill()
        process.wait()
        os.close(fd)


def test_sleep_with_progress_is_no_deadlock(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = "for call in range(40): say(1, 0, 0, 0, 0, call, 0, 0, 0, 0, 0, 0); time.sleep(0.02)"

    assert _watched(monkeypatch, slow) == (None, 39)


def test_neither_time_nor_sleep_is_no_deadlock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is stopped stands still, and could not have got on."""
    monkeypatch.setattr(storm, "_HOPELESS_S", 1.5)
    stopped = (
        "import os, signal\nsay(1, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0)\nos.kill(os.getpid(), signal.SIGSTOP)"
    )

    assert _watched(monkeypatch, stopped) == ("not finished", 7)


def test_before_its_beginning_nothing_is_a_deadlock(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _watched(monkeypatch, "time.sleep(0.6)") == (None, 0)


def test_a_storm_dies_with_its_parent(plugin: Path) -> None:
    """Its parent is killed in the middle; nothing is left that would have to be told."""
    program = (
        "from pathlib import Path; from harness.bench import storm; from harness.bench.subjects import Subject\n"
        f"storm.storm_once(Subject('tagged', 'floor', Path({str(plugin)!r}), 'tagged'), 'timer', seconds=600)"
    )
    parent = subprocess.Popen([sys.executable, "-P", "-c", program])
    try:
        child = _child_of(parent.pid)
    finally:
        parent.kill()
        parent.wait()
    assert os.waitpid(child, 0)[0] == child  # the tests adopt orphans


def _child_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    while True:
        for child in children.read_text().split():
            if os.readlink(f"/proc/{child}/exe").endswith("/shmalloc-bench-storm"):
                return int(child)
