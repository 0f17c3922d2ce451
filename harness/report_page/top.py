# SPDX-License-Identifier: MIT
"""What stands above everything: the verdict and why, what was run, and how to run it again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import units
from harness.page import Child, Loaded, Markup, breakable, copyable, element, join, table
from harness.report_page.words import again, anchor, number, passed_or_not
from harness.results import passed
from shmalloc.units import format_bytes

__all__ = ["header", "side_by_side", "title"]

Run = Mapping[str, Any]
_LISTED = 24  # of what went wrong; the sections have all
_FILES = ("result.json", "report.txt", "samples.csv", "numastat.txt", "atlas.json", "certificate.json")
_FOLDERS = ("plots", "arrays")


def title(runs: Sequence[Loaded]) -> str:
    """Name the page."""
    return " | ".join(each.label for each in runs)


def header(runs: Sequence[Loaded], folder: Path | None = None) -> Markup:
    """Say how it ended. Args: folder: where the page will lie: what lies beside it is linked to."""
    if len(runs) > 1:
        return side_by_side(runs)
    (only,) = runs
    return join(
        _headline(only),
        _why(runs, [""]),
        element("p", _tally(only.run)),
        element("dl", _terms({**_what(only.run), "on": _where(only.run)})),
        [element("p", warning, class_="bad") for warning in _warnings(only.run)],
        element("p", "again: ", _again(only.run)),
        _beside(only.folder, folder),
    )


def _headline(only: Loaded) -> Markup:
    cells = only.run["cells"]
    seconds = sum(cell.get("seconds", 0) for cell in cells)
    said = f" verdict {only.run['verdict']}, {len(cells)} cell{'s' * (len(cells) != 1)}, {units.seconds(seconds)}"
    return element("h1", f"{only.label}: ", passed_or_not(passed(only.run)), element("small", said))


def _why(runs: Sequence[Loaded], pages: Sequence[str]) -> Markup | None:
    """List what did not go as expected: cells with their first violation and their command, and tests.

    Args: pages: of each run, if it is another than this.
    """
    found = [*_wrong_cells(runs, pages), *_wrong_tests(runs, pages)]
    if not found:
        return None
    rest = len(found) - _LISTED
    more = element("li", f"and {rest} more, below") if rest > 0 else None
    return element("ul", [element("li", each) for each in found[:_LISTED]], more, class_="why")


def _label(runs: Sequence[Loaded], each: Loaded) -> str:
    return f"{each.label}: " if len(runs) > 1 else ""


def _wrong_cells(runs: Sequence[Loaded], pages: Sequence[str]) -> Iterator[Markup]:
    for at, each in enumerate(runs):
        for place, cell in enumerate(each.run["cells"]):
            if cell["verdict"] == cell["expected"]:
                continue
            row = anchor(0 if pages[at] else at, place)
            link = element("a", breakable(cell["id"]), href=f"{pages[at]}#{row}")
            said = element("b", f"{cell['verdict']}, expected {cell['expected']}", class_="bad")
            yield join(
                _label(runs, each),
                link,
                ": ",
                said,
                f": {text}" if (text := _first(cell)) else "",
                (element("br"), "again, alone: ", copyable(cell["replay"])) if cell.get("replay") else None,
            )


def _first(cell: Run) -> str:
    """Say the first thing that explains a cell's verdict."""
    for found in cell["violations"]:
        if found.get("verdict") == cell["verdict"]:
            return str(found.get("text", ""))
    unmet = [entry["condition"] for entry in cell["must_happen"] if not entry["holds"]]
    return f"did not happen: {', '.join(unmet)}" if unmet else ""


def _wrong_tests(runs: Sequence[Loaded], pages: Sequence[str]) -> Iterator[Markup]:
    for page, each in zip(pages, runs, strict=True):
        for entry in each.run["expectations"]:
            if entry["holds"] is False and entry["kind"] != "claim":
                said = element("b", "test does not hold", class_="bad")
                yield join(
                    _label(runs, each), said, ": ", element("a", entry["text"], href=f"{page}#expectations")
                )


def _tally(run: Run) -> Markup:
    """Count what holds."""
    kinds = Counter((entry["kind"], entry["holds"]) for entry in run["expectations"])
    parts: list[Child] = []
    for kind in dict.fromkeys(kind for kind, _ in kinds):
        held, of = kinds[kind, True], sum(count for (name, _), count in kinds.items() if name == kind)
        look = "good" if held == of else "bad" if kinds[kind, False] else "quiet"
        text = f"{held} of {of} {kind}{'s' * (of != 1)} hold{'s' * (of == 1)}"
        none = f" ({kinds[kind, None]} about no cell of this run)" if kinds[kind, None] else ""
        parts += [", " if parts else "", element("span", text, class_=look), none]
    violations = sum(len(cell["violations"]) for cell in run["cells"])
    as_expected = sum(cell["verdict"] == cell["expected"] for cell in run["cells"])
    cells = f"{as_expected} of {len(run['cells'])} cells as expected"
    return join(
        cells, "; " if parts else "", parts, f"; {number(violations)} violation{'s' * (violations != 1)}"
    )


def _what(run: Run) -> dict[str, Child]:
    """Say what was run, in the words of its config."""
    config, cells = run["config"], run["cells"]
    designs = config.get("design") or sorted({cell.get("design", "") for cell in cells})
    found: dict[str, Child] = {
        "engine": config.get("engine"),
        "design": ", ".join(designs) if isinstance(designs, list) else designs,
        "broken": _listed(config.get("broken")) if config.get("broken", "none") != "none" else None,
        **(_swept(config) if config.get("engine") == "atlas" else _ran(config)),
        "seed": str(run["seed"]) if run["seed"] is not None else None,
    }
    return {key: value for key, value in found.items() if value}


