# SPDX-License-Identifier: MIT
"""The config with every default, the machine and the build; and in which of it runs differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from harness import toml
from harness.page import Child, Loaded, Markup, Section, breakable, details, element, join, table
from harness.report_page.words import flat, memory, number

__all__ = ["sections"]


def sections(runs: Sequence[Loaded], _designs: Sequence[str]) -> list[Section]:
    """Show config, machine and build of each run."""
    parts = [join(element("h3", each.label) if len(runs) > 1 else None, _of(each.run)) for each in runs]
    return [Section("setting", "Config, machine, build", join(_differences(runs), parts))]


def _of(run: Mapping[str, Any]) -> Markup:
    rows = [*_rows("build", run["build"]), *_rows("machine", run["machine"])]
    config = element("pre", toml.dumps(run["config"]))
    return join(
        table(("", ""), rows, left=2) if rows else None,
        details("the config, resolved: every key, defaults filled in", config) if run["config"] else None,
    )


def _rows(title: str, part: Mapping[str, Any]) -> list[list[Child]]:
    return [
        [f"{title}.{key}", _value(key, value)] for key, value in part.items() if value not in (None, [], {})
    ]


def _value(key: str, value: Any) -> Child:
    if isinstance(value, int) and key.endswith("_bytes"):
        return memory(value)
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return [element("div", each) for each in value]
    return number(value) if isinstance(value, int | float) else _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _differences(runs: Sequence[Loaded]) -> Markup | None:
    """Tabulate what is not the same in all runs."""
    if len(runs) < 2:
        return None
    found = [
        dict(flat({key: each.run[key] for key in ("config", "build", "machine", "seed")})) for each in runs
    ]
    keys = dict.fromkeys(key for each in found for key in each)
    rows = [
        [element("code", key), *(_text(each[key]) if key in each else "-" for each in found)]
        for key in keys
        if any(each.get(key) != found[0].get(key) or (key in each) != (key in found[0]) for each in found)
    ]
    if not rows:
        return element("p", "Config, machine and build of all runs are the same.")
    head = ("in which the runs differ", *(breakable(each.label) for each in runs))
    return join(element("h3", "Differences"), table(head, rows, left=len(head)))
