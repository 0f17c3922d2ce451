# SPDX-License-Identifier: MIT
"""Where the bench's compiled files are: beside the core that is loaded, also if a source tree shadows the install."""

from __future__ import annotations

from pathlib import Path

from shmalloc import _binding
from shmalloc.errors import BuildMissing

__all__ = ["built"]


def built(name: str) -> Path:
    """Return the path of a compiled file of the bench. Raises: BuildMissing, StaleBuildError."""
    core = _binding.core("release").path
    package = next(folder for folder in core.parents if folder.name == "shmalloc")
    path = package.parent / "harness" / "bench" / "lib" / name
    if not path.is_file():
        raise BuildMissing(f"{path} is not there; rebuild it in the root of the project: pip install .")
    return path
