# SPDX-License-Identifier: MIT
"""The core's instructions, compared with objdump's and with what the machine does."""

import re
import shutil
import subprocess

import pytest

from harness.atlas.disassembly import REGISTERS, Disassembly, Instruction, disassembly
from harness.atlas.image import CoreImage
from shmalloc._binding import core

# What has memory as its first operand and neither only reads nor only writes it: reads, then writes.
READ_THEN_WRITE = {
    "adc", "add", "and", "btc", "btr", "bts", "cmpxchg", "cmpxchg16b", "dec", "inc", "neg", "not", "or", "rol",
    "ror", "sar", "sbb", "shl", "shr", "sub", "xadd", "xchg", "xor",
}  # fmt: skip
ONLY_WRITE = {"mov", "stosb", "stosd", "stosq", "stosw", "movsb", "movsq"}  # and mov*, set*


@pytest.fixture(scope="module")
def code() -> Disassembly:
    return disassembly(core("release").path)


@pytest.fixture(scope="module")
def instructions(code: Disassembly) -> list[Instruction]:
    """Those of the core; the glue to Python is not in it."""
    image = CoreImage.of(core("release"))
    starts = {start - image.base for _, start, _, _ in image.functions}
    return [one for function in code.functions if function.start in starts for one in code.body(function)]


def objdump(function: str) -> list[tuple[int, str]]:
    """List (address, mnemonic) of a function as binutils decode it."""
    if shutil.which("objdump") is None:
        pytest.skip("objdump (binutils) is not installed")
    command = ["objdump", "-d", "-M", "intel", "--no-show-raw-insn", f"--disassemble={function}"]
    text = subprocess.run(
        [*command, str(core("release").path)], capture_output=True, text=True, check=True
    ).stdout
    return [(int(at, 16), name) for at, name in re.findall(r"^ +([0-9a-f]+):\t(\S+)", text, re.M)]


@pytest.mark.parametrize("name", ["kmalloc_nolock", "rmqueue_pcplist", "__slab_free", "shm_design_alloc"])
def test_boundaries_are_those_of_objdump(code: Disassembly, name: str) -> None:
    (function,) = [one for one in code.functions if one.name == name]
    theirs = objdump(name)
    assert [one.address for one in code.body(function)] == [address for address, _ in theirs]
    prefixes = ("lock", "rep", "repz")
    for one, (_, mnemonic) in zip(code.body(function), theirs, strict=True):
        assert (
            one.text.startswith(mnemonic)
            or mnemonic in prefixes
            or mnemonic[0] in "jscn"
            or one.text == "nop"
        )


def test_branches_lead_to_instructions(instructions: list[Instruction]) -> None:
    known = {one.address for one in instructions}
    targets = {one.target for one in instructions if one.kind in ("branch", "jump") and one.target}
    assert len(targets) > 1000 and targets <= known


def test_what_is_done_to_memory_is_known_of_every_mnemonic(instructions: list[Instruction]) -> None:
    for one in instructions:
        for place, operand in enumerate(one.memory):
            if operand.writes and operand.reads:
                assert one.mnemonic in READ_THEN_WRITE, one.text
            elif operand.writes:
                assert one.mnemonic in ONLY_WRITE or one.mnemonic.startswith(("mov", "set")), one.text
            assert operand.reads or operand.writes
            assert place == 0 or one.mnemonic.startswith("movs")


def test_stores_and_loads(instructions: list[Instruction]) -> None:
    def kinds(pattern: str) -> set[tuple[bool, bool, bool]]:
        found = [one for one in instructions if re.fullmatch(pattern, one.text)]
        assert found, pattern
        return {(one.memory[0].reads, one.memory[0].writes, one.is_locked) for one in found}

    assert kinds(r"mov qword ptr \[r.*\], r..") == {(False, True, False)}
    assert kinds(r"mov r.., qword ptr \[r.*\]") == {(True, False, False)}
    assert kinds(r"movups xmmword ptr \[.*\], xmm.") == {(False, True, False)}
    assert kinds(r"cmpxchg16b .*") == {(True, True, False)}  # of one CPU: no prefix
    assert kinds(r"lock cmpxchg .*") == {(True, True, True)}
    assert kinds(r"xchg .*\[.*") == {(True, True, True)}
    assert kinds(r"cmp qword ptr \[.*") == {(True, False, False)}
    assert kinds(r"rep stosq .*") == {(False, True, False)}


def test_addresses_are_no_accesses(instructions: list[Instruction]) -> None:
    quiet = [one for one in instructions if one.mnemonic in ("lea", "nop")]
    assert quiet and not any(one.memory for one in quiet)


def test_kinds(code: Disassembly, instructions: list[Instruction]) -> None:
    kinds = {one.kind for one in instructions}
    assert kinds == {"call", "ret", "jump", "branch", "syscall", "other"}
    starts = {function.start for function in code.functions}
    calls = [one for one in instructions if one.kind == "call" and one.target is not None]
    assert len([one for one in calls if one.target in starts]) > 1000


def test_an_operand_names_registers_as_a_trace_does(instructions: list[Instruction]) -> None:
    pattern = r"cmp dword ptr \[(\w+) \+ (\w+)\*8 \+ 0x38\], 3"
    example, names = next(
        (one, found.groups()) for one in instructions if (found := re.fullmatch(pattern, one.text))
    )
    (operand,) = example.memory
    assert (REGISTERS[operand.base or 0], REGISTERS[operand.index or 0]) == names
    assert (operand.scale, operand.displacement, operand.size, operand.segment) == (8, 0x38, 4, "")


def test_registers_written(code: Disassembly, instructions: list[Instruction]) -> None:
    def written(pattern: str) -> set[str]:
        one = next(one for one in instructions if re.fullmatch(pattern, one.text))
        return {REGISTERS[number] for number in code.written(one.address)}

    assert written(r"mov eax, dword ptr \[.*") == {"rax"}
    assert written(r"xchg r8d?, .*|xor r8d, r8d") == {"r8"}
    assert {"rax", "rdx"} <= written(r"cmpxchg16b .*")
    assert written(r"pop rbx") == {"rbx", "rsp"}


def test_what_is_no_instruction(code: Disassembly) -> None:
    start = next(function.start for function in code.functions if function.name == "kmalloc_nolock")
    assert code.begins(start) and not code.begins(start + 2)
    assert code.function_at(0) is None
    with pytest.raises(LookupError, match="not the beginning"):
        code.at(start + 2)
    with pytest.raises(LookupError, match="no function"):
        code.at(0)


def test_how_long_an_op_took_decides_no_branch(code: Disassembly) -> None:
    """Or an operation in irq context would now and then take another path than the one recorded."""
    (function,) = [one for one in code.functions if one.name == "run_op_timed"]
    body = code.body(function)
    first, second = [i for i, one in enumerate(body) if one.text.startswith("rdtsc")]
    before, after = body[first:second], body[second:]
    assert [one for one in before if one.kind == "branch"]  # is the op an allocation at all?
    assert not [one for one in after if one.kind == "branch"]
    assert any(one.text.startswith("ret") for one in after)
