# SPDX-License-Identifier: MIT
"""Recording one call into the core, and interrupting it before every instruction; the work is done in C.

The thread that makes a `Sweeper` is the CPU that is interrupted; the arena is its alone. From `snapshot`
on every run begins with the same arena, the same variables of the core and the same registers, and what
a run has changed is named and undone. Post-states and outcomes that are the same, word for word, have
the same number.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from harness.atlas.call import Call
from harness.problems import CannotRun
from shmalloc import _binding, _buildid
from shmalloc.errors import StaleBuildError

if TYPE_CHECKING:
    from harness.atlas.image import CoreImage
    from shmalloc.arena import Arena

__all__ = ["ENDS", "NONE", "Call", "LeftCore", "Results", "Stage", "Sweeper", "Trace"]

_SOURCES = Path(__file__).resolve().parent / "sweep"


def _load() -> tuple[Any, Any]:
    """Load the compiled half; it must be of the sources beside it, if there are any."""
    module = _binding.load_module("_sweep", __package__ or "harness.atlas")
    made_of = module.ffi.string(module.lib.sweep_source_id()).decode()
    if (_SOURCES / "sweep.h").is_file() and _buildid.source_id(_SOURCES, "") != made_of:
        raise StaleBuildError(
            f"{module.__file__} was built from other sources than those in {_SOURCES}; rebuild it in the root of the "
            "project: pip install ."
        )
    return module.ffi, module.lib


_FFI, _LIB = _load()
Array = np.ndarray[Any, Any]
Results = Array

NONE = int(_LIB.SWEEP_NONE)
#: How a run ended, by number.
ENDS = ("returned", "missed", "stuck", "crashed", "left", "full")
#: What `regs` of a trace holds, by column.
REGISTERS = (
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip
KINDS = {"nmi": int(_LIB.SWEEP_NMI), "irq": int(_LIB.SWEEP_IRQ)}

_MAX_STEPS = 1 << 16
_WATCHDOG_MS = 400

RESULT = np.dtype(
    [
        ("index", "u4"),
        ("end", "u4"),
        ("value", "u8"),
        ("state", "u4"),
        ("outcome", "u4"),
        ("rip", "u8"),
        ("hits", "u4"),
        ("steps", "u4"),
    ]
)
_STEP = np.dtype([("rip", "u8"), ("regs", "u8", (len(REGISTERS),))])
WORD = np.dtype([("offset", "u8"), ("old", "u4"), ("new", "u4")])


class LeftCore(Exception):
    """A recorded call ran code that is not the core's, did not end, or never came to where it was to be interrupted."""


@dataclass(frozen=True, eq=False)
class Trace:
    """What a call executed, one row per instruction.

    Attributes: rips: addresses in this process, shape (n,).  regs: before each instruction, (n, 16), columns as
        in REGISTERS.  fs_base: what fs: is relative to.  result: of the recorded run, one row.
    """

    rips: Array
    regs: Array
    fs_base: int
    result: Results
    prev: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "prev", _previous(self.rips))

    def __len__(self) -> int:
        return len(self.rips)

    def occurrence(self, index: int) -> int:
        """Return which execution of its instruction a step is, from 1."""
        return int(np.count_nonzero(self.rips[: index + 1] == self.rips[index]))


@dataclass(frozen=True)
class Stage:
    """Deliver an interrupt before one step of a trace.

    A stage after the first counts from where the one before was delivered: from the interrupted instruction on,
    or from the handler's first instruction (inside).
    """

    trace: Trace
    index: int
    kind: str = "nmi"
    inside: bool = False


