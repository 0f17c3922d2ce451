# SPDX-License-Identifier: MIT
"""Names of addresses, compared with the dynamic loader and with binutils."""

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from shmalloc import Arena, Cpu
from shmalloc._binding import Core
from shmalloc.symbols import Symbol, Symbols, symbols

EXPORTED = ("shm_kmalloc", "shm_kfree_nolock", "shm_arena_check", "shm_text_base", "shm_replay")


def loaded_at(core: Core, name: str) -> int:
    """Address of an exported function relative to the load address, from the dynamic loader."""
    function = getattr(ctypes.CDLL(str(core.path)), name)
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    return address - int(core.lib.shm_text_base())


def binutil(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} (binutils) is not installed")
    return found


@pytest.mark.parametrize("name", EXPORTED)
def test_exported_functions(core: Core, name: str) -> None:
    address = loaded_at(core, name)
    found = symbols(core.path).find(address + 5)
    assert found is not None and (found.function, found.offset) == (name, 5)
    assert found.file is not None and found.file.endswith(".c") and found.line


def test_source_lines_agree_with_addr2line(core: Core) -> None:
    table = symbols(core.path)
    addresses = [loaded_at(core, name) + 7 for name in EXPORTED]
    command = [binutil("addr2line"), "-e", str(core.path), *map(hex, addresses)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    for address, line in zip(addresses, lines, strict=True):
        file, _, number = line.partition(" ")[0].rpartition("/")[2].partition(":")
        found = table.find(address)
        assert found is not None and (found.file, found.line) == (file, int(number))


def test_static_functions_agree_with_nm(core: Core) -> None:
    command = [binutil("nm"), "--defined-only", "--print-size", str(core.path)]
    rows = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    static = [row.split() for row in rows if re.fullmatch(r"\w+ \w+ t (from_cpu_slab|walk_level)\S*", row)]
    assert static
    for start, size, _, name in static:
        found = symbols(core.path).find(int(start, 16) + int(size, 16) - 1)
        assert found is not None and found.function == name and found.offset == int(size, 16) - 1


def test_a_return_address_belongs_to_the_call_before_it(core: Core) -> None:
    table, start = symbols(core.path), loaded_at(core, "shm_kmalloc")
    exact, returned = table.find(start + 9), table.find(start + 9, returned_to=True)
    assert exact is not None and returned is not None
    assert exact.offset == returned.offset == 9
    before = table.find(start, returned_to=True)  # a call at the very end of the function before
    assert before is None or before.function != "shm_kmalloc"


def test_stack_of_a_violation(core: Core) -> None:
    with Arena.create(size="8MiB", flavour=core.flavour) as arena, Cpu(arena, 0):
        verdict, checker = core.names("verdict").index("broken_rule"), core.names("checker").index("api")
        assert core.lib.shm_report(verdict, checker, b"a test reports this") == 0
        (violation,) = arena.violations()
    names = symbols(core.path).names((frame.level, frame.address) for frame in violation.stack)
    assert len(names) == len(violation.stack) > 0
    assert any(re.match(r"shm_report\+0x[0-9a-f]+ \(verdict\.c:\d+\)$", name) for name in names)


def test_where_the_level_changes_the_instruction_itself_is_named(core: Core) -> None:
    table, start = symbols(core.path), loaded_at(core, "shm_kmalloc")
    names = table.names([(1, start + 9), (0, start), (0, start + 9)])
    assert names[0] == names[2] == table.name(start + 9, returned_to=True)
    assert names[1].startswith("shm_kmalloc+0x0")


@pytest.mark.parametrize("address", [0, 1 << 40, 2**64 - 1])
def test_address_of_nothing_is_a_number(core: Core, address: int) -> None:
    assert symbols(core.path).find(address) is None
    assert symbols(core.path).name(address) == f"{address:#x}"


def test_unreadable_module_has_no_names(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.so"
    garbage.write_bytes(b"\x7fELF" + bytes(60))
    for path in (garbage, tmp_path / "missing.so"):
        assert symbols(path).name(0x1234) == "0x1234"


@pytest.mark.parametrize(
    ("option", "static", "lines"), [("--strip-debug", True, False), ("--strip-all", False, False)]
)
def test_stripped_module_has_fewer_names(
    core: Core, tmp_path: Path, option: str, static: bool, lines: bool
) -> None:
    stripped = tmp_path / "stripped.so"
    subprocess.run([binutil("strip"), option, "-o", str(stripped), str(core.path)], check=True)
    table, address = Symbols(stripped), loaded_at(core, "shm_kmalloc")
    assert table.name(address + 5) == "shm_kmalloc+0x5"
    functions = {function for _, _, function in table._functions}
    assert any(name.startswith("from_cpu_slab") for name in functions) == static
    assert (table.find(address + 5) == Symbol("shm_kmalloc", 5)) != lines


def test_symbols_are_read_once(core: Core) -> None:
    assert symbols(core.path) is symbols(core.path)
