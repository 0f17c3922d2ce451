# SPDX-License-Identifier: MIT
"""`shmalloc stat`: one line an interval, in vmstat's manner.

The first line is of the time since the arena was made. Counts are a second's, but exact in the JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from harness import units
from harness.top import words
from harness.top.figures import figures
from harness.top.following import Follower, Over
from harness.top.look import Interval, Look
from harness.top.observed import Observed
from harness.top.operands import name_interval_count

_PASSED, _USAGE = 0, 2
_TICK_S = 0.05  # between two looks at whether the arena is still there
_LINES = 22  # from one header to the next where no terminal says how many it has

# group: its columns, with their widths
_COLUMNS = {
    "operations/s": {"ops": 6, "allocs": 6, "frees": 6, "fail": 5},
    "interrupts/s": {"nmi": 6, "irq": 6, "slow": 5},
    "pages": {"free": 6, "slab": 6},
    "slow": {"path%": 6},
    "locks/s": {"waits": 7},
    "latency": {"p50ns": 6, "p99ns": 6},
}
_STAMP = 20


@dataclass(frozen=True)
class Style:
    """How lines are written. Attributes: json, stamps, once: the header is written once."""

    json: bool
    stamps: bool
    once: bool


def stat(arguments: argparse.Namespace) -> int:
    """Print what a running arena does, a line an interval: rates a second, pages, lock waits, latencies."""
    name, interval_s, count = name_interval_count(arguments.operands)
    if interval_s is None:
        count = 1
    follower = Follower(name, wait=arguments.wait)
    lines = _Lines(Style(arguments.json, arguments.timestamp, arguments.one_header), count)
    said = why = ""
    while True:
        found = follower.find()
        if isinstance(found, Observed):
            with closing(found):
                if why:
                    print(f"shmalloc: {why}; now {found.name}", file=sys.stderr, flush=True)
                if not (why := _follow(found, interval_s or 0.0, lines)):
                    return _PASSED
                follower.leave(found, why)
            continue
        if found.text != said:
            print(f"shmalloc: {found.text}", file=sys.stderr, flush=True)
            said = found.text
        if isinstance(found, Over):
            return _USAGE if found.is_usage else _PASSED
        time.sleep(_TICK_S)


def _follow(arena: Observed, interval_s: float, lines: _Lines) -> str:
    """Print lines until there are enough, or the arena is over: why.

    What happened between the last line and its end is a line of its own, so that nothing is missing.
    """
    before, now = None, Look.at(arena, slabs=False)
    while True:
        if lines.write(figures(Interval(now, before))):
            return ""
        before, due_s = now, now.at_s + interval_s
        why = None
        while why is None and (left_s := due_s - time.monotonic()) > 0:
            time.sleep(min(left_s, _TICK_S))
            why = arena.why_over()
        now = Look.at(arena, slabs=False)
        if why is not None:
            return "" if lines.write(figures(Interval(now, before))) else why


class _Lines:
    """Writes lines. Args: style.  count: how many, None = as long as there are any."""

    def __init__(self, style: Style, count: int | None) -> None:
        self._style = style
        self._left = count
        self._written = 0

    def write(self, found: dict[str, Any]) -> bool:
        """Write a line. Returns: whether it was the last."""
        if self._style.json:
            stamp = {"time": time.time()} if self._style.stamps else {}
            print(json.dumps({**stamp, **found}), flush=True)
        else:
            if self._written % _between_headers() == 0 and not (self._style.once and self._written):
                print("\n".join(header(stamps=self._style.stamps)))
            print(line(found, time.localtime() if self._style.stamps else None), flush=True)
        self._written += 1
        if self._left is not None:
            self._left -= 1
        return self._left == 0


def _between_headers() -> int:
    if not sys.stdout.isatty():
        return _LINES
    import shutil

    return max(1, shutil.get_terminal_size().lines - 3)


def header(*, stamps: bool) -> list[str]:
    """Return the two lines of the header."""
    groups = [_ruled(name, sum(widths.values()) + len(widths) - 1) for name, widths in _COLUMNS.items()]
    names = [f"{name:>{width}}" for widths in _COLUMNS.values() for name, width in widths.items()]
    if stamps:
        groups.append(_ruled("timestamp", _STAMP - 1))
        names.append(f"{time.strftime('%Z'):>{_STAMP - 1}}")
    return [" ".join(groups), " ".join(names)]


def _ruled(name: str, width: int) -> str:
    return f"{name:-^{width}}" if len(name) <= width else name[:width]


def line(found: dict[str, Any], stamp: time.struct_time | None = None) -> str:
    """Write the figures of one interval. Args: found: see `figures`.  stamp: local time, None = without."""
    seconds, latency_ns = found["seconds"], found["latency_ns"]["all"]

    def rate(key: str) -> str:
        return words.rate(found[key] / seconds)

    values = {
        **{name: rate(name) for name in ("ops", "allocs", "frees", "nmi", "irq")},
        "fail": rate("failures"),
        "slow": rate("in_slow_path"),
        "free": words.count(found["free_pages"]),
        "slab": words.count(found["slab_pages"]),
        "path%": words.share(found["slow_path_share"]),
        "waits": rate("lock_waits"),
        "p50ns": units.nanoseconds(latency_ns["p50"]),
        "p99ns": units.nanoseconds(latency_ns["p99"]),
    }
    cells = [f"{values[name]:>{width}}" for widths in _COLUMNS.values() for name, width in widths.items()]
    if stamp is not None:
        cells.append(time.strftime("%Y-%m-%d %H:%M:%S", stamp))
    return " ".join(cells)
