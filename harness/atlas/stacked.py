# SPDX-License-Identifier: MIT
"""The talk's picture as rows and columns, for terminal and page alike: levels of the stack, who arrives in whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness import units
from harness.atlas import outcome_names
from harness.atlas.levels import LEVELS
from harness.atlas.picture import ALL

__all__ = [
    "ASKED",
    "Column",
    "beyond",
    "columns",
    "counts",
    "coverage",
    "groups",
    "levels",
    "path",
    "question",
    "shares",
]

Run = Mapping[str, Any]
BROKEN = "broken on purpose"
_INTERRUPTED = "kmalloc"  # the design whose stack is on the slides
ASKED = "alloc_same"  # the handler that does what the talk asks about: it allocates, too


@dataclass(frozen=True)
class Column:
    """One design that arrives in another. Attributes: cell: that it is of.  picture: its numbers."""

    cell: Run
    picture: Run

    @property
    def broken(self) -> str:
        """What is broken on purpose, or nothing."""
        name = str(self.cell["broken"])
        return "" if name == "none" else f"broken: {name}"

    @property
    def others(self) -> str:
        """Say what arrives, where that is no allocation of the same size."""
        handler, kind = self.picture["handler"], self.picture["kind"]
        said = {ASKED: "", ALL: "all handlers"}.get(handler, handler)
        return ", ".join(filter(None, (said, "" if kind == "nmi" else kind.upper())))

    @property
    def title(self) -> str:
        """Name it in a few short lines."""
        arrives = f"{self.picture['handler_design']}\nin {self.picture['task_design']}"
        return "\n".join(filter(None, (arrives, self.broken, self.others)))

    @property
    def line(self) -> str:
        """Name it in one line."""
        arrives = f"{self.picture['handler_design']} in {self.picture['task_design']}"
        return ", ".join(filter(None, (arrives, self.broken, self.others)))

    @property
    def outcomes(self) -> Mapping[str, int]:
        """Injections by outcome."""
        found: Mapping[str, int] = self.picture["outcomes"]
        return found

    def level(self, name: str) -> Run | None:
        """Return the numbers of a level, or None if nothing was executed there."""
        return next((row for row in self.picture["levels"] if row["level"] == name), None)


def columns(cells: Sequence[Run], handler: str = ASKED, kind: str = "nmi") -> list[Column]:
    """List who arrived in whom: in the spinning kmalloc first, as on the slides, what is broken on purpose last.

    Args: handler: what it does there.  A pair to which it never came is shown with all handlers, and so is
        what is broken on purpose: some bugs take a handler of their own.
    """
    found = []
    for cell in cells:
        pairs: dict[tuple[str, str], Run] = {}
        for picture in cell["atlas"]["pictures"]:
            if picture["kind"] == kind and picture["handler"] in (ALL, _handler(cell, handler)):
                pair = picture["task_design"], picture["handler_design"]
                if pair not in pairs or picture["handler"] == _handler(cell, handler):
                    pairs[pair] = picture
        found += [Column(cell, picture) for picture in pairs.values()]
    return sorted(found, key=lambda each: (bool(each.broken), each.picture["task_design"] != _INTERRUPTED))


def _handler(cell: Run, handler: str) -> str:
    return handler if cell["broken"] == "none" else ALL


def groups(columns: Sequence[Column]) -> list[tuple[str, list[Column]]]:
    """Divide columns by what is compared. Returns: what it is, and its columns."""
    stack = {
        each.picture["handler_design"] for each in columns if each.picture["task_design"] == _INTERRUPTED
    }
    made: dict[str, list[Column]] = {
        "the stack of the slides": [],
        "other designs": [],
        "broken on purpose": [],
    }
    for column in columns:
        of_stack = column.picture["handler_design"] in stack
        name = (
            "broken on purpose"
            if column.broken
            else "the stack of the slides"
            if of_stack
            else "other designs"
        )
        made[name].append(column)
    return [(name, group) for name, group in made.items() if group]


def levels(columns: Sequence[Column]) -> list[str]:
    """List the levels of some columns, top first; those that the stack does not know are the last."""
    names = dict.fromkeys(row["level"] for column in columns for row in column.picture["levels"])
    known = {name: at for at, name in enumerate(LEVELS)}
    return sorted(names, key=lambda name: known.get(name, len(known)))


def question(columns: Sequence[Column]) -> str:
    """Say what is asked of the columns."""
    if any(column.picture["handler"] == ASKED for column in columns):
        return (
            "An NMI before every instruction, and it allocates, too: what does it get, by level of the stack?"
        )
    return "An NMI before every instruction: what does it get, by level of the stack?"


def shares(outcomes: Mapping[str, int], width: int) -> list[tuple[str, int]]:
    """Divide a bar of so many parts among outcomes, best first; what happened at all gets one part at least."""
    total = sum(outcomes.values())
    names = outcome_names.sort(name for name, count in outcomes.items() if count)
    if not names:
        return []
    exact = {name: outcomes[name] * width / total for name in names}
    parts = {name: max(1, int(exact[name])) for name in names}
    while sum(parts.values()) < width:
        parts[max(names, key=lambda name: exact[name] - parts[name])] += 1
    while sum(parts.values()) > width and max(parts.values()) > 1:
        parts[max(names, key=lambda name: (parts[name] > 1, parts[name] - exact[name]))] -= 1
    return list(parts.items())


def counts(outcomes: Mapping[str, int]) -> str:
    """Write outcomes and how often each was found, worst first."""
    found = [name for name in reversed(outcome_names.sort(outcomes)) if outcomes[name]]
    return ", ".join(f"{outcome_names.said(name)} {units.count(outcomes[name])}" for name in found)


def coverage(atlas: Run) -> str:
    """Write how much of what was to be done is done."""
    return f"{atlas['covered']:,} of {atlas['points']:,} injections"


def beyond(atlas: Run) -> Iterator[tuple[str, bool]]:
    """Say what two interrupts did, and whether accesses alone would have told the same.

    Yields: a sentence, and whether it is as it should be.
    """
    pairs = atlas.get("pairs") or {}
    for part in filter(None, (pairs, pairs.get("nested"))):
        groups: dict[tuple[str, str], list[Run]] = {}
        for row in part["scenarios"]:
            groups.setdefault((row["kinds"], row["label"]), []).append(row)
        for (kinds, label), rows in groups.items():
            said, whole = _of_pairs(f"{kinds}{f' ({label})' if label else ''}", rows)
            yield said, whole and not part["red"]
    accesses = atlas.get("accesses")
    if accesses:
        only = [
            f"only {where}: {', '.join(map(outcome_names.said, found))}"
            for where, found in (
                ("at other instructions", accesses["only_instructions"]),
                ("at accesses", accesses["only_accesses"]),
            )
            if found
        ]
        equal = bool(accesses["outcomes_equal"])
        said = "the same outcomes" if equal else f"not the same outcomes ({'; '.join(only)})"
        states = "" if accesses["states_equal"] else ", not all of the states"
        where = f"{accesses['points']:,} points in {accesses['scenarios']:,} scenarios"
        yield f"NMIs before accesses to shared memory only ({where}) find {said}{states}", equal


def _of_pairs(what: str, rows: Sequence[Run]) -> tuple[str, bool]:
    outcomes: Counter[str] = Counter()
    for row in rows:
        outcomes.update(row["outcomes"])
    total = {key: sum(row[key] for row in rows) for key in ("points", "covered")}
    where = f"{len(rows):,} scenario{'s' * (len(rows) != 1)}, each before any access to shared memory"
    said = f"{what}: {coverage(total)} in {where}: {counts(outcomes)}"
    return said, total["covered"] == total["points"]


def unpromised(atlas: Run) -> str:
    """Say what else goes wrong where a design does not claim to work, and at how many instructions."""
    places: dict[str, set[int]] = {}
    for entry in atlas.get("unpromised", ()):
        places.setdefault(entry["verdict"], set()).add(entry["address"])
    return ", ".join(f"{outcome_names.said(verdict)} at {len(at):,}" for verdict, at in places.items())


def why(entry: Run) -> str:
    """Say what is wrong at a point, without its verdict."""
    return str(entry["text"]).removeprefix(f"{entry['verdict']}: ")


@dataclass(frozen=True)
class Spot:
    """Where in a function something is wrong. Attributes: verdict.  function.  points: there, by address."""

    verdict: str
    function: str
    points: Sequence[Run]

    @property
    def instructions(self) -> int:
        """How many there are."""
        return len({point["address"] for point in self.points})

    @property
    def where(self) -> str:
        """From where to where, as offsets into the function and lines."""
        first, last = self.points[0], self.points[-1]
        offsets = [point["symbol"].rpartition("+")[2] for point in (first, last)]
        sources = [point["source"] for point in (first, last)]
        return " to ".join(
            f"+{offset} ({source})" for offset, source in dict.fromkeys(zip(offsets, sources, strict=True))
        )


def spots(points: Sequence[Run]) -> list[Spot]:
    """Sum points up by function, in the order of their addresses."""
    found: dict[tuple[str, str], list[Run]] = {}
    for point in sorted(points, key=lambda each: (each["address"], each["occurrence"])):
        found.setdefault((point["verdict"], point["symbol"].rpartition("+")[0]), []).append(point)
    return [Spot(verdict, function, each) for (verdict, function), each in found.items()]


def path(scenario: Run) -> str:
    """Say how a scenario shows that it took the path it names."""
    return ", ".join(
        f"{name} {found['measured']}" + ("" if found["holds"] else f" (should be {found['condition']})")
        for name, found in scenario["path"].items()
    )
