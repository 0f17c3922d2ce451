# SPDX-License-Identifier: MIT
"""How much memory this machine has left for an arena.

Three limits count: the file system of shared memory, the machine's available memory, and the memory
control group (version 1 or 2) of this process. Going over the first is a SIGBUS at some later store, over
the others the OOM killer; so the size is compared with all of them before any space is reserved.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SHM_DIRECTORY = Path("/dev/shm")
_UNLIMITED_BYTES = 1 << 60  # version 1 writes "no limit" as a huge number


@dataclass(frozen=True)
class Limit:
    """One limit: where it comes from and how many bytes it leaves."""

    source: str
    free_bytes: int


def limits(shm_directory: Path = SHM_DIRECTORY, root: Path = Path("/")) -> list[Limit]:
    """List what limits a new shared-memory segment of this process.

    Args:
        shm_directory: the file system of shared memory.
        root: where /proc and /sys are looked for.

    Returns:
        The limits that this machine has; one that cannot be read is left out.
    """
    found = [Limit(str(shm_directory), _file_system_free_bytes(shm_directory))]
    available = _mem_available_bytes(root / "proc/meminfo")
    if available is not None:
        found.append(Limit("MemAvailable", available))
    found.extend(_cgroup_limits(root))
    return found


def shortages(size_bytes: int, found: list[Limit]) -> list[Limit]:
    """Return those of the limits that a segment of this size does not fit."""
    return [limit for limit in found if limit.free_bytes < size_bytes]


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return None


def _file_system_free_bytes(directory: Path) -> int:
    try:
        status = os.statvfs(directory)
    except OSError:
        return 0  # without it there is no shared memory at all
    return status.f_bavail * status.f_frsize


def _mem_available_bytes(meminfo: Path) -> int | None:
    for line in (_read(meminfo) or "").splitlines():
        key, _, value = line.partition(":")
        if key == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def _cgroup_limits(root: Path) -> Iterator[Limit]:
    """Yield the limits of each group from this process's own up to the root of its hierarchy."""
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            files = ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        mounted = _cgroup_mount(root, version2=not controllers)
        if mounted is None:
            continue
        mount, mount_root = mounted
        for directory in _group_and_parents(root / mount.lstrip("/"), mount_root, group):
            yield from _group_limit(directory, files)


def _cgroup_mount(root: Path, *, version2: bool) -> tuple[str, str] | None:
    """Find where the hierarchy is mounted, and which of its groups lies at the mount point."""
    for line in (_read(root / "proc/self/mountinfo") or "").splitlines():
        left, _, right = line.partition(" - ")
        kind, *_, options = right.split()
        if kind == "cgroup2" if version2 else kind == "cgroup" and "memory" in options.split(","):
            mount_root, mount = left.split()[3:5]
            return mount, mount_root
    return None


def _group_and_parents(mount: Path, mount_root: str, group: str) -> Iterator[Path]:
    # In a container the mount shows a part of the hierarchy only, with mount_root at its top.
    relative = group
    if mount_root != "/":
        relative = group[len(mount_root) :] if group.startswith(mount_root) else ""
    parts = [part for part in relative.split("/") if part not in ("", "..")]
    for depth in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:depth])


def _group_limit(directory: Path, files: tuple[str, str, str]) -> Iterator[Limit]:
    limit_file, usage_file, reclaimable_key = files
    limit, usage = _read(directory / limit_file), _read(directory / usage_file)
    if limit is None or usage is None or limit.strip() == "max" or int(limit) >= _UNLIMITED_BYTES:
        return
    reclaimable = 0
    for line in (_read(directory / "memory.stat") or "").splitlines():
        key, _, value = line.partition(" ")
        if key == reclaimable_key:
            reclaimable = int(value)
    free_bytes = max(0, int(limit) - int(usage) + reclaimable)
    yield Limit(f"cgroup limit {directory / limit_file}", free_bytes)
