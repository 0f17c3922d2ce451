# SPDX-License-Identifier: MIT
"""The storm for what is called from Python: the same words and the same page as those of native/storm.c.

The handler is Python's, so it runs between two of the interpreter's instructions and not between two of the
machine's: what is C inside is never interrupted, which is gentler than anything that the others are put to.

source=timer: an interval timer, set again at the handler's end.
source=step: the handler is called before the k-th line that the subject runs of its own modules in a call; k grows
from call to call and starts again past the end. Nothing in it depends on the clock.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import signal
import struct
import sys
import time
from collections.abc import Hashable
from contextlib import suppress
from multiprocessing import resource_tracker
from types import FrameType
from typing import Any, NoReturn

from harness.bench.peers.python_own import CALLS, Calls

_FIELDS = (
    *("state", "end", "in_handler", "thread_where", "handler_where", "calls", "entered", "handled", "inside"),
    *("thread_refused", "handler_refused"),
)
_TEXT = 96
_RUNNING, _AFTER = 1, 2
_OK, _CORRUPTION, _CANNOT = 1, 2, 3
_OUTSIDE, _IN_ALLOC, _IN_FREE, _ON_OBJECT = 0, 1, 2, 3

_SLOTS = 64
_SIZES = (64, 64, 128, 192, 256, 1024, 4096)
_PHASE_CALLS = 64
_CALLS_AFTER = 2000
_GRANULE = 64
_PR_SET_PDEATHSIG = 1
_MODULES = ("/multiprocessing/", "/pyarrow/")


class _Found(BaseException):
    """Something is wrong; nothing may catch it on its way out."""


class _Held:
    """An object: the last reference to it is in a list, so that it can be let go of."""

    def __init__(self, made: Any, size: int, pattern: bytes) -> None:
        self.made = [made]
        self.size = size
        self.pattern = pattern


class _Storm:
    def __init__(self, words: dict[str, str]) -> None:
        self.page = mmap.mmap(int(words["page_fd"]), mmap.PAGESIZE)
        self.random = random.Random(int(words.get("seed", "1")))
        self.steps = words["source"] == "step"
        self.period_s = float(words.get("period_us", "30")) * 1e-6
        self.seconds = float(words.get("seconds", "0"))
        self.nr_calls = int(words.get("calls", "0"))
        self.subject = words["subject"]
        self.slots: list[_Held] = []
        self.owners: dict[Hashable, set[int]] = {}
        self.handling = self.storming = self.ticking = False
        self.where = _OUTSIDE
        self.key = self.next_step = 1
        self.left = 0
        self.stepped = False

    # --- the page -----------------------------------------------------------------------------------

    def say(self, field: str, value: int) -> None:
        struct.pack_into("Q", self.page, 8 * _FIELDS.index(field), value)

    def add(self, field: str) -> None:
        place = 8 * _FIELDS.index(field)
        struct.pack_into("Q", self.page, place, struct.unpack_from("Q", self.page, place)[0] + 1)

    def finish(self, how: int, text: str = "") -> NoReturn:
        data = text.encode()[:400]
        self.page[_TEXT : _TEXT + len(data)] = data
        self.say("end", how)
        with suppress(Exception):  # the helper that multiprocessing has started
            resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]
        os._exit(0)

    # --- objects ------------------------------------------------------------------------------------

    def at(self, where: int) -> None:
        self.say("handler_where" if self.handling else "thread_where", where)
        if not self.handling:
            self.where = where

    def allocate(self) -> _Held | None:
        size = self.random.choice(_SIZES)
        self.at(_IN_ALLOC)
        try:
            made = self.stepping(self.calls.alloc, size)
        except Exception:
            self.at(_OUTSIDE)
            self.add("handler_refused" if self.handling else "thread_refused")
            return None
        self.at(_ON_OBJECT)
        self.claim(made, size)
        self.key += 1
        pattern = struct.pack("Q", self.key * 0x9E3779B97F4A7C15 % 2**64) * (size // 8)
        with self.calls.view(made) as view:
            view[:size] = pattern
        self.at(_OUTSIDE)
        return _Held(made, size, pattern)

    def release(self, held: _Held) -> None:
        made, size = held.made.pop(), held.size
        self.at(_ON_OBJECT)
        with self.calls.view(made) as view:
            if view[:size] != held.pattern:
                raise _Found(f"an object of {size} bytes was written to while it was allocated")
        space, first, _ = self.calls.place(made)
        self.owners[space] -= set(range(first, first + size, _GRANULE))
        self.at(_IN_FREE)
        try:
            if self.calls.free is None:
                last = [made]
                del made
                self.stepping(list.clear, last)
            else:
                self.stepping(self.calls.free, made)
        except Exception:
            self.add("handler_refused" if self.handling else "thread_refused")
        self.at(_OUTSIDE)

    def claim(self, made: Any, size: int) -> None:
        space, first, last = self.calls.place(made)
        granules = set(range(first, first + size, _GRANULE))
        owned = self.owners.setdefault(space, set())
        if last - first < size or owned & granules:
            raise _Found(
                f"{'the handler' if self.handling else 'the thread'} was given bytes that are allocated already"
            )
        owned |= granules

    def one_call(self, fuller: int) -> None:
        if self.random.randrange(8) < fuller and len(self.slots) < _SLOTS:
            if held := self.allocate():
                self.slots.append(held)
        elif self.slots:
            held = self.slots.pop(self.random.randrange(len(self.slots)))
            self.release(held)

    # --- the handler ----------------------------------------------------------------------------------

    def on_signal(self, *_: object) -> None:
        if self.where in (_IN_ALLOC, _IN_FREE) and not self.handling:
            self.handle()
        if self.ticking:
            signal.setitimer(signal.ITIMER_REAL, self.period_s * (1 + self.random.random() / 2))

    def handle(self) -> None:
        """Do what an interrupt does: two allocated, the first freed, and one more call."""
        self.add("entered")
        self.add("inside")
        self.handling = True
        self.say("in_handler", 1)
        first, second = self.allocate(), self.allocate()
        if first:
            self.release(first)
        if second:
            self.slots.append(second)
        self.one_call(2)
        self.say("in_handler", 0)
        self.handling = False
        self.add("handled")

    def stepping(self, call: Any, argument: Any) -> Any:
        if not (self.steps and self.storming) or self.handling:
            return call(argument)
        self.left, self.stepped = self.next_step, False
        sys.settrace(self.trace)
        try:
            return call(argument)
        finally:
            sys.settrace(None)
            self.next_step = self.next_step + 1 if self.stepped else 1

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if not any(part in frame.f_code.co_filename for part in _MODULES):
            return None
        if event == "line" and not self.stepped:
            self.left -= 1
            if self.left == 0:
                self.stepped = True
                self.handle()
        return self.trace

    # --- the thread -----------------------------------------------------------------------------------

    def calls_until(self, calls: int, deadline: float) -> None:
        for call in range(calls or 1 << 60):
            self.one_call(2 if call // _PHASE_CALLS % 2 else 6)
            self.add("calls")
            if deadline and call % 8 == 0 and time.monotonic() > deadline:
                return

    def run(self) -> None:
        self.calls: Calls = CALLS[self.subject]()
        self.calls_until(_PHASE_CALLS, 0)
        self.storming, self.ticking = True, not self.steps
        self.say("state", _RUNNING)
        if self.ticking:
            signal.signal(signal.SIGALRM, self.on_signal)
            signal.setitimer(signal.ITIMER_REAL, self.period_s)
        self.calls_until(self.nr_calls, time.monotonic() + self.seconds if self.seconds else 0)
        self.storming = self.ticking = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.say("state", _AFTER)
        self.calls_until(_CALLS_AFTER, 0)
        while self.slots:
            self.release(self.slots.pop())
            self.add("calls")


def main() -> NoReturn:
    """Hold the storm that the command line describes."""
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != int(words["parent"]):
        os._exit(1)
    storm = _Storm(words)
    try:
        storm.run()
    except _Found as found:
        storm.finish(_CORRUPTION, str(found))
    except ImportError as error:
        storm.finish(_CANNOT, str(error))
    storm.finish(_OK)


if __name__ == "__main__":
    main()
