# SPDX-License-Identifier: MIT
"""Names for the addresses in a violation's stacks, from the symbols of the extension module.

The addresses are relative to the core's load address, as addresses in the ELF file are. Functions
come from .symtab (static ones included), source lines from DWARF, one compilation unit at a time
and only when an address in it is asked for. A stripped module has fewer names, and that is no error.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from elftools.common.exceptions import DWARFError, ELFError
from elftools.elf.elffile import ELFFile

__all__ = ["Symbol", "Symbols", "file_name", "symbols"]


@dataclass(frozen=True)
class Symbol:
    """What lies at one address.

    Attributes: function: its name.  offset: of the address within it, in bytes.  file, line: of the
        source; None without debug information.
    """

    function: str
    offset: int
    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        """Write it as the kernel does, with the source if it is known."""
        place = f"{self.function}+{self.offset:#x}"
        return place if self.file is None else f"{place} ({self.file}:{self.line})"


class Symbols:
    """The symbols of one module."""

    def __init__(self, path: str | Path) -> None:
        """Read the symbol table; the debug information waits until it is needed."""
        self.path = Path(path)
        self._functions: list[tuple[int, int, str]] = []
        self._lines: dict[int, _Lines] = {}
        self._units: Any = None
        self._dwarf: Any = None
        self._load()

    def find(self, address: int, *, returned_to: bool = False) -> Symbol | None:
        """Say what lies at an address; None if no function does.

        Args: address: relative to the load address.  returned_to: it is a return address, so what is
            meant is the call before it, which may be the last instruction of its function.
        """
        at = address - returned_to
        index = bisect_right(self._functions, at, key=lambda function: function[0]) - 1
        if index < 0:
            return None
        start, size, name = self._functions[index]
        if at >= start + size:
            return None
        file, line = self._source(at)
        return Symbol(name, address - start, file, line)

    def name(self, address: int, *, returned_to: bool = False) -> str:
        """Write an address as function+0xoffset (file:line), or as a number if nothing is known of it."""
        found = self.find(address, returned_to=returned_to)
        return f"{address:#x}" if found is None else str(found)

    def names(self, frames: Iterable[tuple[int, int]]) -> list[str]:
        """Write the stacks of a violation, innermost frame first.

        Args: frames: (execution level, address). Where the level changes an interrupt hit that very
            instruction; everything else was returned to.
        """
        found: list[str] = []
        above: int | None = None
        for level, address in frames:
            interrupted = above is not None and level != above
            found.append(self.name(address, returned_to=not interrupted))
            above = level
        return found

    def _load(self) -> None:
        try:
            with self.path.open("rb") as stream:
                elf = ELFFile(stream)
                self._functions = _functions(elf)
        except (OSError, ELFError):
            self._functions = []

    def _source(self, address: int) -> tuple[str | None, int | None]:
        try:
            return self._line_table(address).at(address)
        except (OSError, ELFError, DWARFError, LookupError):
            return None, None

    def _line_table(self, address: int) -> _Lines:
        """Return the lines of the compilation unit around an address, decoded once."""
        with self.path.open("rb") as stream:
            if self._units is None:
                self._units = _units(ELFFile(stream))
            unit = self._units.cu_offset_at_addr(address) if self._units else None
            if unit is None:
                raise LookupError(f"no debug information for {address:#x}")
            if unit not in self._lines:
                self._lines[unit] = _Lines.of_unit(ELFFile(stream).get_dwarf_info(), unit)
        return self._lines[unit]


def _functions(elf: ELFFile) -> list[tuple[int, int, str]]:
    """List (start, size, name) of all functions, by start; of aliases the first."""
    table: Any = elf.get_section_by_name(".symtab") or elf.get_section_by_name(".dynsym")
    found: dict[int, tuple[int, int, str]] = {}
    for symbol in table.iter_symbols() if table is not None else ():
        if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_size"]:
            start = int(symbol["st_value"])
            found.setdefault(start, (start, int(symbol["st_size"]), str(symbol.name)))
    return sorted(found.values())


def _units(elf: ELFFile) -> Any:
    return elf.get_dwarf_info().get_aranges() if elf.has_dwarf_info() else None


@dataclass(frozen=True)
class _Lines:
    """The line table of one compilation unit.

    Attributes: starts: first address of each row, ascending.  rows: file and line; None ends a sequence.
    """

    starts: list[int]
    rows: list[tuple[str, int] | None]

    @classmethod
    def of_unit(cls, dwarf: Any, offset: int) -> _Lines:
        program = dwarf.line_program_for_CU(dwarf.get_CU_at(offset))
        if program is None:
            return cls([], [])
        header, rows = program.header, []
        for entry in program.get_entries():
            state = entry.state
            if state is not None:
                place = None if state.end_sequence else (file_name(header, state.file), int(state.line))
                rows.append((int(state.address), place))
        # At one address the row that begins a sequence goes after the one that ends another.
        rows.sort(key=lambda row: (row[0], row[1] is not None))
        return cls([start for start, _ in rows], [place for _, place in rows])

    def at(self, address: int) -> tuple[str | None, int | None]:
        index = bisect_right(self.starts, address) - 1
        place = self.rows[index] if index >= 0 else None
        return place if place is not None else (None, None)


def file_name(header: Any, number: int) -> str:
    """Return a source file's name without its folders, by its number in a line program's header."""
    # Up to DWARF 4 the files count from 1, from 5 on from 0.
    entry = header["file_entry"][number - (header["version"] < 5)]
    name: bytes = entry.name
    return name.decode(errors="replace").rpartition("/")[2]


@cache
def symbols(path: str | Path) -> Symbols:
    """Return the symbols of a module, read once; an unreadable one has none."""
    return Symbols(path)
