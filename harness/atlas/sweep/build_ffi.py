# SPDX-License-Identifier: MIT
"""Emit the glue of `harness.atlas._sweep` from sweep.h: `build_ffi.py FOLDER MODULE OUTPUT`."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import cffi

_BUILDID = Path(__file__).resolve().parents[3] / "shmalloc" / "_buildid.py"


def declarations(header: str) -> str:
    """Return what cffi can read of the header: no comment, no guard, constants left to the compiler."""
    text = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    lines = [
        line for line in text.splitlines() if not re.match(r"\s*#\s*(ifndef|endif|define \w+_H\b)", line)
    ]
    return re.sub(r"(#define \w+) (?!\d+$).*", r"\1 ...", "\n".join(lines), flags=re.MULTILINE)


def source_id(folder: Path) -> str:
    """Hash the sources in a folder as those of the core are hashed."""
    spec = importlib.util.spec_from_file_location("_buildid", _BUILDID)
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.source_id(folder, ""))


def main() -> None:
    """Write the C source."""
    folder, module, output = Path(sys.argv[1]), *sys.argv[2:]
    ffi = cffi.FFI()
    ffi.cdef(
        declarations((folder / "sweep.h").read_text(encoding="utf-8")) + "\nchar *sweep_source_id(void);"
    )
    ffi.set_source(
        module,
        f'#include "sweep.h"\nstatic char *sweep_source_id(void) {{ return "{source_id(folder)}"; }}',
    )
    ffi.emit_c_code(output)


if __name__ == "__main__":
    main()
