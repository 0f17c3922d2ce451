# SPDX-License-Identifier: MIT
"""Waits that can never end are proved, on the spot, and survived: own CPU, ring, dead owner, stall."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from peer import Peer, until
from rig import A_BYTES, B_BYTES, Rig
from windows import OUTER, REACH, SPINNING, node_partial

from shmalloc import AllocationFailed, DeadlockProved, ShmallocError
from shmalloc.symbols import symbols

C_BYTES = 512

# --- an outer context of this very CPU -------------------------------------------------------------


@dataclass(frozen=True)
class Own:
    """A spinning call where this CPU holds the lock that it comes to.

    Attributes: nested: its op.  lock: class of the lock.  text: what is said.  lost: what the nested call has locked
        itself by then, and will never give back.
    """

    site: str
    nested: tuple[str, dict[str, Any]]
    lock: str
    text: str = "an outer context of this CPU holds the lock"
    lost: tuple[str, ...] = ()


MAY_WAIT: dict[str, Any] = {"gfp": "GFP_KERNEL"}
ALLOC_A = ("alloc", MAY_WAIT | {"size": A_BYTES})
PAGES, PAGES_4 = ("pages_alloc", MAY_WAIT), ("pages_alloc", MAY_WAIT | {"order": 4})
AGAIN = "a local lock is taken again by the CPU that holds it"

OWN = (
    Own("list_lock_held", ALLOC_A, "list_lock"),
    Own("list_lock_and_cpu_slab", ALLOC_A, "list_lock"),
    Own("debug_list_lock_held", ALLOC_A, "list_lock"),
    Own("cpu_slab_locked", ALLOC_A, "cpu_slab", AGAIN),
    Own("cpu_slab_editing", ALLOC_A, "cpu_slab", AGAIN),
    Own("zone_locked_bulk", PAGES, "zone"),
    Own("zone_locked_bulk", ALLOC_A, "zone"),
    Own("zone_locked", PAGES, "zone", lost=("lock never released: pcp, CPU 0 took it at level 1",)),
    Own("zone_locked", PAGES_4, "zone"),
    Own("free_zone_locked", PAGES_4, "zone"),
)


@pytest.mark.parametrize(
    ("own", "by"),
    [
        pytest.param(own, by, id=f"{own.site}-{own.nested[0]}-{by}")
        for own in OWN
        for by in ("nmi", "probe")
        if (own.site, by) != ("cpu_slab_editing", "probe")  # no probes there: NOKPROBE
    ],
)
def test_an_outer_context_holds_the_lock(own: Own, by: str) -> None:
    way = REACH[own.site]
    with Rig.create(**way.geometry) as rig:
        operation = OUTER[way.outer](rig, way.given(rig))
        outcome = rig.experiment(own.site, by, operation, rig.program(own.nested, design=SPINNING))
        proved = rig.violations()[-1]
        assert (proved.verdict, proved.checker, proved.text) == ("deadlock", "deadlock", own.text)
        assert (proved.lock_class, proved.cpu, proved.owner_cpu) == (own.lock, 0, 0)
        assert (proved.context, proved.level) == ("nmi" if by == "nmi" else "task", 1)
        assert {v.verdict for v in rig.violations()} <= {"deadlock", "broken_rule"}
        assert rig.arena.header.stop == 2
        # the nested call is given up; what it interrupted ends well, and the lock is free again
        assert outcome.outer not in ("deadlock", "nothing")
        assert outcome.nested == ("nothing",)
        assert tuple(problem.text for problem in rig.report().problems) == own.lost
        assert rig.alloc(size=64)


@pytest.mark.parametrize("nested", [PAGES, ("free", {}), ("alloc", {"size": A_BYTES})])
def test_the_pcp_lock_is_only_ever_tried(nested: tuple[str, dict[str, Any]]) -> None:
    with Rig.create() as rig:
        held = [rig.pages()]
        design = (
            {"design": SPINNING, "holds": held, "orders": [0]}
            if nested[0] == "free"
            else {"design": SPINNING}
        )
        rig.experiment("pcp_locked", "probe", rig.pages, rig.program(nested, **design))
        rig.settle()


@pytest.mark.parametrize(
    ("site", "nested", "lock"), [("list_lock_held", ALLOC_A, "list_lock"), ("zone_locked", PAGES_4, "zone")]
)
def test_another_cpu_of_this_thread_holds_the_lock(site: str, nested: Any, lock: str) -> None:
    """It would go on as soon as this one has: never."""
    way = REACH[site]
    with Rig.create() as rig:
        operation = OUTER[way.outer](rig, way.given(rig))
        rig.experiment(site, "other_cpu", operation, rig.program(nested, design=SPINNING))
        (proved,) = rig.violations()
        assert (proved.verdict, proved.lock_class, proved.cpu, proved.owner_cpu) == ("deadlock", lock, 1, 0)
        assert proved.text == "another CPU of this thread holds the lock"
        assert rig.report().ok


def hold(rig: Rig, lock: Any, cpu: int = 0) -> int:
    """Write a lock word as if this CPU had taken the lock in task context; returns the lock's offset."""
    assert not lock.word
    lock.word = cpu + 1
    return rig.offset_of(lock)


