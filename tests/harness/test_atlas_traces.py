# SPDX-License-Identifier: MIT
"""Traces are read as what they are, on walks through the code that no machine took, and wrong ones are refused."""

import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.atlas import levels, stacks
from harness.atlas.disassembly import REGISTERS, Disassembly, disassembly
from harness.atlas.image import CoreImage
from harness.atlas.traces import RAX, RSP, SYSCALLS, Steps, TraceError, check_trace
from shmalloc._binding import core

SYS_H = Path(__file__).parents[2] / "shmalloc" / "core" / "sys.h"
NUMBERS = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
TOP = 0x7FFF_0000
GETTID = 186


@dataclass(frozen=True)
class Walk:
    """A way through the code; nothing but RSP and RAX is right in its registers."""

    rips: Any
    regs: Any
    fs_base: int = 0

    def without(self, step: int) -> "Walk":
        return Walk(np.delete(self.rips, step), np.delete(self.regs, step, axis=0))

    def replaced(self, step: int, rip: int) -> "Walk":
        rips = self.rips.copy()
        rips[step] = rip
        return Walk(rips, self.regs)


@pytest.fixture(scope="module")
def image() -> CoreImage:
    return CoreImage.of(core("release"))


def start_of(code: Disassembly, name: str) -> int:
    return next(one.start for one in code.functions if one.stem == name)


def walk(image: CoreImage, name: str, seed: int, most: int = 4000) -> tuple[Walk, list[int]]:
    """Go through a function and what it calls, at every branch at random. Returns: also the depth of each step."""
    code, dice = disassembly(image.path), random.Random(seed)
    at, back, rips, depths = start_of(code, name), [], [], []
    while len(rips) < most:
        if code.function_at(at) is None:
            break  # behind a function that does not return
        one = code.at(at)
        rips.append(at + image.base)
        depths.append(len(back))
        if one.kind == "ret":
            if not back:
                break
            at = back.pop()
        elif one.kind == "call":
            back.append(one.next)
            at = one.target if one.target is not None else start_of(code, "pcp_allowed_order")
        elif one.kind == "jump":
            if one.target is None:
                break
            at = one.target
        else:
            at = one.target if one.target is not None and dice.random() < 0.5 else one.next
    regs = np.zeros((len(rips), len(REGISTERS)), dtype=np.uint64)
    regs[:, RSP] = TOP - 8 * np.array(depths)
    regs[:, RAX] = GETTID
    return Walk(np.array(rips, dtype=np.uint64), regs), depths


def deep_walk(image: CoreImage) -> tuple[Walk, list[int]]:
    """A walk that comes to a call within a call."""
    return max((walk(image, "shm_alloc_pages", seed) for seed in range(20)), key=lambda found: max(found[1]))


WALKS = [(name, seed) for name in ("shm_alloc_pages", "kmalloc_nolock", "__slab_free") for seed in range(4)]


@pytest.mark.parametrize(("name", "seed"), WALKS)
def test_calls_are_followed(image: CoreImage, name: str, seed: int) -> None:
    """As deep as the returns say; a jump to another function is one level more."""
    trace, depths = walk(image, name, seed)
    check_trace(trace, image)
    steps = Steps.of(image, trace)
    for step in range(0, len(depths), 7):
        frames = [steps.frame[step], *(steps.frame[caller] for caller in steps.callers(step))]
        assert sum(not steps.frames[frame].is_jump for frame in frames) == depths[step] + 1


@pytest.mark.parametrize(("name", "seed"), WALKS)
def test_a_step_that_is_missing_is_noticed(image: CoreImage, name: str, seed: int) -> None:
    trace, _ = walk(image, name, seed, most=600)
    steps, dice = Steps.of(image, trace), random.Random(seed)
    noticed = tried = 0
    for step in dice.sample(range(1, len(trace.rips) - 1), min(20, len(trace.rips) - 2)):
        if "jump" in (steps[step].kind, steps[step - 1].kind):
            continue  # nothing is done on the way, or it may lead anywhere
        if steps[step - 1].target == int(steps.addresses[step + 1]):
            continue  # a branch past one instruction
        tried += 1
        with pytest.raises(TraceError, match=r"step \d+: "):
            check_trace(trace.without(step), image)
        noticed += 1
    assert noticed == tried > 0


def test_a_return_to_another_call_is_noticed(image: CoreImage) -> None:
    code, (trace, _) = disassembly(image.path), deep_walk(image)
    steps = Steps.of(image, trace)
    step = next(step for step in range(len(trace.rips) - 1) if steps[step].kind == "ret")
    elsewhere = [
        one.next
        for one in code.body(code.functions[0])
        + code.body(code.function_at(start_of(code, "kfree")) or code.functions[0])
        if one.kind == "call"
    ]
    wrong = Walk(trace.rips[: step + 2], trace.regs[: step + 2]).replaced(
        step + 1, elsewhere[-1] + image.base
    )
    with pytest.raises(TraceError, match=rf"step {step}: 'ret' at .* returns to .*, and was called by 'call"):
        check_trace(wrong, image)


