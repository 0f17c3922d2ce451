# SPDX-License-Identifier: MIT
"""All scenarios of a cell together: by instruction, by function, by level; the cell's JSON and its verdict."""

from __future__ import annotations

import shlex
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness import verdicts
from harness.atlas import outcome_names, picture
from harness.atlas.check import totals
from harness.atlas.keys import ADDRESS, LEVEL_SHIFT, STRONGER
from harness.expect import expected_verdict, must_happen
from harness.results import blank_cell
from harness.vocabulary import DEADLOCK, OK, VACUOUS
from shmalloc import designs

if TYPE_CHECKING:
    from harness.atlas.engine import Found
    from harness.stress import Job

_ABOUT_100 = (80, 200)  # instructions of a scenario that speed is told of
_MOST_EXPLAINED = 400
_MOST_RED = 2000
_MOST_VIOLATIONS = 40
_REPORTED = (
    "name",
    "operation",
    "task_design",
    "handler",
    "handler_design",
    "kind",
    "points",
    "covered",
    "instructions",
    "states",
    "outcomes",
    "operation_outcomes",
    "path",
    "accesses",
    "seconds",
    "sweep_seconds",
)


class Merged:
    """What a cell came to. Args: job.  found: of the workers.  cores: that swept."""

    def __init__(self, job: Job, found: Found, cores: int) -> None:
        self._job = job
        self._found = found
        self._cores = cores
        self._reports = [found.reports[number] for number in sorted(found.reports)]
        self._counts = [_keyed(report) for report in self._reports]
        self._red: list[dict[str, Any]] = []
        self._unpromised: dict[tuple[int, str], dict[str, Any]] = {}
        self._details: dict[tuple[str, int], dict[str, Any]] = {}
        self._code: Mapping[str, Any] = {}
        self._red_points = 0
        self._choose_red()
        for report in self._reports:
            if not _is_promised(report):
                self._note_unpromised(report)

    def _choose_red(self) -> None:
        """Choose the points that are listed: the first of each instruction and verdict, then in order, not too many."""
        seen: set[tuple[int, str]] = set()
        first: list[tuple[Any, Any]] = []
        more: list[tuple[Any, Any]] = []
        for report in filter(_is_promised, self._reports):
            red = report["red"]
            self._red_points += len(red["points"])
            for point in red["points"]:
                key = point[1], red["kinds"][point[3]]["verdict"]
                if key not in seen:
                    seen.add(key)
                    first.append((report, point))
                elif len(more) < _MOST_RED:
                    more.append((report, point))
        rest = max(0, _MOST_RED - len(first))
        self._red = [self._entry(report, point) for report, point in [*first, *more[:rest]]]

    def _note_unpromised(self, report: Mapping[str, Any]) -> None:
        """Keep what comes of a design where it does not claim to work, by instruction and verdict."""
        red = report["red"]
        for point in red["points"]:
            key = point[1], str(red["kinds"][point[3]]["verdict"])
            if key not in self._unpromised:
                self._unpromised[key] = {**self._entry(report, point), "count": 0}
            self._unpromised[key]["count"] += 1

    def _entry(self, report: Mapping[str, Any], point: Sequence[int]) -> dict[str, Any]:
        index, address, occurrence, kind = point
        return {
            "index": index,
            "address": address,
            "occurrence": occurrence,
            **report["red"]["kinds"][kind],
            "scenario": report["name"],
            "replay": self._replay(f"{report['name']}@{index}"),
        }

    def _replay(self, point: str) -> str:
        config = self._job.config
        broken = ["--broken", config.broken] if config.broken != "none" else []
        return shlex.join(["shmalloc", "replay", *broken, config.design, point])

    # --- what workers are asked afterwards ----------------------------------------------------

    def by_address(self) -> dict[str, dict[str, int]]:
        """Return all outcomes at each instruction."""
        return {str(address): dict(found) for address, found in sorted(self._by_address.items())}

    @cached_property
    def _by_address(self) -> dict[int, Counter[str]]:
        found: dict[int, Counter[str]] = {}
        for counts in self._counts:
            for key, outcomes in counts.items():
                found.setdefault(key & ADDRESS, Counter()).update(outcomes)
        return found

    def to_explain(self) -> list[dict[str, Any]]:
        """Return orders for the points that are to be shown: the first of each instruction and verdict."""
        wanted: dict[str, list[int]] = {}
        seen: set[tuple[int, str]] = set()
        for entry in [*self._red, *self._unpromised.values()]:
            key = entry["address"], entry["verdict"]
            if key not in seen and len(seen) < _MOST_EXPLAINED:
                seen.add(key)
                wanted.setdefault(entry["scenario"], []).append(entry["index"])
        return [{"do": "explain", "scenario": name, "indices": found} for name, found in wanted.items()]

    def explain(self, scenario: str, details: Mapping[str, Mapping[str, Any]]) -> None:
        """Take in what a worker found when it looked at points again."""
        for index, found in details.items():
            self._details[scenario, int(index)] = dict(found)

    def annotate(self, code: Mapping[str, Any]) -> None:
        """Take in the code: functions, symbols, levels, build."""
        self._code = code
        for entry in [*self._red, *self._unpromised.values()]:
            self._place(entry)

    def _place(self, entry: dict[str, Any]) -> None:
        """Name an address: symbol+offset, and file:line."""
        symbol = self._code["symbols"].get(str(entry["address"]))
        entry["symbol"] = f"{symbol[0]}+{entry['address'] - symbol[1]:#x}" if symbol else "?"
        entry["source"] = self._sources.get(entry["address"], "?")

    @cached_property
    def _sources(self) -> dict[int, str]:
        return {
            instruction["address"]: f"{instruction['file']}:{instruction['line']}"
            for function in self._code["functions"]
            for instruction in function["instructions"]
        }

    # --- results ------------------------------------------------------------------------------

    def cell(self, seconds: float) -> dict[str, Any]:
        """Put the cell's JSON together."""
        config, vocabulary = self._job.config, self._job.vocabulary
        atlas = {**self._atlas, "seconds": round(seconds, 3)}
        kinds = Counter({report["kind"]: 0 for report in self._reports})
        for report in self._reports:
            kinds[report["kind"]] += report["points"]
        cell = {
            **blank_cell(vocabulary),
            "id": self._job.cell.id,
            "params": dict(self._job.cell.params),
            "design": config.design,
            "broken": config.broken,
            "expected": expected_verdict(config),
            "violations": list(self._violations()),
            "seconds": round(seconds, 6),
            "cpus": 1,
            "ops": atlas["points"],
            "throughput_ops_s": round(atlas["points"] / seconds, 1) if seconds else 0.0,
            "handlers": dict.fromkeys(kinds, config.design),
            "latency_sample": 0,
            "workload": {"kind": "atlas", "scenarios": len(atlas["scenarios"])},
            "audits": {},
            "atlas": atlas,
        }
        for kind, points in kinds.items():
            cell["interrupts"][kind].update(sent=points, handled=points, in_allocator=points)
        cell["must_happen"] = must_happen(config, cell)
        cell["verdict"] = self._verdict(cell)
        return cell

    def _verdict(self, cell: Mapping[str, Any]) -> str:
        """Return the worst verdict of all points; what was not covered proves nothing.

        Where a design does not claim to work everything may follow from its deadlocks: then it is these that count.
        """
        words = self._job.vocabulary
        found = [verdicts.judge([e for e in cell["violations"] if e["checker"] == "supervisor"], words)]
        for promised in (True, False):
            outcomes = {name for report in self._reports for name in _verdicts(report, promised=promised)}
            if DEADLOCK in outcomes and not promised:
                outcomes = {DEADLOCK}
            found.append(words.worst([name for name in outcomes if name in words.verdicts]))
        died, of_promises, _ = found
        proved = of_promises if self._job.config.broken == "none" else words.worst(found)
        short = self._uncovered(cell["atlas"]) or not all(each["holds"] for each in cell["must_happen"])
        if short and words.worst([died, proved]) in (OK, VACUOUS):
            return VACUOUS  # a deadlock that was expected is no excuse for what was not looked at
        return words.worst(found)

    def _uncovered(self, atlas: Mapping[str, Any]) -> bool:
        pairs = atlas["pairs"] or {}
        parts = [atlas, *pairs.get("scenarios", ()), *(pairs.get("nested") or {}).get("scenarios", ())]
        short = any(part["covered"] < part["points"] for part in parts)
        return short or not atlas["points"] or bool(self._found.failed)

    @cached_property
    def _atlas(self) -> dict[str, Any]:
        levels: Sequence[str] = self._code["levels"]
        merged: dict[int, Counter[str]] = {}
        for counts in self._counts:
            for key, found in counts.items():
                merged.setdefault(key, Counter()).update(found)
        by_address = self._by_address
        sweep_s = sum(report["sweep_seconds"] for report in self._reports)
        points = sum(report["points"] for report in self._reports)

        def level_of(key: int) -> str:
            return levels[key >> LEVEL_SHIFT]

        outcomes: Counter[str] = Counter()
        for report in self._reports:
            outcomes.update(report["outcomes"])
        return {
            "points": points,
            "covered": sum(report["covered"] for report in self._reports),
            "outcomes": {name: outcomes[name] for name in outcome_names.sort(outcomes)},
            "totals": totals(outcomes, self._job.vocabulary),
            "instructions": len(by_address),
            "deadlock_points": sum(bool(found[DEADLOCK]) for found in by_address.values()),
            "deadlock_injections": outcomes[DEADLOCK],
            "by_level": picture.by_level(merged, level_of, levels),
            "pictures": picture.pictures(zip(self._reports, self._counts, strict=True), level_of, levels),
            "red": self._red,
            "red_points": self._red_points,
            "deadlocks": self._of_no_promise(DEADLOCK),
            "unpromised": self._of_no_promise(),
            "injections_per_s": self._speed(),
            "injections_per_s_overall": round(points / sweep_s, 1) if sweep_s else 0.0,
            "states": sum(report["states"] for report in self._reports),
            "scenarios": [
                {key: report[key] for key in _REPORTED if key in report} for report in self._reports
            ],
            "failed": [{"scenario": name, "why": why} for name, why in self._found.failed],
            "pairs": self._pairs(),
            "accesses": self._accesses(),
            "cores": self._cores,
        }

    def _of_no_promise(self, verdict: str | None = None) -> list[dict[str, Any]]:
        """List what came of a design where it does not claim to work: one verdict, or all but deadlocks."""
        found = self._unpromised.values()
        chosen = [
            e for e in found if e["verdict"] == verdict or (verdict is None and e["verdict"] != DEADLOCK)
        ]
        return sorted(chosen, key=lambda entry: (int(entry["address"]), str(entry["verdict"])))

    def _speed(self) -> float:
        """Return injections per second of one core's time, of the median scenario of about 100 instructions."""
        rates = {
            bounded: [
                report["points"] / report["sweep_seconds"]
                for report in self._reports
                if report["sweep_seconds"]
                and (not bounded or _ABOUT_100[0] <= report["points"] <= _ABOUT_100[1])
            ]
            for bounded in (True, False)
        }
        found = rates[True] or rates[False]
        return round(statistics.median(found), 1) if found else 0.0

    def _pairs(self) -> dict[str, Any] | None:
        """Sum up the scenarios with two interrupts."""
        some = [report for report in self._reports if "pairs" in report]
        if not some:
            return None
        nested = [report for report in some if "inside" in report["pairs"]]
        return {**self._sum(some, "after"), "nested": self._sum(nested, "inside") if nested else None}

    def _sum(self, reports: Sequence[Mapping[str, Any]], which: str) -> dict[str, Any]:
        outcomes: Counter[str] = Counter()
        rows, red = [], []
        for report in reports:
            found = report["pairs"][which]
            outcomes.update(found["outcomes"])
            rows.append(
                {
                    "name": report["name"],
                    "firsts": report["pairs"]["firsts"],
                    **{key: value for key, value in found.items() if key != "red"},
                }
            )
            for point in found["red"]:
                name = f"{report['name']}@{point['points']}"
                named = {"scenario": report["name"], "replay": self._replay(name), "label": found["label"]}
                red.append({**point, **named})
        return {
            "points": sum(row["points"] for row in rows),
            "covered": sum(row["covered"] for row in rows),
            "outcomes": {name: outcomes[name] for name in outcome_names.sort(outcomes)},
            "labels": sorted({row["label"] for row in rows if row["label"]}),
            "scenarios": rows,
            "red": red,
        }

    def _accesses(self) -> dict[str, Any] | None:
        """Say whether injecting at accesses to shared memory only would have found the same."""
        some = [report["accesses"] for report in self._reports if "accesses" in report]
        if not some:
            return None
        return {
            "scenarios": len(some),
            "points": sum(each["points"] for each in some),
            "outcomes_equal": all(each["outcomes_equal"] for each in some),
            "states_equal": all(each["states_equal"] for each in some),
            "only_instructions": sorted({name for each in some for name in each["only_instructions"]}),
            "only_accesses": sorted({name for each in some for name in each["only_accesses"]}),
        }

    def _violations(self) -> Iterator[dict[str, Any]]:
        """Yield one entry for each kind of finding, with how often it was, and how to see it again."""
        for name, why in self._found.failed:
            yield verdicts.entry(VACUOUS, "atlas", f"{name}: {why}")
        for verdict, text in self._found.deaths:
            yield verdicts.entry(verdict, "supervisor", text)
        for report in self._reports:
            missed = report["points"] - report["covered"]
            if missed:
                yield verdicts.entry(
                    VACUOUS, "atlas", f"{report['name']}: {missed} of {report['points']} points not reached"
                )
        groups: dict[tuple[str, str], tuple[int, Any]] = {}
        for verdict, text, replay in self._wrong():
            count, first = groups.get((verdict, text), (0, replay))
            groups[verdict, text] = count + 1, first
        for (verdict, text), (count, replay) in list(groups.items())[:_MOST_VIOLATIONS]:
            line = replay if isinstance(replay, str) else self._replay(f"{replay[0]}@{replay[1]}")
            where = f"{count} injection{'s' * (count != 1)}, the first: {line}"
            yield verdicts.entry(verdict, "atlas", f"{text} ({where})")

    def _wrong(self) -> Iterator[tuple[str, str, Any]]:
        """Yield verdict, text and replay line (or scenario and index) of every point that is not ok."""
        for report in self._reports:
            red = report["red"]
            for index, _, _, number in red["points"]:
                kind = red["kinds"][number]
                yield kind["verdict"], kind["text"], (report["name"], index)
        for entry in self._red_pairs():
            yield entry["verdict"], entry["text"], entry["replay"]

    def _red_pairs(self) -> list[dict[str, Any]]:
        pairs = self._pairs() or {}
        found = [*pairs.get("red", ()), *(pairs.get("nested") or {}).get("red", ())]
        return [entry for entry in found if entry["label"] != STRONGER]

    # --- documents ----------------------------------------------------------------------------

    def atlas_cell(self, seconds: float) -> dict[str, Any]:
        """Return the cell of atlas.json, which is what the page is made of."""
        atlas = {**self._atlas, "seconds": round(seconds, 3)}
        for key in ("red", "deadlocks", "unpromised"):
            atlas[key] = [
                {**entry, **self._details.get((entry["scenario"], entry["index"]), {})}
                for entry in atlas[key]
            ]
        config = self._job.config
        return {
            "id": self._job.cell.id,
            "design": config.design,
            "broken": config.broken,
            "atlas": atlas,
            "functions": self._code["functions"],
        }

    def certificate_cell(self, seconds: float) -> dict[str, Any]:
        """Return the cell of certificate.json."""
        config = self._job.config
        return {
            "id": self._job.cell.id,
            "design": config.design,
            "broken": config.broken,
            "seconds": round(seconds, 3),
            "scenarios": [
                {**report["certificate"], "seconds": report["seconds"]} for report in self._reports
            ],
            "pairs": [
                {"name": report["name"], which: {key: value for key, value in found.items() if key != "red"}}
                for report in self._reports
                for which, found in report.get("pairs", {}).items()
                if which in ("after", "inside")
            ],
        }


def _is_promised(report: Mapping[str, Any]) -> bool:
    """Whether the handler's design claims to work in the context that it is called from."""
    return report["kind"] in designs.info(report["handler_design"]).contexts


def _verdicts(report: Mapping[str, Any], *, promised: bool) -> Iterator[str]:
    """Yield the outcomes of a scenario, and of its pairs as far as hardware may deliver them."""
    contexts = designs.info(report["handler_design"]).contexts
    if _is_promised(report) is promised:
        yield from report["outcomes"]
        yield from report.get("pairs", {}).get("after", {}).get("outcomes", ())
    inside = report.get("pairs", {}).get("inside", {})
    if inside and inside["label"] != STRONGER and ("nmi" in contexts) is promised:
        yield from inside["outcomes"]


def _keyed(report: Mapping[str, Any]) -> dict[int, dict[str, int]]:
    return {int(key): dict(found) for key, found in report["counts"].items()}
