# SPDX-License-Identifier: MIT
"""The BPF allocator: watermarks, refill and trim, grace periods, what NMIs do to it, and what it keeps."""

import pytest
from rig import Rig

from shmalloc import AllocationFailed, designs, ops, probes
from shmalloc.audit import audit

SIZES = (96, 192, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)  # units, in the order of the array
SMALL = {"low": 32, "high": 96, "batch": 48, "prefill": 4}
LARGE = {
    512: {"low": 16, "high": 48, "batch": 24, "prefill": 1},
    1024: {"low": 8, "high": 24, "batch": 12, "prefill": 1},
    2048: {"low": 4, "high": 12, "batch": 6, "prefill": 1},
    4096: {"low": 2, "high": 6, "batch": 3, "prefill": 1},
}
HEADER = 8


def marks(unit):
    return LARGE.get(unit, SMALL)


@pytest.fixture(params=["release", "checked"])
def rig(request):
    with made(flavour=request.param) as rig:
        yield rig


def made(**keys):
    return Rig.create(**({"cpus": 2, "size": "32MiB", "rcu_gp_us": 0, "pageblock_order": 9} | keys))


class Bpf:
    """The design on one CPU."""

    def __init__(self, rig, cpu=0):
        self.rig, self.cpu, self.number = rig, rig.cpus[cpu], cpu
        self.design = self.cpu.design("bpf_mem_alloc")
        self.teardown, self.free = self.design.teardown, self.design.free

    def setup(self):
        self.design.setup()
        return self

    def alloc(self, unit):
        try:
            return self.design.alloc(unit - HEADER)
        except AllocationFailed:
            return 0

    def until_fail(self, unit):
        got = []
        while object_ := self.alloc(unit):
            got.append(object_)
        return got

    def list(self, unit):
        return self.rig.arena.region("bpf_caches")[self.number, SIZES.index(unit)]


def test_set_up_prefills_every_cpu_and_tear_down_gives_everything_back(rig):
    bpf = Bpf(rig).setup()
    for cpu in (0, 1):
        for unit in SIZES:
            record = Bpf(rig, cpu).list(unit)
            found = {key: int(record[f"{key}_watermark"]) for key in ("low", "high")}
            assert found | {"batch": record["batch"], "prefill": record["free_cnt"]} == marks(unit)
    report = audit(rig.arena, expect_live=True)
    assert report.ok, report
    assert report.totals["kept_bpf_objects"] == 2 * sum(marks(unit)["prefill"] for unit in SIZES)
    bpf.teardown()
    assert audit(rig.arena, expect_live=False).ok


@pytest.mark.parametrize("unit", SIZES)
def test_with_irqs_off_no_more_than_what_is_there(rig, unit):
    bpf = Bpf(rig).setup()
    with bpf.cpu.irq_save():
        got = bpf.until_fail(unit)
        assert len(got) == marks(unit)["prefill"]
        assert bpf.cpu.last_reason == "refill_lag"
    # on irqs again: the refill has run
    assert bpf.list(unit)["free_cnt"] == marks(unit)["batch"]
    for object_ in got:
        bpf.free(object_)
    bpf.teardown()


@pytest.mark.parametrize("unit", SIZES)
def test_the_most_in_a_row_with_irqs_off_is_the_high_watermark(rig, unit):
    bpf = Bpf(rig).setup()
    high = marks(unit)["high"]
    got = [bpf.alloc(unit) for _ in range(2 * high)]
    assert all(got)  # irqs are on: each refill runs at once
    for object_ in got[: 2 * high]:
        bpf.free(object_)
        if bpf.list(unit)["free_cnt"] == high:
            break
    rest = [object_ for object_ in got if rig.arena.core.lib.shm_oracle_is_live(object_)]
    with bpf.cpu.irq_save():
        row = bpf.until_fail(unit)
    assert len(row) == high
    for object_ in rest + row:
        bpf.free(object_)
    bpf.teardown()
    assert audit(rig.arena, expect_live=False).ok


def test_above_the_high_watermark_it_trims_to_the_middle_through_tasks_trace(rig):
    bpf = Bpf(rig).setup()
    got = [bpf.alloc(64) for _ in range(200)]
    most = 0
    for object_ in got:
        bpf.free(object_)
        most = max(most, int(bpf.list(64)["free_cnt"]))
    assert most == 96  # the 97th was trimmed at once
    assert bpf.list(64)["nr_trims"] > 0
    report = audit(rig.arena, expect_live=True)
    assert report.ok, report
    assert rig.cpus[0].rcu_pending() == 1  # one callback in flight, however many objects wait
    bpf.teardown()


def test_a_refill_takes_what_waits_for_a_grace_period_first(rig):
    bpf = Bpf(rig).setup()
    got = [bpf.alloc(64) for _ in range(200)]
    with rig.cpus[1].rcu_read_lock("tasks_trace"):
        for object_ in got:
            bpf.free(object_)
        before = int(bpf.list(64)["nr_reused"])
        again = [bpf.alloc(64) for _ in range(200)]
        assert int(bpf.list(64)["nr_reused"]) > before
        assert set(again) & set(got)
    for object_ in again:
        bpf.free(object_)
    bpf.teardown()
    assert audit(rig.arena, expect_live=False).ok


def test_sizes_beyond_it_and_pages_are_refused(rig):
    bpf = Bpf(rig).setup()
    bpf.free(bpf.alloc(4096))
    with pytest.raises(AllocationFailed, match="size_limit"):
        bpf.design.alloc(4089)
    with pytest.raises(AllocationFailed, match="order_limit"):
        bpf.design.pages_alloc(0)


