# SPDX-License-Identifier: MIT
"""What `shmalloc top` shows: lines of plain text for a terminal of any size, and what keys change about them.

Nothing here knows of a terminal.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from harness import units
from harness.top import memory_sections, sections, slabtop, words
from harness.top.figures import figures
from harness.top.look import Interval
from harness.top.tables import Section, lines
from shmalloc.units import format_bytes

SECTIONS = ("caches", "cpus", "contexts", "failures", "zones", "memcgs", "all")
_SHIFT = 8  # columns
_SCROLLS = ("up", "down", "pgup", "pgdn", "home")
_LEAST_BODY = 5  # lines that a table keeps of a small terminal, its titles included
_HELP = (
    "q        quit",
    "tab, 1-7 next section, or that one: " + ", ".join(SECTIONS),
    "P        pause, and go on",
    "space    look now",
    "up down pgup pgdn home left right   scroll",
    "h ?      this",
    "CPUs: ALLOC% and SLOW% of the interrupts landed in an allocator, in its slow path",
    "",
    *(f"{letter}        sort caches by {what}" for letter, (what, _) in slabtop.SORT_KEYS.items()),
)


@dataclass(frozen=True)
class Line:
    """A line of the screen. Attributes: text.  look: "", "bold", "reverse" or "bad"."""

    text: str
    look: str = ""


@dataclass(frozen=True)
class Seen:
    """What an interval comes to: all that is on the screen, and in the JSON.

    Attributes: figures: see there.  totals: of the caches.  interval.
    """

    interval: Interval
    figures: dict[str, Any]
    totals: dict[str, Any]

    @classmethod
    def of(cls, interval: Interval) -> Seen:
        """Work it out."""
        return cls(interval, figures(interval), slabtop.totals(interval.now.slabs))

    def section(self, key: str, sort: str) -> Section:
        """Make one section. Args: key: one of `SECTIONS` but all.  sort: of the caches."""
        match key:
            case "caches":
                return slabtop.caches(self.interval.now.slabs, sort)
            case "cpus":
                return sections.cpus(self.interval)
            case "contexts":
                return sections.contexts(self.interval)
            case "failures":
                return sections.failures(self.interval)
            case "zones":
                return memory_sections.zones(self.interval)
        return memory_sections.memcgs(self.interval)

    def sections(self, sort: str) -> list[Section]:
        """Make all sections."""
        return [self.section(key, sort) for key in SECTIONS[:-1]]

    def as_json(self, sort: str) -> str:
        """Write all of it."""
        made = {section.key: list(section.rows) for section in self.sections(sort)}
        return json.dumps({**self.figures, "totals": self.totals, **made}, indent=1)

    def head(self) -> list[str]:
        """Return the lines above the tables, the most important first."""
        found, now = self.figures, self.interval.now

        def rate(key: str) -> str:
            return words.rate(found[key] / found["seconds"])

        online = sum(row["state"] not in ("offline", "dead") for row in sections.cpus(self.interval).rows)
        return [
            f"{words.clean(now.name)}  up {units.seconds(now.age_s)}  {format_bytes(now.size_bytes)}  "
            f"{online} of {len(now.cpus)} CPUs  over {units.seconds(found['seconds'])}",
            f"{rate('ops')} ops/s  {rate('allocs')} allocs/s  {rate('frees')} frees/s  "
            f"{rate('failures')} failures/s  {rate('nmi')} NMI/s  {rate('irq')} IRQ/s  "
            f"{rate('in_slow_path')} in slow path/s  {rate('lock_waits')} lock waits/s",
            *slabtop.totals_lines(self.totals),
        ]


@dataclass
class View:
    """What the user has chosen.

    Attributes: section: of `SECTIONS`.  sort: of the caches.  paused.  scroll: lines of the body above the
        screen.  shift: columns left of it.  helps: the keys are shown.  quits: it is enough.  looks_now: do
        not wait.
    """

    section: str = SECTIONS[0]
    sort: str = slabtop.DEFAULT_SORT
    paused: bool = False
    scroll: int = 0
    shift: int = 0
    helps: bool = False
    quits: bool = False
    looks_now: bool = False
    _body_lines: int = field(default=1, repr=False)

    def press(self, key: str) -> None:
        """Take a key: a character, or the name of a special one."""
        was_help, self.helps = self.helps, self.helps and key in _SCROLLS
        at = SECTIONS.index(self.section)
        match key:
            case "q" | "Q":
                self.quits = True
            case "h" | "?":
                self.helps = not was_help
            case "P":
                self.paused = not self.paused
            case " ":
                self.looks_now = True
            case "\t":
                self._go(at + 1)
            case "backtab":
                self._go(at - 1)
            case _ if key in _SCROLLS:
                page = max(1, self._body_lines - 1)
                by = {"up": -1, "down": 1, "pgup": -page, "pgdn": page}.get(key, -self.scroll)
                self.scroll = max(0, self.scroll + by)
            case "left" | "right":
                self.shift = max(0, self.shift + (_SHIFT if key == "right" else -_SHIFT))
            case _ if key.isdecimal() and 1 <= int(key) <= len(SECTIONS):
                self._go(int(key) - 1)
            case _ if key in slabtop.SORT_KEYS:
                self.sort = key
                self.scroll = 0

    def _go(self, number: int) -> None:
        self.section = SECTIONS[number % len(SECTIONS)]
        self.scroll = self.shift = 0

    def frame(self, seen: Seen, width: int, height: int) -> list[Line]:
        """Return the lines of a screen: never more than its height, never longer than its width."""
        body = [Line(text) for text in _HELP] if self.helps else self._body(seen)
        room = max(0, height - 1)
        head = [Line(text) for text in seen.head()][: max(1, room - _LEAST_BODY)]
        if len(head) + 1 + len(body) < room:
            head.append(Line(""))
        head.append(Line(self._tabs(), "bold"))
        widest = max((len(line.text) for line in body), default=0)
        self.shift = min(self.shift, max(0, widest - width))
        rows = self._scrolled(body, max(0, height - len(head)))
        shown = [Line(line.text[self.shift :], line.look) for line in rows]
        return [Line(line.text[:width], line.look) for line in (head + shown)[:height]]

    def _scrolled(self, body: Sequence[Line], rows: int) -> list[Line]:
        """Cut what is shown out of the body; the titles of a table stay where they are."""
        self._body_lines = rows
        fixed = [] if self.helps or self.section == "all" else list(body[:1])
        rest = body[len(fixed) :]
        left = max(0, rows - len(fixed))
        self.scroll = min(self.scroll, max(0, len(rest) - left))
        return (fixed + list(rest[self.scroll : self.scroll + left]))[:rows]

    def _tabs(self) -> str:
        names = [f"[{name}]" if name == self.section else name for name in SECTIONS]
        state = "  PAUSED" if self.paused else ""
        return f"{' '.join(names)}{state}  h: help"

    def _body(self, seen: Seen) -> list[Line]:
        if self.section != "all":
            return table(seen.section(self.section, self.sort))
        parts = [[Line(made.title, "bold"), *table(made), Line("")] for made in seen.sections(self.sort)]
        return list(itertools.chain.from_iterable(parts))


def table(section: Section) -> list[Line]:
    """Write a section with the looks of its lines."""
    texts = lines(section)
    looks = ["bad" if section.is_bad(row) else "" for row in section.rows] or [""]
    return [
        Line(texts[0], "reverse"),
        *(Line(text, look) for text, look in zip(texts[1:], looks, strict=True)),
    ]
