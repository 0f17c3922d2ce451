# SPDX-License-Identifier: MIT
"""The compiled core is found, is the right one, and says so when it is not."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shmalloc import _binding, _buildid
from shmalloc.errors import BuildMissing, StaleBuildError, Unsupported

ROOT = Path(__file__).resolve().parents[2]
CORE_DIR = ROOT / "shmalloc" / "core"

# An editable install puts a finder before sys.path; without it, the folder of the process comes first.
_SHADOWED = """
import json, os, sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "Redirect" not in type(finder).__name__]
sys.path.insert(0, os.getcwd())
from shmalloc import _binding
core = _binding.core("checked")
print(json.dumps([_binding.__file__, str(core.path), core.build_id]))
"""


def python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run *code* in a fresh interpreter."""
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture
def source_tree(tmp_path: Path) -> Path:
    """A copy of the package's sources, without a compiled core."""
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(ROOT / "shmalloc", tmp_path / "shmalloc", ignore=ignored)
    return tmp_path


def test_flavour_names_itself(core: _binding.Core) -> None:
    assert core.text(core.lib.shm_flavour()) == core.flavour


def test_core_is_loaded_once(flavour: str) -> None:
    assert _binding.core(flavour) is _binding.core(flavour)


def test_flavours_are_two_libraries() -> None:
    assert _binding.core("release").path != _binding.core("checked").path


def test_unknown_flavour_names_value_and_allowed() -> None:
    with pytest.raises(Unsupported, match=r"'debug'.*release, checked"):
        _binding.core("debug")


def test_installed_core_is_of_this_checkout(core: _binding.Core) -> None:
    """What is tested is what lies here: an install of an older state would test nothing."""
    flags = core.text(core.lib.shm_build_flags())
    assert flags
    assert core.build_id == _buildid.source_id(CORE_DIR, flags)
    assert core.lib.shm_abi_hash() == _buildid.abi_hash(CORE_DIR)


def test_an_edit_of_any_part_of_the_layout_is_another_abi(source_tree: Path) -> None:
    copy = source_tree / "shmalloc" / "core"
    parts = _buildid.layout_headers(copy)
    assert sorted(parts) == sorted(path.name for path in CORE_DIR.glob("arena*.h"))
    assert parts[-1] == "arena.h"
    hashes = {_buildid.abi_hash(copy)}
    for part in parts:
        text = (copy / part).read_text()
        (copy / part).write_text(text.replace("#endif", "#define SHM_MORE 1\n#endif"))
        hashes.add(_buildid.abi_hash(copy))
        (copy / part).write_text(text)
    assert len(hashes) == len(parts) + 1
    assert _buildid.abi_hash(copy) == _buildid.abi_hash(CORE_DIR)
    (copy / "api.h").write_text("")
    assert _buildid.abi_hash(copy) in hashes


def test_a_part_that_is_included_counts_at_once(source_tree: Path) -> None:
    copy = source_tree / "shmalloc" / "core"
    (copy / "arena_new.h").write_text('#include "arena_base.h"\n')
    before = _buildid.abi_hash(copy)
    assert before == _buildid.abi_hash(CORE_DIR)
    (copy / "arena_ops.h").write_text('#include "arena_new.h"\n' + (copy / "arena_ops.h").read_text())
    assert _buildid.abi_hash(copy) != before
    order = _buildid.layout_headers(copy)
    assert order.index("arena_base.h") < order.index("arena_new.h") < order.index("arena_ops.h")


def test_names_end_where_the_core_says(core: _binding.Core) -> None:
    assert core.names("verdict")[:2] == ("ok", "vacuous")
    assert len(core.names("verdict")) == core.lib.NR_VERDICTS
    assert len(core.names("reason")) == core.lib.NR_REASONS
    assert len(core.names("checker")) == core.lib.NR_CHECKERS


def test_fresh_sources_pass(core: _binding.Core) -> None:
    _binding._check_fresh(core, CORE_DIR)


def test_no_sources_no_check(core: _binding.Core, tmp_path: Path) -> None:
    _binding._check_fresh(core, tmp_path)


@pytest.mark.parametrize("change", ["edit", "new file", "removed file"])
def test_changed_sources_are_refused(core: _binding.Core, source_tree: Path, change: str) -> None:
    copy = source_tree / "shmalloc" / "core"
    match change:
        case "edit":
            (copy / "gfp.h").write_text((copy / "gfp.h").read_text() + "\n")
        case "new file":
            (copy / "new_design.c").touch()
        case "removed file":
            (copy / "string.c").unlink()
    with pytest.raises(StaleBuildError, match=core.build_id) as caught:
        _binding._check_fresh(core, copy)
    assert "pip install" in str(caught.value)


def test_files_that_do_not_matter_do_not_count(core: _binding.Core, source_tree: Path) -> None:
    copy = source_tree / "shmalloc" / "core"
    (copy / "NOTES.md").write_text("text")
    _binding._check_fresh(core, copy)


def test_missing_core_is_named() -> None:
    with pytest.raises(BuildMissing, match=r"_core_absent.*pip install"):
        _binding.load_module("_core_absent")


def test_source_tree_in_front_uses_the_installed_core(source_tree: Path) -> None:
    result = python(_SHADOWED, source_tree)
    assert result.returncode == 0, result.stderr
    python_file, core_file, build_id = json.loads(result.stdout)
    assert Path(python_file).is_relative_to(source_tree)
    assert Path(core_file) == _binding.core("checked").path
    assert build_id == _binding.core("checked").build_id


def test_edited_source_tree_in_front_is_refused(source_tree: Path) -> None:
    arena_h = source_tree / "shmalloc" / "core" / "arena_base.h"
    arena_h.write_text(arena_h.read_text().replace("#define SHM_MAX_CPUS 128", "#define SHM_MAX_CPUS 64"))
    result = python(_SHADOWED, source_tree)
    assert result.returncode != 0
    assert "StaleBuildError" in result.stderr


@pytest.mark.parametrize("module", ["_binding", "errors", "gfp", "arena", "cpu"])
def test_cpu_processes_stay_single_threaded(module: str, tmp_path: Path) -> None:
    code = (
        f"import os, sys, shmalloc.{module}; from shmalloc import _binding; _binding.core()\n"
        "heavy = {'numpy', 'pydantic', 'rich'} & set(sys.modules)\n"
        "print(len(os.listdir('/proc/self/task')), sorted(heavy))"
    )
    result = python(code, tmp_path)
    assert result.stdout.strip() == "1 []", result.stderr


def test_core_keeps_its_symbols_and_debug_information(core: _binding.Core) -> None:
    from elftools.elf.elffile import ELFFile

    with core.path.open("rb") as file:
        elf = ELFFile(file)
        assert elf.has_dwarf_info()
        assert elf.get_section_by_name(".symtab").get_symbol_by_name("shm_kmalloc")