def test_an_object_that_left_its_list_is_lost(rig):
    bpf = Bpf(rig).setup()
    bpf.free(bpf.alloc(64))
    record = bpf.list(64)
    first, count = int(record["free_llist"]), int(record["free_cnt"])
    memory = rig.arena.region("memory").reshape(-1).view("u8")
    base = rig.arena.header.regions[rig.arena.core.lib.REGION_MEMORY].offset
    record["free_llist"] = memory[(first - base) // 8]
    (problem,) = [p for p in audit(rig.arena).problems if "counts" in p.text]
    assert problem.where == "bpf_mem_alloc bucket 4 of CPU 0"
    record["free_cnt"] = count - 1
    (problem,) = audit(rig.arena).problems
    assert problem.verdict == "lost_memory"
    assert problem.text.startswith("1 objects are neither free nor owned")
    record["free_llist"], record["free_cnt"] = first, count
    bpf.teardown()


def test_an_nmi_in_the_middle_of_an_update_gets_nothing_and_frees_to_the_extra_list():
    with made(flavour="checked") as rig:
        bpf = Bpf(rig).setup()
        mine = bpf.alloc(64)
        nested = ops(("alloc", {"size": 56, "slot": 0}), ("free", {"slot": 1}))
        slots = bytearray(16)
        slots[8:16] = (mine | designs.index("bpf_mem_alloc") << 56).to_bytes(8, "little")
        program = probes.arm(bpf.cpu, "bpf_active", nested, action="nmi", design="bpf_mem_alloc", slots=slots)
        got = bpf.alloc(64)
        assert got
        assert program.held() == []
        contexts = bpf.cpu.contexts("bpf_mem_alloc")["nmi"]
        assert (contexts["allocs"], contexts["frees"]) == (0, 1)
        assert contexts["failures"]["cpu_slab_busy"] == 1
        assert int(bpf.list(64)["nr_extra"]) == 1
        assert audit(rig.arena, expect_live=True).ok
        bpf.free(got)
        bpf.teardown()
        assert audit(rig.arena, expect_live=False).ok


def violations(rig):
    return [(found.verdict, found.checker) for found in rig.arena.violations()]


@pytest.mark.parametrize(("broken", "found"), [("none", []), ("k37", [("broken_rule", "pool")])])
def test_k37_an_interrupt_before_the_refill_is_queued(broken, found):
    with made(flavour="checked", broken=broken) as rig:
        bpf = Bpf(rig).setup()
        nested = ops(("alloc", {"size": 2040, "slot": 0}))
        program = probes.arm(
            bpf.cpu, "bpf_before_queue", nested, action="irq", design="bpf_mem_alloc", slots=1
        )
        got = bpf.alloc(2048)  # the one that was there
        assert got
        assert len(program.held()) == (broken == "none")
        assert violations(rig) == found
        for object_ in [got, *program.held()]:
            bpf.free(object_)
        bpf.teardown()


@pytest.mark.parametrize(("broken", "found"), [("none", []), ("k38", [("corruption", "oracle")])])
def test_k38_a_freed_object_lands_on_the_list_of_another_size(broken, found):
    with made(flavour="checked", broken=broken) as rig:
        bpf = Bpf(rig).setup()
        small = {bpf.alloc(256) for _ in range(40)}
        freed = next(at for at in sorted(small) if at + 256 in small)  # its neighbour is in use
        bpf.free(freed)
        large = bpf.alloc(512)
        assert (large == freed) == (broken == "k38")
        assert violations(rig) == found


@pytest.mark.parametrize(("broken", "found"), [("none", []), ("k39", [("corruption", "pool")])])
def test_k39_a_refill_runs_after_the_list_is_gone(broken, found):
    with made(
        flavour="checked", broken=broken, irq_work=2
    ) as rig:  # no interrupt for the work: it stays queued
        bpf = Bpf(rig).setup()
        got = bpf.alloc(64)
        bpf.free(got)
        bpf.teardown()
        bpf.cpu.run_irq_work()
        assert violations(rig) == found


def test_without_a_self_interrupt_a_list_stays_empty_until_the_tick():
    with made(irq_work=1) as rig:
        bpf = Bpf(rig).setup()
        got = bpf.until_fail(64)
        assert len(got) == 4
        assert bpf.cpu.last_reason == "refill_lag"
        bpf.cpu.replay(ops("nop"))
        assert bpf.list(64)["free_cnt"] == 48
        for object_ in got:
            bpf.free(object_)
        bpf.teardown()


def test_the_watermarks_of_large_sizes_follow_the_bytes_that_are_allowed():
    with made(bpf_low_bytes=32768) as rig:
        bpf = Bpf(rig).setup()
        record = bpf.list(4096)
        assert (record["low_watermark"], record["high_watermark"], record["batch"]) == (8, 24, 12)
        assert bpf.list(256)["high_watermark"] == 96
        bpf.teardown()


def test_an_update_that_never_ended_is_reported(rig):
    bpf = Bpf(rig).setup()
    bpf.list(64)["active"] = 1
    (problem,) = audit(rig.arena).problems
    assert (problem.verdict, problem.where) == ("broken_rule", "bpf_mem_alloc bucket 4 of CPU 0")
    bpf.list(64)["active"] = 0
    bpf.teardown()
