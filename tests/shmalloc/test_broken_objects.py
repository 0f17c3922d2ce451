# SPDX-License-Identifier: MIT
"""Objects of the release flavour with one broken variant each: which there are, what is in them, who may load one."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from shmalloc import Arena, GeometryError, Unsupported, _binding, _buildid, designs

ROOT = Path(__file__).resolve().parents[2]
CORE_DIR = ROOT / "shmalloc" / "core"
VARIANTS = _binding.release_variants()


def python(code: str) -> str:
    """Run code in a fresh interpreter, and return what it prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def tried(code: str) -> str:
    """Run code in a fresh interpreter that is refused, and return why."""
    return python(
        f"from shmalloc import *\nfrom shmalloc import _binding\n"
        f"try:\n    {code}\nexcept Unsupported as e:\n    print(e)"
    )


def path_of(variant: str) -> Path:
    return _binding._object(variant)


def functions(path: Path) -> dict[str, bytes]:
    """The code of each function that is one of a kind, without what depends on where all others lie."""
    with path.open("rb") as stream:
        elf = ELFFile(stream)
        return {
            symbol.name: symbol["st_size"].to_bytes(4, "little")
            for symbol in elf.get_section_by_name(".symtab").iter_symbols()
            if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_size"]
        }


def test_every_variant_has_an_object_or_a_reason() -> None:
    others = designs.set_off_by()
    assert set(others) == set(designs.broken_variants()) - {"none"}
    assert {name for name, other in others.items() if other is None} == set(VARIANTS)
    assert set(designs.release_variants()) == set(VARIANTS)
    assert {"no_tid", "spin_in_nmi", "k06", "k08", "lost_page"} <= set(VARIANTS)
    assert not {"k28", "k36", "no_merge"} & set(VARIANTS)


@pytest.mark.parametrize("variant", VARIANTS)
def test_object_is_the_variant_and_works(variant: str) -> None:
    """It says what it is, is of this checkout, and serves a request that nothing interrupts."""
    code = f"""
from shmalloc import Arena, Cpu, _binding, designs
core = _binding.core("release", {variant!r})
assert core is _binding.core() is _binding.core("release")
assert core.text(core.lib.shm_flavour()) == core.flavour == "release"
name = core.names("broken")[core.lib.shm_broken_variant()]
with Arena.create(size="8MiB", broken={variant!r}, debug_objects=True) as arena, Cpu(arena, 0) as cpu:
    assert core.names("broken")[arena.header.broken] == {variant!r}
    for size in (8, 100, 5000):
        cpu.kfree(cpu.kmalloc(size))
print(name, core.broken, core.build_id, core.path)
"""
    name, broken, build_id, path = python(code).split()
    flags = _binding.core().text(_binding.core().lib.shm_build_flags())
    assert flags
    assert (name, broken) == (variant, variant)
    assert build_id == _buildid.source_id(CORE_DIR, flags) == _binding.core().build_id
    assert Path(path) == path_of(variant).resolve()


@pytest.mark.parametrize("variant", VARIANTS)
def test_object_has_the_symbols_of_the_correct_one(variant: str) -> None:
    plain, broken = functions(_binding.core().path), functions(path_of(variant))
    exported = {name for name in plain if name.startswith("shm_")}
    assert exported <= set(broken)
    differing = {name for name in plain.keys() & broken.keys() if plain[name] != broken[name]}
    assert len(differing) < 60  # a few functions, and the calls that they are inlined into


def test_neither_flavour_is_a_variant(core: _binding.Core) -> None:
    assert core.lib.shm_broken_variant() == 0
    assert core.broken == "none"


# --- what is compiled anew -------------------------------------------------------------------------------


