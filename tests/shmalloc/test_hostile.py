# SPDX-License-Identifier: MIT
"""Headers with any byte flipped: an attach refuses them or works, and crashes never.

The attaching is done by a child process, which is replaced when it dies.
"""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shmalloc import Arena, HostileArena
from shmalloc._binding import core as load_core

SIZE = 2 << 20
PATIENCE_S = 120  # of the parent, for a child that sleeps for ever
CPU_S = 20  # of the child, for one that spins for ever

CHILD = """
import json, signal, sys
from shmalloc import Arena, Cpu, ShmallocError, list_segments
from shmalloc.regions import _REGIONS
name, flavour, cpu_s = sys.argv[1], sys.argv[2], float(sys.argv[3])
print("ready", flush=True)
for line in sys.stdin:
    signal.setitimer(signal.ITIMER_PROF, cpu_s)  # its default action ends the process
    try:
        list_segments()
        with Arena.attach(name, flavour=flavour) as arena:
            for region in _REGIONS:
                arena.region(region).shape
            with Cpu(arena, 0) as cpu:
                cpu.kfree(cpu.kmalloc_nolock(64))
                cpu.kfree_nolock(cpu.kmalloc(512))
                cpu.free_pages(cpu.alloc_pages(1), 1)
        answer = "works"
    except ShmallocError as error:
        answer = f"{type(error).__name__}: {error}"
    print(json.dumps(answer), flush=True)
"""


class Attacher:
    """A child that attaches to one segment, as often as it is told to."""

    def __init__(self, flavour: str) -> None:
        with Arena.create(size=SIZE, nr_cpus=1, pageblock_order=4, seed=23, flavour=flavour) as arena:
            self.pristine = bytes(arena.buffer)
        self.path = Path("/dev/shm") / f"shmalloc-{os.getpid()}-flipped"
        self.flavour = flavour
        self.child: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        if self.child is None:
            arguments = [sys.executable, "-P", "-c", CHILD, self.path.name, self.flavour, str(CPU_S)]
            self.child = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert self.answer() == "ready\n"
        return self.child

    def answer(self) -> str:
        assert self.child is not None
        assert self.child.stdout is not None
        if not select.select([self.child.stdout], [], [], PATIENCE_S)[0]:
            self.child.kill()
        return self.child.stdout.readline()

    def stop(self) -> None:
        if self.child is not None:
            self.child.communicate()
            self.child = None
        self.path.unlink(missing_ok=True)

    def attach_to(self, contents: bytes, what: str) -> str:
        child = self.start()
        assert child.stdin is not None
        # A new file each time: an old mapping must not see it change.
        self.path.unlink(missing_ok=True)
        self.path.write_bytes(contents)
        child.stdin.write("\n")
        child.stdin.flush()
        line = self.answer()
        if not line:
            self.child = None
            child.communicate()
            pytest.fail(f"{what}: the attaching process ended with status {child.returncode}")
        return str(json.loads(line))


@pytest.fixture(scope="module", params=["release", "checked"])
def attacher(request: pytest.FixtureRequest) -> Iterator[Attacher]:
    made = Attacher(str(request.param))
    made.attach_to(made.pristine, "unchanged")  # from now on, so that no test is said to have left it behind
    yield made
    made.stop()


def header_bytes() -> int:
    """Return how much of the header comes before its record of violations."""
    return int(load_core().ffi.offsetof("struct shm_header", "violations"))


def flipped(pristine: bytes, changes: dict[int, int]) -> bytes:
    contents = bytearray(pristine)
    for offset, mask in changes.items():
        contents[offset] ^= mask
    return bytes(contents)


def test_unchanged_it_works(attacher: Attacher) -> None:
    assert attacher.attach_to(attacher.pristine, "unchanged") == "works"


def test_every_byte_of_the_layout_matters(attacher: Attacher) -> None:
    """Each region's offset is looked at: with its high bits changed, nobody attaches."""
    ffi = load_core().ffi
    start = ffi.offsetof("struct shm_header", "regions")
    for region in range(load_core().lib.NR_REGIONS):
        at = start + region * ffi.sizeof("struct shm_region")
        for byte in (3, 7):
            what = f"region {region}, byte {byte}"
            answer = attacher.attach_to(flipped(attacher.pristine, {at + byte: 0x40}), what)
            assert answer.startswith("HostileArena"), what


@pytest.mark.parametrize(
    "lock", ["slab_mutex", "ipi_lock", "objcg_lock", "kernfs_lock", "percpu_charge_mutex", "obj_hash_lock"]
)
def test_the_class_of_a_lock_is_an_index_into_tables(attacher: Attacher, lock: str) -> None:
    ffi = load_core().ffi
    at = ffi.offsetof("struct shm_header", lock) + ffi.offsetof("struct spinlock", "class")
    answer = attacher.attach_to(flipped(attacher.pristine, {at + 3: 0x40}), lock)
    assert answer.startswith("HostileArena")


@settings(max_examples=100)
@given(st.data())
def test_any_bytes_flipped(attacher: Attacher, data: st.DataObject) -> None:
    places = st.integers(0, header_bytes() - 1)
    changes = data.draw(st.dictionaries(places, st.integers(1, 255), min_size=1, max_size=3))
    answer = attacher.attach_to(flipped(attacher.pristine, changes), f"flipped {changes}")
    assert answer


@pytest.mark.slow
@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_each_byte_flipped(attacher: Attacher, mask: int) -> None:
    refused = 0
    for offset in range(header_bytes()):
        answer = attacher.attach_to(flipped(attacher.pristine, {offset: mask}), f"byte {offset} ^ {mask:#x}")
        refused += answer != "works"
    assert refused > 300  # the magic, the hash, the sizes and the regions at the least


def test_a_region_that_a_header_moves_after_the_attach_is_refused() -> None:
    with Arena.create(size="8MiB") as arena:
        region = arena.header.regions[arena.core.lib.REGION_CACHE_CPUS]
        sound = region.offset
        for wild in (1 << 63, arena.size_bytes - 64):
            region.offset = wild
            with pytest.raises(HostileArena, match="cache_cpus"):
                arena.region("cache_cpus")
        region.offset = sound
        assert arena.region("cache_cpus").shape == (4, 64)