class Sweeper:
    """A sweep of one arena on this thread. One at a time in a process; close it, or use it as a context manager.

    Args: arena: active, and this thread is one of its CPUs, with handlers.  image: of its core.  classes: of each
        4 bytes of the arena, uint8: 0 state, 1 outcome, 2 to be ignored.  watched: writable buffers of the
        handlers, a multiple of 4 bytes each; their words follow the arena's, as outcomes.  cpu: that is interrupted.
    Raises: CannotRun: this machine does not let its code be interrupted so.
    """

    def __init__(
        self,
        arena: Arena,
        image: CoreImage,
        *,
        classes: Array,
        watched: Sequence[Any] = (),
        cpu: int = 0,
    ) -> None:
        self._image = image
        self._open = False
        base, size = arena.base, arena.size_bytes
        if classes.dtype != np.uint8 or classes.shape != (size // 4,):
            raise ValueError(
                f"classes: {classes.dtype} of shape {classes.shape}: must be uint8 ({size // 4},)"
            )
        lib = arena.core.lib
        row = arena.item("struct shm_cpu", "cpus", cpu)
        pending = arena.core.ffi.addressof(row[0], "irq_pending")
        self._keep = (np.ascontiguousarray(classes), [_FFI.from_buffer(each) for each in watched])
        lists = {
            "text": [(start, end - start) for start, end in image.text],
            "locals": [(start, count) for _, start, count in image.variables],
            "watched": [(int(_FFI.cast("uintptr_t", each)), len(each)) for each in self._keep[1]],
        }
        arrays = {name: _FFI.new("struct sweep_range[]", rows or [(0, 0)]) for name, rows in lists.items()}
        setup = _FFI.new(
            "struct sweep_setup *",
            {
                "arena": base,
                "arena_bytes": size,
                "classes": _FFI.from_buffer("uint8_t[]", self._keep[0]),
                **arrays,
                **{f"nr_{name}": len(rows) for name, rows in lists.items()},
                "irq_bit": int(lib.IRQ_PENDING_PROGRAM),
                "irq_pending": int(arena.core.ffi.cast("uintptr_t", pending)),
                "nmi_signal": int(lib.shm_signal_of(lib.KIND_NMI)),
                "irq_signal": int(lib.shm_signal_of(lib.KIND_IRQ)),
                "watchdog_ms": _WATCHDOG_MS,
            },
        )
        error = -_LIB.sweep_open(setup)
        if error:
            raise _refusal(error)
        self._open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the traps away; the arena can be written as before."""
        if self._open:
            _LIB.sweep_close()
        self._open = False

    # --- the start state ----------------------------------------------------------------------

    def snapshot(self) -> None:
        """Make what is now the start of every run; the numbers of states and outcomes begin anew."""
        _check(_LIB.sweep_snapshot())

    def restore(self) -> None:
        """Go back to the snapshot, whatever has been done in the arena since."""
        _LIB.sweep_restore()

    # --- runs ---------------------------------------------------------------------------------

    def record(
        self,
        call: Call,
        stages: Sequence[Stage] = (),
        what: str = "operation",
        *,
        by_trap_flag: bool = False,
    ) -> Trace:
        """Step through a call and write down what it executes; the arena is then as before.

        Args: call.  stages: interrupts before the recording begins.  what: "operation": from the call's first
            instruction, or from the one that the last stage interrupts, to the return; "handler": what the last
            stage's handler executes.
        Raises: LeftCore.
        """
        kind = {"operation": _LIB.SWEEP_OPERATION, "handler": _LIB.SWEEP_HANDLER}[what]
        steps = np.empty(_MAX_STEPS, dtype=_STEP)
        rows, keep = self._stages(stages)
        result = np.zeros(1, dtype=RESULT)
        _check(
            _LIB.sweep_record(
                self._call(call),
                rows,
                len(stages),
                kind,
                int(by_trap_flag),
                _FFI.cast("struct sweep_step *", _FFI.from_buffer(steps)),
                _MAX_STEPS,
                _result(result),
            )
        )
        del keep
        row = result[0]
        if row["end"] != _LIB.SWEEP_RETURNED or not row["steps"]:
            raise LeftCore(self._why_not_recorded(call, row))
        found = steps[: int(row["steps"])]
        return Trace(found["rip"].copy(), found["regs"].copy(), int(_LIB.sweep_fs_base()), row)

    def run(self, call: Call, stages: Sequence[Stage] = (), *, by_trap_flag: bool = False) -> Any:
        """Run a call with these interrupts. Returns: one row of results; the arena is then as before.

        Args: by_trap_flag: step all the way instead of planting breakpoints: slow, and what the fast way is
            checked against.
        """
        return self._run(call, stages, keep=False, by_trap_flag=by_trap_flag)

    def run_and_keep(self, call: Call, stages: Sequence[Stage] = ()) -> Any:
        """Do the same and leave the arena as it is then: `restore` goes back. The result names no state."""
        return self._run(call, stages, keep=True, by_trap_flag=False)

    def sweep(
        self,
        call: Call,
        trace: Trace,
        indices: Any,
        kind: str = "nmi",
        before: Sequence[Stage] = (),
        *,
        inside: bool = False,
    ) -> Results:
        """Run a call once for each of these steps of a trace, with an interrupt before it.

        Args: before: interrupts that precede it in every run; the trace is then of what follows the last of them.
            inside: of what its handler executes.
        Returns: one row for each index.
        """
        wanted = np.ascontiguousarray(indices, dtype=np.uint32)
        results = np.zeros(len(wanted), dtype=RESULT)
        if not len(wanted):
            return results
        rows, keep = self._stages([*before, Stage(trace, int(wanted[0]), kind, inside)])
        done = _LIB.sweep_points(
            self._call(call),
            rows,
            len(before) + 1,
            _FFI.from_buffer("uint32_t[]", wanted),
            len(wanted),
            _result(results),
        )
        del keep
        _check(min(0, int(done)))
        return results

    def _run(self, call: Call, stages: Sequence[Stage], *, keep: bool, by_trap_flag: bool) -> Any:
        result = np.zeros(1, dtype=RESULT)
        rows, alive = self._stages(stages)
        _check(
            _LIB.sweep_run(self._call(call), rows, len(stages), int(keep), int(by_trap_flag), _result(result))
        )
        del alive
        return result[0]

    def _call(self, call: Call) -> Any:
        args = [value & (1 << 64) - 1 for value in call.args]
        return _FFI.new(
            "struct sweep_call *",
            {"function": self._image.address(call.function), "args": args + [0] * (6 - len(args))},
        )

    def _stages(self, stages: Sequence[Stage]) -> tuple[Any, list[Any]]:
        rows = _FFI.new("struct sweep_stage[]", max(1, len(stages)))
        keep: list[Any] = []
        for row, stage in zip(rows, stages, strict=False):
            if not 0 <= stage.index < len(stage.trace):
                raise ValueError(f"index = {stage.index}: allowed is 0 to {len(stage.trace) - 1}")
            rips = _FFI.from_buffer("uint64_t[]", stage.trace.rips)
            prev = _FFI.from_buffer("int32_t[]", stage.trace.prev)
            keep += [rips, prev]
            row.rips, row.prev, row.nr = rips, prev, len(stage.trace)
            row.index, row.kind, row.inside = stage.index, KINDS[stage.kind], stage.inside
        return rows, keep

    def _why_not_recorded(self, call: Call, row: Any) -> str:
        place = self._image.symbol_at(int(row["rip"])) if row["rip"] else None
        where = f"{int(row['rip']):#x}" if place is None else place[0]
        if row["end"] == _LIB.SWEEP_LEFT:
            return f"{call.function} left the core after {int(row['steps'])} instructions, for {where}"
        if row["end"] == _LIB.SWEEP_FULL:
            return f"{call.function} executes more than {_MAX_STEPS} instructions"
        if row["end"] == _LIB.SWEEP_RETURNED:
            return f"{call.function}: nothing of the core was executed where recording was to begin"
        return f"{call.function}: the recorded run {ENDS[row['end']]} at {where}"

    # --- what was found -----------------------------------------------------------------------

    @property
    def states(self) -> int:
        """How many distinct post-states there have been since the snapshot."""
        return int(_LIB.sweep_nr_states())

    @property
    def outcomes(self) -> int:
        """How many distinct outcomes there have been since the snapshot."""
        return int(_LIB.sweep_nr_outcomes())

    def load_state(self, state: int) -> None:
        """Bring the arena into a post-state, to be looked at and worked in; `restore` goes back."""
        _check(_LIB.sweep_load_state(state))

    def state_words(self, state: int) -> Array:
        """Return the 4-byte words of a post-state that differ from the snapshot: offset, old, new."""
        return self._words(_LIB.sweep_state_words, state)

    def outcome_words(self, outcome: int) -> Array:
        """Return those of an outcome; words of watched buffers have offsets behind the arena's end."""
        return self._words(_LIB.sweep_outcome_words, outcome)

    def _words(self, function: Any, number: int) -> Array:
        count = int(function(number, _FFI.NULL, 0))
        words = np.empty(count, dtype=WORD)
        function(number, _FFI.cast("struct sweep_word *", _FFI.from_buffer(words)), count)
        return words


def _previous(rips: Array) -> Array:
    """For each step the last earlier one with the same address, or -1."""
    order = np.argsort(rips, kind="stable")
    previous = np.full(len(rips), -1, dtype=np.int32)
    same = rips[order[1:]] == rips[order[:-1]]
    previous[order[1:][same]] = order[:-1][same]
    return previous


def _result(rows: Array) -> Any:
    return _FFI.cast("struct sweep_result *", _FFI.from_buffer(rows))


def _check(result: int) -> None:
    if result < 0:
        raise OSError(-result, os.strerror(-result))


def _refusal(error: int) -> Exception:
    if error in (errno.EACCES, errno.EPERM):
        return CannotRun(f"the core's code cannot be made writable in this process: {os.strerror(error)}")
    if error == errno.ENOTCONN:
        names = ", ".join(signal.Signals(number).name for number in (signal.SIGUSR1, signal.SIGUSR2))
        return ValueError(f"no CPU of this process takes interrupts: {names} are not handled by the core")
    return OSError(error, os.strerror(error))
