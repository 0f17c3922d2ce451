# SPDX-License-Identifier: MIT
"""How cost grows, as one picture: a field for each axis and unit, both scales logarithmic."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.bench.growth_report import shown_value
from harness.plots import style

__all__ = ["draw"]

_COLUMNS = 3
_FIELD_INCHES = (5.4, 3.6)
_LEAST_SPAN = 6.0  # of a logarithmic scale, above its middle and below

Result = Mapping[str, Any]
Key = tuple[str, str]


def draw(folder: Path, result: Result) -> Path | None:
    """Draw the result into growth.svg."""
    fields: dict[Key, dict[str, list[Mapping[str, Any]]]] = {}
    for record in result["growth"]:
        lines = fields.setdefault((record["axis"], record["unit"]), {})
        lines.setdefault(record["what"], []).append(record)
    if not fields:
        return None
    with style.drawing():
        columns = min(_COLUMNS, len(fields))
        rows = -(-len(fields) // columns)
        width, height = _FIELD_INCHES
        figure, axes = style.canvas(width * columns, height * rows + 0.5, rows=rows, columns=columns)
        for ax, (key, lines) in zip(axes, fields.items(), strict=False):
            _field(ax, key, lines)
        for ax in axes[len(fields) :]:
            ax.set_axis_off()
        style.title(figure, "how cost grows: medians with 95 % intervals")
        return style.save(figure, folder / "growth.svg")


def _field(ax: Any, key: Key, lines: Mapping[str, list[Mapping[str, Any]]]) -> None:
    axis, unit = key
    for number, (what, records) in enumerate(lines.items()):
        values = [record["value"] for record in records]
        medians = [record["median"] for record in records]
        look = {"color": style.colour(number % 7), "linestyle": style.dash(number // 7)}
        ax.plot(values, medians, marker="o", markersize=2.5, linewidth=1.1, label=what, **look)
        for record in records:
            if record["low"] is not None:
                ax.plot(
                    [record["value"]] * 2, [record["low"], record["high"]], linewidth=0.8, color=look["color"]
                )
    ax.set_xscale("log")
    medians = [record["median"] for records in lines.values() for record in records if record["median"] > 0]
    if unit.startswith("per"):
        ax.set_yscale("symlog")
        ax.set_ylim(bottom=0)
    elif medians:
        ax.set_yscale("log")
        middle = (min(medians) * max(medians)) ** 0.5
        most = max(_LEAST_SPAN, 2 * max(medians) / middle)  # what is flat shall look flat
        ax.set_ylim(middle / most, middle * most)
    values = sorted({record["value"] for records in lines.values() for record in records})
    ax.set_xticks(values, [shown_value(axis, value) for value in values], fontsize=6.5)
    ax.minorticks_off()
    ax.set_title(f"{axis}: {unit}")
    ax.legend(fontsize=5.5)
