# SPDX-License-Identifier: MIT
"""What lies in objects: freelists shuffled or mangled, zeroes, constructors, and what krealloc keeps."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models.page_state import ArenaPages
from models.sizing import kmalloc_size
from models.slab_state import ArenaCache

from shmalloc import Arena, Cpu
from shmalloc.cache import KmemCache
from shmalloc.errors import AllocationFailed

PAGE = 4096
WORD = 8


@dataclass(frozen=True)
class Bench:
    """An arena, its first CPU, and eyes for its pages."""

    arena: Arena
    cpu: Cpu
    pages: ArenaPages

    def eyes(self, cache: KmemCache) -> ArenaCache:
        """Look at a cache."""
        return ArenaCache(self.arena, cache.index, self.pages)

    def raw(self, offset: int, size: int) -> bytes:
        """Read memory, whoever owns it."""
        return bytes(self.arena.buffer[offset : offset + size])

    def word(self, offset: int) -> int:
        """Read a 64-bit word of memory."""
        return int.from_bytes(self.raw(offset, WORD), "little")


@contextmanager
def bench(**keys: Any) -> Iterator[Bench]:
    """Make an arena of 8 MiB."""
    with Arena.create(size="8MiB", pageblock_order=4, **keys) as arena, Cpu(arena, 0, handlers=False) as cpu:
        yield Bench(arena, cpu, ArenaPages(arena))


@pytest.fixture
def plain(flavour: str) -> Iterator[Bench]:
    with bench(flavour=flavour) as use:
        yield use


@pytest.fixture
def shuffled(flavour: str) -> Iterator[Bench]:
    with bench(flavour=flavour, freelist_random=True, seed=7) as use:
        yield use


@pytest.fixture
def hardened(flavour: str) -> Iterator[Bench]:
    with bench(flavour=flavour, freelist_hardened=True, seed=7) as use:
        yield use


def fresh_slab(use: Bench, cache: KmemCache) -> tuple[int, list[int]]:
    """Take a slab whole.  Returns: its first page, and its slots in the order they were handed out."""
    eyes = use.eyes(cache)
    things = [eyes.object_at(cache.alloc())]
    objects = use.pages.page(things[0][0]).counters >> 16 & 0x7FFF
    things += [eyes.object_at(cache.alloc()) for _ in range(objects - 1)]
    assert {pfn for pfn, _ in things} == {things[0][0]}
    return things[0][0], [slot for _, slot in things]


def rotation(slots: list[int], sequence: list[int]) -> int | None:
    """Say from where on a sequence was walked, going round; None if it was not."""
    start = sequence.index(slots[0])
    return start if slots == sequence[start:] + sequence[:start] else None


# --- freelist randomisation -----------------------------------------------------------------------


def sequences(use: Bench) -> dict[str, list[int]]:
    """Map the name of each cache to its random sequence."""
    return {
        row["name"].decode(): [int(slot) for slot in row["random_seq"][: int(row["oo"]) & 0xFFFF]]
        for row in use.arena.region("caches")[: use.arena.header.nr_caches]
    }


def test_sequences_are_permutations_of_their_own(shuffled: Bench) -> None:
    found = sequences(shuffled)
    assert all(sorted(sequence) == list(range(len(sequence))) for sequence in found.values())
    long = [tuple(sequence) for sequence in found.values() if len(sequence) > 8]
    assert len(long) > 20 and len(set(long)) == len(long)
    assert all(list(sequence) != sorted(sequence) for sequence in long)


def test_the_seed_chooses_the_sequences(shuffled: Bench) -> None:
    first = sequences(shuffled)
    shuffled.arena.deactivate()
    for seed, same in ((7, True), (8, False)):
        with bench(flavour=shuffled.arena.flavour, freelist_random=True, seed=seed) as other:
            assert (sequences(other) == first) == same


@pytest.mark.parametrize("name", ["kmalloc-8", "kmalloc-96", "kmalloc-512", "kmalloc-4k"])
def test_slabs_walk_the_sequence_from_somewhere(shuffled: Bench, name: str) -> None:
    cache, sequence = shuffled.cpu.cache(name), sequences(shuffled)[name]
    starts = [rotation(fresh_slab(shuffled, cache)[1], sequence) for _ in range(7)]
    assert None not in starts and len(set(starts)) > 1


def test_no_randomisation_no_shuffle(plain: Bench) -> None:
    for name in ("kmalloc-8", "kmalloc-512"):
        _, slots = fresh_slab(plain, plain.cpu.cache(name))
        assert slots == list(range(len(slots)))


def fragment(use: Bench) -> None:
    """Leave single pages only."""
    pages = []
    while True:
        try:
            pages.append(use.cpu.alloc_pages(0, "GFP_KERNEL|__GFP_MEMALLOC"))
        except AllocationFailed:
            break
    for page in sorted(pages)[::2]:
        use.cpu.free_pages(page)
    use.cpu.drain_pages()


def test_smaller_slab_skips_what_lies_beyond_it(shuffled: Bench) -> None:
    cache = shuffled.cpu.cache("kmalloc-192")
    wide = shuffled.cpu.kmem_cache_create("wide", 600)
    assert wide.info().order > 0 and cache.info().order == 0
    fragment(shuffled)
    sequence = sequences(shuffled)["wide"]
    _, slots = fresh_slab(shuffled, wide)
    few = PAGE // 600
    kept = [slot for slot in sequence if slot < few]
    assert sorted(slots) == list(range(few)) and rotation(slots, kept) is not None
    assert shuffled.cpu.counters()["order_fallback"] == 1
    fresh_slab(shuffled, cache)  # fits a page anyway
    assert shuffled.cpu.counters()["order_fallback"] == 1


# --- hardening --------------------------------------------------------------------------------------


def links(use: Bench, cache: KmemCache) -> list[tuple[int, int, int]]:
    """List, for each free object of the cpu slab: where its link is, what is stored, and the next object."""
    eyes, found = use.eyes(cache), []
    cpu_slab = use.arena.region("cache_cpus")[0, cache.index]
    row = use.arena.region("caches")[cache.index]
    chain = [eyes.offset_of(thing) for thing in eyes.chain(int(cpu_slab["freelist"]))]
    for offset, following in zip(chain, [*chain[1:], 0], strict=True):
        at = offset + int(row["offset"])
        found.append((at, use.word(at), following))
    return found


def swapped(word: int) -> int:
    return int.from_bytes(word.to_bytes(WORD, "little"), "big")


def test_links_are_mangled_with_key_and_address(hardened: Bench) -> None:
    keys = {}
    for name in ("kmalloc-32", "kmalloc-64", "kmalloc-1k"):
        cache = hardened.cpu.cache(name)
        hardened.cpu.kfree(cache.alloc())
        key = keys[name] = int(hardened.arena.region("caches")[cache.index]["random"])
        for at, stored, following in links(hardened, cache):
            assert stored == following ^ key ^ swapped(at)
        assert len(links(hardened, cache)) == cache.info().objects
    assert len(set(keys.values())) == len(keys) and 0 not in keys.values()


def test_links_are_plain_without_hardening(plain: Bench) -> None:
    cache = plain.cpu.cache("kmalloc-64")
    plain.cpu.kfree(cache.alloc())
    found = links(plain, cache)
    assert len(found) == 64 and all(stored == following for _, stored, following in found)


@pytest.mark.parametrize("keys", [{}, {"freelist_hardened": True}, {"freelist_random": True}], ids=str)
def test_deferred_objects_come_back(flavour: str, keys: dict[str, bool]) -> None:
    """Their link is no free pointer: hardening must not take it for one."""
    with bench(flavour=flavour, **keys) as use:
        things = [use.cpu.kmalloc_nolock(200) for _ in range(41)]
        for thing in things[:-1]:
            use.cpu.kfree_nolock(thing)
        again = {use.cpu.kmalloc_nolock(200) for _ in range(53)}
        assert len(again | {things[-1]}) == 54
        for thing in (*again, things[-1]):
            use.cpu.kfree(thing)


# --- what a free object keeps -----------------------------------------------------------------------

PATTERN = bytes(range(1, 201))


def scribbled(use: Bench, cache: KmemCache) -> tuple[int, bytes]:
    """Write an object full and free it.  Returns: where it was, and what is there then."""
    other, offset = cache.alloc(), cache.alloc()
    size = cache.info().object_size
    use.cpu.view(offset, size)[:] = PATTERN[:size]
    cache.free(other)
    cache.free(offset)
    return offset, use.raw(offset, size)


@pytest.mark.parametrize("size", [8, 24, 40, 96, 200])
def test_free_object_loses_its_middle(plain: Bench, size: int) -> None:
    cache = plain.cpu.kmem_cache_create("plain", size)
    _, content = scribbled(plain, cache)
    middle = size // 2 // WORD * WORD
    assert content[:middle] == PATTERN[:middle]
    assert content[middle + WORD :] == PATTERN[middle + WORD : size]
    assert content[middle : middle + WORD] != PATTERN[middle : middle + WORD]


@pytest.mark.parametrize("size", [8, 24, 40, 96, 200])
def test_typesafe_object_loses_nothing(plain: Bench, size: int) -> None:
    cache = plain.cpu.kmem_cache_create("typesafe", size, flags="SLAB_TYPESAFE_BY_RCU")
    _, content = scribbled(plain, cache)
    assert content == PATTERN[:size]


@pytest.mark.parametrize("size", [16, 24, 200])
def test_constructed_object_is_as_it_was(plain: Bench, size: int) -> None:
    cache = plain.cpu.kmem_cache_create("constructed", size, ctor=1)
    held = [cache.alloc() for _ in range(23)]
    made = {offset: plain.raw(offset, size) for offset in held}
    assert len(set(made.values())) == len(made), "each object's pattern is its own"
    for offset in held[::2] + held[1::2]:
        plain.cpu.kfree_nolock(offset) if offset % 3 else cache.free(offset)
    assert {offset: plain.raw(offset, size) for offset in held} == made
    again = {offset: plain.raw(offset, size) for offset in (cache.alloc() for _ in range(23))}
    assert set(again) & set(held) and again.items() & made.items() == {
        (offset, made[offset]) for offset in set(again) & set(held)
    }
    assert not plain.arena.violations()


def test_write_after_free_of_a_constructed_object_is_seen(plain: Bench) -> None:
    cache = plain.cpu.kmem_cache_create("constructed", 64, ctor=1)
    offset = cache.alloc()
    cache.free(offset)
    plain.arena.buffer[offset + 3] ^= 1
    cache.alloc()
    assert [(v.verdict, v.checker) for v in plain.arena.violations()] == [("corruption", "ctor")]


# --- zeroes, and krealloc ----------------------------------------------------------------------------


ZEROED = [(size, nolock) for size in (1, 8, 100, 192, 1000, 8192) for nolock in (False, True)]


@pytest.mark.parametrize(("size", "nolock"), [*ZEROED, (8193, False), (20_000, False)])
def test_zeroed(plain: Bench, size: int, nolock: bool) -> None:
    cpu = plain.cpu
    room = cpu.ksize(dirty := cpu.kmalloc(size))
    plain.arena.buffer[dirty : dirty + room] = b"\xff" * room
    cpu.kfree(dirty)
    offset = cpu.kmalloc_nolock(size, "__GFP_ZERO") if nolock else cpu.kmalloc(size, "GFP_KERNEL|__GFP_ZERO")
    assert offset == dirty, "or the test shows nothing"
    assert plain.raw(offset, room) == bytes(room)


def test_not_zeroed_unless_asked(plain: Bench) -> None:
    dirty = plain.cpu.kmalloc(64)
    plain.arena.buffer[dirty : dirty + 64] = b"\xff" * 64
    plain.cpu.kfree(dirty)
    assert plain.cpu.kmalloc(64) == dirty
    assert plain.raw(dirty, 64).count(0xFF) >= 56


def room_of(size: int) -> int:
    """Return the bytes that a request of this size is given."""
    return kmalloc_size(size) if size <= 8192 else PAGE << ((size - 1) // PAGE).bit_length()


SIZES = st.integers(1, 300) | st.integers(1, 9000) | st.integers(8000, 70_000)


@given(sizes=st.lists(SIZES, min_size=2, max_size=12))
@settings(max_examples=40)
def test_krealloc_keeps_the_content(sizes: list[int]) -> None:
    with bench() as use:
        cpu, content, offset, room = use.cpu, b"", 0, 0
        for turn, size in enumerate(sizes):
            before, offset = offset, cpu.krealloc(offset, size)
            assert (offset == before) == (size <= room)
            room = room_of(size) if size > room else room
            assert cpu.ksize(offset) == room
            kept = min(len(content), size)
            assert bytes(cpu.view(offset, size)[:kept]) == content[:kept]
            content = bytes((turn * 37 + i) % 251 for i in range(size))
            cpu.view(offset, size)[:] = content
        assert cpu.krealloc(offset, 0) == use.arena.core.lib.SHM_ZERO_SIZE
        assert not use.arena.core.lib.shm_oracle_is_live(offset)


@given(sizes=st.lists(st.integers(1, 300), min_size=2, max_size=12))
@settings(max_examples=40)
def test_krealloc_zeroes_what_is_new(sizes: list[int]) -> None:
    """As long as each call asks for it: 48, 40, 56 bytes give 16 zeroes at the end, though 8 were written."""
    with bench() as use:
        cpu, offset, before = use.cpu, 0, 0
        for size in sizes:
            offset = cpu.krealloc(offset, size, "GFP_KERNEL|__GFP_ZERO")
            found = bytes(cpu.view(offset, size))
            assert found == b"\xaa" * min(before, size) + bytes(max(size - before, 0))
            cpu.view(offset, size)[:] = b"\xaa" * size
            before = size


def test_krealloc_that_fails_leaves_the_object(plain: Bench) -> None:
    cpu = plain.cpu
    offset = cpu.kmalloc(100)
    cpu.view(offset, 100)[:] = PATTERN[:100]
    with pytest.raises(AllocationFailed, match="size_limit"):
        cpu.krealloc(offset, 1 << 30)
    with pytest.raises(AllocationFailed, match="below_watermark"):
        cpu.krealloc(offset, 1 << 22)
    assert bytes(cpu.view(offset, 100)) == PATTERN[:100]
    cpu.kfree(offset)


def test_nothing_of_no_size(plain: Bench) -> None:
    cpu, nothing = plain.cpu, plain.arena.core.lib.SHM_ZERO_SIZE
    assert cpu.kmalloc(0) == cpu.kmalloc_nolock(0) == cpu.krealloc(0, 0) == nothing
    assert cpu.ksize(nothing) == 0
    for free in (cpu.kfree, cpu.kfree_nolock):
        free(nothing)
        free(0)
    assert cpu.krealloc(nothing, 24) > nothing
