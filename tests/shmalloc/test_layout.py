# SPDX-License-Identifier: MIT
"""The dtypes against an independent source: the debug information that the compiler wrote."""

import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from shmalloc import _binding, _buildid, layout

CORE_DIR = Path(__file__).resolve().parents[2] / "shmalloc" / "core"
HEADERS = (*_buildid.layout_headers(CORE_DIR), "gfp.h", "api.h")

STRUCTS = [
    name
    for header in HEADERS
    for name in re.findall(r"^struct (\w+) \{", (CORE_DIR / header).read_text(), re.MULTILINE)
]
LITERALS = {
    name: int(value, 0)
    for header in HEADERS
    for name, value in re.findall(
        r"^#define (\w+) (0x[0-9a-f]+|\d+)[ul]*\b", (CORE_DIR / header).read_text(), re.MULTILINE
    )
}


@cache
def dwarf_structs(flavour: str) -> dict[str, tuple[int, dict[str, int]]]:
    """Map each structure in the binary to its size and its members' offsets, in bytes."""
    found: dict[str, tuple[int, dict[str, int]]] = {}
    with _binding.core(flavour).path.open("rb") as file:
        for unit in ELFFile(file).get_dwarf_info().iter_CUs():
            for entry in unit.get_top_DIE().iter_children():
                if entry.tag != "DW_TAG_structure_type" or "DW_AT_name" not in entry.attributes:
                    continue
                name = entry.attributes["DW_AT_name"].value.decode()
                if name in STRUCTS and name not in found and "DW_AT_byte_size" in entry.attributes:
                    members = {
                        child.attributes["DW_AT_name"].value.decode(): child.attributes[
                            "DW_AT_data_member_location"
                        ].value
                        for child in entry.iter_children()
                    }
                    found[name] = (entry.attributes["DW_AT_byte_size"].value, members)
    return found


def test_headers_are_read() -> None:
    assert {"page", "shm_header", "shm_op", "shm_replay"} <= set(STRUCTS)
    assert {"SHM_MAGIC", "GFP_KERNEL", "SHM_BIND_TERM"} <= set(LITERALS)


@pytest.mark.parametrize("name", STRUCTS)
def test_dtype_is_laid_out_as_the_compiler_did(flavour: str, name: str) -> None:
    size, members = dwarf_structs(flavour)[name]
    dtype = layout.dtype(name)
    assert dtype.itemsize == size
    assert dtype.fields is not None
    assert {field: info[1] for field, info in dtype.fields.items()} == members


@pytest.mark.parametrize("name", STRUCTS)
def test_fields_fill_the_structure(name: str) -> None:
    """No field was lost: what no field covers is less than an alignment, at each place."""
    dtype = layout.dtype(name)
    assert dtype.fields is not None
    end = 0
    for sub, offset, *_ in dtype.fields.values():
        assert 0 <= offset - end < 8
        end = offset + sub.itemsize
    assert 0 <= dtype.itemsize - end < 8


@pytest.mark.parametrize(("name", "size_bytes"), [("page", 64), ("kmem_cache_cpu", 64), ("shm_op", 24)])
def test_sizes_that_the_header_promises(name: str, size_bytes: int) -> None:
    assert layout.dtype(name).itemsize == size_bytes


def test_kinds_of_fields() -> None:
    assert layout.dtype("kmem_cache")["name"] == np.dtype("S40")
    assert layout.dtype("page")["lru"] == layout.dtype("list_head")
    assert layout.dtype("shm_telemetry")["latency"].shape == (4, 1120)
    assert layout.dtype("shm_geometry")["zone_permille"].shape == (8, 4)
    assert layout.dtype("per_cpu_pages")["count"] == np.dtype("i4")
    assert layout.dtype("shm_op")["node"] == np.dtype("i1")
    assert layout.dtype("shm_replay")["seconds"] == np.dtype("f8")
    assert layout.dtype("shm_replay")["slots"] == np.dtype("u8")


def test_bytes_written_through_cffi_are_read_through_numpy(core: _binding.Core) -> None:
    raw = core.ffi.new("struct shm_violation[3]")
    raw[1].op_index = 23
    raw[1].text = b"said"
    raw[2].stack[7] = 101
    view = np.frombuffer(core.ffi.buffer(raw), layout.dtype("shm_violation"))
    assert view["op_index"].tolist() == [0, 23, 0]
    assert view["text"][1] == b"said"
    assert view["stack"][2, 7] == 101


def test_unknown_structure_is_named() -> None:
    with pytest.raises(ValueError, match="struct no_such_thing"):
        layout.dtype("no_such_thing")


@pytest.mark.parametrize("name", LITERALS)
def test_constants_are_those_of_the_header(name: str) -> None:
    assert layout.constants()[name] == LITERALS[name]


def test_enumerations_come_in_order() -> None:
    assert list(layout.enumeration("shm_ctx")) == ["CTX_TASK", "CTX_SOFTIRQ", "CTX_IRQ", "CTX_NMI", "NR_CTX"]
    assert layout.constants()["CTX_NMI"] == layout.enumeration("shm_ctx")["CTX_NMI"] == 3
    with pytest.raises(ValueError, match="enum no_such_thing"):
        layout.enumeration("no_such_thing")
