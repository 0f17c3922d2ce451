# SPDX-License-Identifier: MIT
"""What a run of a sweep has come to: what the operation got, what the handler got, and whether that may be.

A run leaves words: counts by context, the slots of the handler, the objects that the oracle knows. A reason is
the one that was counted in the context; what an op of the handler got is told from its slot.

Imports numpy: not for CPU processes.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from harness.atlas.describe import After, offsets, telemetry_offset
from harness.atlas.outcome_names import rank
from harness.vocabulary import BROKEN_RULE, CORRUPTION, LOST_MEMORY, OK, STALL, VACUOUS
from shmalloc import designs
from shmalloc.program import kind_index, op_codes
from shmalloc.symbols import symbols
from shmalloc.violations import CONTEXTS, Violation, read_violation

if TYPE_CHECKING:
    from shmalloc.program import Program

__all__ = ["Decoder", "Outcome", "decode", "stacks", "unhandled"]

NONE, OTHER_BUCKET, DEFERRED = "none", "other_bucket", "deferred"
_ENDS = ("returned", "missed", "stuck", "crashed", "left the core", "full")
_OFFSET_MASK = (1 << 48) - 1
#: Exported calls for an object of a size, and which argument the size is; the flags, if any, are the next.
_SIZE_AT = {
    "shm_design_alloc": 1,
    **dict.fromkeys(("shm_kmalloc", "shm_kmalloc_node", "shm_kmalloc_nolock"), 0),
    **dict.fromkeys(("shm_malloc", "shm_malloc_nolock", "shm_zalloc"), 0),
}
#: Designs whose objects are of the kmalloc cache that the size asks for.
_OF_CACHES = ("kmalloc", "try_kmalloc", "kmalloc_nolock", "sheaves", "no_prealloc")
#: Designs whose frees may be left to irq_work, whatever context they are called from.
_DEFERRING = ("try_kmalloc", "kmalloc_nolock", "sheaves")
#: Designs with locks that look at their owner once, and give up: no wait, though it is counted as one.
_LOOK_ONLY = ("prealloc",)
#: Counters of the telemetry that say why an update or a delete of a map has failed.
_MAP_ERRORS = {
    "map_e2big": "E2BIG",
    "map_enomem": "ENOMEM",
    "map_edeadlk": "EDEADLK",
    "map_etimedout": "ETIMEDOUT",
    "map_misses": "ENOENT",
}
_RETRIES = ("cmpxchg_double_cpu_fail", "cmpxchg_double_fail")


@dataclass(frozen=True)
class Outcome:
    """What a run has come to.

    Attributes: operation, handler: "ok", "other_bucket", "deferred", "null:REASON", "error:ERRNO" or "none"; of a
        handler of several ops the worst.  verdict: of the closed list.  text: op by op, or what is wrong.
    """

    operation: str
    handler: str
    verdict: str
    text: str

    @property
    def name(self) -> str:
        """What a point is counted as: the verdict, or what the handler got if that is ok."""
        return self.handler if self.verdict == OK else self.verdict


@dataclass
class _Ops:
    """What came of the ops of a program, or of the call.

    Attributes: texts: op by op.  names: outcomes, in the same order.
    """

    texts: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def add(self, verb: str, name: str) -> None:
        """Add one op."""
        self.names.append(name)
        self.texts.append(f"{verb} {name}")

    @property
    def worst(self) -> str:
        """The worst outcome of all ops that got anything, or should have."""
        return max((name for name in self.names if name != NONE), key=rank, default=NONE)

    def __str__(self) -> str:
        runs: list[list[Any]] = []
        for text in self.texts:
            if runs and runs[-1][0] == text:
                runs[-1][1] += 1
            else:
                runs.append([text, 1])
        return ", ".join(text if times == 1 else f"{times} x {text}" for text, times in runs)


def decode(built: Any, sweeper: Any, row: Any) -> Outcome:
    """Say what one row of results is. Rows of one state, outcome and value are the same.

    Args: built: the scenario.  sweeper: at rest, whose state and outcome the row names.  row: of its results.
    """
    with _decoder(built, sweeper) as decoder:
        return decoder.decode(row)


def unhandled(built: Any, sweeper: Any, row: Any, sent: Sequence[str]) -> str:
    """Say which interrupts of a run that returned never came, or "". Args: sent: their kinds.

    Every NMI comes at once. IRQs wait while they are masked, and those that wait together come as one.
    """
    with _decoder(built, sweeper) as decoder:
        return decoder.unhandled(row, sent)


def stacks(built: Any, sweeper: Any, row: Any) -> dict[str, list[str]]:
    """Return the call stacks of a run's violation, innermost first: of the operation, and of what interrupted it.

    Both are empty if the run met none.
    """
    with _decoder(built, sweeper) as decoder:
        found = decoder.violation(row)
    if found is None:
        return {"operation": [], "handler": []}
    frames = [(frame.level, frame.address) for frame in found.stack]
    names = symbols(built.arena.core.path).names(frames)
    handler = [name for (level, _), name in zip(frames, names, strict=True) if level]
    return {"operation": names[len(handler) :], "handler": handler}


_decoders: WeakKeyDictionary[Any, Decoder] = WeakKeyDictionary()


@contextmanager
def _decoder(built: Any, sweeper: Any) -> Iterator[Decoder]:
    """Yield the decoder of a scenario, which has the sweeper for so long: it must not keep the scenario alive."""
    found = _decoders.get(built)
    if found is None:
        found = _decoders[built] = Decoder(built)
    found.sweeper = sweeper
    try:
        yield found
    finally:
        found.sweeper = None


class Decoder:
    """Decodes the rows of one scenario."""

    def __init__(self, built: Any) -> None:
        self.arena = built.arena
        self.lib = built.arena.core.lib
        self.sweeper: Any = None
        self._call, self._request = built.call, built.request
        self._task_design = built.scenario.task_design
        self._in_irq = built.operation.context == "irq"
        self._programs: dict[str, Program] = dict(built.programs)
        self._irq_program = self._programs.get("irq") if self._in_irq else None
        kinds = sorted(self._programs, key=lambda kind: kind != built.scenario.kind)
        self._handlers = [kind for kind in kinds if self._programs[kind] is not self._irq_program]
        self._slots_at = self._places_of_slots()
        self._reasons = built.arena.core.names("reason")
        codes = op_codes(built.arena.core)
        self.op_names = {code: name.replace("_", " ") for name, code in codes.items()}

    # --- the whole ----------------------------------------------------------------------------

    def decode(self, row: Any) -> Outcome:
        """Say what a row of results is."""
        return self._broken_off(row) if row["end"] else self._decode(row)

    def _broken_off(self, row: Any) -> Outcome:
        """The run did not return."""
        end = _ENDS[int(row["end"])] if row["end"] < len(_ENDS) else f"end {row['end']}"
        if end == "missed":
            return Outcome(NONE, NONE, VACUOUS, "the instruction was never executed: nothing was injected")
        address = int(row["rip"]) - int(self.lib.shm_text_base())
        place = symbols(self.arena.core.path).name(address)
        if end == "stuck":
            return Outcome(NONE, NONE, STALL, f"still running when the watchdog came, in {place}")
        verdict = CORRUPTION if end == "crashed" else BROKEN_RULE
        return Outcome(NONE, NONE, verdict, f"{end}: at {place}")

    def _decode(self, row: Any) -> Outcome:
        after = self._after(row)
        handler, texts = _Ops(), []
        for kind in self._handlers:
            ran = self._of_program(after, self._programs[kind], kind)
            handler.names += ran.names
            texts += [f"{kind}: {ran}"] if ran.names else []
        operation = self._operation(after, int(row["value"]), handler)
        text = "; ".join([f"operation: {operation}", *texts])
        found = self._violation(after)
        if found is not None:
            wrong = str(found).removeprefix(f"{found.verdict}: ")
            return Outcome(operation.worst, handler.worst, found.verdict, f"{wrong}; {text}")
        for verdict, wrong in self._broken_bounds(after):
            return Outcome(operation.worst, handler.worst, verdict, f"{wrong} ({text})")
        for verdict, wrong in self._owners(after, int(row["value"])):
            return Outcome(operation.worst, handler.worst, verdict, f"{wrong} ({text})")
        return Outcome(operation.worst, handler.worst, OK, text)

    def _after(self, row: Any) -> After:
        words = self.sweeper.state_words(int(row["state"])), self.sweeper.outcome_words(int(row["outcome"]))
        return After(self.arena, *words)

    # --- violations ---------------------------------------------------------------------------

    def violation(self, row: Any) -> Violation | None:
        """Return the violation that ended a run, else the first one; None if it met none."""
        return None if row["end"] else self._violation(self._after(row))

    def _violation(self, after: After) -> Violation | None:
        ffi, header = self.arena.core.ffi, offsets("shm_header")
        met = min(after.u32(header["nr_violations"]), int(self.lib.SHM_MAX_VIOLATIONS))
        found = []
        size = ffi.sizeof("struct shm_violation")
        for at in range(header["violations"], header["violations"] + met * size, size):
            raw = ffi.from_buffer("struct shm_violation *", after.bytes(at, size))
            found.append(read_violation(self.arena.core, raw[0]))
        fatal = [violation for violation in found if violation.verdict != BROKEN_RULE]
        return next(iter(fatal or found), None)

    # --- what the call and the program got ----------------------------------------------------

    def _operation(self, after: After, value: int, handler: _Ops) -> _Ops:
        if self._irq_program is not None:
            return self._of_program(after, self._irq_program, "irq")
        found = _Ops()
        gives, verb = self._request.gives, self._verb
        if gives:
            if value:
                found.add(verb, self._where(after, value, self._wanted_cache(self._call_size)))
            else:
                reason = self._last_reason(after)  # none: what was given up has no reason
                found.add(verb, NONE if reason == "none" else f"null:{reason}")
            return found
        error = (value & 0xFFFFFFFF) - (1 << 32 if value & 0x80000000 else 0)
        if error < 0:
            found.add(verb, f"error:{errno.errorcode.get(-error, str(-error))}")
        elif self._request.frees and self._left_to_irq_work(after) > handler.names.count(DEFERRED):
            found.add(verb, DEFERRED)
        else:
            found.add(verb, OK)
        return found

    @cached_property
    def _verb(self) -> str:
        return str(self._call.function).removeprefix("shm_design_").removeprefix("shm_")

    @cached_property
    def _call_size(self) -> tuple[int, int] | None:
        """Bytes and flags that the call asks for, if it asks for an object by size."""
        at = _SIZE_AT.get(self._call.function)
        if at is None or self._task_design not in _OF_CACHES:
            return None
        size, *more = self._call.args[at:]
        return int(size), int(more[0]) if more else 0

    def _wanted_cache(self, size: tuple[int, int] | None) -> int | None:
        if size is None or not size[0] or size[0] > self.lib.KMALLOC_MAX_CACHE_SIZE:
            return None
        return int(self.lib.shm_kmalloc_index(*size))

    def _where(self, after: After, offset: int, wanted: int | None) -> str:
        """Say whether an object is of the cache that was asked for."""
        if wanted is None or offset <= self.lib.SHM_ZERO_SIZE:
            return OK
        return OK if after.cache_of(offset) in (wanted, None) else OTHER_BUCKET

    def _last_reason(self, after: After) -> str:
        at = self._region("CPUS") + offsets("shm_cpu")["levels"]
        reason = after.u32(at + offsets("shm_level")["reason"])
        return self._reasons[reason] if reason < len(self._reasons) else str(reason)

    def _of_program(self, after: After, program: Program, kind: str) -> _Ops:
        """Tell what each op of a program got, from its slots and from what was counted in its context."""
        found = _Ops()
        number = kind_index(self.arena.core, kind)
        done = self.growth(after, "interrupts", number, "handled") * (
            program.c.per_interrupt or program.nr_ops
        )
        if done:
            ran = _Run(self, after, program, list(program.ops)[:done], CONTEXTS.index(kind))
            for op in ran.ops:
                ran.look_at(op, found)
        return found

    # --- counts -------------------------------------------------------------------------------

    def _region(self, name: str) -> int:
        return int(self.arena.header.regions[getattr(self.lib, f"REGION_{name}")].offset)

    def growth(self, after: After, *path: str | int) -> int:
        """Return how much a counter in the first CPU's telemetry has grown."""
        at = self._region("TELEMETRY") + telemetry_offset(*path)
        return after.u64(at) - int(self._cells[at >> 3])

    @cached_property
    def _cells(self) -> memoryview[int]:
        cells: memoryview[int] = self.arena.buffer.cast("Q")
        return cells

    def failures(self, after: After, design: str, context: int) -> Counter[str]:
        """Return the failures that were counted in one context."""
        index = designs.index(design)
        found = {
            name: self.growth(after, "counts", index, context, "failures", at)
            for at, name in enumerate(self._reasons)
        }
        return Counter({name: count for name, count in found.items() if count > 0})

    def event(self, after: After, region: str, struct: str, name: str) -> int:
        """Return how much an event counter has grown, over all structures of a region."""
        begin, total = self._region(region), 0
        header = self.arena.header.regions[getattr(self.lib, f"REGION_{region}")]
        size, offset = int(self.arena.core.ffi.sizeof(f"struct {struct}")), offsets(struct)[name]
        for at in after.cells(begin, begin + int(header.bytes)):
            if (at - begin) % size == offset:
                total += after.u64(at) - int(self._cells[at >> 3])
        return total

    def _left_to_irq_work(self, after: After) -> int:
        """Count the frees that have been left for later: objects to irq_work, pages to the next who has the lock."""
        objects = self.event(after, "CACHE_STATS", "kmem_cache_stat", "defer_free")
        return objects + self.event(after, "ZONES", "zone", "nr_deferred_free")

    def deferred_by_handler(self, after: After, frees: int) -> int:
        """Say how many of a handler's frees were deferred.

        Counts do not tell whose free it was. If only one of the two frees, it is its; else the handler's are those
        that the operation does not defer when nobody interrupts it.
        """
        total = self._left_to_irq_work(after)
        if total and self._request.frees and self._task_design in _DEFERRING:
            total -= self._deferred_when_alone
        return max(0, min(total, frees))

    @cached_property
    def _deferred_when_alone(self) -> int:
        return self._left_to_irq_work(self._alone[1]) if self._alone is not None else 0

    @cached_property
    def _alone(self) -> tuple[int, After] | None:
        """What the operation comes to when nobody interrupts it, and what it returns; None if it does not."""
        row = self.sweeper.run(self._call, ())
        return None if row["end"] else (int(row["value"]), self._after(row))

    def map_errors(self, after: After) -> list[str]:
        """Return the errors of updates and deletes of maps that are not the operation's own."""
        found = []
        for counter, name in _MAP_ERRORS.items():
            times = self.growth(after, counter)
            if times and self._alone is not None:
                times -= self.growth(self._alone[1], counter)
            found += [name] * times
        return found

    # --- bounds -------------------------------------------------------------------------------

    def _broken_bounds(self, after: After) -> Iterator[tuple[str, str]]:
        """Nobody but the interrupted context holds locks here, so a wait is for something that never comes."""
        used = {self._task_design, *(program.design for program in self._programs.values())}
        looks_only = self._has_maps or not used.isdisjoint(_LOOK_ONLY)
        waits = self.growth(after, "lock_yields" if looks_only else "lock_waits")
        if waits:
            yield BROKEN_RULE, f"{waits} waits for a lock, where none can end well"
        interrupts = self._interrupts(after)
        for name in _RETRIES:
            retries = self.event(after, "CACHE_STATS", "kmem_cache_stat", name)
            if retries > interrupts:
                yield STALL, f"{name} grew by {retries} in {interrupts} interrupts: one can cause one retry"

    def unhandled(self, row: Any, sent: Sequence[str]) -> str:
        """Compare the interrupts that were handled with those that were sent."""
        after = self._after(row)
        for kind, count in Counter(sent).items():
            handled = self._handled(after, kind) - (self._handled(self._alone[1], kind) if self._alone else 0)
            if handled < (count if kind == "nmi" else 1):
                return f"{handled} of {count} {kind}s came"
        return ""

    def _handled(self, after: After, kind: str) -> int:
        return self.growth(after, "interrupts", kind_index(self.arena.core, kind), "handled")

    def _interrupts(self, after: After) -> int:
        kinds = sum(self.growth(after, "interrupts", kind, "handled") for kind in range(self.lib.NR_KINDS))
        return kinds + self.growth(after, "irq_work_runs")

    @cached_property
    def _has_maps(self) -> bool:
        maps = self.arena.header.geometry.max_maps
        return bool(maps) and bool((self.arena.region("maps")["state"] == self.lib.MAP_LIVE).any())

    # --- ownership ----------------------------------------------------------------------------

    def _places_of_slots(self) -> dict[str, int]:
        """Map kinds to where the words of their program's slots lie, behind the arena, one after the other."""
        places, at = {}, int(self.arena.size_bytes)
        for kind, program in self._programs.items():
            places[kind] = at
            at += program.slots.nbytes
        return places

    def slots(self, after: After, program: Program) -> list[int]:
        """Return what a program's slots hold afterwards."""
        kind = next(kind for kind, each in self._programs.items() if each is program)
        at = self._slots_at[kind]
        words = list(program.slots)
        for cell in after.cells(at, at + 8 * len(words)):
            slot = (cell - at) >> 3
            words[slot] = after.patched(cell, words[slot])
        return words

    def _owners(self, after: After, value: int) -> Iterator[tuple[str, str]]:
        """Compare what came to be owned, and what no longer is, with what was handed out and freed."""
        if self._has_maps or not self.arena.header.geometry.flags & self.lib.SHM_GEO_ORACLE:
            return
        begun, ended, given, taken = self._ownership(after, value)
        if self._unexplained:
            return
        for offset in sorted(begun - given):
            yield LOST_MEMORY, f"{after.place(offset)} is owned, and nobody was given it"
        for offset in sorted(given - begun):
            yield CORRUPTION, f"{after.place(offset)} was handed out, and is not owned"
        for offset in sorted(ended - taken):
            yield CORRUPTION, f"{after.place(offset)} is owned no longer, and nobody has freed it"
        for offset in sorted(taken - ended):
            yield LOST_MEMORY, f"{after.place(offset)} was freed, and is still owned"

    def _ownership(self, after: After, value: int) -> tuple[set[int], set[int], set[int], set[int]]:
        """Return the objects that the oracle sees begin and end, and those that were given and taken."""
        begun, ended = self._oracle(after)
        before, now = Counter[int](), Counter[int]()
        for program in self._programs.values():
            before.update(word & _OFFSET_MASK for word in program.slots if word)
            now.update(word & _OFFSET_MASK for word in self.slots(after, program) if word)
        if self._request.frees and self._irq_program is None:
            before[self._request.frees & _OFFSET_MASK] += 1
        if self._request.gives and self._irq_program is None and value > self.lib.SHM_ZERO_SIZE:
            now[value] += 1
        return begun, ended, set(now - before), set(before - now)

    def _oracle(self, after: After) -> tuple[set[int], set[int]]:
        start, memory = self._region("ORACLE_START"), self._region("MEMORY")
        length = int(self.arena.header.regions[self.lib.REGION_ORACLE_START].bytes)
        begun: set[int] = set()
        ended: set[int] = set()
        for cell in after.cells(start, start + length):
            old, new = int(self._cells[cell >> 3]), after.u64(cell)
            first = memory + (cell - start) * 64
            begun.update(first + bit * 8 for bit in _bits(new & ~old))
            ended.update(first + bit * 8 for bit in _bits(old & ~new))
        return begun, ended

    @cached_property
    def _unexplained(self) -> bool:
        """Whether the operation hands out, or takes back, what it does not say: seen in a run of its own."""
        if self._alone is None:
            return True
        value, after = self._alone
        begun, ended, given, taken = self._ownership(after, value)
        return begun != given or ended != taken


