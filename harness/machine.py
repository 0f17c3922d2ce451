# SPDX-License-Identifier: MIT
"""What machine a number was measured on, and what build of the core."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from harness import topology

_BUSY = 0.5  # load per core from which measurements of others' work are a risk


def machine() -> dict[str, Any]:
    """Describe this machine, as far as measurements depend on it."""
    allowed = sorted(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    return {
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "cpu_model": _first("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count(),
        "cores_allowed": len(allowed),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "nodes": topology.describe(topology.read()),
        "load_1min": round(load, 2),
        "python": platform.python_version(),
        "warnings": [f"busy: load {load:.2f} on {len(allowed)} cores"] if load > _BUSY * len(allowed) else [],
    }


def _first(path: str, key: str) -> str | None:
    """Return the first value of a key in a file of `key : value` lines."""
    try:
        lines = Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), None)


def build(flavours: Sequence[str]) -> dict[str, Any]:
    """Describe the builds of the core that a run uses.

    Args: flavours: at least one; the first is the run's.
    """
    from shmalloc import _binding

    cores = {flavour: _binding.core(flavour) for flavour in flavours}
    first = cores[flavours[0]]
    return {
        "version": _version(),
        "flavour": first.flavour,
        "id": first.build_id,
        "ids": {flavour: core.build_id for flavour, core in cores.items()},
        "abi_hash": f"{first.lib.shm_abi_hash():#018x}",
        "compiler": first.text(first.lib.shm_compiler()),
        "interpreter": sys.implementation.cache_tag,
    }


def _version() -> str | None:
    try:
        return metadata.version("shmalloc")
    except metadata.PackageNotFoundError:
        return None
