# SPDX-License-Identifier: MIT
"""Operations above the slabs: paths, what is chosen for which design, start states."""

import numpy as np
import pytest

from harness.atlas import scenario
from harness.atlas.classes import classes
from harness.atlas.handlers import HANDLERS, MAP_KEY
from harness.atlas.image import CoreImage
from harness.atlas.operations import all_operations
from harness.atlas.operations.bpf import HIGH, LOW, UNIT, have, list_of
from harness.atlas.operations.maps import ENTRIES, bucket, map_of, neighbours
from harness.atlas.operations.pools import free_objects, own_objects
from harness.atlas.operations.sheaves import SHEAF, barn_of
from harness.atlas.outcomes import decode
from harness.atlas.scenario import Selection
from harness.atlas.subsets import CHOICES, SUBSETS
from harness.atlas.sweeper import Sweeper
from shmalloc import designs

FULL = ("kmalloc", "kmalloc_nolock")
EVERY_KIND = Selection(kinds=("nmi", "irq"))


# --- what is crossed with what ----------------------------------------------------------------------


def test_every_design_has_scenarios_and_every_operation_is_in_one() -> None:
    used = {
        each.operation.name for design in designs.names() for each in scenario.scenarios(design, EVERY_KIND)
    }
    assert used == set(all_operations())
    assert all(scenario.scenarios(design) for design in designs.names())


def test_every_choice_says_why_names_what_there_is_and_chooses_something() -> None:
    for choice in CHOICES:
        assert choice.why and choice.design not in FULL
        assert {name.partition(":")[0] for name in choice.handlers} <= set(HANDLERS)
        assert {name.partition(":")[2] for name in choice.handlers} <= {"", "nmi", "irq"}
        assert choice.handlers in SUBSETS[choice.design].values()


def test_a_handler_listed_for_one_kind_comes_as_that_alone() -> None:
    kinds = {
        (each.handler.name, each.kind)
        for each in scenario.scenarios("no_prealloc", EVERY_KIND)
        if each.operation.name == "free_call_rcu"
    }
    assert ("free_own", "irq") in kinds and ("free_own", "nmi") not in kinds
    assert {("alloc_same", "nmi"), ("alloc_same", "irq")} <= kinds


# --- start states -----------------------------------------------------------------------------------


@pytest.mark.parametrize("handler", ["alloc_same", "free_own"])
def test_a_list_of_bpf_mem_alloc_has_as_many_objects_as_wanted(handler: str) -> None:
    with scenario.find("bpf_mem_alloc", f"bpf_refill@bpf_mem_alloc/{handler}").build() as built:
        stage, row = built.staging, list_of(built.staging, UNIT)
        assert (row.low_watermark, row.high_watermark, row.free_cnt) == (LOW, HIGH, LOW - 1)
        for count in (LOW, HIGH, LOW + 1):
            have(stage, count)
            assert row.free_cnt == count
            assert not row.refill_work.flags


def test_the_own_part_of_a_pool_is_empty_then_all_of_it() -> None:
    for design, prefix in (("prealloc", "pool"), ("objpool", "objpool")):
        with scenario.find(design, f"{prefix}_steal@{design}/free_remote").build() as built:
            assert own_objects(built.staging) == 0 < free_objects(built.staging)
        with scenario.find(design, f"{prefix}_empty@{design}/free_own").build() as built:
            assert free_objects(built.staging) == 0


def test_keys_of_one_bucket() -> None:
    with scenario.find("prealloc", "map_update_full@prealloc/map_update").build() as built:
        stage = built.staging
        found = neighbours(stage, 3)
        assert len({bucket(stage, key) for key in (*found, MAP_KEY)}) == 1 and MAP_KEY not in found
        assert len(map_of(stage)) == ENTRIES
        assert map_of(stage).lookup(MAP_KEY) is not None


def test_full_sheaves_fill_the_barn() -> None:
    with scenario.find("sheaves", "sheaf_free_flush@sheaves/free_own").build() as built:
        assert barn_of(built.staging).nr_full == 10
        row = built.arena.item("struct kmem_cache", "caches", int(built.staging.cache().index))
        assert row.sheaf_capacity == SHEAF


@pytest.mark.parametrize(
    ("name", "counter"),
    [
        ("pool_push_busy@prealloc/alloc_same", "freelist_strays"),
        ("map_update_busy@prealloc/map_update", "map_etimedout"),
    ],
)
def test_a_lock_that_is_held_is_let_go_of(name: str, counter: str) -> None:
    with scenario.find("prealloc", name).build() as built:
        built.staging.release()
        before = built.counters()
        built.call.run(built.arena.core)
        assert built.counters()[counter] == before[counter]


def test_an_empty_list_of_bpf_mem_alloc_always_tells_of_its_refill() -> None:
    """An NMI has taken everything before the task gets to the list; the refill runs before the task hears of it."""
    name = "bpf_alloc@bpf_mem_alloc/burst"
    with scenario.find("bpf_mem_alloc", name).build() as built:
        image = CoreImage.of(built.arena.core)
        with Sweeper(built.arena, image, classes=classes(built), watched=built.watched) as sweeper:
            sweeper.snapshot()
            trace = sweeper.record(built.call)
            rows = sweeper.sweep(built.call, trace, np.arange(len(trace)))
            found = {decode(built, sweeper, row).operation for row in rows if not row["value"]}
    assert found == {"null:refill_lag"}
