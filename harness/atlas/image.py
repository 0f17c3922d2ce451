# SPDX-License-Identifier: MIT
"""The loaded core as an ELF file: where its code, its variables and its functions are in this process.

An atlas of a core that cannot be read, or on a machine that cannot step through it, would be a guess: what
is missing is said, and nothing is swept.
"""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from elftools.common.exceptions import DWARFError, ELFError
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile

from harness.problems import CannotRun
from shmalloc import _binding
from shmalloc._binding import Core

__all__ = ["CoreImage", "machine_check"]

_OWN_SECTIONS = ("shm_slow", "shm_fast")  # the allocators' code lies here, and nobody else's
_UNITS = b"core/"  # -ffile-prefix-map: how the core's compilation units are called
_PADDING_BYTES = 16  # between functions of neighbouring units
_REBUILD = "rebuild it in the root of the project: pip install ."


@dataclass(frozen=True)
class CoreImage:
    """The core of this process.  All addresses are absolute.

    Attributes:
        path: the shared object.
        base: its load address.
        text: [start, end) of the core's code, ascending; the glue to Python is not in it.
        variables: name, address and bytes of each variable of the core that can be written to, by address.
        functions: name, start, bytes and source file of each function of the core, by start; of aliases
            the one that is exported.
    """

    path: Path
    base: int
    text: tuple[tuple[int, int], ...]
    variables: tuple[tuple[str, int, int], ...]
    functions: tuple[tuple[str, int, int, str], ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, core: Core) -> CoreImage:
        """Read the shared object of a loaded core.

        Raises:
            CannotRun: it is not x86-64, holds no symbols or no debug information, or the file is no longer
                what was loaded.
            StaleBuildError: it was built from other sources than those beside the package.
        """
        _binding.check_fresh(core)
        image = _read(core.path, int(core.lib.shm_text_base()))
        _refuse_replaced(image)
        return image

    def address(self, function: str) -> int:
        """Return where a function begins.

        Args:
            function: its name; ``"slub.c:from_cpu_slab"`` where several files have one of that name.

        Raises:
            LookupError: there is none, or more than one.
        """
        file, _, name = function.rpartition(":")
        found = [row for row in self._by_name.get(name, ()) if not file or row[3] == file]
        if len(found) == 1:
            return found[0][1]
        if not found:
            raise LookupError(f"{self.path.name} has no function {function}")
        several = ", ".join(f"{row[3]}:{name}" for row in found)
        raise LookupError(f"{self.path.name} has several functions {function}: {several}")

    def symbol_at(self, address: int) -> tuple[str, int, int] | None:
        """Return name, start and bytes of the function around an address; None if no function is there."""
        index = bisect_right(self.functions, address, key=lambda row: row[1]) - 1
        if index < 0:
            return None
        name, start, size, _ = self.functions[index]
        return (name, start, size) if address < start + size else None

    def holds(self, address: int) -> bool:
        """Say whether an address lies in the core's code."""
        index = bisect_right(self.text, address, key=lambda span: span[0]) - 1
        return index >= 0 and address < self.text[index][1]

    @cached_property
    def _by_name(self) -> dict[str, list[tuple[str, int, int, str]]]:
        found: dict[str, list[tuple[str, int, int, str]]] = {}
        for row in self.functions:
            found.setdefault(row[0], []).append(row)
        return found


@cache
def _read(path: Path, base: int) -> CoreImage:
    try:
        with path.open("rb") as stream:
            return _image(ELFFile(stream), path, base)
    except (OSError, ELFError, DWARFError) as error:
        raise CannotRun(f"{path} cannot be read: {error}") from error


def _image(elf: ELFFile, path: Path, base: int) -> CoreImage:
    if elf["e_machine"] != "EM_X86_64":
        raise CannotRun(f"{path} is of {elf['e_machine']}: the atlas knows x86-64 only")
    symbols: Any = elf.get_section_by_name(".symtab")
    if symbols is None:
        raise CannotRun(
            f"{path} has no symbols (it was stripped): the atlas names every instruction; {_REBUILD}"
        )
    if elf.get_section_by_name(".debug_info") is None or elf.get_section_by_name(".debug_aranges") is None:
        raise CannotRun(
            f"{path} has no debug information: the atlas attributes inlined code by it; {_REBUILD}"
        )
    units = _units(elf)
    if not units:
        raise CannotRun(f"{path}: its debug information names no source of the core; {_REBUILD}")
    return CoreImage(
        path,
        base,
        tuple((base + start, base + end) for start, end in _text(elf, [span for span, _ in units])),
        tuple(sorted(_variables(elf, symbols, {file for _, file in units}, base), key=lambda row: row[1])),
        tuple(_functions(symbols, units, base)),
    )


def _units(elf: ELFFile) -> list[tuple[tuple[int, int], str]]:
    """List the ranges of code of the core's compilation units, ascending, with the source file of each."""
    dwarf = elf.get_dwarf_info()
    files: dict[int, str | None] = {}
    found = []
    ranges: Any = dwarf.get_aranges()
    for entry in ranges.entries:
        if entry.info_offset not in files:
            name: bytes = dwarf.get_CU_at(entry.info_offset).get_top_DIE().attributes["DW_AT_name"].value
            ours = name.startswith(_UNITS)
            files[entry.info_offset] = name.decode().rpartition("/")[2] if ours else None
        file = files[entry.info_offset]
        if file is not None and entry.length:
            found.append(((entry.begin_addr, entry.begin_addr + entry.length), file))
    return sorted(found)


