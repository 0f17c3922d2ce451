# SPDX-License-Identifier: MIT
"""A trace read with the disassembly: which instruction each step is, and in which call it happened.

`check_trace` holds the recorder to account: a step that no instruction leads to was not what ran.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from harness.atlas.disassembly import REGISTERS, Disassembly, Instruction, disassembly
from shmalloc.symbols import symbols

__all__ = ["SYSCALLS", "Activation", "Image", "Steps", "TraceError", "Traced", "check_trace"]

RAX, RSP = REGISTERS.index("rax"), REGISTERS.index("rsp")

#: What sys.h declares: the system calls that a bound CPU may make.
SYSCALLS = {
    0: "read",
    3: "close",
    14: "rt_sigprocmask",
    24: "sched_yield",
    35: "nanosleep",
    37: "alarm",
    39: "getpid",
    186: "gettid",
    202: "futex",
    223: "timer_settime",
    231: "exit_group",
    234: "tgkill",
    257: "openat",
}


class TraceError(Exception):
    """A trace that is not the execution of the core's code."""


class Image(Protocol):
    """What is needed of a core: its file and its load address."""

    @property
    def path(self) -> Path:
        """The shared object."""

    @property
    def base(self) -> int:
        """Where it is loaded."""


class Traced(Protocol):
    """What is needed of a trace: rips, shape (n,), and regs, shape (n, 16), before each step."""

    @property
    def rips(self) -> np.ndarray[Any, Any]:
        """Absolute addresses, uint64."""

    @property
    def regs(self) -> np.ndarray[Any, Any]:
        """General registers in the order of REGISTERS, uint64."""

    @property
    def fs_base(self) -> int:
        """What fs: is relative to."""


@dataclass(frozen=True, slots=True)
class Activation:
    """One execution of a function, or a part of one that the trace begins or ends in.

    Attributes: caller: step of the call, or of the jump at a function's end; None if it is not in the trace.
        is_jump: it was a jump, so its end is its caller's end too.
    """

    caller: int | None
    is_jump: bool = False


@dataclass(frozen=True)
class Steps:
    """A trace with its instructions and calls.

    Attributes:
        addresses: of each step, relative to the load address.
        instructions: the distinct ones.
        which: of each step, its number among them.
        frames: every call, callers before those they call.
        frame: of each step, its number among them.
        strays: steps that return to elsewhere than behind their call.
    """

    addresses: np.ndarray[Any, np.dtype[np.int64]]
    instructions: Sequence[Instruction]
    which: np.ndarray[Any, np.dtype[np.intp]]
    frames: Sequence[Activation]
    frame: np.ndarray[Any, np.dtype[np.intp]]
    strays: Sequence[int]

    @classmethod
    def of(cls, image: Image, trace: Traced) -> Steps:
        """Read a trace.

        Raises: TraceError, for a step that is no instruction of the core.
        """
        code = disassembly(image.path)
        addresses = trace.rips.astype(np.int64) - image.base
        distinct, which = np.unique(addresses, return_inverse=True)
        try:
            instructions = [code.at(int(address)) for address in distinct]
        except LookupError as error:
            raise TraceError(f"the trace executes what is no code: {error}") from error
        calls = _Calls(code, instructions, which, trace.regs[:, RSP])
        return cls(addresses, instructions, which, calls.frames, calls.frame, calls.strays)

    def __getitem__(self, step: int) -> Instruction:
        """Return the instruction of a step."""
        return self.instructions[int(self.which[step])]

    def callers(self, step: int) -> list[int]:
        """List the steps whose calls a step happened in, innermost first."""
        found = []
        caller = self.frames[self.frame[step]].caller
        while caller is not None:
            found.append(caller)
            caller = self.frames[self.frame[caller]].caller
        return found


