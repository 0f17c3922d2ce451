# SPDX-License-Identifier: MIT
"""Stocks and counters of memcgs against the model in tests/models/memcg.py; and what the audit finds missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import memcg as model

from shmalloc import AllocationFailed, Arena, Cpu
from shmalloc.audit import audit

NAMES = ("top", "left", "right", *(f"g{number}" for number in range(6)))
SLOT_OF = {8: 8, 100: 128, 1000: 1024, 4096: 4096, 8000: 8192}
LIMITS = {"top": 150, "g0": 3}

actions = st.one_of(
    st.tuples(st.just("alloc"), st.sampled_from(NAMES), st.sampled_from([*SLOT_OF]), st.booleans()),
    st.tuples(st.just("pages"), st.sampled_from(NAMES), st.sampled_from([0, 1, 3]), st.booleans()),
    st.tuples(st.just("free"), st.integers(0, 30), st.booleans(), st.booleans()),
    st.tuples(st.just("drain"), st.just(0), st.just(0), st.just(0)),
)


class Pair:
    """The core and the model, doing the same."""

    def __init__(self, arena: Arena, cpu: Cpu) -> None:
        self.arena, self.cpu, self.model_cpu = arena, cpu, model.Cpu()
        self.groups: dict[str, tuple[Any, model.Group]] = {}
        self.held: list[tuple[int, str, int | None, int]] = []
        for name in NAMES:
            above = self.groups["top"] if name in ("left", "right") else (None, None)
            limit = LIMITS.get(name)
            made = cpu.memcg_create(name, above[0], max_bytes=None if limit is None else limit * model.PAGE)
            mine = model.Group(name, above[1])
            if limit is not None:
                mine.limit = limit
            self.groups[name] = (made, mine)

    def alloc(self, name: str, size: int, nolock: bool) -> None:
        group, mine = self.groups[name]
        with self.cpu.memcg_active(group):
            if nolock:
                offset = self._try(lambda: self.cpu.kmalloc_nolock(size, "__GFP_ACCOUNT"))
            else:
                offset = self._try(lambda: self.cpu.kmalloc(size, "GFP_NOWAIT|__GFP_ACCOUNT"))
        assert bool(offset) == self.model_cpu.charge_object(mine, SLOT_OF[size] + 8, nolock=nolock)
        if offset:
            self.held.append((offset, name, None, SLOT_OF[size] + 8))

    def pages(self, name: str, order: int, nolock: bool) -> None:
        group, mine = self.groups[name]
        with self.cpu.memcg_active(group):
            if nolock:
                offset = self._try(lambda: self.cpu.alloc_pages_nolock(order, "__GFP_ACCOUNT"))
            else:
                offset = self._try(lambda: self.cpu.alloc_pages(order, "GFP_NOWAIT|__GFP_ACCOUNT"))
        assert bool(offset) == self.model_cpu.charge_pages(mine, 1 << order, nolock=nolock)
        if offset:
            self.held.append((offset, name, order, 1 << order))

    @staticmethod
    def _try(call: Any) -> int:
        try:
            return int(call())
        except AllocationFailed as failed:
            if failed.reason != "memcg_limit":
                raise
            return 0

    def free(self, which: int, nolock: bool, _: bool) -> None:
        if not self.held:
            return
        offset, name, order, amount = self.held.pop(which % len(self.held))
        mine = self.groups[name][1]
        if order is None:
            (self.cpu.kfree_nolock if nolock else self.cpu.kfree)(offset)
            self.model_cpu.free_object(mine, amount, nolock=nolock)
        else:
            (self.cpu.free_pages_nolock if nolock else self.cpu.free_pages)(offset, order)
            self.model_cpu.refill(mine, amount)

    def drain(self, *_: int) -> None:
        self.cpu.memcg_drain()
        self.model_cpu.drain()

    def compare(self) -> None:
        stocks = self.cpu.memcg_stocks()
        names = {made.id: name for name, (made, _) in self.groups.items()}
        assert {names[at]: pages for at, pages in stocks.pages.items()} == {
            held[0].name: held[1] for held in self.model_cpu.slots if held
        }
        owner = self.model_cpu.owner
        assert (names.get(stocks.objcg), stocks.nr_bytes) == (
            owner.name if owner else None,
            self.model_cpu.rest,
        )
        for made, mine in self.groups.values():
            assert (made.usage_pages, made.pending_bytes) == (mine.usage, mine.pending), mine.name


@settings(max_examples=30, deadline=None)
@given(st.lists(actions, max_size=60))
def test_the_core_does_what_the_model_does(script: list[tuple[Any, ...]]) -> None:
    with (
        Arena.create(size="8MiB", nr_cpus=1, pageblock_order=5) as arena,
        Cpu(arena, 0, handlers=False) as cpu,
    ):
        pair = Pair(arena, cpu)
        for action, *arguments in script:
            getattr(pair, action)(*arguments)
            pair.compare()
        report = audit(arena)
        assert report.ok, report.problems
        while pair.held:
            pair.free(0, False, False)
        pair.drain()
        pair.compare()
        assert all(made.usage_pages == made.kmem_pages == 0 for made, _ in pair.groups.values())


# --- the audit -------------------------------------------------------------------------------------


@pytest.fixture
def charged() -> Iterator[tuple[Arena, Cpu]]:
    """Charges of every kind: objects, a block, both stocks, pending bytes."""
    with (
        Arena.create(size="8MiB", nr_cpus=2, pageblock_order=5) as arena,
        Cpu(arena, 0, handlers=False) as cpu,
    ):
        top = cpu.memcg_create("top")
        cpu.memcg_enter(cpu.memcg_create("below", top))
        cpu.kmalloc(100, "GFP_KERNEL|__GFP_ACCOUNT")
        cpu.memcg_drain()
        cpu.kmalloc(1000, "GFP_KERNEL|__GFP_ACCOUNT")
        cpu.alloc_pages(1, "GFP_KERNEL|__GFP_ACCOUNT")
        assert audit(arena).ok
        yield arena, cpu
        cpu.memcg_enter(None)


def lose_usage(arena: Arena) -> None:
    arena.region("memcgs")["memory"]["usage"][0] += 1


def lose_stocked_pages(arena: Arena) -> None:
    arena.region("memcg_cpus")["stock"]["nr_pages"][0][0] -= 1


def lose_bytes(arena: Arena) -> None:
    arena.region("memcg_cpus")["obj"]["nr_bytes"][0] -= 8


def lose_an_object(arena: Arena) -> None:
    pages = arena.region("pages")
    flags = arena.core.lib.OBJEXTS_FLAGS_MASK
    vector = next(int(word) & ~flags for word in pages["obj_exts"] if int(word) & ~flags and int(word) & 1)
    words = memoryview(arena.buffer)[vector : vector + 16 * 8].cast("Q")
    at = next(number for number, word in enumerate(words) if word)
    words[at] = 0


def lose_a_block(arena: Arena) -> None:
    pages = arena.region("pages")["obj_exts"]
    pages[next(pfn for pfn, word in enumerate(pages) if int(word) & arena.core.lib.MEMCG_DATA_KMEM)] = 0


def lose_statistics(arena: Arena) -> None:
    arena.region("memcg_cpus")["obj"]["slab_bytes"][0][1] += 8


def lose_a_reference(arena: Arena) -> None:
    arena.region("memcgs")["objcg_refs"][1] += 1


@pytest.mark.parametrize(
    ("damage", "verdict", "says"),
    [
        (lose_usage, "lost_memory", "usage is"),
        (lose_stocked_pages, "lost_memory", "usage is"),
        (lose_bytes, "lost_memory", "more than whole pages"),
        (lose_an_object, "lost_memory", "more than whole pages"),
        (lose_a_block, "lost_memory", "usage is"),
        (lose_statistics, "corruption", "slab_unreclaimable of node 0 is"),
        (lose_a_reference, "corruption", "references"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_audit_finds_what_is_lost(
    charged: tuple[Arena, Cpu], damage: Any, verdict: str, says: str
) -> None:
    damage(charged[0])
    problems = audit(charged[0]).problems
    assert any(problem.verdict == verdict and says in problem.text for problem in problems), problems
