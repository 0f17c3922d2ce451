# SPDX-License-Identifier: MIT
"""The config with every default, the machine and the build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness import toml
from harness.page import Loaded, Markup, Section, details, element, join, table

__all__ = ["sections"]


def sections(runs: Sequence[Loaded], _designs: Sequence[str]) -> list[Section]:
    """Show config, machine and build of each run."""
    parts = [join(element("h3", each.label) if len(runs) > 1 else None, _of(each.run)) for each in runs]
    return [Section("setting", "Config, machine, build", join(parts))]


def _of(run: Mapping[str, Any]) -> Markup:
    config = details("the config, resolved", element("pre", toml.dumps(run["config"])))
    rows = [[key, str(value)] for part in ("build", "machine") for key, value in run[part].items()]
    return join(config, table(("", ""), rows, left=2))
