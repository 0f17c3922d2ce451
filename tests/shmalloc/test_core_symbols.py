# SPDX-License-Identifier: MIT
"""What the core takes from outside itself: every symbol, reviewed.

A handler may run at any instruction. A lazily bound call would enter the dynamic linker there, and a
function of libc may take a lock that the interrupted code holds. So nothing is bound late, and the only
functions of libc that the core knows belong to set-up, before a CPU is bound.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.enums import ENUM_RELOC_TYPE_x64 as RELOC

from shmalloc import _binding

API = Path(__file__).resolve().parents[2] / "shmalloc" / "core" / "api.h"

SET_UP = {
    "clock_gettime": "measuring the TSC when an arena is formatted",
    "getauxval": "how large the kernel makes a signal frame, for the alternate stack",
    "mmap": "the alternate stack",
    "munmap": "the alternate stack",
    "sigaction": "installing the handlers",
    "sigaddset": "installing the handlers",
    "sigaltstack": "installing the handlers",
    "sigemptyset": "installing the handlers",
    "__register_atfork": "fork() unbinds the child",
}
LOADER = {
    "__cxa_finalize": "unloading, by the C runtime's start files",
    "__gmon_start__": "weak, never there",
    "_ITM_deregisterTMCloneTable": "weak, never there",
    "_ITM_registerTMCloneTable": "weak, never there",
}
GLUE = re.compile(r"_?Py[A-Z_]\w*$")  # the Python C API: cffi's glue, which no handler enters

# pthread_atfork is linked statically, from a part of libc that is compiled with a PLT.
LATE_BINDING = {"__register_atfork", "__cxa_finalize"}


@contextmanager
def opened(core: _binding.Core) -> Iterator[ELFFile]:
    with core.path.open("rb") as file:
        yield ELFFile(file)


def test_every_symbol_from_outside_is_listed(core: _binding.Core) -> None:
    with opened(core) as elf:
        symbols = elf.get_section_by_name(".dynsym").iter_symbols()
        outside = {symbol.name for symbol in symbols if symbol["st_shndx"] == "SHN_UNDEF" and symbol.name}
    assert {name for name in outside if not GLUE.match(name)} <= SET_UP.keys() | LOADER.keys()


def test_nothing_is_called_through_a_plt(core: _binding.Core) -> None:
    with opened(core) as elf:
        section = elf.get_section_by_name(".rela.plt")
        symbols = elf.get_section_by_name(".dynsym")
        late = {
            symbols.get_symbol(entry["r_info_sym"]).name
            for entry in (section.iter_relocations() if section else ())
        }
    assert late <= LATE_BINDING


def test_all_is_bound_at_load(core: _binding.Core) -> None:
    with opened(core) as elf:
        dynamic = elf.get_section_by_name(".dynamic")
        assert isinstance(dynamic, DynamicSection)
        flags = {tag.entry.d_tag: tag.entry.d_val for tag in dynamic.iter_tags()}
        kinds = {segment.header.p_type for segment in elf.iter_segments()}
    assert flags["DT_FLAGS"] & 0x8  # DF_BIND_NOW
    assert "PT_GNU_RELRO" in kinds
    assert "PT_TLS" not in kinds  # no thread-local storage: __tls_get_addr may allocate


@pytest.mark.parametrize("name", ["memcpy", "memset"])
def test_memory_functions_are_the_cores_own(core: _binding.Core, name: str) -> None:
    with opened(core) as elf:
        symbol = elf.get_section_by_name(".symtab").get_symbol_by_name(name)
    assert symbol
    assert symbol[0]["st_shndx"] != "SHN_UNDEF"


def test_a_flavour_calls_its_own_functions(core: _binding.Core) -> None:
    """No function of api.h is looked up by name at load: the other flavour has the same names."""
    declared = set(re.findall(r"\b(shm_\w+)\(", API.read_text()))
    by_name = {RELOC["R_X86_64_GLOB_DAT"], RELOC["R_X86_64_JUMP_SLOT"], RELOC["R_X86_64_64"]}
    with opened(core) as elf:
        symbols = elf.get_section_by_name(".dynsym")
        looked_up = {
            symbols.get_symbol(entry["r_info_sym"]).name
            for section in (".rela.dyn", ".rela.plt")
            if elf.get_section_by_name(section)
            for entry in elf.get_section_by_name(section).iter_relocations()
            if entry["r_info_type"] in by_name
        }
    assert "shm_kmalloc" in declared
    assert not declared & looked_up
