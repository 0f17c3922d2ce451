# SPDX-License-Identifier: MIT
"""Allocators of one process, which take malloc's place when they are preloaded."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from harness.bench.built import built
from harness.bench.subjects import Missing, Subject
from harness.problems import ConfigError, Problem

__all__ = ["chosen", "find", "parse"]

_PLUGIN = "malloc.so"
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_FOLDERS = (
    *("/usr/local/lib", "/usr/local/lib64", "/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu"),
    *("/usr/lib64", "/lib64", "/usr/lib"),
)


@dataclass(frozen=True)
class _Peer:
    """One that may be there.

    Attributes: files: patterns of file names.  has, lacks: exported functions that tell it from others of the same
        file name.  package: that brings it, or how to get it.
    """

    name: str
    what: str
    files: tuple[str, ...]
    package: str
    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()


_BY_HAND = "in neither Debian nor PyPI: build it, and give it with --preload"
_PEERS = (
    _Peer("mimalloc", "mimalloc", ("libmimalloc.so*",), "Debian: libmimalloc-dev; PyPI: cmeel-mimalloc"),
    _Peer("jemalloc", "jemalloc", ("libjemalloc.so*",), "Debian: libjemalloc2"),
    _Peer(
        "gperftools", "gperftools' tcmalloc", ("libtcmalloc_minimal.so*", "libtcmalloc.so*"),
        "Debian: libgoogle-perftools-dev", has=("tc_malloc",),
    ),
    _Peer(
        "tcmalloc", "google's tcmalloc", ("libtcmalloc.so*", "libtcmalloc_*.so*", "libgoogle_tcmalloc.so*"),
        f"{_BY_HAND} tcmalloc=FILE", lacks=("tc_malloc",),
    ),
    _Peer("snmalloc", "snmalloc", ("libsnmallocshim.so*",), f"{_BY_HAND} snmalloc=FILE (its target snmallocshim)"),
    _Peer("rpmalloc", "rpmalloc", ("librpmallocwrap.so*", "librpmalloc.so*"), f"{_BY_HAND} rpmalloc=FILE"),
    _Peer("cxlalloc", "cxlalloc in malloc's place", ("libcxlalloc*.so*",), f"{_BY_HAND} cxlalloc=FILE"),
)  # fmt: skip


def parse(words: Sequence[str]) -> dict[str, Path]:
    """Read NAME=PATH words of --preload. Raises: ConfigError, with every mistake."""
    made: dict[str, Path] = {}
    problems = []
    for word in words:
        name, equals, path = word.partition("=")
        if not (equals and path and _NAME.fullmatch(name)):
            allowed = "allowed is NAME=PATH, the name of a-z, 0-9 and _, the path that of a shared library"
            problems.append(Problem("--preload", word, allowed))
        elif name in made:
            problems.append(Problem("--preload", word, f"there is a {name} already: {made[name]}"))
        elif name == "glibc":
            problems.append(
                Problem("--preload", word, "glibc is what there is without it; take another name")
            )
        elif why := _unfit(Path(path)):
            problems.append(Problem("--preload", word, why))
        else:
            made[name] = Path(path).resolve()
    if problems:
        raise ConfigError("command line", problems)
    return made


def chosen(preload: Mapping[str, Path]) -> list[Subject]:
    """Make subjects of libraries that the user has named."""
    return [_subject(name, f"{name}, preloaded from {path}", path) for name, path in preload.items()]


def find() -> tuple[list[Subject], list[Missing]]:
    """Return glibc and those that are found, and those that are not."""
    plain = {"LD_PRELOAD": ""}  # whatever the bench itself runs under
    subjects = [Subject("glibc", "peer", built(_PLUGIN), "malloc", "glibc's malloc", environment=plain)]
    missing = []
    for peer in _PEERS:
        library = _newest(peer)
        if library is None:
            missing.append(Missing(peer.name, peer.package, _why_none(peer)))
        else:
            subjects.append(_subject(peer.name, f"{peer.what}, {library.name}", library))
    return subjects, missing


def _subject(name: str, summary: str, library: Path) -> Subject:
    environment, options = {"LD_PRELOAD": str(library)}, f"library={library}"
    return Subject(name, "peer", built(_PLUGIN), "malloc", summary, options=options, environment=environment)


def _files(peer: _Peer) -> set[Path]:
    """Return the files of its names, links resolved."""
    return {path.resolve() for folder in _folders() for name in peer.files for path in folder.glob(name)}


def _why_none(peer: _Peer) -> str:
    unfit = [f"{path} {why}" for path in sorted(_files(peer)) if (why := _unfit(path))]
    return unfit[0] if unfit else f"no {' or '.join(peer.files)}"


def _newest(peer: _Peer) -> Path | None:
    """Return the file with the highest version in its name."""
    fit = [path for path in _files(peer) if not _unfit(path) and _is(peer, path)]
    return max(fit, key=lambda path: (_version(path), path.name), default=None)


def _folders() -> Iterator[Path]:
    for folder in (*os.environ.get("LD_LIBRARY_PATH", "").split(":"), *_FOLDERS):
        if folder:
            yield Path(folder)
    for entry in sys.path:  # where PyPI's package of a library for C programs puts it
        yield Path(entry) / "cmeel.prefix" / "lib"


def _version(path: Path) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", path.name.partition(".so")[2])]


def _unfit(path: Path) -> str | None:
    """Say why a file cannot take malloc's place, or None."""
    try:
        names = _exported(path, ("malloc", "free"))
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except (ELFError, ValueError) as error:
        return f"is no shared library of x86-64: {error}"
    lacking = [name for name in ("malloc", "free") if name not in names]
    return f"does not export {' and '.join(lacking)}" if lacking else None


def _is(peer: _Peer, path: Path) -> bool:
    names = _exported(path, (*peer.has, *peer.lacks))
    return all(name in names for name in peer.has) and not any(name in names for name in peer.lacks)


def _exported(path: Path, names: Sequence[str]) -> set[str]:
    """Return which of some names a shared library defines."""
    with path.open("rb") as file:
        elf = ELFFile(file)
        if elf["e_machine"] != "EM_X86_64" or elf["e_type"] != "ET_DYN":
            raise ValueError(f"{elf['e_type']} of {elf['e_machine']}")
        section = elf.get_section_by_name(".dynsym")
        if not isinstance(section, SymbolTableSection):
            return set()
        by_hash = elf.get_section_by_name(".gnu.hash") or elf.get_section_by_name(".hash")
        if by_hash is not None and hasattr(by_hash, "get_symbol"):
            symbols = [by_hash.get_symbol(name) for name in names]
        else:
            symbols = [each for each in section.iter_symbols() if each.name in names]
        return {each.name for each in symbols if each is not None and each["st_shndx"] != "SHN_UNDEF"}