def build_broken() -> dict[str, set[str]]:
    command = [sys.executable, str(CORE_DIR / "build_broken.py"), str(CORE_DIR)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {line.split()[0]: set(line.split()[1:]) for line in lines}


def test_build_makes_what_the_table_says() -> None:
    assert set(build_broken()) == set(VARIANTS)


def test_every_source_that_can_see_the_question_is_compiled_anew() -> None:
    """By the reading of includes in full, in any order, once more."""
    texts = {path.name: path.read_text() for path in CORE_DIR.iterdir() if path.suffix in (".c", ".h")}
    sees = {name: {name} for name in texts}
    for _ in texts:
        for name, text in texts.items():
            for header in re.findall(r'#\s*include "(.*)"', text):
                sees[name] |= sees.get(header, set())
    for variant, sources in build_broken().items():
        asks = {name for name, text in texts.items() if f"broken({variant})" in text}
        assert asks, f"nothing asks for {variant}"
        found = {name for name in texts if name.endswith(".c") and sees[name] & asks}
        assert sources == found | {"broken.c"}


def test_a_header_counts_for_all_who_include_it(tmp_path: Path) -> None:
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("build_broken", CORE_DIR / "build_broken.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "broken.def").write_text('BROKEN(one, "a",\n       NULL)\nBROKEN(two, "b", "c")\n')
    (tmp_path / "low.h").write_text("#define X broken(one)\n")
    (tmp_path / "high.h").write_text('#include "low.h"\n#include "high.h"\n')
    (tmp_path / "direct.c").write_text("int a = broken(one);\n")
    (tmp_path / "far.c").write_text('#include "high.h"\n')
    (tmp_path / "other.c").write_text("int a = broken(two) + broken(one_more);\n")
    (tmp_path / "name.c").write_text("int a = SHM_BROKEN_VARIANT;\n")
    assert module.variants(tmp_path) == ["one"]
    assert module.sources(tmp_path, "one") == ["direct.c", "far.c", "name.c"]
    (tmp_path / "low.h").write_text("#define X 0\n")
    assert module.sources(tmp_path, "one") == ["direct.c", "name.c"]


# --- who may load one --------------------------------------------------------------------------------------


def test_a_process_has_one_object_of_the_release_flavour() -> None:
    refused = tried("_binding.core(); _binding.core('release', 'no_tid')")
    assert refused.startswith(
        "broken = 'no_tid' in the release flavour: this process has loaded the object of 'none'"
    )
    refused = tried("_binding.core('release', 'k06'); Arena.create(size='8MiB', broken='no_tid')")
    assert "has loaded the object of 'k06'" in refused
    assert "take another process" in refused
    refused = tried("_binding.core('release', 'k06'); Arena.create(size='8MiB')")
    assert refused.startswith("broken = 'none'")


def test_the_checked_flavour_is_apart() -> None:
    code = """
from shmalloc import Arena, _binding
_binding.core("release", "k06")
with Arena.create(size="8MiB", flavour="checked", broken="no_tid") as arena:
    print(arena.core.names("broken")[arena.header.broken], _binding.core("checked", "k08") is arena.core)
"""
    assert python(code) == "no_tid True"


@pytest.mark.parametrize(
    "variant", [name for name, other in designs.set_off_by().items() if other is not None]
)
def test_variant_without_an_object_says_why(variant: str) -> None:
    with pytest.raises(Unsupported) as caught:
        _binding.core("release", variant)
    assert str(caught.value).startswith(
        f"broken = '{variant}' in the release flavour: no interrupt sets it off"
    )
    assert str(designs.set_off_by()[variant]) in str(caught.value)
    assert "k06" in str(caught.value)


def test_unknown_variant_is_named_with_what_is_allowed() -> None:
    with pytest.raises(Unsupported, match=r"broken = 'k99' .*: allowed is one of none, .*k06"):
        _binding.core("release", "k99")
    with pytest.raises(GeometryError, match=r"broken = 'k99': allowed is one of none, .*k36"):
        Arena.create(size="8MiB", broken="k99")


def test_a_build_without_objects_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_binding, "_objects", lambda: tmp_path)
    assert _binding.release_variants() == ()
    with pytest.raises(Unsupported, match=r"broken = 'k06'.*without the objects of broken variants"):
        _binding.core("release", "k06")
