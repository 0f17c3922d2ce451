# SPDX-License-Identifier: MIT
"""The claims of all configs of a run in one table: what is claimed, what was measured, whether it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness import report
from harness.results import passed

Run = Mapping[str, Any]
_HOLDS = {True: Text("holds", style="green"), False: Text("does not hold", style="yellow")}
_NOTHING = Text("not measured", style="dim")


def of(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """List the claims of runs: {config, claim, measured, holds}, in order."""
    return [
        {
            "config": run["name"],
            "claim": entry["text"],
            "measured": report.said(entry).removeprefix("measured "),
            "holds": entry["holds"],
        }
        for run in runs
        for entry in run["expectations"]
        if entry["kind"] == "claim"
    ]


def speaks_for(run: Run) -> bool:
    """Whether the table says all that there is to say about a run: it has claims, and went as expected."""
    return passed(run) and any(entry["kind"] == "claim" for entry in run["expectations"])


def print_table(runs: Sequence[Run], console: Console) -> None:
    """Print the table, if there are claims."""
    found = of(runs)
    if not found:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_lines=False)
    table.add_column("claim", ratio=5)
    table.add_column("measured", ratio=5)
    table.add_column("", no_wrap=True)
    table.add_column("config", no_wrap=True)
    for claim in found:
        table.add_row(
            Text(claim["claim"]),
            Text(claim["measured"]),
            _HOLDS.get(claim["holds"], _NOTHING),
            claim["config"],
        )
    console.print(table)
    held = sum(claim["holds"] is True for claim in found)
    console.print(f"{held} of {len(found)} claims hold", style="bold")
