# SPDX-License-Identifier: MIT
"""One CPU of a run: a fresh interpreter that binds to its slot, replays its ops and drains what it holds.

Phases, each finished by all before the next begins: 1 ready, 2 replayed, 3 drained, 4 torn down, 5 the end.
The parent audits between 2 and 3, and between 4 and 5. `python -m harness.cpu_process SEGMENT PARENT < spec.json`.
"""

from __future__ import annotations

import errno
import mmap
import os
import time
from typing import Any

from harness import child
from harness.child import Child
from shmalloc.arena import Arena
from shmalloc.flags import gfp_flags

READY, REPLAYED, DRAINED, TORN_DOWN = 1, 2, 3, 4
_KINDS = {"nmi": "KIND_NMI", "irq": "KIND_IRQ"}
_WAIT_S = 2.0  # how often an orphan notices that it is one, should the signal have been missed


class CpuProcess:
    """The CPU that this process is.

    Attributes: child: the process.  arena: attached.  lib, ffi: the core.  used_s: processor time of the replay.
    """

    def __init__(self, process: Child) -> None:
        self.child = process
        self.spec = process.spec
        self.arena = Arena.attach(process.segment, flavour=self.spec["flavour"])
        self.arena.activate()
        self.lib, self.ffi = self.arena.core.lib, self.arena.core.ffi
        self._ops = self.ffi.from_buffer(mmap.mmap(self.spec["ops_fd"], 0, access=mmap.ACCESS_READ))
        self._keep: list[Any] = []  # what the core points to
        self._program_slots: list[tuple[Any, int]] = []
        self.used_s = 0.0

    def run(self) -> None:
        """Live through all phases and exit."""
        self._bind()
        self._create_caches()
        self._create_memcgs()
        self._set_up()
        self._set_programs()
        self._fill_page_cache()
        self._meet(READY)
        self._enter_memcg()
        replay = self._replay()
        self._meet(REPLAYED)
        drained = self._drain(replay)
        self._meet(DRAINED)
        self._tear_down()
        self._meet(TORN_DOWN)
        telemetry = self.arena.item("struct shm_telemetry", "telemetry", self.spec["cpu"])
        calls = int(telemetry.ipi_runs)  # those of other CPUs
        self._check("unbind", self.lib.shm_cpu_unbind(self.spec["cpu"]))
        self.child.end(
            child.FINISHED,
            done=replay.done,
            elapsed=replay.elapsed,
            used=self.used_s,
            drained=drained,
            calls=calls,
        )

    def _check(self, what: str, result: int) -> int:
        """Pass on a result; end where the run was stopped, raise where the call failed."""
        if result in (-errno.ECANCELED, -errno.EOWNERDEAD):
            self.child.end(child.STOPPED, told=bool(self.lib.shm_terminated()), stopped=what)
        if result == -errno.EDEADLK:
            self.child.end(child.VERDICT, stopped=what)
        if result < 0:
            raise RuntimeError(f"CPU {self.spec['cpu']}: {what}: {os.strerror(-result)}")
        return result

    def _bind(self) -> None:
        flags = self.lib.SHM_BIND_HANDLERS | self.lib.SHM_BIND_TERM
        if self.spec["nesting"]:
            flags |= self.lib.SHM_BIND_NEST
        self._check("bind", self.lib.shm_cpu_bind(self.spec["cpu"], flags))

    def _create_caches(self) -> None:
        """Create the workload's caches, on the one CPU that was given them, before anybody uses them."""
        for wanted, (name, size, align, flags, ctor) in enumerate(
            self.spec["caches"], start=self.arena.header.nr_caches
        ):
            index = self.lib.shm_kmem_cache_create(name.encode(), size, align, flags, ctor)
            if self._check(f"create the cache {name}", index) != wanted:
                raise RuntimeError(f"the cache {name} has index {index}; the ops were made for {wanted}")

    def _set_up(self) -> None:
        """Prepare designs and create maps, on the one CPU that was told to, before anybody uses them."""
        for design in self.spec["designs"]:
            self._check(f"set up design {design}", self.lib.shm_design_setup(design))
        for wanted, (design, key, value, entries) in enumerate(self.spec["maps"]):
            index = self.lib.shm_map_create(design, key, value, entries, 0)
            if self._check(f"create a map of {entries} entries", index) != wanted:
                raise RuntimeError(f"the map has index {index}; the ops were made for {wanted}")

    def _tear_down(self) -> None:
        """Take down what `_set_up` has set up, on the one CPU that did: when nobody uses it any more.

        It also has every CPU run what was deferred: once for all of them, as each costs an interrupt of each.
        """
        if self.spec["cpu"] == 0:
            self._check("wait for irq_work and RCU callbacks", self.lib.shm_quiesce())
        for index in range(len(self.spec["maps"])):
            self._check(f"destroy map {index}", self.lib.shm_map_destroy(index))
        if self.spec["maps"]:  # what was in them may wait for a grace period
            self._check("wait for RCU callbacks", self.lib.shm_rcu_barrier())
        for design in self.spec["designs"]:
            self._check(f"tear down design {design}", self.lib.shm_design_teardown(design))

    def _create_memcgs(self) -> None:
        """Create the run's memcgs, on the one CPU that was given them."""
        for wanted, (name, parent, most, high) in enumerate(self.spec["memcg"]["create"], start=1):
            memcg = self._check(f"create the memcg {name}", self.lib.shm_memcg_create(name.encode(), parent))
            if memcg != wanted:
                raise RuntimeError(f"the memcg {name} has id {memcg}, not {wanted}")
            if most >= 0:
                self._check(f"limit the memcg {name}", self.lib.shm_memcg_set_max(memcg, most))
            if high >= 0:
                self._check(f"limit the memcg {name}", self.lib.shm_memcg_set_high(memcg, high))

    def _enter_memcg(self) -> None:
        """Run in the CPU's memcg, and have its interrupts charged if they are to be; both are there by now."""
        place = self.spec["memcg"]
        if place["enter"]:
            self._check("enter the memcg", self.lib.shm_memcg_enter(place["enter"]))
            self._check("charge interrupts", self.lib.shm_memcg_set_int_active(place["interrupts"]))

    def _ops_at(self, place: list[int]) -> Any:
        """Point to ops in the parent's memfd: [offset in bytes, number]."""
        offset, number = place
        if offset + number * self.ffi.sizeof("struct shm_op") > len(self._ops):
            raise RuntimeError(f"{number} ops at {offset} lie beyond the {len(self._ops)} bytes of ops")
        return self.ffi.cast("const struct shm_op *", self._ops + offset)

    def _slots(self, number: int) -> Any:
        slots = self.ffi.new("uint64_t[]", max(1, number))
        self._keep.append(slots)
        return slots

    def _set_programs(self) -> None:
        for kind, program in self.spec["programs"].items():
            slots = self._slots(program["slots"])
            made = self.ffi.new(
                "struct shm_program *",
                {
                    "ops": self._ops_at(program["ops"]),
                    "nr_ops": program["ops"][1],
                    "per_interrupt": program["per_interrupt"],
                    "slots": slots,
                    "nr_slots": program["slots"],
                    "design": program["design"],
                    "flags": self.lib.SHM_REPLAY_PATTERN if self.spec["pattern"] else 0,
                },
            )
            self._keep.append(made)
            self._program_slots.append((slots, program["slots"]))
            self._check(f"set the {kind} program", self.lib.shm_set_program(self._kind(kind), made))

    def _fill_page_cache(self) -> None:
        """Read clean pages in, on one CPU, as many as are wanted and fit."""
        if pages := self.spec.get("page_cache_pages", 0):
            gfp = gfp_flags("GFP_NOWAIT|__GFP_HIGHMEM|__GFP_MOVABLE")  # nothing is reclaimed for it
            self._check("fill the page cache", int(self.lib.shm_page_cache_add(pages, gfp, -1)))

    def _kind(self, name: str) -> int:
        return int(getattr(self.lib, _KINDS[name]))

    def _meet(self, phase: int) -> None:
        """Publish that a phase is finished and wait for the parent to open the next."""
        self.lib.shm_phase_finish(phase)
        while (result := self.lib.shm_phase_wait(phase, _WAIT_S)) == -errno.ETIMEDOUT:
            if self.child.is_orphan:
                self.child.end(child.ORPHANED)
        self._check(f"wait for phase {phase}", result)

    def _replay(self) -> Any:
        replay = self.ffi.new(
            "struct shm_replay *",
            {
                "ops": self._ops_at(self.spec["ops"]),
                "nr_ops": self.spec["ops"][1],
                "max_ops": self.spec["max_ops"],
                "seconds": self.spec["seconds"],
                "slots": self._slots(self.spec["slots"]),
                "nr_slots": self.spec["slots"],
                "design": self.spec["design"],
                "sample": self.spec["sample"],
                "flags": self.lib.SHM_REPLAY_PATTERN if self.spec["pattern"] else 0,
            },
        )
        before = time.process_time()
        for kind, (rate_hz, jitter) in self.spec["timers"].items():
            self._check(f"set the {kind} timer", self.lib.shm_set_timer(self._kind(kind), rate_hz, jitter))
        result = self.lib.shm_replay(replay)
        for kind in self.spec["timers"]:
            self.lib.shm_set_timer(self._kind(kind), 0.0, 0.0)
        for kind in self.spec["programs"]:
            self.lib.shm_set_program(self._kind(kind), self.ffi.NULL)
        self.used_s = time.process_time() - before
        self._check("replay", result)
        return replay

    def _drain(self, replay: Any) -> int:
        """Free what this CPU, its handlers and, on one CPU, all together still hold."""
        drained = self._check("drain", self.lib.shm_drain_slots(replay.slots, replay.nr_slots))
        for slots, number in self._program_slots:
            drained += self._check("drain a program", self.lib.shm_drain_slots(slots, number))
        if self.spec["shared_slots"]:
            drained += self._check(
                "drain the shared slots", self.lib.shm_drain_shared_slots(0, self.spec["shared_slots"])
            )
        return drained


def main() -> None:
    """Be one CPU."""
    CpuProcess(child.begin()).run()


if __name__ == "__main__":
    main()
