# SPDX-License-Identifier: MIT
"""All scenarios of a cell together: by instruction, by function, by level; the cell's JSON and its verdict."""

from __future__ import annotations

import shlex
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
        for report in self._reports:
            self._sort_out(report)

    def _sort_out(self, report: Mapping[str, Any]) -> None:
        """Tell what must not be from what comes of a design in a context that it does not claim."""
        promised = report["kind"] in designs.info(report["handler_design"]).contexts
        for point in report["red"]:
            entry = {
                **point,
                "scenario": report["name"],
                "replay": self._replay(f"{report['name']}@{point['index']}"),
            }
            if promised:
                self._red.append(entry)
            else:
                key = point["address"], point["verdict"]
                known = self._unpromised.setdefault(key, {**entry, "count": 0})
                known["count"] += 1

    def _replay(self, point: str) -> str:
        config = self._job.config
        broken = ["--broken", config.broken] if config.broken != "none" else []
        return shlex.join(["shmalloc", "replay", *broken, config.design, point])

    # --- what workers are asked afterwards ----------------------------------------------------

    def by_address(self) -> dict[str, dict[str, int]]:
        """Return all outcomes at each instruction."""
        return {str(address): dict(found) for address, found in sorted(self._by_address().items())}

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
        for entry in [*self._unpromised.values(), *self._red]:
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
        entry["source"] = self._sources().get(entry["address"], "?")

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
        atlas = self._atlas(seconds)
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
        """Return the worst verdict of all points; what was not covered proves nothing."""
        atlas, words = cell["atlas"], self._job.vocabulary
        outcomes = {*atlas["outcomes"], *(name for row in _of_hardware(atlas) for name in row["outcomes"])}
        found = words.worst([name for name in outcomes if name in words.verdicts])
        died = verdicts.judge([each for each in cell["violations"] if each["checker"] == "supervisor"], words)
        found = words.worst([found, died])
        if found == OK and (self._uncovered(atlas) or not all(each["holds"] for each in cell["must_happen"])):
            return VACUOUS
        return found

    def _uncovered(self, atlas: Mapping[str, Any]) -> bool:
        pairs = atlas["pairs"] or {}
        parts = [atlas, *pairs.get("scenarios", ()), *(pairs.get("nested") or {}).get("scenarios", ())]
        short = any(part["covered"] < part["points"] for part in parts)
        return short or not atlas["points"] or bool(self._found.failed)

    def _atlas(self, seconds: float) -> dict[str, Any]:
        levels: Sequence[str] = self._code["levels"]
        merged: dict[int, Counter[str]] = {}
        for counts in self._counts:
            for key, found in counts.items():
                merged.setdefault(key, Counter()).update(found)
        by_address = self._by_address()
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
            "seconds": round(seconds, 3),
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
                red.append({**point, "scenario": report["name"], "replay": self._replay(name)})
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
        groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
        for entry in [*self._unpromised.values(), *self._red, *self._red_pairs()]:
            groups.setdefault((entry["verdict"], entry["text"]), []).append(entry)
        for (verdict, text), entries in list(groups.items())[:_MOST_VIOLATIONS]:
            count = sum(entry.get("count", 1) for entry in entries)
            where = f"{count} injection{'s' * (count != 1)}, the first: {entries[0]['replay']}"
            yield verdicts.entry(verdict, "atlas", f"{text} ({where})")

    def _red_pairs(self) -> list[dict[str, Any]]:
        pairs = self._pairs() or {}
        return [*pairs.get("red", ()), *(pairs.get("nested") or {}).get("red", ())]

    # --- documents ----------------------------------------------------------------------------

    def atlas_cell(self, seconds: float) -> dict[str, Any]:
        """Return the cell of atlas.json, which is what the page is made of."""
        atlas = self._atlas(seconds)
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


def _of_hardware(atlas: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the scenarios with two interrupts as hardware may deliver them."""
    pairs = atlas["pairs"] or {}
    for row in (*pairs.get("scenarios", ()), *(pairs.get("nested") or {}).get("scenarios", ())):
        if row["label"] != STRONGER:
            yield row


def _keyed(report: Mapping[str, Any]) -> dict[int, dict[str, int]]:
    return {int(key): dict(found) for key, found in report["counts"].items()}
