# SPDX-License-Identifier: MIT
"""The core's machine code as instructions: what each is, where it leads, which memory it names.

Read from the file, not from memory, where breakpoints may be planted. Functions are decoded when they
are asked for, once. All addresses are relative to the load address, as they are in the file.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import capstone
from capstone import x86
from elftools.elf.elffile import ELFFile

__all__ = ["REGISTERS", "Disassembly", "Function", "Instruction", "Memory", "disassembly"]

# The order of a trace's columns, which is the machine's own.
REGISTERS = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
RIP = len(REGISTERS)  # as a base: the address of the next instruction

_SECTIONS = (".text", "shm_slow", "shm_fast")
_NO_ACCESS = ("lea", "nop", "prefetch")
_ONLY_READ = {"cmp", "test", "bt", "comisd", "ucomisd", "comiss", "ucomiss", "push", "call", "jmp"}
_ONLY_READ |= {"mul", "imul", "div", "idiv"}
_BRANCHES = ("j", "loop")


@dataclass(frozen=True, slots=True)
class Memory:
    """A memory operand: segment + base + index * scale + displacement.

    Attributes: base, index: numbers in REGISTERS, RIP, or None.  segment: "fs", "gs" or "".
        size: bytes.  reads, writes: what the instruction does to it.
    """

    base: int | None
    index: int | None
    scale: int
    displacement: int
    segment: str
    size: int
    reads: bool
    writes: bool


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction.

    Attributes: address: relative to the load address.  size: bytes.  text: as an assembler writes it.
        kind: "call", "ret", "jump", "branch" (conditional), "syscall" or "other".  target: of a direct
        call, jump or branch.  is_rep: repeats itself.  is_locked: its access is atomic, by prefix or as
        every xchg with memory is.  memory: operands that it accesses; the stack of push, pop, call
        and ret is none of them.
    """

    address: int
    size: int
    text: str
    kind: str
    target: int | None
    is_rep: bool
    is_locked: bool
    memory: tuple[Memory, ...]

    @property
    def next(self) -> int:
        """Address of the instruction behind this one."""
        return self.address + self.size

    @property
    def mnemonic(self) -> str:
        """Its name without prefixes."""
        return _split(self.text)[0]


@dataclass(frozen=True, slots=True)
class Function:
    """A function's machine code.

    Attributes: name: as in the symbol table, with what the compiler appended.  start: its address.
        size: bytes.
    """

    name: str
    start: int
    size: int

    @property
    def stem(self) -> str:
        """Its name in the source."""
        return self.name.partition(".")[0]

    @property
    def end(self) -> int:
        """Address behind it."""
        return self.start + self.size


class Disassembly:
    """All functions of one module."""

    def __init__(self, path: str | Path) -> None:
        """Read text and symbols; nothing is decoded yet."""
        with Path(path).open("rb") as stream:
            elf = ELFFile(stream)
            self._text = _text(elf)
            self.functions = _functions(elf, self._text)
        self._starts = [function.start for function in self.functions]
        self._bodies: dict[int, tuple[Instruction, ...]] = {}
        self._by_address: dict[int, Instruction] = {}
        self._machine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        self._machine.detail = True

    def function_at(self, address: int) -> Function | None:
        """Return the function that an address lies in; None if it lies in none."""
        index = bisect_right(self._starts, address) - 1
        if index < 0 or address >= self.functions[index].end:
            return None
        return self.functions[index]

    def body(self, function: Function) -> tuple[Instruction, ...]:
        """Decode a function, from its first instruction to its last.

        Raises: ValueError, if not all of it is code.
        """
        if function.start not in self._bodies:
            code = self._bytes(function.start, function.size)
            body = tuple(_instruction(raw) for raw in self._machine.disasm(code, function.start))
            if sum(one.size for one in body) != function.size:
                raise ValueError(f"{function.name} at {function.start:#x} does not decode to its end")
            self._bodies[function.start] = body
            self._by_address.update((one.address, one) for one in body)
        return self._bodies[function.start]

    def at(self, address: int) -> Instruction:
        """Return the instruction that begins at an address.

        Raises: LookupError, if none does.
        """
        found = self._by_address.get(address)
        if found is None:
            function = self.function_at(address)
            if function is None:
                raise LookupError(f"{address:#x} lies in no function of the core")
            self.body(function)
            found = self._by_address.get(address)
        if found is None:
            raise LookupError(f"{address:#x} is not the beginning of an instruction")
        return found

    def begins(self, address: int) -> bool:
        """Say whether an instruction begins at an address."""
        try:
            self.at(address)
        except LookupError:
            return False
        return True

    def written(self, address: int) -> frozenset[int]:
        """Return the registers that an instruction writes, as numbers in REGISTERS."""
        one = self.at(address)
        (raw,) = self._machine.disasm(self._bytes(address, one.size), address)
        return frozenset(
            _FULL[name] for number in raw.regs_access()[1] if (name := raw.reg_name(number)) in _FULL
        )

    def source_register(self, address: int) -> int | None:
        """Return the register that an instruction's last operand is, as a number in REGISTERS."""
        return _FULL.get(_split(self.at(address).text)[1].rpartition(",")[2].strip())

    def _bytes(self, start: int, size: int) -> bytes:
        for begin, code in self._text:
            if begin <= start < begin + len(code):
                return code[start - begin : start - begin + size]
        raise LookupError(f"{start:#x} lies in no text of the core")


