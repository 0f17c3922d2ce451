# SPDX-License-Identifier: MIT
"""Build step: say which sources a broken variant of the release flavour is compiled from anew.

    build_broken.py CORE_DIR    print a line for each variant that an interrupt can set off: its name, its sources

A source is compiled anew if it, or a header that it includes, asks whether the core is that variant; all else
is what the release flavour is made of. Standard library only.
"""

import re
import sys
from functools import cache
from pathlib import Path

_ROW = re.compile(r'^BROKEN\((\w+),\s*"[^"]*",\s*(NULL|"[^"]*")\)', re.MULTILINE)
_INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)
_COMPILED_IN = "SHM_BROKEN_VARIANT"  # a source that says which variant it is


def variants(core_dir: Path) -> list[str]:
    """List the broken variants that an interrupt can set off, in the order of broken.def."""
    rows = _ROW.findall((core_dir / "broken.def").read_text())
    return [name for name, other in rows if other == "NULL"]


def sources(core_dir: Path, variant: str) -> list[str]:
    """List the sources that are other ones in a variant, by name."""
    asks = f"broken({variant})"

    @cache
    def text(name: str) -> str:
        return (core_dir / name).read_text()

    def reached(name: str, seen: set[str]) -> bool:
        seen.add(name)
        if asks in text(name):
            return True
        included = [found for found in _INCLUDE.findall(text(name)) if (core_dir / found).is_file()]
        return any(reached(found, seen) for found in included if found not in seen)

    files = sorted(path.name for path in core_dir.glob("*.c"))
    return [name for name in files if _COMPILED_IN in text(name) or reached(name, set())]


def main(arguments: list[str]) -> None:
    """Run the command line given in the module's docstring."""
    if len(arguments) != 1:
        sys.exit(__doc__)
    core_dir = Path(arguments[0])
    for variant in variants(core_dir):
        print(variant, *sources(core_dir, variant))


if __name__ == "__main__":
    main(sys.argv[1:])
