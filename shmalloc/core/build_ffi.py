# SPDX-License-Identifier: MIT
"""Build step: make the cffi declarations from the core's headers, and the glue code from those.

    build_ffi.py id CORE_DIR FLAGS         print "<build id> <abi hash>"
    build_ffi.py emit CORE_DIR MODULE OUT  write the C source of extension module MODULE to OUT
    build_ffi.py cdef CORE_DIR             print the declarations
    build_ffi.py headers CORE_DIR          print the names of the headers that they come from, a line each

The headers are the only place where anything is declared. What cffi cannot read is filtered out:
comments, guards, includes. `#define X value` becomes `#define X ...`, each structure gets a `...;`,
so that the compiler and nobody else decides values and offsets; array sizes are computed here,
and the compiler checks them. Standard library and cffi only.
"""

import ast
import importlib.util
import operator
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

API_HEADERS = ("gfp.h", "api.h")  # besides arena.h and its parts

_PREAMBLE = """\
#include <stdint.h>
#include "arena.h"
#include "gfp.h"
#include "api.h"

static const char *shm_build_flags(void)
{
	return SHM_BUILD_FLAGS;
}
"""
_GLUE_CDEF = "const char *shm_build_flags(void);\n"

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_DEFINE = re.compile(r"#\s*define\s+(\w+)(\(?)[ \t]*(.*)")
_DROPPED = re.compile(r"#\s*(include|ifndef|endif|pragma)\b")
_ENUM = re.compile(r"\benum\s+\w*\s*\{(.*?)\}", re.DOTALL)
_STRUCT_END = re.compile(r"(\bstruct\s+\w+\s*\{[^{}]*)\}")
_ARRAY = re.compile(r"\[([^\]]+)\]")
_INTEGER = re.compile(r"\b(0[xX][0-9a-fA-F]+|\d+)[uUlL]+\b")
_OPERATORS: dict[type[ast.AST], Callable[..., int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitOr: operator.or_,
    ast.BitAnd: operator.and_,
    ast.USub: operator.neg,
    ast.Invert: operator.invert,
}


class HeaderError(Exception):
    """A header holds something that is no plain declaration."""


def evaluate(expression: str, known: dict[str, int]) -> int:
    """Compute an integer constant expression of C.

    Args: expression: C text.  known: constants by name.
    Raises: HeaderError, naming the expression.
    """

    def value(node: ast.AST) -> int:
        match node:
            case ast.Constant(value=int() as number):
                return number
            case ast.Name(id=name) if name in known:
                return known[name]
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](value(left), value(right))
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](value(operand))
        raise HeaderError(f"not an integer constant: {expression!r}")

    text = _INTEGER.sub(r"\1", expression).replace("/", "//").strip()
    try:
        return value(ast.parse(text, mode="eval").body)
    except SyntaxError as error:
        raise HeaderError(f"not an integer constant: {expression!r}") from error


def _enum_constants(body: str, known: dict[str, int]) -> None:
    following = 0
    for item in filter(None, (part.strip() for part in body.split(","))):
        name, _, expression = item.partition("=")
        number = evaluate(expression, known) if expression else following
        known[name.strip()] = number
        following = number + 1


def _define(line: str, known: dict[str, int]) -> str:
    match = _DEFINE.match(line)
    if match is None or match[2]:
        raise HeaderError(f"only plain declarations belong in a shared header: {line!r}")
    name, expression = match[1], match[3].strip()
    if not expression:
        return ""
    known[name] = evaluate(expression, known)
    return f"#define {name} ...\n"


def filter_header(text: str, known: dict[str, int]) -> str:
    """Turn one header into cffi declarations.

    Args: text: the header.  known: constants met so far, by name; those of the header are added.
    Returns: declarations that cffi can parse.
    Raises: HeaderError.
    """
    text = _COMMENT.sub(" ", text).replace("\\\n", " ")
    # Enumerations may be used by macros of the same header and the other way round: in order.
    out: list[str] = []
    declarations: list[str] = []

    def flush() -> None:
        block = "".join(declarations)
        declarations.clear()
        for body in _ENUM.findall(block):
            _enum_constants(body, known)
        block = _STRUCT_END.sub(r"\1\t...;\n}", block)
        out.append(_ARRAY.sub(lambda match: f"[{evaluate(match[1], known)}]", block))

    for line in text.splitlines(keepends=True):
        if not line.lstrip().startswith("#"):
            declarations.append(line)
            continue
        flush()
        if not _DROPPED.match(line.lstrip()):
            out.append(_define(line.strip(), known))
    flush()
    return "".join(out)


def _buildid(core_dir: Path) -> ModuleType:
    """Load shmalloc's _buildid.py without the package, which is not built yet."""
    spec = importlib.util.spec_from_file_location("_buildid", core_dir.parent / "_buildid.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def headers(core_dir: Path) -> list[str]:
    """List the headers that cffi reads, each after those that it includes."""
    return [*_buildid(core_dir).layout_headers(core_dir), *API_HEADERS]


def cdef(core_dir: Path) -> str:
    """Make the declarations of the whole core, with the glue's own at the end."""
    known: dict[str, int] = {}
    parts = [filter_header((core_dir / name).read_text(), known) for name in headers(core_dir)]
    return re.sub(r"\n\s*\n+", "\n", "".join(parts)) + _GLUE_CDEF


def emit(core_dir: Path, module: str, out: Path) -> None:
    """Write the C source of the extension module *module*."""
    try:
        from cffi import FFI
    except ImportError:
        sys.exit("shmalloc: the build needs the Python package cffi: pip install cffi")
    ffi = FFI()
    ffi.cdef(cdef(core_dir))
    ffi.set_source(module, _PREAMBLE)
    ffi.emit_c_code(str(out))


def identify(core_dir: Path, flags: str) -> str:
    """Return the build id and the ABI hash as one line of text, for CMake."""
    buildid = _buildid(core_dir)
    return f"{buildid.source_id(core_dir, flags)} {buildid.abi_hash(core_dir):#018x}"


def main(arguments: list[str]) -> None:
    """Run the command line given in the module's docstring."""
    match arguments:
        case ["id", core_dir, flags]:
            print(identify(Path(core_dir), flags))
        case ["emit", core_dir, module, out]:
            emit(Path(core_dir), module, Path(out))
        case ["cdef", core_dir]:
            print(cdef(Path(core_dir)), end="")
        case ["headers", core_dir]:
            print("\n".join(headers(Path(core_dir))))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except HeaderError as error:
        sys.exit(f"shmalloc: {error}")
