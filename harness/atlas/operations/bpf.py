# SPDX-License-Identifier: MIT
"""bpf_mem_alloc: one size of its global allocator; its watermarks are so close that each branch is soon taken.

A unit of 512 bytes with bpf_low_bytes = 1024 refills below 2 objects, by 3, and trims above 6, down to 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.atlas.call import Call
from harness.atlas.operations import Register, operation
from harness.atlas.staging import Request, Staging, counter

if TYPE_CHECKING:
    from shmalloc.arena import Arena

DESIGN = "bpf_mem_alloc"
SIZE, OTHER_SIZE = 504, 1000
UNIT = 512
LOW, MIDDLE, HIGH = 2, 4, 6
AT_ONCE: dict[str, Any] = {"bpf_low_bytes": 1024, "spare_pages": 128}
TWO_NODES: dict[str, Any] = {**AT_ONCE, "nr_nodes": 2}
LATER: dict[str, Any] = {**AT_ONCE, "irq_work": 2}  # queued work runs when somebody asks for it
_QUIET = {"bpf_queued": "== 0", "bpf_refills": "== 0", "bpf_trims": "== 0", "irq_work_runs": "== 0"}


# --- what there is to count -----------------------------------------------------------------------


def lists(arena: Arena) -> list[Any]:
    """Return the lists of all CPUs: for each those of the global sizes, then those of maps."""
    count = int(arena.header.bpf_caches_per_cpu) * int(arena.header.geometry.nr_cpus)
    return [arena.item("struct bpf_mem_cache", "bpf_caches", at) for at in range(count)]


def _event(name: str, field: str) -> None:
    @counter(name)
    def read(arena: Arena) -> int:
        return sum(int(getattr(row, field)) for row in lists(arena))


for _name in ("refills", "trims", "reused", "extra"):
    _event(f"bpf_{_name}", f"nr_{_name}")


@counter("bpf_queued")
def queued(arena: Arena) -> int:
    """Lists whose refill or trim is queued."""
    pending = int(arena.core.lib.IRQ_WORK_PENDING)
    return sum(bool(row.refill_work.flags & pending) for row in lists(arena))


@counter("bpf_foreign")
def foreign(arena: Arena) -> int:
    """Lists that what was freed to them last did not come from."""
    own = int(arena.core.ffi.sizeof("struct bpf_mem_cache"))
    first = int(arena.header.regions[arena.core.lib.REGION_BPF_CACHES].offset)
    return sum(bool(row.unit_size) and row.tgt != first + at * own for at, row in enumerate(lists(arena)))


# --- start states -----------------------------------------------------------------------------------


def list_of(stage: Staging, unit: int, cpu: int = 0) -> Any:
    """Return a CPU's list for units of a size."""
    per_cpu = int(stage.arena.header.bpf_caches_per_cpu)
    return next(row for row in lists(stage.arena)[cpu * per_cpu :] if row.unit_size == unit)


def set_up(stage: Staging) -> None:
    """Have the lists hold what a handler may want to be given; a burst is more than they can hold."""
    stage.other_size, stage.burst = OTHER_SIZE, HIGH + 2
    for cpu in range(len(stage.cpus)):
        have(stage, HIGH, cpu)


def serve(stage: Staging) -> None:
    """Do what is queued, where nobody else would."""
    for cpu in stage.cpus:
        cpu.run_irq_work()


def have(stage: Staging, count: int, cpu: int = 0) -> None:
    """Bring a CPU's list to a number of free objects, not below its low watermark, with nothing queued."""
    row, mine = list_of(stage, UNIT, cpu), []
    serve(stage)
    for _ in range(HIGH):  # from the low watermark on this refills
        mine.append(stage.alloc(cpu=cpu))
        serve(stage)
    while row.free_cnt > count:
        stage.alloc(cpu=cpu)
    while row.free_cnt < count and mine:
        stage.free(mine.pop(), cpu=cpu)
    assert row.free_cnt == count, f"{int(row.free_cnt)} free objects instead of {count}"


def _trim_due(stage: Staging) -> None:
    have(stage, HIGH)
    over = stage.alloc()
    have(stage, HIGH)
    stage.free(over)


# --- allocation -------------------------------------------------------------------------------------


def _operation(
    name: str, summary: str, path: dict[str, str], geometry: dict[str, Any] = AT_ONCE, *, in_irq: bool = False
) -> Register:
    return operation(
        name,
        summary,
        group="bpf",
        designs=(DESIGN,),
        path=path,
        geometry=geometry,
        size=SIZE,
        before=set_up,
        in_irq=in_irq,
    )


@_operation("bpf_alloc", "an object of the CPU's list", {"allocs": "== 1", **_QUIET}, in_irq=True)
def alloc(stage: Staging) -> Request:
    """One more than the low watermark."""
    have(stage, LOW + 1)
    return stage.ask_alloc()