def test_a_call_that_deadlocks_says_so_and_so_does_every_later_one() -> None:
    with Rig.create() as rig:
        node_partial(rig)
        lock = hold(rig, rig.cache_node().list_lock)
        with pytest.raises(DeadlockProved, match=r"list_lock at .* held by CPU 0") as caught:
            rig.cpu.kmalloc(A_BYTES)
        assert caught.value.violation.lock == lock
        assert caught.value.violation.level == 0
        for _ in range(3):
            with pytest.raises(ShmallocError):
                rig.cpu.kmalloc(A_BYTES)
        assert len(rig.violations()) == 1  # what follows from it is no further verdict
        # where nothing has to wait life goes on
        assert rig.origin(rig.alloc("kmalloc_nolock")) == "A"
        assert rig.origin(rig.alloc(size=B_BYTES)) == "B"
        assert rig.cpu_state().level == rig.cpu_state().irqs_disabled == rig.cpu_state().waiting_for == 0


def test_a_call_that_returns_an_errno() -> None:
    with Rig.create() as rig:
        rig.alloc()
        hold(rig, rig.arena.item("struct per_cpu_pages", "pagesets", 0).lock)
        assert rig.lib.shm_drain_pages() == -35  # EDEADLK
        assert rig.lib.shm_drain_pages() == -35
        assert len(rig.violations()) == 1
        assert rig.violations()[0].lock_class == "pcp"


def test_a_replay_ends_with_the_verdict() -> None:
    with Rig.create() as rig:
        node_partial(rig)
        hold(rig, rig.cache_node().list_lock)
        lines = [("alloc", {"size": 64, "slot": 0}), ("free", {"slot": 0}), ALLOC_A]
        with pytest.raises(DeadlockProved) as caught:
            rig.replay(*lines, "nop", design=SPINNING)
        assert caught.value.violation.op_index == 2
        with pytest.raises(ShmallocError):
            rig.replay(*lines, design=SPINNING)
        assert len(rig.violations()) == 1


def test_a_nolock_call_does_not_wait_and_proves_nothing() -> None:
    with Rig.create() as rig:
        node_partial(rig)
        lock = rig.cache_node().list_lock
        hold(rig, lock)
        before = rig.counters()
        assert rig.origin(rig.alloc("kmalloc_nolock")) == "A"
        assert rig.telling(before) == {"alloc_slowpath": 1, "list_lock_busy": 1, "alloc_slab": 1}
        lock.word = 0
        rig.settle()


# --- several processes ------------------------------------------------------------------------------


@contextmanager
def gate(rig: Rig) -> Iterator[int]:
    """A lock that CPU 0, this process, holds: who asks for an object of B waits there, until it is opened."""
    node_partial(rig, 4, B_BYTES)
    lock = rig.cache_node(B_BYTES).list_lock
    offset = hold(rig, lock)
    rig.arena.header.lock_rules = 0  # to wait there while holding another list_lock is against the rules
    yield offset
    lock.word = 0


def park_with_lock(peer: Peer, gate_at: int, site: str, by: str, call: str, *then: Any, **keys: Any) -> None:
    """Have a process pass a site, with the lock that is held there, and wait at the gate before it does the rest."""
    first = ("alloc", MAY_WAIT | {"size": B_BYTES, "slot": 0})
    assert peer.do("interrupt", site, by, first, *then, design=SPINNING) is None
    peer.begin(call, **keys)
    peer.until_it_waits_for(gate_at)


