# SPDX-License-Identifier: MIT
"""The loaded core as an ELF file, compared with the dynamic loader and binutils; what is missing is refused."""

import ctypes
import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from harness.atlas import image as images
from harness.atlas.image import CoreImage, machine_check
from harness.problems import CannotRun
from shmalloc import StaleBuildError, _binding
from shmalloc._binding import Core

ALIGNED = 32  # of the largest variables


@pytest.fixture
def image(core: Core) -> CoreImage:
    return CoreImage.of(core)


def moved(core: Core, path: Path) -> Core:
    """The same core, as if it had been loaded from another file."""
    return dataclasses.replace(core, path=path)


def binutil(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} (binutils) is not installed")
    return found


@pytest.mark.parametrize("name", ["shm_kmalloc", "shm_kfree_nolock", "shm_design_alloc", "shm_text_base"])
def test_functions_are_where_the_loader_has_them(core: Core, image: CoreImage, name: str) -> None:
    loaded = ctypes.cast(getattr(ctypes.CDLL(str(core.path)), name), ctypes.c_void_p).value
    assert loaded is not None
    assert image.address(name) == loaded
    symbol = image.symbol_at(loaded + 3)
    assert symbol is not None
    assert symbol[:2] == (name, loaded)
    assert image.holds(loaded)


def test_static_functions_have_addresses(image: CoreImage) -> None:
    start = image.address("deactivate_slab")
    assert image.symbol_at(start) == image.symbol_at(start + 1)
    assert image.holds(start)


def test_one_name_in_several_files_needs_the_file(image: CoreImage) -> None:
    with pytest.raises(LookupError, match=r"several functions pages_alloc: .*\.c:pages_alloc"):
        image.address("pages_alloc")
    assert image.address("design_kmalloc.c:pages_alloc") != image.address(
        "design_kmalloc_nolock.c:pages_alloc"
    )


@pytest.mark.parametrize("name", ["no_such_function", "buddy.c:shm_kmalloc", "_cffi_f_shm_kmalloc", "shm"])
def test_what_is_no_function_of_the_core_has_no_address(image: CoreImage, name: str) -> None:
    with pytest.raises(LookupError, match="has no function"):
        image.address(name)


def test_code_is_the_cores_and_nobody_elses(core: Core, image: CoreImage) -> None:
    """Every function of the core lies in it, and none of the glue's, of the C runtime's, or of libc's."""
    with core.path.open("rb") as stream:
        elf = ELFFile(stream)
        sections = [elf.get_section_index(name) for name in (".text", "shm_fast", "shm_slow")]
        rows, file = [], ""
        for symbol in elf.get_section_by_name(".symtab").iter_symbols():
            if symbol["st_info"]["type"] == "STT_FILE":
                file = symbol.name
            elif (
                symbol["st_info"]["type"] == "STT_FUNC"
                and symbol["st_shndx"] in sections
                and symbol["st_size"]
            ):
                local = symbol["st_info"]["bind"] == "STB_LOCAL"
                rows.append((symbol.name, image.base + symbol["st_value"], file if local else ""))
    sources = {path.name for path in _sources()}
    ours = {(name, start) for name, start, file in rows if file in sources}
    assert len(ours) > 100
    others = {(n, s) for n, s, file in rows if (file and file not in sources) or n.startswith("PyInit_")}
    assert len(others) > 100
    listed = {(name, start) for name, start, _, _ in image.functions}
    assert {(n, s) for n, s in ours if not n.endswith(".localalias")} <= listed
    assert not others & listed
    assert all(image.holds(start) for _, start in ours)
    assert not any(image.holds(start) for _, start in others)
    assert all(image.holds(s) and image.holds(s + size - 1) for _, s, size, _ in image.functions)


def test_ranges_of_code_ascend(image: CoreImage) -> None:
    flat = [address for span in image.text for address in span]
    assert flat == sorted(flat)
    assert not image.holds(flat[0] - 1)
    assert not image.holds(flat[-1])


def _sources() -> list[Path]:
    return sorted((Path(__file__).resolve().parents[2] / "shmalloc" / "core").glob("*.c"))