class _Run:
    """One run of a program, whose ops are looked at in order."""

    def __init__(
        self, decoder: Decoder, after: After, program: Program, ops: list[Any], context: int
    ) -> None:
        self.decoder, self.after, self.program, self.ops = decoder, after, program, ops
        self.lib = decoder.lib
        self.names = decoder.op_names
        self.before, self.now = list(program.slots), decoder.slots(after, program)
        index = designs.index(program.design)
        self.failures = list(decoder.failures(after, program.design, context).elements())
        allocs = decoder.growth(after, "counts", index, context, "allocs")
        codes = (self.lib.OP_FREE, self.lib.OP_BULK_FREE, self.lib.OP_FREE_RCU)
        self.freed_later = {op.slot for op in ops if op.code in codes}
        self.unseen = allocs - sum(
            bool(self.now[op.slot]) for op in ops if self._allocates(op) and op.slot not in self.freed_later
        )
        self.filled = [bool(word) for word in self.before]
        frees = decoder.growth(after, "counts", index, context, "frees")
        self.deferred = decoder.deferred_by_handler(after, frees)
        self.retried = decoder.event(after, "CACHE_STATS", "kmem_cache_stat", "bucket_retry")
        self.map_errors = decoder.map_errors(after)

    def _allocates(self, op: Any) -> bool:
        return op.code in (self.lib.OP_ALLOC, self.lib.OP_CACHE_ALLOC, self.lib.OP_PAGES_ALLOC)

    def look_at(self, op: Any, found: _Ops) -> None:
        """Look at one op."""
        lib = self.lib
        if self._allocates(op):
            found.add("pages" if op.code == lib.OP_PAGES_ALLOC else "alloc", self._alloc(op))
        elif op.code in (lib.OP_FREE, lib.OP_FREE_RCU):
            found.add(self.names[op.code], self._free(op))
        elif op.code in (lib.OP_MAP_UPDATE, lib.OP_MAP_DELETE):
            verb = "map update" if op.code == lib.OP_MAP_UPDATE else "map delete"
            found.add(verb, self._map())
        else:
            found.add(self.names.get(op.code, f"op {op.code}"), OK)

    def _alloc(self, op: Any) -> str:
        if op.slot in self.freed_later:
            got = self.unseen > 0
            self.unseen -= got
        else:
            got = bool(self.now[op.slot])
        self.filled[op.slot] = got
        if not got:
            return f"null:{self.failures.pop(0)}" if self.failures else NONE
        if (
            op.slot in self.freed_later
        ):  # where it was is not known any more, but that another bucket was tried is
            return OTHER_BUCKET if self.retried else OK
        offset = self.now[op.slot] & _OFFSET_MASK
        if op.code != self.lib.OP_ALLOC or not offset or self.program.design not in _OF_CACHES:
            return OK
        decoder = self.decoder
        return decoder._where(self.after, offset, decoder._wanted_cache((int(op.size), int(op.gfp))))

    def _free(self, op: Any) -> str:
        if not self.filled[op.slot] or self.now[op.slot] == self.before[op.slot] != 0:
            return NONE  # there was nothing to be freed, or nothing that this design can free here
        self.filled[op.slot] = False
        if self.deferred > 0 and op.code == self.lib.OP_FREE:
            self.deferred -= 1
            return DEFERRED
        return OK

    def _map(self) -> str:
        if self.failures:  # for want of an element: ENOMEM to the caller
            return f"null:{self.failures.pop(0)}"
        return f"error:{self.map_errors.pop(0)}" if self.map_errors else OK


def _bits(word: int) -> list[int]:
    return [bit for bit in range(64) if word >> bit & 1]
