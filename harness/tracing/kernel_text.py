# SPDX-License-Identifier: MIT
"""Recorded events as text, in the words of tracefs, trace-cmd report or perf script.

Fields are printed by the formats in events/kmem/*/format of 6.18, those of group shmalloc as name=value. A pointer is
an offset in the arena, a struct page stands as the offset of its memory. The task is the CPU's process; perf and
trace-cmd do not print contexts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TextIO

import numpy as np

from harness.tracing.timeline import cpus_of
from shmalloc import gfp
from shmalloc.trace import FLAGS, NO_PFN, Events

__all__ = ["TEXT_FORMATS", "write_text"]

COMM = "shmalloc"
_HEADER = """\
# tracer: nop
#
# entries-in-buffer/entries-written: {entries}/{written}   #P:{cpus}
#
#                                _-----=> irqs-off/BH-disabled
#                               / _----=> need-resched
#                              | / _---=> hardirq/softirq
#                              || / _--=> preempt-depth
#                              ||| / _-=> migrate-disable
#                              |||| /     delay
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
#              | |         |   |||||     |         |
"""
_FLAGS = {"task": ".....", "softirq": "..s1.", "irq": "d.h1.", "nmi": "d.z1."}
_PFN = ("page", "pfn")
_KMEM = {
    "mm_page_alloc": (*_PFN, "order", "migratetype", "gfp_flags"),
    "mm_page_free": (*_PFN, "order"),
    "mm_page_free_batched": (*_PFN, "order"),
    "mm_page_alloc_zone_locked": (*_PFN, "order", "migratetype", "percpu_refill"),
    "mm_page_pcpu_drain": (*_PFN, "order", "migratetype"),
    "mm_page_alloc_extfrag": (
        *_PFN,
        "alloc_order",
        "fallback_order",
        "pageblock_order",
        "alloc_migratetype",
        "fallback_migratetype",
        "fragmenting",
        "change_ownership",
    ),
}


@dataclass(frozen=True)
class _Style:
    """How a tool prints. Attributes: pointer: an address.  head: of a line.  lost: a line about n lost events."""

    pointer: Callable[[int], str]
    head: Callable[[str, int, int, str, int, str, str, int], str]
    lost: Callable[[int, int, int, int], str]


def _seconds(micros: int) -> str:
    return f"{micros // 1_000_000:5}.{micros % 1_000_000:06}"


def _tracefs(
    comm: str, pid: int, cpu: int, flags: str, micros: int, group: str, name: str, width: int
) -> str:
    return f"{comm:>16}-{pid:<7} [{cpu:03}] {flags} {_seconds(micros)}: {name}: "


def _trace_cmd(
    comm: str, pid: int, cpu: int, flags: str, micros: int, group: str, name: str, width: int
) -> str:
    return f"{comm:>16}-{pid:<5} [{cpu:03}] {_seconds(micros)}: {name + ':':<21} "


def _perf(comm: str, pid: int, cpu: int, flags: str, micros: int, group: str, name: str, width: int) -> str:
    return f"{comm:>16} {pid:>5} [{cpu:03}] {_seconds(micros)}: {group + ':' + name:>{width}}: "


def _short(address: int) -> str:
    return f"{address:#x}" if address else "(nil)"


def _perf_lost(pid: int, cpu: int, micros: int, lost: int) -> str:
    return f"{COMM:>16} {pid:>5} [{cpu:03}] {_seconds(micros)}: PERF_RECORD_LOST lost {lost}"


_STYLES = {
    "tracefs": _Style(
        lambda address: f"{address:016x}",
        _tracefs,
        lambda _, cpu, __, lost: f"CPU:{cpu} [LOST {lost} EVENTS]",
    ),
    "trace-cmd": _Style(_short, _trace_cmd, lambda _, cpu, __, lost: f"CPU:{cpu} [{lost} EVENTS DROPPED]"),
    "perf-script": _Style(_short, _perf, _perf_lost),
}
TEXT_FORMATS = tuple(_STYLES)


def write_text(events: Events, file: TextIO, style: str) -> None:
    """Write a trace as one of TEXT_FORMATS."""
    file.writelines(f"{line}\n" for line in _Printer(events, _STYLES[style]).lines(style))


class _Printer:
    def __init__(self, events: Events, style: _Style) -> None:
        self._events = events
        self._style = style
        _, first = np.unique(events.records["id"], return_index=True)
        self._width = max((len(events.name(events.records[i])) for i in first), default=0)

    def lines(self, style: str) -> Iterator[str]:
        events = self._events
        if style == "tracefs":
            written = len(events) + sum(events.overwritten.values())
            yield _HEADER.format(entries=len(events), written=written, cpus=len(cpus_of(events))).rstrip("\n")
        elif style == "trace-cmd":
            yield f"cpus={len(cpus_of(events))}"
        if style != "tracefs":  # whose header has said it
            yield from self._lost(events.overwritten, 0)
        for index in range(len(events)):
            yield self._line(index)
        yield from self._lost(events.lost, -1)

    def _lost(self, counts: Mapping[int, int], at: int) -> Iterator[str]:
        """Say how many events each CPU has lost. Args: at: index of the record beside which it is said."""
        ts = int(self._events.records["ts"][at]) if len(self._events) else 0
        for cpu, lost in sorted(counts.items()):
            if lost:
                yield self._style.lost(self._pid(cpu), cpu, self._micros(ts), lost)

    def _pid(self, cpu: int) -> int:
        return self._events.pids.get(cpu) or cpu + 1

    def _micros(self, ts: int) -> int:
        return ts * 1_000_000 // self._events.tsc_hz

    def _line(self, index: int) -> str:
        record = self._events.records[index]
        group, _, name = self._events.name(record).partition(":")
        cpu, context = int(record["cpu"]), int(record["ctx"])
        contexts = self._events.contexts
        flags = _FLAGS.get(contexts[context] if context < len(contexts) else "", ".....")
        micros = self._micros(int(record["ts"]))
        head = self._style.head(COMM, self._pid(cpu), cpu, flags, micros, group, name, self._width)
        return head + self._fields(record, group, name)

    def _fields(self, record: np.void, group: str, name: str) -> str:
        if group == "lock":
            address = self._style.pointer(int(record["ptr"]))
            return (
                f"{address} (flags=SPIN)"
                if name == "contention_begin"
                else f"{address} (ret={int(record['ret'])})"
            )
        if group == "kmem" and name in _KMEM:
            return " ".join(f"{key}={self._page(record, key)}" for key in _KMEM[name])
        fields = [f"{key}={self._shown(record, key, value)}" for key, value in self._events.items(record)]
        flags = [flag for flag, bit in FLAGS.items() if flag != "outside" and int(record["flags"]) & bit]
        if flags and group == "shmalloc":
            fields.append(f"flags={'|'.join(flags)}")
        return " ".join(fields)

    def _page(self, record: np.void, key: str) -> str:
        nothing = int(record["pfn"]) == NO_PFN
        match key:
            case "page":
                return self._style.pointer(0 if nothing else int(record["ptr"]))
            case "pfn":
                return f"{0 if nothing else int(record['pfn']):#x}"
            case "pageblock_order":
                return str(self._events.pageblock_order)
            case "fragmenting":
                return str(int(int(record["fallback_order"]) < self._events.pageblock_order))
            case "order":
                return str(int(record["order"]))
        return self._shown(record, key, self._events.value(record, key))

    def _shown(self, record: np.void, key: str, value: int | str | bool) -> str:
        if isinstance(value, bool):
            return ("true" if value else "false") if key == "accounted" else str(int(value))
        if isinstance(value, str):
            return value
        match key:
            case "call_site" | "rip":
                return self._events.symbol(record).partition(" ")[0]  # without its line
            case "ptr":
                return self._style.pointer(value)
            case "pfn":
                return f"{value:#x}"
            case "gfp_flags":
                return gfp.format(value)
        return str(value)