@pytest.mark.parametrize("cpus", [2, 3])
def test_cpus_wait_for_each_other_in_a_ring(cpus: int) -> None:
    """Each holds the list_lock of one cache and wants the next one's."""
    sizes = [A_BYTES, C_BYTES, 256][:cpus]
    with Rig.create(cpus=4, bind=1) as rig, ExitStack() as stack:
        for size in sizes:
            node_partial(rig, 4, size)
        peers = [stack.enter_context(Peer(rig.arena, 1 + at)) for at in range(cpus)]
        with gate(rig) as gate_at:
            for at, peer in enumerate(peers):
                wanted = ("alloc", MAY_WAIT | {"size": sizes[(at + 1) % cpus], "slot": 1})
                park_with_lock(peer, gate_at, "list_lock_held", "probe", "alloc", wanted, size=sizes[at])
        # given up in the nested call; what it interrupted goes on
        assert all(isinstance(peer.result(), int) for peer in peers)
        (proved,) = rig.violations()
        assert (proved.verdict, proved.checker) == ("deadlock", "deadlock")
        assert proved.text == "CPUs wait for each other's locks in a ring"
        assert proved.lock_class == "list_lock"
        assert proved.owner_cpu in range(1, 1 + cpus)
        assert proved.cpu in range(1, 1 + cpus)
        assert proved.owner_cpu != proved.cpu
        assert rig.arena.header.stop == 2
        # and every process is still there
        assert all(isinstance(peer.do("alloc", size=64), int) for peer in peers)


def test_a_chain_is_no_ring() -> None:
    """CPU 2 waits for CPU 1, and that one for CPU 0, which is not waiting."""
    with Rig.create(cpus=4, bind=1) as rig, Peer(rig.arena, 1) as first, Peer(rig.arena, 2) as second:
        node_partial(rig, 4, A_BYTES)
        with gate(rig) as gate_at:
            park_with_lock(first, gate_at, "list_lock_held", "probe", "alloc", size=A_BYTES)
            second.begin("alloc", size=A_BYTES)
            lock = rig.offset_of(rig.cache_node().list_lock)
            second.until_it_waits_for(lock)
            yields = rig.telemetry(2).lock_yields
            until(lambda: rig.telemetry(2).lock_yields > yields + 1000, "CPU 2 looks for a ring often")
            assert rig.violations() == []
        assert isinstance(first.result(), int)
        assert isinstance(second.result(), int)
        assert rig.violations() == []
        assert rig.report().ok


@pytest.mark.parametrize(
    ("site", "call", "keys", "lock"),
    [
        ("list_lock_held", "alloc", {"size": A_BYTES}, "list_lock"),
        ("zone_locked", "pages", {"order": 4}, "zone"),
    ],
)
def test_the_owner_has_died(site: str, call: str, keys: dict[str, int], lock: str) -> None:
    """Its parent has not even noticed: a zombie still answers kill(pid, 0)."""
    with Rig.create(cpus=2, bind=1) as rig, Peer(rig.arena, 1) as peer:
        node_partial(rig, 4, A_BYTES)
        with gate(rig) as gate_at:
            park_with_lock(peer, gate_at, site, "probe", call, **keys)
            peer.kill()
        with pytest.raises(DeadlockProved) as caught:
            getattr(rig, call)(**keys)
        proved = caught.value.violation
        assert (proved.verdict, proved.checker) == ("dead_owner", "owner")
        assert proved.text == "the lock's owner is dead"
        assert (proved.lock_class, proved.cpu, proved.owner_cpu) == (lock, 0, 1)
        assert rig.arena.header.stop == 2
        with pytest.raises((ShmallocError, AllocationFailed)):
            getattr(rig, call)(**keys)
        assert len(rig.violations()) == 1


def test_a_nolock_call_passes_the_dead_owners_lock_by() -> None:
    with Rig.create(cpus=2, bind=1) as rig, Peer(rig.arena, 1) as peer:
        node_partial(rig, 4, A_BYTES)
        with gate(rig) as gate_at:
            park_with_lock(peer, gate_at, "list_lock_held", "probe", "alloc", size=A_BYTES)
            peer.kill()
        before = rig.counters()
        assert rig.origin(rig.alloc("kmalloc_nolock")) == "A"
        assert rig.telling(before)["list_lock_busy"] == 1
        assert rig.violations() == []


def test_an_owner_that_does_not_run_is_no_stall() -> None:
    """What counts is the owner's CPU time, not how long the other one has waited."""
    with Rig.create(cpus=3, bind=1) as rig, Peer(rig.arena, 1) as owner, Peer(rig.arena, 2) as waiter:
        node_partial(rig, 4, A_BYTES)
        with gate(rig) as gate_at:
            park_with_lock(owner, gate_at, "list_lock_held", "probe", "alloc", size=A_BYTES)
            owner.send(signal.SIGSTOP)
        waiter.begin("alloc", size=A_BYTES)
        waiter.until_it_waits_for(rig.offset_of(rig.cache_node().list_lock))
        before = rig.telemetry(2).lock_yields
        until(
            lambda: rig.telemetry(2).lock_yields > before + 4 * 256, "the owner has been looked at four times"
        )
        owner.send(signal.SIGCONT)
        assert isinstance(owner.result(), int)
        assert isinstance(waiter.result(), int)
        assert rig.violations() == []
        assert rig.report().ok


