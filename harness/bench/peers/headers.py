# SPDX-License-Identifier: MIT
"""Allocators in shared memory, and pools: what they cost is in their headers, so that they are built on the spot."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.bench.peers.building import CannotBuild, NoCompiler, NoHeader, build, library_file
from harness.bench.subjects import Missing, Sharing, Subject

__all__ = ["find"]

_NATIVE = Path(__file__).resolve().parent / "native"


_DPDK_VERSION = "#include <rte_build_config.h>\nRTE_VER_YEAR RTE_VER_MONTH RTE_VER_MINOR"


@dataclass(frozen=True)
class _Peer:
    name: str
    what: str
    source: str
    sharing: Sharing
    package: str
    compiler: str
    build: Callable[[Path], Path]
    folders: tuple[str, ...] = ()  # variables with a folder for what it cannot do without


def _boost(source: Path) -> Path:
    version = "#include <boost/version.hpp>\nBOOST_LIB_VERSION"
    return build(source, ["-Wall", "-Wextra"], ["-lrt", "-lpthread"], version)


def _dpdk(source: Path) -> Path:
    """Link what a mempool needs, and the archives: the shared objects load every driver that is installed."""
    flags = ["-std=gnu11", "-D_GNU_SOURCE", "-include", "rte_config.h", "-march=corei7"]
    flags += ["-I/usr/include/dpdk", "-I/usr/include/x86_64-linux-gnu/dpdk"]
    if tool := shutil.which("pkg-config"):
        asked = subprocess.run([tool, "--cflags", "libdpdk"], capture_output=True, text=True, check=False)
        flags = ["-std=gnu11", "-D_GNU_SOURCE", *asked.stdout.split()] if asked.returncode == 0 else flags
    names = [
        "mempool",
        "ring",
        "eal",
        "telemetry",
        "kvargs",
        *("log", "argparse"),
    ]  # the last two: of later DPDKs
    archives = [str(file) for name in names if (file := library_file(f"librte_{name}.a"))]
    others = [f"-l{name}" for name in ("bsd", "numa") if library_file(f"lib{name}.so")]
    ring = ["-Wl,--whole-archive", "-l:librte_mempool_ring.a", "-Wl,--no-whole-archive"]
    group = ["-Wl,--start-group", *archives, "-Wl,--end-group"]
    return build(source, flags, [*ring, *group, *others, "-ldl", "-lm", "-lpthread"], _DPDK_VERSION)


_PEERS = (
    _Peer(
        "boost", "Boost.Interprocess managed_shared_memory, rbtree_best_fit", "boost.cpp", "shared",
        "Debian: libboost-dev", "Debian: g++", _boost,
    ),
    _Peer(
        "dpdk", "DPDK mempool with a cache per lcore, --no-huge", "dpdk.c", "shared",
        "Debian: libdpdk-dev", "Debian: gcc", _dpdk, ("RUNTIME_DIRECTORY",),
    ),
)  # fmt: skip


def find() -> tuple[list[Subject], list[Missing]]:
    """Build those whose headers are there; return them, and those that do not build."""
    subjects, missing = [], []
    for peer in _PEERS:
        try:
            plugin = peer.build(_NATIVE / peer.source)
        except NoCompiler as error:
            missing.append(Missing(peer.name, f"{peer.compiler}; {peer.package}", str(error)))
        except NoHeader as error:
            missing.append(Missing(peer.name, peer.package, f"no header {error}"))
        except CannotBuild as error:
            missing.append(Missing(peer.name, peer.package, f"does not build: {error}"))
        else:
            environment = {name: str(plugin.parent) for name in peer.folders}
            subjects.append(
                Subject(
                    peer.name, "peer", plugin, peer.name, peer.what, peer.sharing, environment=environment
                )
            )
    return subjects, missing
