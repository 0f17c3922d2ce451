# SPDX-License-Identifier: MIT
"""The result as one picture: a field for each row, in it each subject's median with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from harness.plots import style

__all__ = ["draw"]

_COLUMNS, _FIELD_INCHES, _LINE_INCHES, _MARGIN_INCHES = 4, 3.6, 0.145, 0.75
_GREY, _DARK = "0.7", "0.15"

Record = Mapping[str, Any]


def draw(folder: Path, result: Mapping[str, Any], designs: Sequence[str]) -> Path | None:
    """Draw the result into bench.svg. Args: designs: all there are; a design's place in it decides its colour."""
    rows: dict[str, list[Record]] = {}
    for record in result["rows"]:
        if record["ns_median"] is not None:
            rows.setdefault(record["row"], []).append(record)
    if not rows:
        return None
    with style.drawing():
        columns = min(_COLUMNS, len(rows))
        lines = -(-len(rows) // columns)
        most = max(map(len, rows.values()))
        figure, axes = style.canvas(
            _FIELD_INCHES * columns,
            lines * (_MARGIN_INCHES + _LINE_INCHES * most) + 0.6,
            rows=lines,
            columns=columns,
        )
        for ax, (row, records) in zip(axes, rows.items(), strict=False):
            _field(ax, row, records, designs)
        for ax in axes[len(rows) :]:
            ax.set_axis_off()
        machine = result["machine"]
        style.title(figure, "ns per allocation and free: median and 95 % interval, fastest on top")
        model = machine["cpu_model"] or machine["architecture"]
        figure.supxlabel(f"core {machine['core']} of {model}", x=0.995, ha="right", fontsize=7, color="0.4")
        return style.save(figure, folder / "bench.svg")


def _field(ax: Any, row: str, records: Sequence[Record], designs: Sequence[str]) -> None:
    ordered = sorted(records, key=lambda record: float(record["ns_median"]))
    for at, record in enumerate(ordered):
        colour, marker = _look(record, designs)
        ns = record["ns_median"]
        low, high = record["ns_low"], record["ns_high"]
        if low is not None:
            ax.plot([low, high], [at, at], color=colour, linewidth=1.2)
        ax.plot([ns], [at], marker=marker, color=colour, markersize=3.5, gid=f"{row}:{record['subject']}")
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_title(row)
    ax.set_yticks(range(len(ordered)), [record["subject"] for record in ordered], fontsize=5.5)
    for label, record in zip(ax.get_yticklabels(), ordered, strict=True):
        label.set_color(_look(record, designs)[0])
        label.set_fontweight("bold" if record["kind"] == "design" else "normal")
    ax.set_ylim(len(ordered) - 0.4, -0.6)
    ax.tick_params(axis="x", labelsize=6)


def _look(record: Record, designs: Sequence[str]) -> tuple[str, str]:
    if record["kind"] == "design":
        name = record["subject"]
        return style.colour(designs.index(name) if name in designs else len(designs)), "o"
    return (_GREY, "|") if record["kind"] == "floor" else (_DARK, "d")
