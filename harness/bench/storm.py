# SPDX-License-Identifier: MIT
"""A subject under signals whose handler allocates and frees through it, too: what comes of that.

The storm itself is a process (native/storm.c, peers/python_storm.py) that shares a page of counts with this
one. What it can see it says there; what it can no longer say is judged here: a death by a signal is a crash,
and standing still is a deadlock only if the process had the time to get on, or sleeps.
"""

from __future__ import annotations

import mmap
import os
import re
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import psutil

from harness.bench.built import built
from harness.bench.peers import python_own
from harness.bench.subjects import Subject
from harness.spawning import environment

__all__ = ["Outcome", "Source", "StormResult", "storm", "storm_once"]

Outcome = Literal["ok", "corruption", "deadlock", "crash"]
Source = Literal["timer", "step"]

EXECUTABLE = "shmalloc-bench-storm"
PERIOD_US = 30  # a POSIX timer's handler is all that runs where it is much less
STEP_CALLS = (
    4000  # a signal in each: many, for a sweep of short calls; a step costs some 20 us on a virtual machine
)
STUCK_S = 1.0
_SEEDS = (2, 3, 4)
_HOPELESS_S = 120.0
_SAID_CHARS = 80
_POLL_S = 0.01
_FUTEX = "202"

_TEXT, _PAGE_BYTES = 96, 512  # struct storm_page
_NAMES = (
    *("state", "end", "in_handler", "thread_where", "handler_where", "calls", "entered", "handled", "inside"),
    *("thread_refused", "handler_refused"),
)
_WORDS = struct.Struct(f"{len(_NAMES)}Q")
_STARTING = 0
_OK, _CANNOT = 1, 3
_FOUND: dict[int, Outcome] = {2: "corruption", 4: "deadlock"}
_PLACES = ("", "an allocation", "a free", "an object that it was given")
_ON_OBJECT = 3


@dataclass(frozen=True)
class StormResult:
    """What came of a storm.

    Attributes:
        outcome: None = it could not be held, detail says why.
        handled: handlers that have run to their end.
        inside: handlers, ended or not, that have interrupted the thread in a call of the subject.
        refused: allocations of handlers that yielded nothing.
        detail: what was found and where; empty for ok without a refusal.
        source: of the signals.
    """

    outcome: Outcome | None
    handled: int
    inside: int = 0
    refused: int = 0
    detail: str = ""
    source: Source = "timer"


@dataclass(frozen=True)
class _Page:
    state: int
    end: int
    in_handler: int
    thread_where: int
    handler_where: int
    calls: int
    entered: int
    handled: int
    inside: int
    thread_refused: int
    handler_refused: int
    text: str

    @classmethod
    def read(cls, page: mmap.mmap) -> _Page:
        words: tuple[int, ...] = _WORDS.unpack_from(page)
        text = page[_TEXT:_PAGE_BYTES].split(b"\0", 1)[0]
        return cls(**dict(zip(_NAMES, words, strict=True)), text=text.decode(errors="replace"))

    @property
    def where(self) -> str:
        """Say in what it is, and what that has interrupted."""
        thread = _PLACES[self.thread_where]
        if not self.in_handler:
            return f"in {thread}" if thread else "outside of it"
        own = _PLACES[self.handler_where] or "its own code"
        return f"in the handler's {own.removeprefix('an ').removeprefix('a ')}" + (
            f", which interrupted {thread}" if thread else ""
        )

    @property
    def on_object(self) -> bool:
        return (self.handler_where if self.in_handler else self.thread_where) == _ON_OBJECT


def storm(subject: Subject, seconds: float = 2.0, *, core: int | None = None) -> StormResult:
    """Put a subject under signals of a timer, and if it gets through, under some at exact instructions.

    One that does not get through is tried some times more: what breaks it may end in several ways.

    Args: seconds: of the timer's part.  core: to stay on.
    Returns: the first storm that is not ok; else all as one, as the timer's.
    """
    by_timer = storm_once(subject, "timer", seconds=seconds, core=core)
    if by_timer.outcome is None:
        return by_timer
    if by_timer.outcome != "ok":
        return _again(
            by_timer, [storm_once(subject, "timer", seconds=seconds, core=core, seed=n) for n in _SEEDS]
        )
    by_step = storm_once(subject, "step", seconds=max(seconds / 2, 0.1), calls=STEP_CALLS, core=core)
    if by_step.outcome is None:
        return replace(by_timer, detail=f"no signals at exact instructions: {by_step.detail}")
    handled, refused = by_timer.handled + by_step.handled, by_timer.refused + by_step.refused
    if by_step.outcome != "ok":
        return replace(by_step, handled=handled, refused=refused)
    inside = by_timer.inside + by_step.inside
    return replace(by_timer, handled=handled, inside=inside, refused=refused, detail=_refusals(refused))


def _again(first: StormResult, more: Sequence[StormResult]) -> StormResult:
    outcomes = Counter(each.outcome or "none" for each in more)
    text = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
    return replace(first, detail=f"{first.detail}; {len(more)} more: {text}")


def _refusals(number: int) -> str:
    return f"{number} allocations of handlers refused" if number else ""


