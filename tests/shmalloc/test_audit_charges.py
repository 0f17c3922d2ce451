# SPDX-License-Identifier: MIT
"""The audit of charges: a free object is charged to nobody, wherever it lies; one that is not yet free may be."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rig import Rig

from shmalloc.audit import audit
from shmalloc.audit.report import AuditReport

SIZE = 1024
ACCOUNT = "GFP_KERNEL|__GFP_ACCOUNT"


@pytest.fixture(params=["6.18", "7.0"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    with Rig.create(max_memcgs=4, kernel=request.param) as made:
        made.cpu.memcg_enter(made.cpu.memcg_create("group"))
        yield made


def _entry(rig: Rig, offset: int) -> int:
    """Return where an object's place in its slab's vector is, as an index of 64-bit words."""
    page = rig.page_of(offset)
    cache = rig.arena.item("struct kmem_cache", "caches", page.slab_cache - 1)
    memory = rig.arena.header.regions[rig.lib.REGION_MEMORY].offset
    pfn = (rig.offset_of(page[0]) - rig.arena.header.regions[rig.lib.REGION_PAGES].offset) // 64
    number = (offset - memory - pfn * rig.lib.SHM_PAGE_SIZE) // cache.size
    vector = int(page.obj_exts) & ~int(rig.lib.OBJEXTS_FLAGS_MASK)
    assert vector
    return vector // 8 + int(number)


def _charges(rig: Rig, offset: int, memcg: int) -> AuditReport:
    """Say in a slab's vector that an object is charged, look, and take it back."""
    words, at = memoryview(rig.arena.buffer).cast("Q"), _entry(rig, offset)
    before, words[at] = words[at], memcg
    report = audit(rig.arena, expect_live=True)
    words[at] = before
    return report


def _says_so(report: AuditReport, offset: int) -> bool:
    wanted = f"object {offset:#x} is free, and its slab's vector names memcg 1"
    return any(wanted in problem.text for problem in report.problems)


def test_what_was_freed_is_charged_to_nobody(rig: Rig) -> None:
    held = [rig.cpu.kmalloc(SIZE, ACCOUNT) for _ in range(40)]
    free, live = held[::2], held[1::2]
    for offset in free:
        rig.cpu.kfree(offset)
    assert audit(rig.arena, expect_live=True).ok
    for offset in free[:3] + free[-3:]:
        report = _charges(rig, offset, 1)
        assert report.verdict == "corruption"
        assert _says_so(report, offset)
    assert not any(_says_so(_charges(rig, offset, 1), offset) for offset in live)
    for offset in live:
        rig.cpu.kfree(offset)


def test_neither_is_what_is_deferred() -> None:
    with Rig.create(max_memcgs=4) as rig:
        rig.cpu.memcg_enter(rig.cpu.memcg_create("group"))
        held = [rig.cpu.kmalloc(SIZE, ACCOUNT) for _ in range(40)]
        with rig.cpu.irq_save():  # then irq_work waits
            rig.cpu.kfree_nolock(held[0])
            assert rig.counters()["defer_free"] == 1
            assert not any("is free, and" in problem.text for problem in rig.report().problems)
            assert _says_so(_charges(rig, held[0], 1), held[0])
        assert audit(rig.arena, expect_live=True).ok
        for offset in held[1:]:
            rig.cpu.kfree(offset)


def test_what_waits_for_a_grace_period_still_is(rig: Rig) -> None:
    held = [rig.cpu.kmalloc(SIZE, ACCOUNT) for _ in range(9)]
    for offset in held:
        rig.cpu.kfree_rcu(offset, 0)
    report = audit(rig.arena, expect_live=True)
    assert report.ok, report.problems
    rig.cpu.flush_all()  # 7.0: a sheaf that is not full waits for more
    rig.cpu.rcu_barrier()
    assert audit(rig.arena, expect_live=True).ok
    assert _says_so(_charges(rig, held[0], 1), held[0])
