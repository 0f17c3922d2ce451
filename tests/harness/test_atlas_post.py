# SPDX-License-Identifier: MIT
"""The check of post-states: silent where nothing is wrong, and it sees what is."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from atlas_runs import Runs

from harness.atlas import post, scenario
from harness.atlas.post import Verdict
from shmalloc.faults import FaultAttr


@contextmanager
def runs(name: str, design: str = "kmalloc_nolock") -> Iterator[Runs]:
    with scenario.find(design, name).build() as built:
        yield Runs(built)


@pytest.mark.parametrize("handler", ["alloc_same", "aba", "free_remote", "pages", "burst", "map_update"])
@pytest.mark.parametrize(
    "operation", ["alloc_fastpath@kmalloc", "alloc_refill@kmalloc_nolock", "alloc_fastpath_irq@kmalloc"]
)
def test_sound_states(operation: str, handler: str) -> None:
    with runs(f"{operation}/{handler}") as of:
        for row in (
            of.run(of.built.call),
            of.interrupted(),
            of.interrupted(lambda: [of.built.staging.cpu_slab().lock]),
        ):
            assert post.check_state(of.built, of, row["state"]) == Verdict("ok")
            assert np.array_equal(of.now(), of.start)


def test_what_is_pending_is_served() -> None:
    with runs("alloc_fastpath@kmalloc/free_remote") as of:
        cpu = of.built.staging.cpus[0]

        def defer_and_leave() -> None:
            of.lib.shm_irq_save()
            cpu.interrupt("nmi")
            of.built.arena.item("struct shm_cpu", "cpus", 0).irqs_disabled = 0

        state = of.add(defer_and_leave)
        of.load_state(state)
        assert of.built.arena.item("struct shm_cpu", "cpus", 0).defer_objects.first
        of.restore()
        assert post.check_state(of.built, of, state) == Verdict("ok")


# --- negative controls -----------------------------------------------------------------------------


def flip_a_freelist(of: Runs) -> None:
    of.built.staging.cpu_slab().freelist ^= 64


def cut_a_freelist(of: Runs) -> None:
    of.built.staging.cpu_slab().freelist = 0


def lose_a_page(of: Runs) -> None:
    offset = of.built.staging.pages(0)
    of.built.staging.page(offset).flags = 0
    of.built.staging.held.clear()


def forget(of: Runs, offset: int, bytes_: int) -> None:
    """Have the oracle forget an object."""
    granule = (offset - int(of.built.arena.header.regions[of.lib.REGION_MEMORY].offset)) >> 3
    granules = bytes_ >> 3
    for region, first, count in (
        ("oracle_owned", granule, granules),
        ("oracle_start", granule, 1),
        ("oracle_end", granule + granules - 1, 1),
    ):
        bits = np.unpackbits(of.built.arena.region(region).view(np.uint8), bitorder="little")
        bits[first : first + count] = 0
        of.built.arena.region(region).view(np.uint8)[:] = np.packbits(bits, bitorder="little")


def forget_an_owner(of: Runs) -> None:
    """The object stays allocated, and nobody has it."""
    forget(of, of.built.staging.alloc(), 1024)


def hold_a_lock(of: Runs) -> None:
    of.built.staging.cache_node().list_lock.word = 1


def hold_a_zone(of: Runs) -> None:
    of.built.staging.zone().lock.word = 2


def leave_irqs_off(of: Runs) -> None:
    of.built.arena.item("struct shm_cpu", "cpus", 0).irqs_disabled = 1


def miscount(of: Runs) -> None:
    of.built.staging.pageset().count += 1


def refuse_everything(of: Runs) -> None:
    always = FaultAttr(probability=100, times=-1, min_order=0)
    of.built.arena.failslab(always)
    of.built.arena.fail_page_alloc(always)


def drop_deferred_objects(of: Runs) -> None:
    cpu = of.built.arena.item("struct shm_cpu", "cpus", 0)
    of.lib.shm_irq_save()
    of.built.staging.cpus[0].interrupt("nmi")
    assert cpu.defer_objects.first
    cpu.defer_objects.first = 0
    cpu.irqs_disabled = 0


@pytest.mark.parametrize(
    ("damage", "verdict", "text"),
    [
        (flip_a_freelist, "corruption", "no object of it"),
        (cut_a_freelist, "lost_memory", "neither free nor owned"),
        (lose_a_page, "corruption", "page"),
        (forget_an_owner, "lost_memory", "neither free nor owned"),
        (hold_a_lock, "broken_rule", "lock never released: list_lock, CPU 0"),
        (hold_a_zone, "broken_rule", "lock never released: zone, CPU 1"),
        (leave_irqs_off, "broken_rule", "local_irq_save without its restore"),
        (miscount, "corruption", "count is"),
        (drop_deferred_objects, "lost_memory", "neither free nor owned"),
        (refuse_everything, "lost_memory", "CPU 1 is refused everything, and "),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_damage_is_seen(damage: Callable[[Runs], None], verdict: str, text: str) -> None:
    with runs("alloc_fastpath@kmalloc/free_remote") as of:
        found = post.check_state(of.built, of, of.add(lambda: damage(of)))
        assert found.verdict == verdict, found
        assert text in found.text
        assert np.array_equal(of.now(), of.start)
        assert post.check_state(of.built, of, of.interrupted()["state"]) == Verdict("ok")


def test_memory_that_does_not_come_back() -> None:
    """A page that an allocator keeps for itself, with its papers in order: only the comparison sees it."""
    with runs("alloc_fastpath@kmalloc/alloc_same") as of:

        def keep_a_page() -> None:
            offset = of.built.staging.pages(0)
            of.built.staging.held.clear()
            of.built.arena.item("struct shm_pool", "pools", 0).area.blocks[0].offset = offset
            of.built.arena.item("struct shm_pool", "pools", 0).area.nr_blocks = 1
            forget(of, offset, 4096)

        found = post.check_state(of.built, of, of.add(keep_a_page))
        assert found.verdict == "lost_memory"
        assert "everything freed" in found.text


def test_a_start_state_that_is_wrong_is_the_scenarios_fault() -> None:
    with scenario.find("kmalloc_nolock", "alloc_fastpath@kmalloc/alloc_same").build() as built:
        built.staging.cpu_slab().freelist ^= 64
        of = Runs(built)
        with pytest.raises(ValueError, match="the start state: corruption"):
            post.check_state(built, of, of.add(lambda: None))


# --- whole sweeps, in a process of its own ---------------------------------------------------------

CHILD = r"""
import json, sys
import numpy as np
from shmalloc import _binding