def _text(elf: ELFFile) -> list[tuple[int, bytes]]:
    sections = [elf.get_section_by_name(name) for name in _SECTIONS]
    return [(int(section["sh_addr"]), section.data()) for section in sections if section is not None]


def _functions(elf: ELFFile, text: list[tuple[int, bytes]]) -> list[Function]:
    """List functions by start; of aliases the one whose name is the shortest."""
    table: Any = elf.get_section_by_name(".symtab")
    found: dict[int, Function] = {}
    for symbol in table.iter_symbols() if table is not None else ():
        start, size = int(symbol["st_value"]), int(symbol["st_size"])
        if symbol["st_info"]["type"] != "STT_FUNC" or not size:
            continue
        if not any(begin <= start < begin + len(code) for begin, code in text):
            continue
        other = found.get(start)
        if other is None or len(symbol.name) < len(other.name):
            found[start] = Function(str(symbol.name), start, size)
    return [found[start] for start in sorted(found)]


def _instruction(raw: Any) -> Instruction:
    mnemonic: str = raw.mnemonic
    operands: str = raw.op_str
    name = mnemonic.rpartition(" ")[2]
    memory = _memory(raw, name, operands) if "[" in operands and not name.startswith(_NO_ACCESS) else ()
    kind = _kind(name)
    direct = kind in ("call", "jump", "branch") and operands.startswith("0x")
    return Instruction(
        address=int(raw.address),
        size=int(raw.size),
        text=f"{mnemonic} {operands}".rstrip(),
        kind=kind,
        target=int(operands, 16) if direct else None,
        is_rep=mnemonic.startswith("rep"),
        is_locked="lock" in mnemonic.split() or (name == "xchg" and bool(memory)),
        memory=memory,
    )


def _kind(name: str) -> str:
    if name in ("call", "ret", "syscall"):
        return name
    if name == "jmp":
        return "jump"
    return "branch" if name.startswith(_BRANCHES) else "other"


def _memory(raw: Any, name: str, operands: str) -> tuple[Memory, ...]:
    """List the memory operands, with what is done to each by its place: the first is the destination."""
    found = []
    for place, operand in enumerate(raw.operands):
        if operand.type == x86.X86_OP_MEM:
            reads, writes = _access(name, place)
            where = operand.mem
            segment = raw.reg_name(where.segment) if where.segment else ""
            found.append(
                Memory(
                    base=_register(raw, where.base),
                    index=_register(raw, where.index),
                    scale=int(where.scale),
                    displacement=int(where.disp),
                    segment=segment if segment in ("fs", "gs") else "",
                    size=int(operand.size),
                    reads=reads,
                    writes=writes,
                )
            )
    return tuple(found)


def _access(name: str, place: int) -> tuple[bool, bool]:
    """Say whether an operand is read and whether it is written.

    Not asked of capstone, which takes compare-and-exchange and some vector stores for mere reads.
    """
    if name in ("xchg", "xadd"):
        return True, True
    if name in _ONLY_READ or place > 0:
        return True, False
    return not name.startswith(("mov", "set", "stos")), True


def _register(raw: Any, number: int) -> int | None:
    if not number:
        return None
    name = raw.reg_name(number)
    return RIP if name == "rip" else REGISTERS.index(name)


def _split(text: str) -> tuple[str, str]:
    """Split an instruction into its name without prefixes, and its operands."""
    name, _, operands = text.partition(" ")
    while name in ("lock", "rep", "repe", "repne", "notrack", "bnd"):
        name, _, operands = operands.partition(" ")
    return name, operands


def _names(number: int, name: str) -> list[str]:
    """List the names of a register's lower parts, its own first."""
    if number >= 8:
        return [name, name + "d", name + "w", name + "b"]
    short = name[1:]
    low = [short[0] + "l", short[0] + "h"] if short.endswith("x") else [short + "l"]
    return [name, "e" + short, short, *low]


_FULL = {part: number for number, name in enumerate(REGISTERS) for part in _names(number, name)}


@cache
def disassembly(path: str | Path) -> Disassembly:
    """Return the functions of a module, read once.

    Raises: OSError; elftools' ELFError, for what is no ELF file.
    """
    return Disassembly(path)