def storm_once(
    subject: Subject,
    source: Source,
    *,
    seconds: float = 0.0,
    calls: int = 0,
    core: int | None = None,
    period_us: int = PERIOD_US,
    stride: int = 1,
    seed: int = 1,
) -> StormResult:
    """Hold one storm.

    Args: source: timer = signals as they come; step = one before the k-th instruction of each call, k growing by
        stride.  seconds, calls: it ends with the first of them that is over; 0 = not by this.  core: to stay on.
    """
    if subject.sharing == "python" and subject.entry in python_own.SAME:
        return StormResult(None, 0, detail=f"the calls are those of {python_own.SAME[subject.entry]}")
    words = [
        *(f"plugin={subject.plugin}", f"subject={subject.entry}", f"options={subject.options}"),
        *(f"source={source}", f"seconds={seconds}", f"calls={calls}", f"period_us={period_us}"),
        *(f"stride={stride}", f"seed={seed}", f"parent={os.getpid()}"),
        *(() if core is None else (f"core={core}",)),
    ]
    command = [str(built(EXECUTABLE))]
    if subject.sharing == "python":
        command = [sys.executable, "-P", "-m", "harness.bench.peers.python_storm"]
    return replace(_held(command, words, subject), source=source)


def _held(command: Sequence[str], words: Sequence[str], subject: Subject) -> StormResult:
    page_fd, said_fd = os.memfd_create("shmalloc-storm"), os.memfd_create("shmalloc-said")
    try:
        os.ftruncate(page_fd, mmap.PAGESIZE)
        with mmap.mmap(page_fd, mmap.PAGESIZE) as page:
            process = subprocess.Popen(
                [*command, *words, f"page_fd={page_fd}"],
                stdin=subprocess.DEVNULL,
                stdout=said_fd,
                stderr=said_fd,
                pass_fds=(page_fd,),
                env={**environment(), **subject.environment},
            )
            try:
                stuck = _watch(process, page)
            finally:
                _remove(process)
            said = os.pread(said_fd, 1 << 16, max(0, os.fstat(said_fd).st_size - (1 << 16)))
            return _judge(_Page.read(page), process.returncode, stuck, _last_line(said))
    except OSError as error:
        return StormResult(None, 0, detail=f"{command[0]}: {error.strerror}")
    finally:
        os.close(page_fd)
        os.close(said_fd)


def _remove(process: subprocess.Popen[bytes]) -> None:
    """End it, those whom it has started, and what it has left in shared memory."""
    helpers = []
    with suppress(psutil.Error):
        helpers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    for helper in helpers:  # Python's own has one, which would end by itself
        with suppress(psutil.Error):
            helper.kill()
    psutil.wait_procs(helpers, timeout=STUCK_S)
    for path in Path("/dev/shm").glob(f"shmalloc-{process.pid}-*"):
        with suppress(OSError):
            path.unlink()


def _watch(process: subprocess.Popen[bytes], page: mmap.mmap) -> str | None:
    """Wait for its end, or until it stands still. Returns: how it stands still, or None."""
    began = changed = time.monotonic()
    before, cpu_before_s = (-1, -1), 0.0
    polls = asleep = in_futex = 0
    while process.poll() is None:
        time.sleep(_POLL_S)
        now, seen = time.monotonic(), _Page.read(page)
        state, cpu_s, syscall = _looked_at(process.pid)
        if (progress := (seen.calls, seen.handled)) != before:
            before, changed, cpu_before_s = progress, now, cpu_s
            polls = asleep = in_futex = 0
        polls += 1
        asleep += state in "SD"
        in_futex += syscall == _FUTEX
        if now - began > _HOPELESS_S:
            return "not finished"
        if seen.state == _STARTING or now - changed < STUCK_S:
            continue
        if in_futex * 2 > polls:
            return "sleeps on a futex"
        if asleep * 2 > polls:
            return "sleeps"
        if cpu_s - cpu_before_s > STUCK_S / 2:
            return "spins"
    return None


def _looked_at(pid: int) -> tuple[str, float, str]:
    """Return the state of a process's first thread, its processor time in seconds, and its system call's number."""
    task = Path(f"/proc/{pid}/task/{pid}")
    try:
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return "", 0.0, ""
    try:
        syscall = (task / "syscall").read_text().split()[0]
    except (OSError, IndexError):
        syscall = ""  # not for us to see everywhere
    return fields[0], cpu_s, syscall


def _judge(page: _Page, status: int, stuck: str | None, said: str) -> StormResult:
    counts = StormResult(None, page.handled, page.inside, page.handler_refused)
    if found := _FOUND.get(page.end):
        return replace(counts, outcome=found, detail=page.text)
    if page.end == _OK and not page.inside:
        return replace(counts, detail="no handler has interrupted it")
    if page.end == _OK:
        return replace(counts, outcome="ok", detail=_refusals(page.handler_refused))
    if page.end == _CANNOT:
        return replace(counts, detail=page.text)
    if stuck == "not finished":
        return replace(counts, detail=f"not finished after {_HOPELESS_S:.0f} s")
    if stuck:
        return replace(counts, outcome="deadlock", detail=f"{stuck} {page.where}")
    if page.state == _STARTING:
        return replace(counts, detail=said or f"it ended with status {status}")
    name = signal.Signals(-status).name if status < 0 else f"status {status}"
    if page.on_object and name in ("SIGSEGV", "SIGBUS"):
        return replace(
            counts, outcome="corruption", detail=f"an address that is no memory: {name} {page.where}"
        )
    what = f": {said}" if said else ""
    return replace(counts, outcome="crash", detail=f"{name} {page.where}{what}")


def _last_line(said: bytes) -> str:
    lines = re.sub(r"[^\x20-\x7e\n]", "", said.decode(errors="replace")).strip().splitlines()
    return lines[-1].strip()[:_SAID_CHARS] if lines else ""
