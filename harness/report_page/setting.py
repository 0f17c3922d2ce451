# SPDX-License-Identifier: MIT
"""The config with every default, the machine and the build; and in which of it runs differ."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from harness import toml
from harness.page import Child, Loaded, Markup, Section, breakable, details, element, join, table
from harness.report_page.words import flat, number
from shmalloc.units import format_bytes

__all__ = ["sections"]

_TOLD = {"name", "step", "expect", "must_happen"}  # what other sections show
_CSS = ".config { columns: 24rem; margin: .4rem 0; }\n"


def sections(runs: Sequence[Loaded], _designs: Sequence[str]) -> list[Section]:
    """Show config, machine and build of each run."""
    parts = [join(element("h3", each.label) if len(runs) > 1 else None, _of(each.run)) for each in runs]
    return [Section("setting", "Config, machine, build", join(_differences(runs), parts), css=_CSS)]


def _of(run: Mapping[str, Any]) -> Markup:
    chosen: list[list[Child]] = [
        [element("code", key), element("code", toml.value(value))] for key, value in _chosen(run["config"])
    ]
    rows = [*_rows("build", run["build"]), *_rows("machine", run["machine"])]
    config = element("pre", toml.dumps(run["config"]), class_="config")
    return join(
        table(("what the config sets otherwise than the defaults", ""), chosen, left=2) if chosen else None,
        details("the config, resolved: every key, defaults filled in", config) if run["config"] else None,
        table(("build and machine", ""), rows, left=2) if rows else None,
    )


def _chosen(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the keys that have other values than the defaults of this version; steps and expectations aside."""
    default = dict(flat(_defaults((config.get("workload") or {}).get("kind"))))
    for key, value in flat(config):
        if key.partition(".")[0] not in _TOLD and value is not None and value != default.get(key):
            yield key, value


@cache
def _defaults(workload: Any) -> dict[str, Any]:
    """Return the config that nothing was written into. Args: workload: its kind."""
    from harness.config import Config  # what checks configs is not needed for anything else here
    from harness.workload.spec import parse_workload

    config = Config(name="defaults")
    with contextlib.suppress(ValueError):  # a kind that this version does not know
        config = config.model_copy(update={"workload": parse_workload({"kind": workload})})
    return config.model_dump(mode="json")


def _rows(title: str, part: Mapping[str, Any]) -> list[list[Child]]:
    return [
        [f"{title}.{key}", _value(key, value)] for key, value in part.items() if value not in (None, [], {})
    ]


def _value(key: str, value: Any) -> Child:
    if isinstance(value, int) and key.endswith("_bytes"):
        return format_bytes(value)
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