@_operation(
    "bpf_alloc_low",
    "below the low watermark: irq_work refills as soon as irqs are on again",
    {"allocs": "== 1", "bpf_refills": "== 1", "irq_work_runs": ">= 1"},
)
def alloc_low(stage: Staging) -> Request:
    """At the low watermark."""
    have(stage, LOW)
    return stage.ask_alloc()


@_operation(
    "bpf_alloc_raise",
    "below the low watermark: irq_work is queued, for later",
    {"allocs": "== 1", "bpf_queued": "== 1", "irq_work_runs": "== 0"},
    LATER,
)
def alloc_raise(stage: Staging) -> Request:
    """At the low watermark, and no interrupt for the work."""
    have(stage, LOW)
    return stage.ask_alloc()


@_operation(
    "bpf_alloc_empty",
    "an empty list whose refill has not run: NULL",
    {"allocs": "== 0", "null_refill_lag": "== 1"},
    LATER,
)
def alloc_empty(stage: Staging) -> Request:
    """Drained, with the refill queued."""
    have(stage, LOW)
    for _ in range(LOW):
        stage.alloc()
    return stage.ask_alloc()


# --- free -------------------------------------------------------------------------------------------


@_operation("bpf_free", "to the CPU's list", {"frees": "== 1", "bpf_extra": "== 0", **_QUIET}, in_irq=True)
def free(stage: Staging) -> Request:
    """At the low watermark."""
    have(stage, LOW + 1)
    return stage.ask_free(stage.alloc())


@_operation(
    "bpf_free_high",
    "above the high watermark: irq_work trims as soon as irqs are on again",
    {"frees": "== 1", "bpf_trims": "== 1"},
)
def free_high(stage: Staging) -> Request:
    """At the high watermark."""
    have(stage, HIGH)
    over = stage.alloc()
    have(stage, HIGH)
    return stage.ask_free(over)


@_operation(
    "bpf_free_remote", "an object of another CPU's list", {"frees": "== 1", "bpf_foreign": "== 1", **_QUIET}
)
def free_remote(stage: Staging) -> Request:
    """CPU 1 has allocated it."""
    have(stage, LOW + 1)
    return stage.ask_free(stage.alloc(cpu=1))


@_operation(
    "bpf_alloc_nodes",
    "an object of the CPU's list, in an arena of two nodes, where no attempt precedes the whole path",
    {"allocs": "== 1", **_QUIET},
    TWO_NODES,
)
def alloc_nodes(stage: Staging) -> Request:
    """One more than the low watermark."""
    have(stage, LOW + 1)
    return stage.ask_alloc()


@_operation(
    "bpf_free_nodes",
    "the same: to the CPU's list",
    {"frees": "== 1", "bpf_extra": "== 0", **_QUIET},
    TWO_NODES,
)
def free_nodes(stage: Staging) -> Request:
    """At the low watermark."""
    have(stage, LOW + 1)
    return stage.ask_free(stage.alloc())


# --- irq_work and the grace period --------------------------------------------------------------------

_WORK = Request(Call("shm_run_irq_work", ()))


@_operation(
    "bpf_refill",
    "irq_work: three objects of kmalloc",
    {"bpf_refills": "== 1", "bpf_reused": "== 0", "irq_work_runs": "== 1"},
    LATER,
)
def refill(stage: Staging) -> Request:
    """One below the low watermark."""
    have(stage, LOW)
    stage.alloc()
    return _WORK


@_operation(
    "bpf_refill_reuse",
    "irq_work: objects that wait for a grace period before any of kmalloc",
    {"bpf_refills": "== 1", "bpf_reused": "== 3"},
    LATER,
)
def refill_reuse(stage: Staging) -> Request:
    """Three were trimmed, then the list went below its low watermark."""
    _trim_due(stage)
    serve(stage)
    while list_of(stage, UNIT).free_cnt >= LOW:
        stage.alloc()
    return _WORK


@_operation(
    "bpf_trim",
    "irq_work: down to the middle between the watermarks",
    {"bpf_trims": "== 1", "rcu_queued": "== 1"},
    LATER,
)
def trim(stage: Staging) -> Request:
    """One above the high watermark."""
    _trim_due(stage)
    return _WORK


@_operation(
    "bpf_grace_period",
    "after its grace period what was trimmed goes back to kmalloc",
    {"rcu_invoked": "== 1", "irq_work_runs": "== 0"},
    {**LATER, "rcu_gp_us": 0},
)
def grace_period(stage: Staging) -> Request:
    """The grace period of what was trimmed is over."""
    _trim_due(stage)
    serve(stage)
    stage.cpus[0].rcu_tick()
    return Request(Call("shm_rcu_tick", ()))
