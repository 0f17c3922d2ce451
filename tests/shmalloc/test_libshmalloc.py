# SPDX-License-Identifier: MIT
"""The shared library for C programs: what it exports, and what it needs."""

import re
from pathlib import Path

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from libshmalloc import LIBRARY, exported

API = Path(__file__).resolve().parents[2] / "shmalloc" / "core" / "api.h"


def needed() -> dict[str, list[str]]:
    """Return the names in the dynamic section: libraries needed, and the own name."""
    with LIBRARY.open("rb") as file:
        dynamic = ELFFile(file).get_section_by_name(".dynamic")
        assert isinstance(dynamic, DynamicSection)
        found: dict[str, list[str]] = {}
        for tag in dynamic.iter_tags():
            name = getattr(tag, "needed", None) or getattr(tag, "soname", None)
            if name:
                found.setdefault(tag.entry.d_tag, []).append(name)
        return found


def test_every_call_of_the_core_is_exported() -> None:
    declared = set(re.findall(r"^[^/\n]*\b(shm_\w+)\(", API.read_text(), re.MULTILINE))
    assert "shm_kmalloc" in declared
    assert declared <= exported()


def test_nothing_but_the_own_names_is_exported() -> None:
    assert {name for name in exported() if not re.match(r"shm(alloc)?_", name)} == set()


def test_it_needs_libc_only_and_has_a_name_of_its_own() -> None:
    assert needed() == {"DT_NEEDED": ["libc.so.6"], "DT_SONAME": ["libshmalloc.so"]}