def test_what_is_no_instruction_is_noticed(image: CoreImage) -> None:
    trace, _ = walk(image, "kmalloc_nolock", 0, most=20)
    for rip in (int(trace.rips[1]) + 1, image.base, 0x1234):
        with pytest.raises(TraceError, match="executes what is no code"):
            check_trace(trace.replaced(1, rip), image)
    with pytest.raises(TraceError, match="empty"):
        check_trace(Walk(trace.rips[:0], trace.regs[:0]), image)
    with pytest.raises(TraceError, match="regs of shape"):
        check_trace(Walk(trace.rips, trace.regs[:, :3]), image)


def test_system_calls_are_those_of_the_list(image: CoreImage) -> None:
    code = disassembly(image.path)
    body = code.body(code.function_at(start_of(code, "wakeup_kswapd")) or code.functions[0])
    rows = [one.address + image.base for one in body]
    at = next(number for number, one in enumerate(body) if one.kind == "syscall")
    regs = np.zeros((2, len(REGISTERS)), dtype=np.uint64)
    trace = Walk(np.array(rows[at : at + 2], dtype=np.uint64), regs)
    regs[0, RAX] = GETTID
    check_trace(trace, image)
    regs[0, RAX] = 1
    with pytest.raises(
        TraceError, match=r"step 0: 'syscall' at wakeup_kswapd\+.* system call 1, which is not listed"
    ):
        check_trace(trace, image)


def test_the_list_is_that_of_the_core() -> None:
    if not SYS_H.is_file() or not NUMBERS.is_file():
        pytest.skip("no source of the core, or no headers of Linux")
    used = set(re.findall(r"\bSYS_([a-z_]+)", SYS_H.read_text()))
    numbers = dict(re.findall(r"#define __NR_(\w+) (\d+)", NUMBERS.read_text()))
    assert {int(numbers[name]): name for name in used} == SYSCALLS


def test_a_repeated_instruction_may_follow_itself(image: CoreImage) -> None:
    code = disassembly(image.path)
    body = code.body(code.function_at(start_of(code, "zero_bytes")) or code.functions[0])
    rows = [one.address + image.base for one in body for _ in range(5 if one.is_rep else 1)]
    trace = Walk(np.array(rows, dtype=np.uint64), np.zeros((len(rows), len(REGISTERS)), dtype=np.uint64))
    check_trace(trace, image)
    with pytest.raises(TraceError):
        check_trace(Walk(trace.rips.repeat(2), trace.regs.repeat(2, axis=0)), image)


def test_a_trace_may_begin_within_a_call(image: CoreImage) -> None:
    """What is recorded behind an interrupt returns to functions that it did not see entered."""
    trace, depths = deep_walk(image)
    begin = depths.index(2)
    rest = Walk(trace.rips[begin:], trace.regs[begin:])
    check_trace(rest, image)
    assert len(levels.of_trace(image, rest)) == len(rest.rips)


def test_a_leap_leaves_the_calls_in_between(image: CoreImage) -> None:
    """A proved deadlock unwinds to its guard: RSP says which calls are over."""
    code = disassembly(image.path)
    leap = next(
        one
        for one in code.body(code.function_at(start_of(code, "unwind")) or code.functions[0])
        if one.kind == "jump" and one.target is None
    )
    trace, depths = deep_walk(image)
    deep = depths.index(2)
    rips = [*trace.rips[: deep + 1], leap.address + image.base, trace.rips[0]]
    regs = np.concatenate([trace.regs[: deep + 1], trace.regs[deep : deep + 1], trace.regs[:1]])
    steps = Steps.of(image, Walk(np.array(rips, dtype=np.uint64), regs))
    assert len(steps.callers(deep)) >= 2
    assert [step for step in steps.callers(deep + 2) if steps[step].kind == "call"] == []


def test_a_helper_is_on_its_callers_level(image: CoreImage) -> None:
    code = disassembly(image.path)
    helper, caller = start_of(code, "zero_bytes"), start_of(code, "walk_zonelist")
    call = next(
        one for one in code.body(code.function_at(caller) or code.functions[0]) if one.target == helper
    )
    body = code.body(code.function_at(helper) or code.functions[0])
    rows = [call.address, *(one.address for one in body), call.next]
    regs = np.zeros((len(rows), len(REGISTERS)), dtype=np.uint64)
    regs[:, RSP] = TOP
    regs[1:-1, RSP] -= 8
    trace = Walk(np.array(rows, dtype=np.uint64) + np.uint64(image.base), regs)
    found = {levels.LEVELS[number] for number in levels.of_trace(image, trace)}
    assert found == {"alloc_pages"}
    stack = stacks.at(image, trace, 2)
    assert re.fullmatch(r"zero_bytes\+0x[0-9a-f]+ \(string\.c:\d+\)", stack[0])
    assert re.fullmatch(r"prep_new_page \[inlined\] \(page_alloc\.c:\d+\)", stack[1])
    assert re.fullmatch(r"walk_zonelist\+0x[0-9a-f]+ \(page_alloc\.c:\d+\)", stack[-1])