class _Calls:
    """Follows calls, returns and jumps from function to function through a trace."""

    def __init__(
        self,
        code: Disassembly,
        instructions: Sequence[Instruction],
        which: np.ndarray[Any, np.dtype[np.intp]],
        stack_pointers: np.ndarray[Any, Any],
    ) -> None:
        self.frames = [Activation(None)]
        self.frame = np.zeros(len(which), dtype=np.intp)
        self.strays: list[int] = []
        self._code = code
        self._stack_pointers = stack_pointers
        self._step_of = [instructions[number] for number in which]
        # Frames that are not left yet; where the stack pointer was at their first instruction.
        self._open = [(0, int(stack_pointers[0]) if len(which) else 0)]
        turns = [one.kind in ("call", "ret", "jump", "branch") for one in instructions]
        begin = 0
        for step in np.flatnonzero(np.array(turns, dtype=bool)[which]).tolist():
            if step + 1 < len(which) and self._turn(step):
                self.frame[begin : step + 1] = self._here
                self._here = self._open[-1][0]
                begin = step + 1
        self.frame[begin:] = self._here

    _here = 0

    def _turn(self, step: int) -> bool:
        """Account for an instruction that may lead elsewhere; False if it stays in its call."""
        one, then = self._step_of[step], self._step_of[step + 1]
        if one.kind == "call":
            self._enter(Activation(step), step)
            return True
        if one.kind == "ret":
            self._return(step, then)
            return True
        if then.address == one.next:
            return False
        if one.target is None and self._leaps(step):
            return True
        if self._ends_in_jump(one, then):
            self._enter(Activation(step, is_jump=True), step)
            return True
        return False

    def _enter(self, call: Activation, step: int) -> None:
        self._open.append((len(self.frames), int(self._stack_pointers[step + 1])))
        self.frames.append(call)

    def _return(self, step: int, then: Instruction) -> None:
        while self.frames[self._open[-1][0]].is_jump:
            self._open.pop()
        number, _ = self._open.pop()
        caller = self.frames[number].caller
        if caller is not None and then.address != self._step_of[caller].next:
            self.strays.append(step)
        if not self._open:  # into a function that was entered before the trace begins
            self._open.append((len(self.frames), int(self._stack_pointers[step + 1])))
            self.frames.append(Activation(None))

    def _leaps(self, step: int) -> bool:
        """A jump that leaves calls without their returns: what a proved deadlock unwinds by."""
        behind = int(self._stack_pointers[step + 1])
        left = False
        while len(self._open) > 1 and behind > self._open[-1][1]:
            self._open.pop()
            left = True
        return left

    def _ends_in_jump(self, one: Instruction, then: Instruction) -> bool:
        """Whether a jump enters another function at its beginning; a part of the same one is none."""
        entered = self._code.function_at(then.address)
        left = self._code.function_at(one.address)
        if entered is None or left is None or entered.start != then.address:
            return False
        return entered.stem != left.stem


def check_trace(trace: Traced, image: Image) -> None:
    """Check that each step follows from the one before, and that no other system call is made than listed.

    Raises: TraceError, naming the first place.
    """
    if not len(trace.rips):
        raise TraceError("the trace is empty")
    if trace.regs.shape != (len(trace.rips), len(REGISTERS)):
        raise TraceError(f"regs of shape {trace.regs.shape} for {len(trace.rips)} steps")
    steps = Steps.of(image, trace)
    code = disassembly(image.path)
    for step in _doubtful(steps):
        one, then = steps[step], steps[step + 1]
        if not _may_follow(code, one, then):
            raise TraceError(
                f"step {step}: after {_place(image, one)} nothing leads to {_place(image, then)}, step {step + 1}"
            )
    if steps.strays:
        step = steps.strays[0]
        raise TraceError(
            f"step {step}: {_place(image, steps[step])} returns to {_place(image, steps[step + 1])}, "
            f"and was called by {_place(image, steps[steps.callers(step)[0]])}"
        )
    _check_syscalls(steps, trace, image)


def _doubtful(steps: Steps) -> list[int]:
    """List the steps that neither fall through to the next nor go to their target."""
    behind = np.array([one.next for one in steps.instructions])[steps.which]
    targets = np.array([-1 if one.target is None else one.target for one in steps.instructions])[steps.which]
    falls = np.array([one.kind in ("branch", "other", "syscall") for one in steps.instructions])[steps.which]
    then = steps.addresses[1:]
    fine = (falls[:-1] & (then == behind[:-1])) | (then == targets[:-1])
    return [int(step) for step in np.flatnonzero(~fine)]


def _may_follow(code: Disassembly, one: Instruction, then: Instruction) -> bool:
    if one.is_rep:
        return then.address == one.address
    if one.kind == "ret":
        return _follows_call(code, then.address)
    function = code.function_at(then.address)
    if one.kind == "call" and one.target is None:
        return function is not None and function.start == then.address
    # an entry of a table of jumps, another function, or where an unwinding goes
    return one.kind == "jump" and one.target is None and function is not None


def _follows_call(code: Disassembly, address: int) -> bool:
    function = code.function_at(address - 1)
    return function is not None and any(
        one.kind == "call" and one.next == address for one in code.body(function)
    )


def _check_syscalls(steps: Steps, trace: Traced, image: Image) -> None:
    made = np.array([one.kind == "syscall" for one in steps.instructions])[steps.which]
    for step in np.flatnonzero(made).tolist():
        number = int(trace.regs[step, RAX])
        if number not in SYSCALLS:
            raise TraceError(
                f"step {step}: {_place(image, steps[step])} makes system call {number}, which is not listed"
            )


def _place(image: Image, one: Instruction) -> str:
    return f"{one.text!r} at {symbols(image.path).name(one.address)}"