def _swept(config: Run) -> dict[str, Child]:
    """Say what an atlas swept; its scenarios bring their own arenas and CPUs."""
    atlas = config.get("atlas") or {}
    return {key: _listed(atlas.get(key)) for key in ("operations", "handlers", "task", "kinds", "pairs")}


def _ran(config: Run) -> dict[str, Child]:
    return {
        "CPUs": _listed(config.get("cpus")),
        "workload": (config.get("workload") or {}).get("kind") if config.get("engine") == "stress" else None,
        "a cell": _length(config),
        "arena": _arena(config.get("arena") or {}),
        "interrupts": _interrupts(config),
        "faults": ", ".join(key for key, value in (config.get("faults") or {}).items() if value) or None,
    }


def _listed(value: Any) -> str | None:
    if value is None:
        return None
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _length(config: Run) -> str | None:
    if config.get("engine") != "stress":
        return None
    parts = [
        f"{_listed(config['duration_s'])} s" if config.get("duration_s") else "",
        f"{_listed(config['ops'])} ops" if config.get("ops") else "",
    ]
    return " or ".join(filter(None, parts)) or None


def _arena(arena: Run) -> str | None:
    words = [
        _listed(arena.get("size")) or "",
        f"{_listed(arena['nodes'])} node{'s' * (arena['nodes'] != 1)}" if arena.get("nodes") else "",
        f"Linux {_listed(arena['kernel'])}" if arena.get("kernel") else "",
        f"slab_debug={_listed(arena['slab_debug'])}" if arena.get("slab_debug") else "",
    ]
    return ", ".join(filter(None, words)) or None


def _interrupts(config: Run) -> str | None:
    if config.get("engine") != "stress":
        return None
    rates = {kind: (spec or {}).get("rate_hz") for kind, spec in (config.get("interrupts") or {}).items()}
    return ", ".join(f"{kind.upper()} {_rate(rate)}/s" for kind, rate in rates.items() if rate) or None


def _rate(rate: Any) -> str:
    return ", ".join(f"{each:,g}" for each in (rate if isinstance(rate, list) else [rate]))


def _where(run: Run) -> str:
    machine, build = run["machine"], run["build"]
    cores = machine.get("cores_allowed")
    words = [
        f"{build.get('flavour', '')} build {build['id']}" if "id" in build else "",
        f"gcc {build['compiler']}" if build.get("compiler") else "",
        f"{cores} core{'s' * (cores != 1)}" if cores else "",
        str(machine.get("cpu_model") or machine.get("architecture") or ""),
        format_bytes(machine["memory_bytes"]) if machine.get("memory_bytes") else "",
        str(machine.get("system", "")),
        f"load {machine['load_1min']}" if "load_1min" in machine else "",
    ]
    return ", ".join(filter(None, words)) or "an unknown machine"


def _warnings(run: Run) -> list[str]:
    """List what makes the numbers worth less."""
    found = [f"warning: {text}" for text in run["machine"].get("warnings", ())]
    cores = run["machine"].get("cores_allowed")
    most = max((cell.get("cpus") or 0 for cell in run["cells"]), default=0)
    if cores and most > cores and run["config"].get("engine") == "stress":
        found.append(f"warning: more CPUs ({most}) than cores ({cores}): they take turns, latencies show it")
    return found


def _terms(terms: Mapping[str, Child]) -> list[Markup]:
    return [element("div", element("dt", name), element("dd", value)) for name, value in terms.items()]


def _again(run: Run) -> Markup | str:
    command = again(run["cells"])
    return copyable(command) if command else "this version left no command"


def _beside(left: Path, folder: Path | None) -> Markup | None:
    """Link to what the run has left, if the page will lie there."""
    if folder is None or folder.resolve() != left.resolve():
        return element("p", f"results in {left}", class_="quiet") if folder is not None else None
    names = [name for name in _FILES if (left / name).is_file()]
    names += [f"{name}/" for name in _FOLDERS if (left / name).is_dir()]
    links = [(", " if at else "", element("a", name, href=name)) for at, name in enumerate(names)]
    return element("p", "beside this page: ", links, class_="quiet") if names else None


def side_by_side(runs: Sequence[Loaded], pages: Sequence[str] | None = None) -> Markup:
    """Say how several runs ended. Args: pages: links to a page of each, if they are not on this."""
    good = [passed(each.run) for each in runs]
    head = ("run", "", "verdict", "as expected", "what", "on", "again")
    rows = [
        [
            element("a", each.label, href=pages[at]) if pages else element("b", each.label),
            passed_or_not(good[at]),
            each.run["verdict"],
            _tally(each.run),
            element("dl", _terms(_what(each.run))),
            [_where(each.run), [element("p", text, class_="bad") for text in _warnings(each.run)]],
            [_again(each.run), element("p", str(each.folder), class_="quiet")],
        ]
        for at, each in enumerate(runs)
    ]
    said = f" {sum(good)} of {len(runs)} passed"
    return join(
        element("h1", f"{len(runs)} runs: ", passed_or_not(all(good)), element("small", said)),
        _why(runs, pages or [""] * len(runs)),
        table(head, rows, left=len(head), class_="runs"),
    )