def test_variables_are_complete(image: CoreImage) -> None:
    """Every byte that can be written to is a variable of the core's, of the glue's, or padding."""
    nm = [binutil("nm"), "--defined-only", "--print-size", str(image.path)]
    rows = [
        row.split()
        for row in subprocess.run(nm, capture_output=True, text=True, check=True).stdout.splitlines()
    ]
    writable = {
        (name, image.base + int(start, 16), int(size, 16))
        for start, size, kind, name in (row for row in rows if len(row) == 4)
        if kind in "bBdD"
    }
    with image.path.open("rb") as stream:
        elf = ELFFile(stream)
        spans = [
            (image.base + section["sh_addr"], image.base + section["sh_addr"] + section["sh_size"])
            for section in map(elf.get_section_by_name, (".data", ".bss"))
        ]
    inside = sorted((s, n, size) for n, s, size in writable if any(a <= s < b for a, b in spans))
    ours = set(image.variables)
    assert ours <= {(name, start, size) for start, name, size in inside}
    others = {name for start, name, size in inside if (name, start, size) not in ours}
    assert {name for name in others if not name.startswith("_cffi_")} <= {"completed.0"}  # the C runtime's
    for start, end in spans:
        at = start
        for address, _, size in (row for row in inside if start <= row[0] < end):
            assert address - at <= ALIGNED
            at = address + size
        assert end - at <= ALIGNED


def test_variables_hold_what_the_core_says(core: Core, image: CoreImage) -> None:
    (shm,) = (row for row in image.variables if row[0] == "shm")
    assert shm[2] > 100
    assert {"old_nmi", "stack_memory"} <= {name for name, _, _ in image.variables}
    assert len({name for name, _, _ in image.variables}) == len(image.variables)


@pytest.mark.parametrize(
    ("options", "why"),
    [(["--strip-all"], "no symbols"), (["--strip-debug"], "no debug information")],
)
def test_stripped_module_is_refused(core: Core, tmp_path: Path, options: list[str], why: str) -> None:
    stripped = tmp_path / "stripped.so"
    subprocess.run([binutil("strip"), *options, "-o", str(stripped), str(core.path)], check=True)
    with pytest.raises(CannotRun, match=rf"stripped\.so.*{why}.*pip install"):
        CoreImage.of(moved(core, stripped))


def test_compressed_debug_information_will_do(core: Core, image: CoreImage, tmp_path: Path) -> None:
    small = tmp_path / "small.so"
    command = [binutil("objcopy"), "--compress-debug-sections", str(core.path), str(small)]
    subprocess.run(command, check=True)
    assert CoreImage.of(moved(core, small)) == dataclasses.replace(image, path=small)


def test_no_elf_file_is_refused(core: Core, tmp_path: Path) -> None:
    (tmp_path / "text.so").write_text("text")
    for name in ("text.so", "missing.so"):
        with pytest.raises(CannotRun, match=rf"{name} cannot be read"):
            CoreImage.of(moved(core, tmp_path / name))


def test_another_architecture_is_refused(core: Core, tmp_path: Path) -> None:
    content = bytearray(core.path.read_bytes())
    content[18:20] = (183).to_bytes(2, "little")  # e_machine = EM_AARCH64
    (tmp_path / "other.so").write_bytes(content)
    with pytest.raises(CannotRun, match=r"EM_AARCH64.*x86-64 only"):
        CoreImage.of(moved(core, tmp_path / "other.so"))


def test_stale_core_is_refused(core: Core, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copytree(_sources()[0].parent, tmp_path / "core")
    (tmp_path / "core" / "new_design.c").touch()
    monkeypatch.setattr(_binding, "_PACKAGE_DIR", tmp_path)
    with pytest.raises(StaleBuildError, match=core.build_id):
        CoreImage.of(core)


def test_core_that_was_installed_anew_is_refused(core: Core, image: CoreImage, tmp_path: Path) -> None:
    content = bytearray(core.path.read_bytes())
    with core.path.open("rb") as stream:
        content[ELFFile(stream).get_section_by_name("shm_fast")["sh_offset"]] ^= 1
    (tmp_path / "other.so").write_bytes(content)
    with pytest.raises(CannotRun, match=r"shm_fast differs.*start again"):
        CoreImage.of(moved(core, tmp_path / "other.so"))


def test_this_machine_can_be_stepped_through() -> None:
    machine_check()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("_PROBE_TRAPS", 7), r"trap flag is not honoured \(6 traps instead of 7\)"),
        (("_PROBE", "import sys; sys.exit('text cannot be made writable')"), "text cannot be made writable"),
        (("_PROBE", "import os; os.kill(os.getpid(), 5)"), "a probe died with status -5"),
    ],
)
def test_machine_that_cannot_be_stepped_through_is_refused(
    monkeypatch: pytest.MonkeyPatch, change: tuple[str, object], why: str
) -> None:
    monkeypatch.setattr(images, *change)
    with pytest.raises(CannotRun, match=f"cannot step through code here: .*{why}"):
        machine_check()


def test_machine_of_another_architecture_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(CannotRun, match="x86-64 only; this is aarch64"):
        machine_check()