@pytest.mark.slow
def test_an_owner_that_runs_and_runs_is_a_stall() -> None:
    with Rig.create(cpus=2, bind=1) as rig, Peer(rig.arena, 1) as owner:
        node_partial(rig, 4, A_BYTES)
        rig.arena.header.lock_rules = 0
        assert owner.do("interrupt", "list_lock_held", "probe", ("delay", {"size": 2**32 - 1})) is None
        owner.begin("alloc", size=A_BYTES)
        lock = rig.cache_node().list_lock
        until(lambda: lock.word, "CPU 1 holds the lock")
        with pytest.raises(DeadlockProved) as caught:
            rig.alloc(size=A_BYTES)
        proved = caught.value.violation
        assert (proved.verdict, proved.checker, proved.owner_cpu) == ("stall", "owner", 1)
        assert proved.text == "the owner ran for seconds and still holds the lock"
        owner.kill()


# --- stacks -----------------------------------------------------------------------------------------


def functions(rig: Rig, level: int) -> list[str]:
    """Names of the functions on one level of the last violation's stack, innermost first."""
    table = symbols(rig.arena.core.path)
    frames = [(frame.level, frame.address) for frame in rig.violations()[-1].stack]
    return [
        name.partition("+")[0].partition(".")[0]  # without offset, and without gcc's suffixes
        for (at, _), name in zip(frames, table.names(frames), strict=True)
        if at == level
    ]


@pytest.mark.parametrize("by", ["nmi", "probe"])
@pytest.mark.parametrize(
    ("site", "nested", "waiter", "holder"),
    [
        (
            "list_lock_held",
            ALLOC_A,
            ["lock_wait", "get_partial_node", "get_partial"],
            ["get_partial_node", "get_partial"],
        ),
        (
            "zone_locked_bulk",
            PAGES,
            ["lock_wait", "rmqueue_buddy", "rmqueue"],
            ["rmqueue_bulk", "rmqueue_pcplist"],
        ),
        (
            "cpu_slab_locked",
            ALLOC_A,
            ["local_lock_reentered", "from_cpu_slab"],
            ["from_cpu_slab", "___slab_alloc"],
        ),
    ],
)
def test_both_stacks_are_there_and_have_names(
    site: str, nested: Any, waiter: list[str], holder: list[str], by: str
) -> None:
    way = REACH[site]
    with Rig.create() as rig:
        operation = OUTER[way.outer](rig, way.given(rig))
        rig.experiment(site, by, operation, rig.program(nested, design=SPINNING))
        inner, outer = functions(rig, 1), functions(rig, 0)
        assert [name for name in inner if name in waiter] == waiter
        assert [name for name in outer if name in holder][: len(holder)] == holder
        assert "program_run_ops" in inner
        assert inner.index(waiter[0]) < inner.index("program_run_ops")
        assert outer[-1].startswith(("_cffi_f_shm_", "shm_")) or outer[-1].endswith("_guarded")


def _ns_for_a_yield(peer: Peer, telemetry: Any) -> float:
    """Return the processor time that a waiting CPU takes from one yield to the next."""

    def used_ns() -> int:
        return int(Path(f"/proc/{peer.state.pid}/schedstat").read_text().split()[0])

    yields, before_ns = int(telemetry.lock_yields), used_ns()
    until(lambda: telemetry.lock_yields > yields + 2000, "CPU 2 yields")
    return (used_ns() - before_ns) / (int(telemetry.lock_yields) - yields)


def test_a_waiter_on_the_owners_core_gives_it_away_at_once() -> None:
    """The owner cannot run while the waiter does. Elsewhere it may, and the waiter spins some time first."""
    with Rig.create(cpus=3, bind=1) as rig, Peer(rig.arena, 1) as owner, Peer(rig.arena, 2) as waiter:
        node_partial(rig, 4, A_BYTES)
        with gate(rig) as gate_at:
            park_with_lock(owner, gate_at, "list_lock_held", "probe", "alloc", size=A_BYTES)
            waiter.begin("alloc", size=A_BYTES)
            waiter.until_it_waits_for(rig.offset_of(rig.cache_node().list_lock))
            apart_ns = _ns_for_a_yield(waiter, rig.telemetry(2))
            owner.state.core = waiter.state.core = 0
            together_ns = _ns_for_a_yield(waiter, rig.telemetry(2))
        assert isinstance(owner.result(), int)
        assert isinstance(waiter.result(), int)
        telemetry = rig.telemetry(2)
        assert telemetry.lock_waits == 1
        assert telemetry.lock_wait_cycles == telemetry.lock_wait_max_cycles > 0
        assert together_ns < apart_ns / 3
        assert rig.report().ok
