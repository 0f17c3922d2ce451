# SPDX-License-Identifier: MIT
"""Creating, attaching, viewing and closing arenas."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import posix_ipc
import pytest

import shmalloc
from shmalloc import Arena, Cpu, Geometry, GeometryError, NoRoom, ShmallocError, Unsupported, room
from shmalloc.layout import constants, dtype

SIZE = 8 << 20


@pytest.fixture
def arena(flavour: str) -> Iterator[Arena]:
    with Arena.create(size=SIZE, nr_cpus=2, flavour=flavour) as made:
        yield made


def segment_file(arena: Arena) -> Path:
    return Path("/dev/shm") / arena.name[1:]


def test_a_new_arena_is_private_and_all_there(arena: Arena) -> None:
    status = segment_file(arena).stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_size == SIZE == arena.size_bytes
    assert status.st_blocks * 512 >= SIZE
    assert arena.name.startswith(f"/shmalloc-{os.getpid()}-")
    assert arena.header.creator_pid == os.getpid()


def test_sparse_takes_pages_when_they_are_touched() -> None:
    with Arena.create(size="1GiB", reserve="sparse") as arena:
        assert segment_file(arena).stat().st_blocks * 512 < arena.size_bytes // 4


def test_a_geometry_or_keywords() -> None:
    geometry = Geometry.of(SIZE, nr_cpus=3)
    with Arena.create(geometry) as arena:
        assert arena.header.geometry.nr_cpus == 3
    with pytest.raises(GeometryError, match=r"nr_nodes: allowed is a Geometry or keywords, not both"):
        Arena.create(geometry, nr_nodes=1)


def test_every_mistake_at_once() -> None:
    with pytest.raises(GeometryError) as caught:
        Arena.create(size=SIZE, nr_cpus=1000, seed=-1, reserve="half", broken="k99")  # type: ignore[arg-type]
    keys = [problem.split(" = ")[0] for problem in caught.value.problems]
    assert keys == ["reserve", "broken", "nr_cpus", "seed"]


def test_the_name_goes_with_the_creators_block(flavour: str) -> None:
    with Arena.create(size=SIZE, flavour=flavour) as arena:
        assert segment_file(arena).exists()
    assert not segment_file(arena).exists()
    assert arena.closed
    arena.close()
    arena.unlink()


def test_the_name_stays_with_an_attached_ones_block(arena: Arena) -> None:
    with Arena.attach(arena.name, flavour=arena.flavour):
        pass
    assert segment_file(arena).exists()


def test_a_name_of_ones_own() -> None:
    name = f"shmalloc-{os.getpid()}-mine"
    with Arena.create(size=SIZE, name=name) as arena:
        assert arena.name == "/" + name
        with pytest.raises(ShmallocError, match=rf"name = '/{name}': a segment of this name exists"):
            Arena.create(size=SIZE, name="/" + name)


@pytest.mark.parametrize("name", ["", "/", "a/b", "//a", "..", "a\0b", "x" * 255])
def test_a_name_that_none_can_have(name: str) -> None:
    with pytest.raises(ValueError, match=r"name = .*allowed are"):
        Arena.create(size=SIZE, name=name)
    with pytest.raises(ValueError, match=r"name = .*allowed are"):
        Arena.attach(name)


def test_nothing_is_left_of_a_creation_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, start: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    before = set(os.listdir("/dev/shm"))
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(NoRoom, match=r"No space left on device"):
        Arena.create(size=SIZE)
    assert {name for name in set(os.listdir("/dev/shm")) - before if f"-{os.getpid()}-" in name} == set()


@pytest.mark.parametrize("source", ["/dev/shm", "MemAvailable", "cgroup limit /sys/fs/cgroup/memory.max"])
def test_no_room_names_the_sizes(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "limits", lambda: [room.Limit("roomy", 1 << 50), room.Limit(source, 5 << 20)])
    with pytest.raises(NoRoom) as caught:
        Arena.create(size=SIZE)
    assert caught.value.needed_bytes == SIZE
    assert caught.value.room_bytes == 5 << 20
    assert caught.value.where == source
    assert all(text in str(caught.value) for text in (str(SIZE), str(5 << 20), source))


def test_more_than_this_machine_has_is_refused_before_it_is_taken() -> None:
    with pytest.raises(NoRoom):
        Arena.create(size="32TiB")


def test_a_broken_variant_that_the_flavour_lacks_leaves_nothing() -> None:
    before = set(os.listdir("/dev/shm"))
    with pytest.raises(Unsupported, match=r"broken = 'k36'.*release"):
        Arena.create(size=SIZE, broken="k36")
    assert not [name for name in set(os.listdir("/dev/shm")) - before if f"-{os.getpid()}-" in name]
    with Arena.create(size=SIZE, broken="no_tid", flavour="checked") as arena:
        names = arena.core.names("broken")
        assert names[arena.header.broken] == "no_tid"


# --- regions ----------------------------------------------------------------------------------


def test_regions_have_their_shapes() -> None:
    nodes: dict[str, Any] = {"nr_nodes": 2, "zone_permille": [[100, 0, 400, 0], [0, 0, 300, 200]]}
    with Arena.create(size=SIZE, nr_cpus=3, max_caches=53, nr_slots=23, pageblock_order=4, **nodes) as arena:
        pages = int(arena.header.nr_pages)
        expected = {
            "cpus": (3,),
            "nodes": (2,),
            "zones": (4,),
            "pagesets": (4, 3),
            "caches": (53,),
            "cache_nodes": (53, 2),
            "cache_cpus": (3, 53),
            "cache_stats": (3, 53),
            "pages": (pages,),
            "telemetry": (3,),
            "slots": (23,),
            "memory": (pages, 4096),
        }
        for name, shape in expected.items():
            assert arena.region(name).shape == shape, name
        assert len(arena.region("oracle_owned")) * 64 >= pages * 512
        assert len(arena.region("pageblocks")) * 16 >= pages
        assert list(arena.region("cpus")["id"]) == [0, 1, 2]
        assert list(arena.region("zones")["index"]) == [0, 1, 2, 3]
        assert list(arena.region("zones")["node"]) == [0, 0, 1, 1]


def test_regions_lie_one_behind_the_other_in_the_arena(arena: Arena) -> None:
    ends = sizeof_header = arena.core.ffi.sizeof("struct shm_header")
    for region in arena.header.regions:
        assert ends <= region.offset
        ends = region.offset + region.bytes
    assert sizeof_header <= ends <= SIZE


def test_a_region_is_no_copy(arena: Arena) -> None:
    memory = arena.region("memory")
    memory[5, :4] = np.frombuffer(b"here", np.uint8)
    offset = arena.header.regions[arena.core.lib.REGION_MEMORY].offset + 5 * 4096
    assert bytes(arena.buffer[offset : offset + 4]) == b"here"
    with Arena.attach(arena.name, flavour=arena.flavour) as other:
        assert bytes(other.region("memory")[5, :4]) == b"here"


def test_without_an_oracle_its_regions_are_empty() -> None:
    with Arena.create(size=SIZE, oracle=False) as arena:
        assert arena.region("oracle_owned").size == arena.region("oracle_start").size == 0
        assert arena.region("slots").size == 0


def test_an_unknown_region_is_named(arena: Arena) -> None:
    with pytest.raises(ValueError, match=r"region = 'heap': allowed are cpus, nodes"):
        arena.region("heap")


def test_the_kmalloc_caches_are_there(arena: Arena) -> None:
    names = arena.region("caches")["name"]
    index = arena.header.kmalloc_caches[constants()["KMALLOC_NORMAL"]][7]
    assert names[index] == b"kmalloc-128"


def test_pointer_is_bounded(arena: Arena) -> None:
    size = dtype("page").itemsize
    assert arena.pointer("struct page", SIZE - size) is not None
    for offset in (SIZE - size + 1, -1, 2**64):
        with pytest.raises(ShmallocError, match=r"struct page at offset .* does not lie within"):
            arena.pointer("struct page", offset)


# --- closing ----------------------------------------------------------------------------------


def test_a_closed_arena_says_so(arena: Arena) -> None:
    arena.close()
    for use in (lambda: arena.buffer, lambda: arena.header, lambda: arena.base, arena.activate):
        with pytest.raises(ShmallocError, match=rf"{arena.name}: this Arena is closed"):
            use()
    assert "closed" in repr(arena)


@pytest.mark.parametrize("view", ["buffer", "slice", "array", "header", "pointer"])
def test_closing_under_a_view_is_refused_and_nothing_crashes(arena: Arena, view: str) -> None:
    made: dict[str, object] = {
        "buffer": arena.buffer,
        "slice": arena.buffer[4096:8192],
        "array": arena.region("memory"),
        "header": arena.header,
        "pointer": arena.pointer("struct page", 4096),
    }
    held = made[view]
    made.clear()
    with pytest.raises(ShmallocError, match=r"views of this arena are still in use"):
        arena.close()
    assert not arena.closed
    assert arena.header.nr_pages > 0
    del held
    arena.close()
    assert arena.closed


def test_a_view_outlives_the_block() -> None:
    with Arena.create(size=SIZE) as arena, Cpu(arena, 0) as cpu:
        array = cpu.array(cpu.kmalloc(96), (12,), "f8")
    array[:] = 3.0
    assert arena.closed
    assert array.sum() == 36.0


def test_leaving_the_block_gives_the_cpus_back(flavour: str) -> None:
    with Arena.create(size=SIZE, flavour=flavour) as arena:
        cpu = Cpu(arena, 0)
        with Arena.attach(arena.name, flavour=flavour) as other:
            assert other.region("cpus")["state"][0] == constants()["CPU_ONLINE"]
            arena.deactivate()
            assert other.region("cpus")["state"][0] == constants()["CPU_OFFLINE"]
    with pytest.raises(shmalloc.NotBound):
        cpu.kmalloc(8)


def test_one_arena_at_a_time(arena: Arena) -> None:
    arena.activate()
    arena.activate()
    with Arena.create(size=SIZE, flavour=arena.flavour) as other:
        with pytest.raises(ShmallocError, match=rf"{other.name}: this process works on {arena.name}"):
            other.activate()
        arena.deactivate()
        other.activate()


def test_descriptors_and_names_may_come_and_go() -> None:
    for _ in range(23):
        with Arena.create(size="8MiB", nr_cpus=1) as arena, Arena.attach(arena.name):
            pass
    with pytest.raises(posix_ipc.ExistentialError):
        posix_ipc.SharedMemory(arena.name)


def test_a_fork_of_the_creator_does_not_remove_the_name(arena: Arena) -> None:
    child = os.fork()
    if child == 0:
        try:
            arena.__exit__(None, None, None)
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert segment_file(arena).exists()


# --- what a CPU process may import ------------------------------------------------------------

LIGHT = """
import os, sys
from shmalloc import Arena, Cpu, ops
with Arena.create(size="8MiB") as arena, Cpu(arena, 0) as cpu:
    cpu.set_program("nmi", ops(("alloc", {"size": 64}), "free"))
    cpu.interrupt("nmi")
    offset = cpu.kmalloc(100, "GFP_KERNEL|__GFP_ZERO")
    cpu.view(offset)[:3] = b"abc"
    cpu.counters(), cpu.contexts(), cpu.interrupts()
    cpu.kfree(offset)
heavy = {"numpy", "pydantic", "rich", "hypothesis"} & set(sys.modules)
assert not heavy, heavy
assert len(os.listdir("/proc/self/task")) == 1
"""


def test_a_cpu_process_starts_no_thread_and_imports_nothing_heavy() -> None:
    subprocess.run([sys.executable, "-P", "-c", LIGHT], check=True)


def test_the_face_is_complete() -> None:
    assert sorted(shmalloc.__all__, key=str) == shmalloc.__all__
    for name in shmalloc.__all__:
        assert getattr(shmalloc, name) is not None
