# SPDX-License-Identifier: MIT
"""Plugins that are built on the spot, because what they measure is a matter of headers.

A plugin is built once for a text of its source, its flags and its compiler, and kept in the user's cache
folder; where there is none to write to, in a folder that goes with this process.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

__all__ = ["CannotBuild", "NoCompiler", "NoHeader", "build", "library_file"]

NATIVE = Path(__file__).resolve().parent.parent / "native"
_FLAGS = ("-O2", "-g", "-fPIC", "-fvisibility=hidden", "-fno-omit-frame-pointer", "-shared", "-Wl,-z,now")
_COMPILERS = {".c": ("CC", "gcc", "cc"), ".cpp": ("CXX", "g++", "c++")}
_COMPILE_S = 120


class CannotBuild(Exception):
    """A plugin does not build; the text is the compiler's first error."""


class NoCompiler(CannotBuild):
    """There is none for its language."""


class NoHeader(CannotBuild):
    """A header is not there. The text is its name."""


def build(source: Path, flags: Sequence[str] = (), libraries: Sequence[str] = (), version: str = "") -> Path:
    """Return the shared object of a C or C++ source, building it if it has not been built before.

    Args: flags: besides ours, before the source.  libraries: behind it.  version: a text that the preprocessor
        turns into the version of what is included: for another one it is built anew.
    Raises: CannotBuild, or the more exact NoCompiler, NoHeader.
    """
    compiler = _compiler(source.suffix)
    words = [*compiler, *_FLAGS, f"-I{NATIVE}", *flags, str(source), *libraries]
    made = _folder() / f"{source.stem}-{_identity(source, words, _version(compiler, flags, version))}.so"
    if made.exists():
        return made
    _clean(made.parent)
    half = made.with_name(f"{made.name}.{os.getpid()}")
    try:
        _compile([*words, "-o", str(half)])
        half.replace(made)  # whoever builds it at the same time, builds the same
    finally:
        half.unlink(missing_ok=True)
    return made


def _clean(folder: Path) -> None:
    """Remove what was half made by processes that were killed."""
    for half in folder.glob("*.so.*"):
        if not Path("/proc", half.suffix[1:]).exists():
            half.unlink(missing_ok=True)


def library_file(name: str) -> Path | None:
    """Return the file of that name in the folders that the C compiler links from."""
    try:
        compiler = _compiler(".c")
    except NoCompiler:
        return None
    asked = subprocess.run(
        [*compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=False
    )
    path = Path(asked.stdout.strip())
    return path if path.is_absolute() and path.exists() else None


def _compiler(suffix: str) -> list[str]:
    variable, *names = _COMPILERS[suffix]
    chosen = os.environ.get(variable, "").split()
    names = chosen[:1] or names
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        raise NoCompiler(f"no {' or '.join(names)}")
    return [found, *chosen[1:]]


def _compile(words: Sequence[str], text: str = "") -> str:
    """Run the compiler on the words, and on a text as its standard input. Returns: what it prints."""
    try:
        done = subprocess.run(
            words, input=text, capture_output=True, text=True, timeout=_COMPILE_S, check=False,
            env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise CannotBuild(f"{Path(words[0]).name} takes more than {_COMPILE_S} s") from None
    if done.returncode == 0:
        return done.stdout
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\b(error|undefined reference|cannot find)\b", line)]
    first = (errors or lines or [f"{Path(words[0]).name} ended with status {done.returncode}"])[0]
    if header := re.search(r"error: '?([^\s:']+)'?(?:: No such file or directory| file not found)", first):
        raise NoHeader(header[1])
    raise CannotBuild(first)


def _version(compiler: Sequence[str], flags: Sequence[str], text: str) -> str:
    """Return the versions of a compiler and of what it is to include. Raises: NoHeader, long before a build would."""
    included = _compile([*compiler, *flags, "-E", "-P", "-x", "c", "-"], text + "\n") if text else ""
    return _compile([*compiler, "--version"]) + included


def _identity(source: Path, words: Sequence[str], version: str) -> str:
    """Name everything that the result is made of."""
    texts = [source.read_text(), (NATIVE / "subject.h").read_text(), version, *words]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


@functools.cache
def _folder() -> Path:
    """Return the folder of what is built: ours alone, since what is in it is loaded as code."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(home) / "shmalloc" / "peers"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        if status.st_uid == os.getuid() and not status.st_mode & 0o022 and os.access(folder, os.W_OK):
            return folder
    temporary = tempfile.mkdtemp(prefix="shmalloc-peers-")
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    return Path(temporary)
