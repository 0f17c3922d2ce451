# SPDX-License-Identifier: MIT
"""Listing and removing arenas; refusing what is none."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmalloc import (
    AbiMismatch,
    Arena,
    Cpu,
    HostileArena,
    NotAnArena,
    SegmentInfo,
    ShmallocError,
    TruncatedArena,
    list_segments,
    remove,
)
from shmalloc._binding import core as load_core

SIZE = 8 << 20
SHM = Path("/dev/shm")


@pytest.fixture
def arena() -> Iterator[Arena]:
    with Arena.create(size=SIZE, nr_cpus=2) as made:
        yield made


@pytest.fixture
def crafted() -> Iterator[Path]:
    path = SHM / f"shmalloc-{os.getpid()}-crafted"
    yield path
    path.unlink(missing_ok=True)


def found(name: str) -> SegmentInfo | None:
    return next((info for info in list_segments() if info.name == "/" + name.removeprefix("/")), None)


# --- not to be attached -----------------------------------------------------------------------


def test_no_segment() -> None:
    with pytest.raises(NotAnArena, match=r"/shmalloc-nobody: there is no such segment"):
        Arena.attach("shmalloc-nobody")


@pytest.mark.parametrize("length", [1, 7, 8, 4096, SIZE, SIZE + 5])
def test_random_bytes(crafted: Path, length: int) -> None:
    crafted.write_bytes(os.urandom(length))
    with pytest.raises(NotAnArena, match=rf"{crafted.name}: {length} bytes that do not begin as an arena"):
        Arena.attach(crafted.name)


def test_zeros(crafted: Path) -> None:
    crafted.write_bytes(bytes(SIZE))
    with pytest.raises(NotAnArena, match=r"do not begin as an arena"):
        Arena.attach(crafted.name)


def test_an_empty_segment(crafted: Path) -> None:
    crafted.touch()
    with pytest.raises(TruncatedArena, match=r"0 bytes"):
        Arena.attach(crafted.name)


def test_special_files(crafted: Path) -> None:
    os.mkfifo(crafted)
    with pytest.raises(NotAnArena, match=r"special file"):
        Arena.attach(crafted.name)
    crafted.unlink()
    crafted.mkdir()
    with pytest.raises(NotAnArena, match=r"not a segment of shared memory"):
        Arena.attach(crafted.name)
    crafted.rmdir()


def test_a_link_is_not_followed(arena: Arena, crafted: Path) -> None:
    crafted.symlink_to(SHM / arena.name[1:])
    with pytest.raises(NotAnArena):
        Arena.attach(crafted.name)
    assert found(crafted.name) is None


def test_another_abi(arena: Arena) -> None:
    arena.header.abi_hash ^= 1
    with pytest.raises(AbiMismatch, match=r"layout's hash is 0x[0-9a-f]{16}, this build's is 0x[0-9a-f]{16}"):
        Arena.attach(arena.name)


@pytest.mark.parametrize("length", [8, 4096, SIZE // 2, SIZE - 4096])
def test_truncated(arena: Arena, crafted: Path, length: int) -> None:
    crafted.write_bytes(arena.buffer[:length])
    with pytest.raises(TruncatedArena, match=rf"{length} bytes"):
        Arena.attach(crafted.name)


@pytest.mark.parametrize("state", [0, 1, 77])
def test_not_ready(arena: Arena, state: int) -> None:
    arena.header.state = state
    with pytest.raises(ShmallocError, match=rf"process {os.getpid()} is still laying it out|contradicts"):
        Arena.attach(arena.name)


def hostile_fields() -> list[tuple[str, int]]:
    """Return statements on a header, each with a value that a follower would get lost by."""
    core = load_core()
    wild = [SIZE, SIZE * 2, 2**63, 2**64 - 1, 2**64 - 4096, 1, 7]
    regions = range(core.lib.NR_REGIONS)
    fields = [(f"regions[{i}].offset", value) for i in regions for value in wild]
    fields += [(f"regions[{i}].bytes", value) for i in regions for value in wild[:5]]
    fields += [("nr_pages", value) for value in (0, SIZE, 2**32, 2**63)]
    fields += [("nr_zones", value) for value in (0, 33, 2**31, 2**32 - 1)]
    fields += [("nr_caches", value) for value in (65, 2**32 - 1)]
    fields += [("tid_step", value) for value in (0, 1, 3)]
    fields += [
        (name, value) for name in ("cache_cpus_stride", "cache_stats_stride") for value in (0, 1, 2**31)
    ]
    fields += [("geometry.nr_cpus", value) for value in (0, 129, 2**32 - 1)]
    fields += [("geometry.nr_nodes", value) for value in (0, 2, 9, 2**32 - 1)]
    fields += [("geometry.max_caches", value) for value in (0, 2**32 - 1)]
    fields += [("geometry.nr_slots", value) for value in (1, 2**32 - 1)]
    fields += [("geometry.pageblock_order", value) for value in (0, 11, 63, 2**32 - 1)]
    fields += [("geometry.cpu_node[1]", value) for value in (1, 255)]
    fields += [("kmalloc_caches[0][3]", value) for value in (64, 2**32 - 1)]
    fields += [("geometry.size_bytes", SIZE * 2), ("broken", 2**31)]
    return fields


def test_hostile_headers(arena: Arena) -> None:
    accepted = []
    for field, value in hostile_fields():
        pristine = bytes(arena.buffer[: arena.core.ffi.sizeof("struct shm_header")])
        exec(f"header.{field} = {value}", {"header": arena.header})
        try:
            Arena.attach(arena.name).close()
            accepted.append(f"{field} = {value}")
        except HostileArena:
            pass
        arena.buffer[: len(pristine)] = pristine
    assert accepted == []


# --- listing and removing ---------------------------------------------------------------------


def test_an_arena_is_listed_with_its_users(arena: Arena) -> None:
    with Cpu(arena, 1):
        info = found(arena.name)
        assert info is not None
        assert (info.size_bytes, info.state, info.nr_cpus) == (SIZE, "ready", 2)
        assert (info.creator_pid, info.creator_alive) == (os.getpid(), True)
        assert [(cpu.number, cpu.pid, cpu.alive) for cpu in info.cpus] == [(1, os.getpid(), True)]
        assert info.users == (os.getpid(),)


def test_a_name_of_another_kind_is_listed_by_its_contents(crafted: Path) -> None:
    name = f"x{os.getpid()}-arena"
    with Arena.create(size=SIZE, name=name):
        assert (found(name) or pytest.fail("not listed")).state == "ready"
    other = SHM / f"x{os.getpid()}-other"
    other.write_bytes(b"nothing of ours")
    try:
        assert found(other.name) is None
    finally:
        other.unlink()


def test_states(arena: Arena, crafted: Path) -> None:
    def state(contents: bytes) -> str:
        crafted.write_bytes(contents)
        info = found(crafted.name)
        assert info is not None
        return info.state

    whole = bytes(arena.buffer)
    assert state(whole) == "ready"
    assert state(whole[:100]) == "truncated"
    assert state(whole[: SIZE // 2]) == "truncated"
    assert state(b"x" * 5000) == "not an arena"
    assert state(b"") == "not an arena"
    ffi = arena.core.ffi
    at = ffi.offsetof("struct shm_header", "abi_hash")
    assert state(whole[:at] + bytes(8) + whole[at + 8 :]) == "another ABI"
    at = ffi.offsetof("struct shm_header", "regions")
    assert state(whole[:at] + b"\xff" * 16 + whole[at + 16 :]) == "hostile header"
    at = ffi.offsetof("struct shm_header", "state")
    assert state(whole[:at] + b"\1\0\0\0" + whole[at + 4 :]) == "not ready"


LEAVE_BEHIND = """
import os
from shmalloc import Arena, Cpu
arena = Arena.create(size="8MiB", nr_cpus=1)
cpu = Cpu(arena, 0)
print(arena.name, flush=True)
os._exit(0)
"""


def test_what_a_dead_process_left_is_listed_and_removed() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", LEAVE_BEHIND], check=True, capture_output=True, text=True
    )
    name = done.stdout.strip()
    info = found(name)
    assert info is not None
    assert not info.creator_alive
    assert [(cpu.number, cpu.alive) for cpu in info.cpus] == [(0, False)]
    assert info.users == ()
    remove(name)
    assert found(name) is None
    with pytest.raises(NotAnArena, match=r"no arena has this name"):
        remove(name)


def test_an_arena_in_use_is_removed_only_by_force(arena: Arena) -> None:
    with pytest.raises(ShmallocError, match=rf"in use by process {os.getpid()}"):
        remove(arena.name)
    assert found(arena.name) is not None
    remove(arena.name, force=True)
    assert found(arena.name) is None


def test_what_is_not_ours_is_not_removed() -> None:
    other = SHM / f"x{os.getpid()}-other"
    other.write_bytes(bytes(SIZE))
    try:
        with pytest.raises(NotAnArena):
            remove(other.name, force=True)
        assert other.exists()
    finally:
        other.unlink()
