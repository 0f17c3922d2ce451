# SPDX-License-Identifier: MIT
"""The core's source lines, where its sources are at hand: those that the binary was made from, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import shmalloc
from shmalloc import _binding, _buildid

__all__ = ["Sources", "find"]

Sources = Mapping[str, Sequence[str]]  # file -> its lines


def find() -> Sources:
    """Read the sources of the loaded core: beside the package, or below the current folder."""
    core = _binding.core()
    flags = core.text(core.lib.shm_build_flags()) or ""
    for folder in (Path(shmalloc.__file__).parent / "core", Path("shmalloc/core")):
        if (folder / "arena.h").is_file() and _buildid.source_id(folder, flags) == core.build_id:
            return {
                path.name: path.read_text(encoding="utf-8").splitlines() for path in _buildid.sources(folder)
            }
    return {}
