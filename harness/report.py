# SPDX-License-Identifier: MIT
"""A run as a kernel engineer reads it: one table of designs and contexts, one of cells, what was wrong."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from harness import compare, numa_report, units
from harness.atlas import text as atlas
from harness.results import passed
from harness.script import report as script
from harness.topology import ALONE
from harness.vocabulary import CONTEXTS, KINDS, OK
from shmalloc.units import format_bytes

PLAIN_WIDTH = 150
_STACK_SHOWN = 24
_LISTED = 3  # measured values that are written one by one
_LATENCIES = {"p50": "p50", "p99": "p99", "p999": "p99.9", "max": "max"}

Run = Mapping[str, Any]


def print_run(run: Run, console: Console) -> None:
    """Print a run's report."""
    for part in parts(run):
        console.print(part)


def text(run: Run) -> str:
    """Return a run's report as plain text."""
    buffer = io.StringIO()
    print_run(run, Console(file=buffer, width=PLAIN_WIDTH, color_system=None))
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def stdout_console() -> Console:
    """Return a console for stdout, wide enough for the tables where it is no terminal."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=max(PLAIN_WIDTH, shutil.get_terminal_size().columns))
    return console


def parts(run: Run) -> Iterator[RenderableType]:
    """Yield the pieces of a report, top down."""
    yield _headline(run)
    engine = run.get("config", {}).get("engine")
    if engine == "script":
        yield from script.parts(run["cells"])
    elif engine == "atlas":
        yield from atlas.parts(run)
    else:
        compared = compare.table(run["cells"])
        if compared is not None:
            yield compared
        yield _allocations(run["cells"])
        yield _cells(run["cells"])
        yield from _interrupts(run["cells"])
        yield from numa_report.parts(run["cells"])
        yield from _notes(run)
    for cell in run["cells"]:
        if engine != "atlas":  # which has told them already
            yield from _violations(cell)
        yield from _unmet(cell)
    yield from _expectations(run["expectations"])
    yield from _replays(run)


def _headline(run: Run) -> Text:
    good = passed(run)
    line = Text()
    line.append(f"{run['name']}: ", style="bold")
    line.append("passed" if good else "FAILED", style="bold green" if good else "bold red")
    line.append(f", verdict {run['verdict']}, {len(run['cells'])} cell{'s' * (len(run['cells']) != 1)}")
    machine, build = run["machine"], run["build"]
    line.append(f"\nseed {run['seed']}, {build['flavour']} build {build['id']}, ", style="dim")
    line.append(
        f"{machine['cores_allowed']} cores ({machine['cpu_model'] or machine['architecture']})", style="dim"
    )
    return line


def _table(*columns: str, left: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for at, name in enumerate(columns):
        table.add_column(name, justify="left" if at < left else "right", overflow="fold", no_wrap=at == 0)
    return table


def _allocations(cells: Sequence[Run]) -> Table:
    """Tabulate allocations per cell and context. Latencies are in ns unless a unit is there."""
    table = _table("cell", "context", "design", "allocs", *_LATENCIES.values(), "failed", "why", left=3)
    table.columns[-1].justify = "left"
    for cell in cells:
        label = cell["id"]
        for context in CONTEXTS:
            row = cell["contexts"][context]
            failed = sum(row["failures"].values())
            if not row["allocs"] and not failed:
                continue
            latency = [units.nanoseconds(row["latency_ns"][key]) for key in _LATENCIES]
            designs = ", ".join(d for d, seen in cell.get("designs", {}).items() if context in seen)
            table.add_row(
                label,
                context,
                designs,
                units.count(row["allocs"]),
                *latency,
                units.count(failed),
                compare.why(row["failures"]),
            )
            label = ""
    return table


def _cells(cells: Sequence[Run]) -> Table:
    table = _table("cell", "verdict", "CPUs", "ops", "ops/s", "time", "peak memory", "of arena", left=2)
    for cell in cells:
        memory = cell["memory"]
        table.add_row(
            cell["id"],
            _verdict(cell),
            str(cell["cpus"]),
            units.count(cell["ops"]),
            units.count(cell["throughput_ops_s"]),
            units.seconds(cell["seconds"]),
            format_bytes(memory["peak_bytes"]),
            format_bytes(memory["arena_bytes"]),
        )
    return table


def _interrupts(cells: Sequence[Run]) -> Iterator[Table]:
    """Tabulate where interrupts landed, if there were any."""
    table = _table("cell", "interrupt", "sent", "handled", "in allocator", "in slow path", left=2)
    for cell in cells:
        label = cell["id"]
        for kind in KINDS:
            row = cell["interrupts"][kind]
            if row["sent"] or row["handled"]:
                columns = ("sent", "handled", "in_allocator", "in_slow_path")
                table.add_row(label, kind.upper(), *(units.count(row[name]) for name in columns))
                label = ""
    if table.row_count:
        yield table


def _verdict(cell: Run) -> Text:
    if cell["verdict"] == cell["expected"]:
        expected = "" if cell["verdict"] == OK else " (as expected)"
        return Text(cell["verdict"] + expected, style="green")
    return Text(f"{cell['verdict']}, expected {cell['expected']}", style="bold red")


def _notes(run: Run) -> Iterator[Text]:
    cells, cores = run["cells"], run["machine"]["cores_allowed"]
    sample = sorted({cell.get("latency_sample", 0) for cell in cells})
    said = [
        f"latency in ns, of one op in {', '.join(map(str, sample))}" if any(sample) else "latency not sampled"
    ]
    period = {cell["memory"]["sample_period_s"] for cell in cells}
    said.append(f"memory sampled every {', '.join(f'{p * 1e3:.0f}' for p in sorted(period))} ms")
    runs = sorted({len(cell.get("repeats", ())) for cell in cells})
    if runs[-1] > 1:
        said.append(
            f"each cell the median of {' or '.join(map(str, runs))} runs by ops/s, violations those of all"
        )
    if any(cell.get("numa", {}).get("modelled_ns", {}).get("per_alloc") is not None for cell in cells):
        said.append("modelled ns are a model of distance (numa_model), in no measured time")
    if run["machine"].get("arena_nodes", []) not in ([], [ALONE]):
        said.append("arena nodes " + "; ".join(why for why in run["machine"]["arena_nodes"] if why != ALONE))
    most = max(cell["cpus"] for cell in cells)
    if most > cores:
        said.append(f"more CPUs ({most}) than cores ({cores}): they take turns, latencies show it")
    yield Text("; ".join([*said, *run["machine"]["warnings"]]), style="dim")


def _violations(cell: Run) -> Iterator[Text]:
    for found in cell["violations"]:
        line = Text(f"\n{cell['id']}: {found['verdict']}", style="bold red")
        line.append(f" by {found['checker']}: {found['text']}", style="not bold default")
        where = []
        if found["cpu"] is not None:
            where.append(
                f"CPU {found['cpu']} in {found['context']} (level {found['level']}), op {found['op_index']}"
            )
        if found["lock"]:
            where.append(f"{found['lock_class']} lock at {found['lock']:#x}")
        if found["owner"] is not None:
            where.append(f"held by CPU {found['owner']['cpu']} at level {found['owner']['level']}")
        if found["object"]:
            where.append(f"object at {found['object']:#x}")
        if where:
            line.append("\n  " + ", ".join(where), style="not bold default")
        for frame in found["stack"][:_STACK_SHOWN]:
            line.append(f"\n    level {frame['level']}  {frame['symbol']}", style="not bold dim")
        yield line


def _unmet(cell: Run) -> Iterator[Text]:
    for entry in cell.get("must_happen", []):
        if not entry["holds"]:
            text = f"{cell['id']}: did not happen: {entry['condition']} ({measured(entry['measured'])})"
            yield Text(text, style="yellow")


def _expectations(expectations: Sequence[Run]) -> Iterator[Text]:
    for entry in expectations:
        holds = {True: "holds", False: "does not hold", None: "about no cell of this run"}[entry["holds"]]
        style = {True: "green", False: "red" if entry["kind"] == "test" else "yellow", None: "dim"}[
            entry["holds"]
        ]
        yield Text(f"{entry['kind']}: {entry['text']}: {holds} ({said(entry)})", style=style)


def said(entry: Run) -> str:
    """Write what an expectation measured: in the config's words, if it has some."""
    return str(entry["said"]) if entry.get("said") else measured(entry["measured"])


def measured(value: Any) -> str:
    """Write what an expectation measured: one value, or the range over many cells."""
    if isinstance(value, Mapping):
        numbers = [each for each in value.values() if isinstance(each, int | float)]
        if len(numbers) == len(value) > _LISTED:
            return f"measured {min(numbers):g} to {max(numbers):g} in {len(numbers)} cells"
        return "measured " + ", ".join(f"{key}: {_number(each)}" for key, each in value.items())
    return f"measured {_number(value)}"


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _replays(run: Run) -> Iterator[Text]:
    for cell in run["cells"]:
        if cell["verdict"] != cell["expected"] and cell.get("replay"):
            yield Text(f"again, this cell alone: {cell['replay']}")
