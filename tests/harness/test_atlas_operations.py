# SPDX-License-Identifier: MIT
"""Every operation of the atlas takes the path that it names, after every handler's preparation."""

from collections.abc import Iterator

import numpy as np
import pytest
from _pytest.mark import ParameterSet

from harness.atlas import scenario
from harness.atlas.classes import STATE, classes
from harness.atlas.operations import all_operations
from harness.atlas.scenario import Built, Scenario, ScenarioError, Selection
from shmalloc import designs

CELLS = designs.names()


def cases() -> Iterator[ParameterSet]:
    """Each task's operations with the handlers of one cell; those of the others are slow tests."""
    seen = set()
    for design in CELLS:
        for name in scenario.operation_names(design):
            for task in scenario.tasks(design):
                if task in all_operations()[name].designs:
                    marks = [pytest.mark.slow] if (name, task) in seen else []
                    seen.add((name, task))
                    yield pytest.param(design, name, task, id=f"{design}-{name}@{task}", marks=marks)


def chosen(design: str, operation: str, task: str, *kinds: str) -> list[Scenario]:
    return scenario.scenarios(
        design, Selection(operations=(operation,), task=(task,), kinds=kinds or ("nmi", "irq"))
    )


def run(built: Built) -> dict[str, int]:
    before = built.counters()
    built.call.run(built.arena.core)
    return built.check_path(before, built.counters())


@pytest.mark.parametrize(("design", "operation", "task"), [*cases()])
def test_takes_its_path_after_every_preparation(design: str, operation: str, task: str) -> None:
    prepared = {each.handler.prepare: each for each in chosen(design, operation, task)}
    assert prepared
    for each in prepared.values():
        with each.build() as built:
            run(built)
            assert not built.arena.violations()


def test_a_wrong_path_names_operation_counter_and_both_numbers() -> None:
    with scenario.find("kmalloc", "alloc_fastpath@kmalloc/alloc_same").build() as built:
        before = built.counters()
        with pytest.raises(ScenarioError) as caught:
            built.check_path(before, built.counters(), functions=())
    assert str(caught.value) == (
        "alloc_fastpath@kmalloc/alloc_same does not take its path: alloc_fastpath grew by 0, expected == 1"
    )


def test_names_are_unique_and_found_again() -> None:
    for design in CELLS:
        names = [each.name for each in scenario.scenarios(design, Selection(kinds=("nmi", "irq")))]
        assert len(set(names)) == len(names)
        assert all(scenario.find(design, name).name == name for name in names)


def test_selection_by_patterns() -> None:
    some = Selection(operations=("alloc_f*",), handlers=("aba",), task=("kmalloc",), kinds=("irq",))
    assert [each.name for each in scenario.scenarios("kmalloc_nolock", some)] == [
        "alloc_fastpath@kmalloc/aba:irq"
    ]


def test_the_full_product_for_the_main_designs() -> None:
    for design in ("kmalloc", "kmalloc_nolock"):
        pairs = {(each.operation.name, each.handler.name) for each in scenario.scenarios(design)}
        assert pairs == {
            (operation, handler)
            for operation in scenario.operation_names(design)
            for handler in scenario.everywhere()
        }


def state(each: Scenario) -> tuple[bytes, list[tuple[int, ...]]]:
    """Build it, and return the words of its arena that are state, and its slots."""
    with each.build() as built:
        words = np.frombuffer(bytes(built.arena.buffer), dtype="u4").copy()
        hz = built.arena.core.ffi.offsetof("struct shm_header", "tsc_hz") // 4
        words[hz : hz + 2] = 0  # measured
        return words[classes(built) == STATE].tobytes(), [tuple(slots) for slots in built.watched]


def test_the_same_start_state_every_time() -> None:
    seen = set()
    for design in CELLS:
        for each in scenario.scenarios(design, Selection(kinds=("nmi", "irq"))):
            if each.operation.name not in seen:
                seen.add(each.operation.name)
                assert state(each) == state(each), each.name


GIVES = {  # handler: what it allocates, what it frees
    "alloc_same": (1, 0),
    "aba": (2, 1),
    "alloc_other": (1, 0),
    "free_own": (0, 1),
    "free_remote": (0, 1),
    "alloc_free": (1, 1),
    "pages": (1, 2),
    "map_update": (1, 0),
}


@pytest.mark.parametrize("name", GIVES)
def test_what_a_handler_does(name: str) -> None:
    with scenario.find("kmalloc_nolock", f"alloc_fastpath@kmalloc/{name}").build() as built:
        before = built.counters()
        built.staging.cpus[0].interrupt("nmi")
        after = built.counters()
    grown = {counter: after[counter] - before[counter] for counter in after}
    assert (grown["allocs"], grown["frees"]) == GIVES[name]
    assert grown["map_updates"] == (name == "map_update")
    assert not any(count for counter, count in grown.items() if counter.startswith("null_"))


@pytest.mark.parametrize("operation", ["alloc_fastpath", "alloc_node_partial", "pages_refused"])
def test_a_burst_takes_all_there_is(operation: str) -> None:
    with scenario.find("kmalloc_nolock", f"{operation}@kmalloc/burst").build() as built:
        before = built.counters()
        built.staging.cpus[0].interrupt("nmi")
        after = built.counters()
        assert int(built.staging.zone().free_pages) <= 2 * int(built.staging.zone().wmark[0])
    assert after["null_below_watermark"] > before["null_below_watermark"]


def test_a_second_interrupt_has_slots_and_objects_of_its_own() -> None:
    with scenario.find("kmalloc_nolock", "alloc_refill@kmalloc/free_remote").build(times=2) as built:
        program = built.programs["nmi"]
        assert (program.nr_ops, program.c.per_interrupt) == (2, 1)
        assert len({*program.slots}) == 2
        for expected in (1, 0):
            built.staging.cpus[0].interrupt("nmi")
            assert sum(map(bool, program.slots)) == expected
    with scenario.find("kmalloc_nolock", "alloc_refill@kmalloc/aba").build(times=2) as built:
        program = built.programs["nmi"]
        for expected in (1, 2):
            built.staging.cpus[0].interrupt("nmi")
            assert sum(map(bool, program.slots)) == expected
