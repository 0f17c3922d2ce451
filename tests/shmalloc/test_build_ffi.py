# SPDX-License-Identifier: MIT
"""The filter that turns headers into cffi declarations."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from cffi import FFI

SCRIPT = Path(__file__).resolve().parents[2] / "shmalloc" / "core" / "build_ffi.py"


@pytest.fixture(scope="module")
def build_ffi() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_ffi", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_build_depends_on_every_header_that_cffi_reads(build_ffi: ModuleType) -> None:
    names = build_ffi.headers(SCRIPT.parent)
    assert set(names) == {path.name for path in SCRIPT.parent.glob("arena*.h")} | {"gfp.h", "api.h"}
    assert names.index("arena_base.h") < names.index("arena_pages.h") < names.index("arena.h")
    printed = subprocess.run(
        [sys.executable, SCRIPT, "headers", SCRIPT.parent], capture_output=True, check=True
    )
    assert printed.stdout.decode().split() == names


def test_comments_guards_and_includes_go(build_ffi: ModuleType) -> None:
    text = "#ifndef X_H\n#define X_H\n#include <stdint.h>\nint f(void); /* two\n lines */ // rest\n#endif\n"
    assert build_ffi.filter_header(text, {}).split() == ["int", "f(void);"]


def test_macros_are_left_to_the_compiler(build_ffi: ModuleType) -> None:
    known: dict[str, int] = {}
    assert build_ffi.filter_header("#define A 0x10ull\n#define B (A << 2 | 1u)\n", known) == (
        "#define A ...\n#define B ...\n"
    )
    assert known == {"A": 16, "B": 65}


def test_enumerators_count_on(build_ffi: ModuleType) -> None:
    known: dict[str, int] = {}
    build_ffi.filter_header("enum e { A, B = 5, C, NR };\nint x[NR];\n", known)
    assert known == {"A": 0, "B": 5, "C": 6, "NR": 7}


def test_structures_are_open_and_their_arrays_computed(build_ffi: ModuleType) -> None:
    text = "#define N 3\nstruct s {\n\tuint8_t a[N * 2][N];\n\tstruct t b;\n};\n"
    out = build_ffi.filter_header(text, {})
    assert "uint8_t a[6][3];" in out
    assert "...;\n};" in out


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("#define MAX(a, b) ((a) > (b))\n", "MAX"),
        ("#define NAME other_name\n", "other_name"),
        ("#if FOO\n", "#if FOO"),
        ("int x[sizeof(int)];\n", "sizeof"),
    ],
)
def test_what_is_no_plain_declaration_is_named(build_ffi: ModuleType, text: str, named: str) -> None:
    with pytest.raises(build_ffi.HeaderError, match=named):
        build_ffi.filter_header(text, {})


def test_cffi_reads_the_declarations(build_ffi: ModuleType) -> None:
    text = build_ffi.cdef(SCRIPT.parent)
    assert "__attribute__" not in text
    FFI().cdef(text)


def test_wrong_usage_prints_the_usage() -> None:
    result = subprocess.run([sys.executable, SCRIPT, "help"], capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "build_ffi.py id CORE_DIR FLAGS" in result.stderr
