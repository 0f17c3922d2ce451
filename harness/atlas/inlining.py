# SPDX-License-Identifier: MIT
"""Which functions of the source an instruction belongs to: it itself and those that it is inlined in.

From DWARF, one compilation unit at a time and only when an address in it is asked for (some 30 ms
each). Addresses are relative to the load address.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from elftools.dwarf.descriptions import describe_form_class
from elftools.dwarf.ranges import BaseAddressEntry
from elftools.elf.elffile import ELFFile

from shmalloc.symbols import file_name, symbols

__all__ = ["Frame", "Inlines", "inlines"]


@dataclass(frozen=True, slots=True)
class Frame:
    """One function that an instruction belongs to.

    Attributes: function: its name in the source.  file, line: the instruction's, or those of the call
        that was inlined; "" and 0 without debug information.  home: the file that defines the function.
    """

    function: str
    file: str
    line: int
    home: str


@dataclass(frozen=True, slots=True)
class _Scope:
    """A function, or a call that was inlined into it.

    Attributes: call_file, call_line: of that call.  outer: what it was inlined into.
    """

    function: str
    home: str
    call_file: str
    call_line: int
    outer: _Scope | None


@dataclass
class _Unit:
    """The scopes of one compilation unit.

    Attributes: starts: ascending addresses.  scopes: the innermost scope from each on.
    """

    starts: list[int] = field(default_factory=list)
    scopes: list[_Scope | None] = field(default_factory=list)

    def at(self, address: int) -> _Scope | None:
        index = bisect_right(self.starts, address) - 1
        return self.scopes[index] if index >= 0 else None


class Inlines:
    """The inlined calls of one module."""

    def __init__(self, path: str | Path) -> None:
        """Read the table of units; they wait until they are needed."""
        self.path = Path(path)
        self._dwarf: Any = None
        self._aranges: Any = None
        self._units: dict[int, _Unit] = {}
        self._frames: dict[int, tuple[Frame, ...]] = {}
        with self.path.open("rb") as stream:
            elf = ELFFile(stream)
            if elf.has_dwarf_info():  # copied from the file, which may be closed then
                self._dwarf = elf.get_dwarf_info()
                self._aranges = self._dwarf.get_aranges()

    def at(self, address: int) -> tuple[Frame, ...]:
        """Return the functions that the instruction at an address belongs to, innermost first.

        The last is the one that has a symbol. Empty where no function is known.
        """
        if address not in self._frames:
            self._frames[address] = tuple(self._chain(address))
        return self._frames[address]

    def functions(self) -> frozenset[tuple[str, str]]:
        """List all functions of the source, as (file, name), inlined ones included. Takes a second."""
        found = set()
        for unit in self._dwarf.iter_CUs() if self._dwarf else ():
            found |= _Reader(self._dwarf, unit).functions()
        return frozenset(found)

    def _chain(self, address: int) -> Iterator[Frame]:
        symbol = symbols(self.path).find(address)
        if symbol is None:
            return
        file, line = symbol.file or "", symbol.line or 0
        scope = self._scope(address)
        if scope is None:
            yield Frame(symbol.function.partition(".")[0], file, line, file)
        while scope is not None:
            yield Frame(scope.function, file, line, scope.home)
            file, line, scope = scope.call_file, scope.call_line, scope.outer

    def _scope(self, address: int) -> _Scope | None:
        offset = self._aranges.cu_offset_at_addr(address) if self._aranges else None
        return None if offset is None else self._unit(offset).at(address)

    def _unit(self, offset: int) -> _Unit:
        if offset not in self._units:
            self._units[offset] = _Reader(self._dwarf, self._dwarf.get_CU_at(offset)).read()
        return self._units[offset]


class _Reader:
    """Reads one unit's scopes.

    The ranges of scopes nest, so painting the outer before the inner leaves each address with its
    innermost scope.
    """

    def __init__(self, dwarf: Any, unit: Any) -> None:
        self._unit = unit
        self._ranges = dwarf.range_lists()
        program = dwarf.line_program_for_CU(unit)
        self._header = program.header if program is not None else None
        top = unit.get_top_DIE()
        self._top = top
        self._base = top.attributes["DW_AT_low_pc"].value if "DW_AT_low_pc" in top.attributes else 0
        self._names: dict[int, tuple[str, str]] = {}
        self._painted: list[tuple[int, int, _Scope]] = []

    def read(self) -> _Unit:
        for entry in self._top.iter_children():
            if entry.tag == "DW_TAG_subprogram":
                self._subprogram(entry)
        return self._flat()

    def functions(self) -> set[tuple[str, str]]:
        """List (file, name) of the functions that the unit defines or inlines."""
        entries = [entry for entry in self._top.iter_children() if entry.tag == "DW_TAG_subprogram"]
        defined = [entry for entry in entries if "DW_AT_declaration" not in entry.attributes]
        return {(home, name) for name, home in map(self._origin, defined)}

    def _subprogram(self, entry: Any) -> None:
        ranges = list(self._ranges_of(entry))
        if not ranges:
            return
        name, home = self._origin(entry)
        scope = _Scope(name, home, "", 0, None)
        self._paint(ranges, scope)
        self._children(entry, scope)

    def _children(self, entry: Any, scope: _Scope) -> None:
        for child in entry.iter_children():
            if child.tag == "DW_TAG_inlined_subroutine":
                name, home = self._origin(child)
                inner = _Scope(name, home, self._file(child, "DW_AT_call_file"), _line(child), scope)
                self._paint(list(self._ranges_of(child)), inner)
                self._children(child, inner)
            elif child.tag == "DW_TAG_lexical_block":
                self._children(child, scope)

    def _origin(self, entry: Any) -> tuple[str, str]:
        """Return name and file of the function that an entry is an instance of."""
        if entry.offset not in self._names:
            abstract = entry.attributes.get("DW_AT_abstract_origin")
            if abstract is not None:
                found = self._origin(entry.get_DIE_from_attribute("DW_AT_abstract_origin"))
            else:
                name = entry.attributes.get("DW_AT_name")
                text = name.value.decode() if name is not None else "?"
                found = (text, self._file(entry, "DW_AT_decl_file"))
            self._names[entry.offset] = found
        return self._names[entry.offset]

    def _file(self, entry: Any, attribute: str) -> str:
        number = entry.attributes.get(attribute)
        return file_name(self._header, number.value) if number is not None and self._header else ""

    def _ranges_of(self, entry: Any) -> Iterator[tuple[int, int]]:
        attributes = entry.attributes
        if "DW_AT_low_pc" in attributes and "DW_AT_high_pc" in attributes:
            low, high = attributes["DW_AT_low_pc"].value, attributes["DW_AT_high_pc"]
            is_size = describe_form_class(high.form) == "constant"
            yield low, low + high.value if is_size else high.value
        elif "DW_AT_ranges" in attributes:
            base = self._base
            for part in self._ranges.get_range_list_at_offset(attributes["DW_AT_ranges"].value, self._unit):
                if isinstance(part, BaseAddressEntry):
                    base = part.base_address
                else:
                    offset = 0 if part.is_absolute else base
                    yield offset + part.begin_offset, offset + part.end_offset

    def _paint(self, ranges: list[tuple[int, int]], scope: _Scope) -> None:
        self._painted += [(low, high, scope) for low, high in ranges if low < high]

    def _flat(self) -> _Unit:
        starts = sorted({edge for low, high, _ in self._painted for edge in (low, high)})
        place = {edge: number for number, edge in enumerate(starts)}
        scopes: list[_Scope | None] = [None] * len(starts)
        for low, high, scope in self._painted:
            first, behind = place[low], place[high]
            scopes[first:behind] = [scope] * (behind - first)
        return _Unit(starts, scopes)


def _line(entry: Any) -> int:
    line = entry.attributes.get("DW_AT_call_line")
    return int(line.value) if line is not None else 0


@cache
def inlines(path: str | Path) -> Inlines:
    """Return the inlined calls of a module, read once."""
    return Inlines(path)