broken, *names = sys.argv[1:]
_binding.core("release", broken)

from harness.atlas import classes, outcomes, post, scenario
from harness.atlas.image import CoreImage
from harness.atlas.sweeper import Sweeper

def swept(name):
    with scenario.find("kmalloc_nolock", name).build(broken) as built:
        image = CoreImage.of(built.arena.core)
        with Sweeper(built.arena, image, classes=classes.classes(built), watched=built.watched) as sweeper:
            sweeper.snapshot()
            trace = sweeper.record(built.call)
            points = np.arange(len(trace))
            first, second = (sweeper.sweep(built.call, trace, points) for _ in range(2))
            same = all(np.array_equal(first[key], second[key]) for key in ("end", "value", "state", "outcome"))
            rows = {tuple(row[["end", "state", "outcome", "value"]].tolist()): row for row in first}
            decoded = [outcomes.decode(built, sweeper, row) for row in rows.values()]
            found = {each.name for each in decoded}
            sound = {int(row["state"]) for row, each in zip(rows.values(), decoded) if each.verdict == "ok"}
            states = {post.check_state(built, sweeper, state).verdict for state in sound}
            return {"same": same, "found": sorted(found), "states": sorted(states)}

print(json.dumps({name: swept(name) for name in names}))
"""


def sweeps(broken: str, *names: str) -> dict[str, dict]:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, broken, *names], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_state_of_a_sweep_is_sound() -> None:
    found = sweeps(
        "none",
        "alloc_refill@kmalloc/alloc_same",
        "alloc_refill_irq@kmalloc/aba",
        "free_full@kmalloc/free_own",
    )
    for each in found.values():
        assert each["same"]
        assert each["states"] == ["ok"]
        assert set(each["found"]) <= {"ok", "other_bucket", "deferred"}
    assert found["alloc_refill@kmalloc/alloc_same"]["found"] == ["ok", "other_bucket"]


@pytest.mark.parametrize(
    ("broken", "name", "verdicts"),
    [
        ("no_tid", "alloc_fastpath@kmalloc/aba", {"corruption", "lost_memory"}),
        ("k06", "alloc_fastpath@kmalloc/free_remote", {"lost_memory"}),
        ("k42", "alloc_refill@kmalloc/free_own", {"lost_memory"}),
        ("double_free", "alloc_fastpath@kmalloc/free_remote", {"corruption"}),
    ],
)
def test_a_broken_variant_is_seen(broken: str, name: str, verdicts: set[str]) -> None:
    found = sweeps(broken, name)[name]
    assert verdicts & {*found["found"], *found["states"]}, found
