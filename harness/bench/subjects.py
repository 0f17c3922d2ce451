# SPDX-License-Identifier: MIT
"""What is measured: a subject is a plugin's entry, and how a process of the runner is started for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

__all__ = ["Kind", "Missing", "Sharing", "Subject"]

Kind = Literal["design", "floor", "peer"]
Sharing = Literal["private", "shared", "python"]


@dataclass(frozen=True)
class Subject:
    """One thing that is measured.

    Attributes:
        name: in tables and results, of a-z, 0-9 and _.
        kind: design, floor or peer.
        plugin: the shared object that has it.
        entry: its name in the plugin's table.
        summary: one line.
        sharing: private = a malloc of one process; shared = made for shared memory, wherever it is measured;
            python = called from Python, whose calls are part of what is measured.
        options: text for its setup.
        environment: what its process gets besides ours, such as LD_PRELOAD.
        runner: the command that speaks the runner's protocol for it; empty = the native runner.
        rows: the only ones that it is put to; None = all that it can do.
    """

    name: str
    kind: Kind
    plugin: Path
    entry: str
    summary: str = ""
    sharing: Sharing = "private"
    options: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    runner: tuple[str, ...] = ()
    rows: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Missing:
    """A peer that this machine does not have. Attributes: peer.  package: that brings it.  why: what was looked for."""

    peer: str
    package: str
    why: str
