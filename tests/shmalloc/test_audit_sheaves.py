# SPDX-License-Identifier: MIT
"""The audit of sheaves: silent on what the core does, and sees what is lost, doubled or miscounted there."""

from collections.abc import Callable

import pytest
from rig import Rig
from windows import SHEAF, SHEAVES

from shmalloc.backlog import deferred
from shmalloc.sheaves import sheaves

OBJECTS = 4  # words of a sheaf's header


def words(rig: Rig, offset: int) -> memoryview:
    return memoryview(rig.arena.buffer)[offset : offset + 8 * (OBJECTS + SHEAF)].cast("Q")


def forget_an_object(rig: Rig) -> None:
    rig.sheaf(rig.sheaves().main).size -= 1


def double_an_object(rig: Rig) -> None:
    main = words(rig, rig.sheaves().main)
    main[OBJECTS] = main[OBJECTS + 1]


def take_a_live_object(rig: Rig) -> None:
    words(rig, rig.sheaves().main)[OBJECTS] = next(iter(rig.held))


def forget_the_spare(rig: Rig) -> None:
    rig.sheaves().spare = 0


def one_sheaf_in_two_places(rig: Rig) -> None:
    rig.sheaves().spare = rig.sheaves().main


def miscount_the_barn(rig: Rig) -> None:
    rig.barn().nr_full += 1


def cut_the_barn(rig: Rig) -> None:
    rig.barn().sheaves_full.next = rig.offset_of(rig.barn().sheaves_full)


def wrong_cache(rig: Rig) -> None:
    rig.sheaf(rig.sheaves().main).cache += 1


def no_main(rig: Rig) -> None:
    rig.sheaves().main = 0


def locked(rig: Rig) -> None:
    rig.sheaves().lock.word = 1


def filled_bootstrap(rig: Rig) -> None:
    rig.arena.header.bootstrap_sheaf.size = 1


DAMAGE: dict[Callable[[Rig], None], tuple[str, str]] = {
    forget_an_object: ("lost_memory", "neither free nor owned"),
    double_an_object: ("corruption", "is in these sheaves twice"),
    take_a_live_object: ("corruption", "owned"),
    forget_the_spare: ("lost_memory", "neither free nor owned"),
    one_sheaf_in_two_places: ("corruption", "two places"),
    miscount_the_barn: ("corruption", "nr_full is 3, counted are 2"),
    cut_the_barn: ("corruption", "nr_full is 2, counted are 0"),
    wrong_cache: ("corruption", "is a sheaf of"),
    no_main: ("corruption", "its main sheaf is 0x0"),
    locked: ("broken_rule", "lock never released: sheaves"),
    filled_bootstrap: ("corruption", "no cache may put anything there"),
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda function: function.__name__)
def test_damage_is_seen(damage: Callable[[Rig], None]) -> None:
    verdict, text = DAMAGE[damage]
    with Rig.create(**SHEAVES) as rig:
        taken = rig.take(5 * SHEAF)
        for offset in taken[SHEAF:]:
            rig.free(offset)
        assert rig.barn().nr_full == 2
        rig.assert_clean()
        damage(rig)
        report = rig.report()
        assert verdict in {problem.verdict for problem in report.problems}
        assert any(text in f"{problem.where} {problem.text}" for problem in report.problems), report.problems


def test_sheaves_are_shown() -> None:
    with Rig.create(**SHEAVES) as rig:
        for offset in rig.take(5 * SHEAF):
            rig.free(offset)
        lines = [line.split() for line in sheaves(rig.arena).splitlines()]
        assert lines[0] == ["cache", "capacity", "where", "main", "spare", "rcu", "full", "empty"]
        assert ["kmalloc-1k", "12", "cpu0", "12", "12", "-"] in lines
        assert ["kmalloc-1k", "12", "node0", "3", "0"] in lines
        rig.settle()


def test_a_618_arena_has_none_to_show() -> None:
    with Rig.create() as rig:
        assert "6.18" in sheaves(rig.arena)


def test_deferred_sheaves_and_objects_are_shown() -> None:
    with Rig.create(nr_nodes=2, **SHEAVES) as rig:
        near, far = rig.take(SHEAF, node=0), rig.take(3, node=1)
        rig.held.clear()
        rig.cpu.kfree_rcu(near[0])
        rig.lib.shm_irq_save()
        for offset in [*near[1:], *far]:
            rig.cpu.kfree_rcu_nolock(offset)
        header, first = (line.split() for line in deferred(rig.arena).splitlines()[:2])
        shown = dict(zip(header, first, strict=True))
        assert (shown["rcu_sheaves"], shown["by_rcu"]) == ("1", "3")
        assert {problem.verdict for problem in rig.report().problems} == {"broken_rule"}  # irqs are off
        assert rig.report(expect_live=False).verdict == "lost_memory"  # it should have been freed by now
        rig.lib.shm_irq_restore(0)
        rig.settle()