def _text(elf: ELFFile, units: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """List the core's ranges of code: whole sections, and what lies in between up to some padding, as one."""
    spans = list(units)
    for name in _OWN_SECTIONS:
        section = elf.get_section_by_name(name)
        if section is not None:
            spans.append((section["sh_addr"], section["sh_addr"] + section["sh_size"]))
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1] + _PADDING_BYTES:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _writable(elf: ELFFile) -> set[int]:
    """Return the indices of the sections that can be written to once the module is loaded."""
    relro = [segment for segment in elf.iter_segments() if segment["p_type"] == "PT_GNU_RELRO"]
    found = set()
    for index, section in enumerate(elf.iter_sections()):
        is_data = section["sh_type"] in ("SHT_PROGBITS", "SHT_NOBITS")
        both = SH_FLAGS.SHF_WRITE | SH_FLAGS.SHF_ALLOC
        sealed = any(0 <= section["sh_addr"] - part["p_vaddr"] < part["p_memsz"] for part in relro)
        if is_data and section["sh_flags"] & both == both and not sealed:
            found.add(index)
    return found


def _variables(elf: ELFFile, symbols: Any, files: set[str], base: int) -> Iterator[tuple[str, int, int]]:
    """Yield the core's variables: a file's own by the file, shared ones because only the core has any."""
    writable, file = _writable(elf), ""
    for symbol in symbols.iter_symbols():
        kind, local = symbol["st_info"]["type"], symbol["st_info"]["bind"] == "STB_LOCAL"
        if kind == "STT_FILE":
            file = symbol.name
            continue
        # A symbol without a file is one of several files', and hidden.
        ours = not local or not file or file in files
        if ours and kind == "STT_OBJECT" and symbol["st_size"] and symbol["st_shndx"] in writable:
            yield symbol.name, base + symbol["st_value"], symbol["st_size"]


def _functions(
    symbols: Any, units: list[tuple[tuple[int, int], str]], base: int
) -> Iterator[tuple[str, int, int, str]]:
    starts = [span[0] for span, _ in units]
    found: dict[int, tuple[bool, str, int, str]] = {}
    for symbol in symbols.iter_symbols():
        start, size = symbol["st_value"], symbol["st_size"]
        if symbol["st_info"]["type"] != "STT_FUNC" or not size:
            continue
        index = bisect_right(starts, start) - 1
        if index < 0 or start >= units[index][0][1]:
            continue
        row = (symbol["st_info"]["bind"] == "STB_GLOBAL", symbol.name, size, units[index][1])
        if start not in found or row[0] > found[start][0]:
            found[start] = row
    for start, (_, name, size, file) in sorted(found.items()):
        yield name, base + start, size, file


def _refuse_replaced(image: CoreImage) -> None:
    """Compare the code in memory with the file: an install may have come in between, and so may a debugger."""
    with image.path.open("rb") as stream:
        for name in (".text", *_OWN_SECTIONS):
            section = ELFFile(stream).get_section_by_name(name)
            if section is None:
                continue
            if ctypes.string_at(image.base + section["sh_addr"], section["sh_size"]) != section.data():
                raise CannotRun(
                    f"{image.path}: the code in this process is not that of the file ({name} differs): it was "
                    "installed anew meanwhile, or is patched already; start again"
                )


# --- what the machine must be able to do -----------------------------------------------------------

_PROBE = r"""
import ctypes, mmap, signal, sys
RWX, PAGE = 7, 4096
libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
text = ctypes.cast(libc.getppid, ctypes.c_void_p).value
if libc.mprotect(text & -PAGE, PAGE, RWX):
    sys.exit("text cannot be made writable (mprotect: errno %d)" % ctypes.get_errno())
ctypes.memmove(text, ctypes.string_at(text, 1), 1)
try:
    page = mmap.mmap(-1, PAGE, prot=RWX)
except OSError as error:
    sys.exit("no memory can be written to and executed: %s" % error)
# set TF; two nops, clear it again; int3; return
page.write(bytes.fromhex("9c48810c24000100009d9090" "9c48812424fffeffff9d" "cc" "c3"))
traps = []
handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(traps.append)
libc.signal.argtypes = ctypes.c_int, ctypes.c_void_p
libc.signal(signal.SIGTRAP, ctypes.cast(handler, ctypes.c_void_p))
ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
if len(traps) != EXPECTED:
    sys.exit("the trap flag is not honoured (%d traps instead of EXPECTED)" % len(traps))
"""
_PROBE_TRAPS = 6  # five instructions under the flag, and the int3
_PROBE_TIMEOUT_S = 60


def machine_check() -> None:
    """Try, in a process of its own, what the atlas needs of this machine.

    Raises:
        CannotRun: it is not x86-64, code cannot be patched here, or the trap flag is not honoured.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        raise CannotRun(f"the atlas knows x86-64 only; this is {platform.machine()}")
    code = _PROBE.replace("EXPECTED", str(_PROBE_TRAPS))
    command = [sys.executable, "-I", "-c", code]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_PROBE_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise CannotRun(
            "the atlas cannot step through code here: a probe of the trap flag never ended"
        ) from None
    if result.returncode:
        lines = result.stderr.strip().splitlines()
        why = (
            lines[-1] if lines and result.returncode > 0 else f"a probe died with status {result.returncode}"
        )
        raise CannotRun(f"the atlas cannot step through code here: {why}")
