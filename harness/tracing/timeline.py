# SPDX-License-Identifier: MIT
"""What ran within what, on each CPU: recorded events as slices that nest strictly, whatever the ring has lost.

Ends are exact: the times of a CPU's records grow in the order in which they were written. Of a call (alloc, free)
only the end is recorded, and how long it took; what interrupted it between these two measurements makes it seem to
begin too late, never too early. So a call that seems to begin in the middle of something began before it. Three
things can be missing: an entry (its exit says how long it was), an exit, or both. A slice without its exit ends with
the last record that can belong to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from shmalloc.trace import Events

__all__ = ["CALL", "HANDLER", "IRQ_WORK", "LOCK", "CpuTimeline", "Slice", "cpus_of", "timelines"]

CALL, HANDLER, IRQ_WORK, LOCK = "call", "handler", "irq_work", "lock"

_CALLS = ("shmalloc:alloc", "shmalloc:free")
_BEGINS = {
    "shmalloc:handler_entry": HANDLER,
    "shmalloc:irq_work_entry": IRQ_WORK,
    "lock:contention_begin": LOCK,
}
_ENDS = {"shmalloc:handler_exit": HANDLER, "shmalloc:irq_work_exit": IRQ_WORK, "lock:contention_end": LOCK}


@dataclass
class Slice:
    """A stretch of time on a CPU.

    Attributes:
        kind: CALL, HANDLER, IRQ_WORK, LOCK.
        start, end: TSC.
        level: of execution.
        record: index of the record that tells about it: a call's only one, else that of the beginning, or of the
            end if the beginning was lost.
        lost: "", or which end of it was not recorded: "start" or "end".
        children: what ran within it, in order.
    """

    kind: str
    start: int
    end: int
    level: int
    record: int
    lost: str = ""
    children: list[Slice] = field(default_factory=list)


@dataclass
class CpuTimeline:
    """A CPU's slices.

    Attributes: slices: the outermost.  instants: indices of the records that are points in time.
    """

    slices: list[Slice] = field(default_factory=list)
    instants: list[int] = field(default_factory=list)


@dataclass
class _Open:
    """A slice that has begun. Attributes: last: time of the last record that belongs to it.  doubtful: records were
    lost since.
    """

    slice: Slice
    key: int
    last: int
    doubtful: bool = False


def timelines(events: Events) -> dict[int, CpuTimeline]:
    """Put each CPU's records together."""
    records = events.records
    roles = [_role(":".join(name)) for name in events.names]
    table = {
        name: records[name].tolist() for name in ("seq", "ts", "dur", "level", "cpu", "id", "arg", "ptr")
    }
    made = {cpu: _Cpu() for cpu in cpus_of(events)}
    for index, cpu in enumerate(table["cpu"]):
        number = table["id"][index]
        role, kind = roles[number] if number < len(roles) else ("", "")
        key = table["ptr" if kind == LOCK else "arg"][index]
        made[cpu].add(index, role, kind, key, *(table[name][index] for name in ("seq", "ts", "dur", "level")))
    return {cpu: one.finish() for cpu, one in made.items()}


def _role(name: str) -> tuple[str, str]:
    if name in _CALLS:
        return "call", CALL
    if name in _BEGINS:
        return "begin", _BEGINS[name]
    return ("end", _ENDS[name]) if name in _ENDS else ("", "")


class _Cpu:
    """Builds one CPU's timeline, record by record."""

    def __init__(self) -> None:
        self._made = CpuTimeline()
        self._open: list[_Open] = []
        self._seq = self._last = 0

    def add(
        self, index: int, role: str, kind: str, key: int, seq: int, ts: int, dur: int, level: int
    ) -> None:
        """Take a record."""
        if self._seq and seq != self._seq + 1:
            for one in self._open:
                one.doubtful = True
        self._seq, self._last = seq, ts
        self._end_what_is_over(role, kind, key, ts, level)
        if role == "call":
            self._close(Slice(CALL, ts - min(dur, ts), ts, level, index))
        elif role == "begin":
            self._open.append(_Open(Slice(kind, ts, ts, level, index), key, ts))
        elif role == "end":
            self._ended(Slice(kind, ts - min(dur, ts), ts, level, index, lost="start"), key)
        else:
            self._made.instants.append(index)
        for one in self._open:
            one.last = ts

    def finish(self) -> CpuTimeline:
        """End what is still open: with the trace."""
        while self._open:
            self._give_up(self._last)
        return self._made

    def _end_what_is_over(self, role: str, kind: str, key: int, ts: int, level: int) -> None:
        """End the slices that a record of this level proves to be over, though their end was not recorded."""
        while self._open:
            top = self._open[-1]
            below = level < top.slice.level
            same = level == top.slice.level
            again = same and role == "begin" and kind == HANDLER
            unwound = (
                same and top.slice.kind == LOCK and not (role == "end" and kind == LOCK and key == top.key)
            )
            if not (below or again or unwound):
                return
            self._give_up(ts if unwound and not top.doubtful else top.last)

    def _ended(self, ended: Slice, key: int) -> None:
        """Take a recorded end."""
        for one in reversed(self._open):
            if (one.slice.kind, one.slice.level, one.key) == (ended.kind, ended.level, key):
                break
        else:
            one = None
        if one is None or (one.doubtful and (ended.kind == LOCK or ended.start > one.last)):
            if one is not None:
                self._give_up_to(one)
            while self._open and ended.kind == HANDLER and self._open[-1].slice.level >= ended.level:
                self._give_up(self._open[-1].last)  # it was within the one that ends
            if ended.kind == LOCK:
                self._made.instants.append(ended.record)  # how long it was is not known
            else:
                self._close(ended)
            return
        while self._open[-1] is not one:
            self._give_up(ended.end)
        self._open.pop()
        one.slice.end = ended.end
        self._put(one.slice)

    def _give_up_to(self, one: _Open) -> None:
        while one in self._open:
            self._give_up(self._open[-1].last)

    def _give_up(self, end: int) -> None:
        """End the innermost open slice without a record of its end."""
        over = self._open.pop()
        children = over.slice.children
        over.slice.end = max([end, over.slice.start, *(child.end for child in children[-1:])])
        over.slice.lost = "end"
        self._put(over.slice)

    def _close(self, made: Slice) -> None:
        """Take a slice whose beginning is known by its length only."""
        around = self._open[-1].slice if self._open else None
        before = around.children if around else self._made.slices
        made.start = max(made.start, around.start if around else 0)
        within: list[Slice] = []
        while before and before[-1].end > made.start:
            made.start = min(made.start, before[-1].start)
            within.append(before.pop())
        made.children = within[::-1]
        self._put(made)

    def _put(self, made: Slice) -> None:
        (self._open[-1].slice.children if self._open else self._made.slices).append(made)


def cpus_of(events: Events) -> list[int]:
    """List the CPUs that have recorded or lost something; a trace may know of others."""
    said = {cpu for counts in (events.lost, events.overwritten) for cpu, count in counts.items() if count}
    return sorted(said.union(events.records["cpu"].tolist()))
