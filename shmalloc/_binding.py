# SPDX-License-Identifier: MIT
"""The way to the compiled core: one extension module per flavour, loaded on first use.

Beside the release flavour lie objects of it with one broken variant each, for what needs the code that is
measured. A process loads one of them or the correct one.

Normally the module lies beside this file (an install) or is found by the editable install's
loader. When this file is imported from a source tree that shadows an install (`python -m harness`
in the project's root), the installed module is looked up on `sys.path`. In both cases that have
sources beside this file, the hash in the binary must be theirs: a stale core never runs.

Imports neither numpy nor anything that starts threads: CPU processes come through here.
"""

import importlib
import importlib.machinery
import importlib.util
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from shmalloc import _buildid
from shmalloc.errors import BuildMissing, StaleBuildError, Unsupported

FLAVOURS = ("release", "checked")

_OBJECTS = "broken"  # the folder of the release flavour's broken variants

_PACKAGE_DIR = Path(__file__).resolve().parent
_REBUILD = "rebuild it in the root of the project: pip install ."


@dataclass(frozen=True)
class Core:
    """One flavour of the compiled core.

    Attributes: ffi, lib: as cffi makes them; the functions of api.h are lib's attributes, and release
        the GIL.  flavour: "release" or "checked".  path: the shared object.  broken: the variant that is
        compiled in, "none" for the two flavours as they are.
    """

    ffi: Any
    lib: Any
    flavour: str
    path: Path
    broken: str = "none"

    @property
    def build_id(self) -> str:
        """Hash of the core's sources and flags, 16 hex digits."""
        return self.text(self.lib.shm_build_id()) or ""

    @property
    def functions(self) -> Any:
        """Addresses of the functions that are called without cffi: a ``shmalloc._fast.Core``."""
        return _functions(self.path)

    def text(self, pointer: Any) -> str | None:
        """Return the C string at *pointer*, or None for NULL."""
        if pointer == self.ffi.NULL:
            return None
        return str(self.ffi.string(pointer).decode())

    def names(self, what: str) -> tuple[str, ...]:
        """List the names of one of the core's enumerations, in order of their numbers.

        Args: what: "verdict", "reason", "checker", "lock_class", "design", "broken", "probe", "trace" or "irq_work".
        """
        return _names(self, what)


@cache
def _names(core: Core, what: str) -> tuple[str, ...]:
    function = getattr(core.lib, f"shm_{what}_name")
    found: list[str] = []
    while (name := core.text(function(len(found)))) is not None:
        found.append(name)
    return tuple(found)


@cache
def _functions(path: Path) -> Any:
    return fast().Core(str(path))


@cache
def fast() -> ModuleType:
    """Load the calls that Python makes most, which are compiled but no part of the core.

    Raises: BuildMissing.  StaleBuildError.
    """
    module = load_module("_fast")
    sources = _PACKAGE_DIR / "pyface"
    if (sources / "module.c").is_file() and (current := _buildid.source_id(sources, "")) != module.BUILD_ID:
        raise StaleBuildError(
            f"{module.__file__} was built from other sources ({module.BUILD_ID}) than those in {sources} "
            f"({current}); {_REBUILD}"
        )
    return module


_loaded: dict[str, Core] = {}


def core(flavour: str = "release", broken: str | None = None) -> Core:
    """Load the compiled core, once per process and flavour.

    Args: flavour: "release" (what is measured) or "checked" (probes, invariants, broken variants).  broken: a
        broken variant that is to be in force; the release flavour has an object of its own for each of
        `release_variants`, the checked one has them all.  None = what is loaded already, else the correct core.
    Raises: Unsupported, for an unknown flavour, a variant without an object, or another object of the release
        flavour than the one that this process has loaded.  BuildMissing.  StaleBuildError.
    """
    if flavour not in FLAVOURS:
        raise Unsupported(f"flavour = {flavour!r}: allowed are {', '.join(FLAVOURS)}")
    compiled_in = broken if flavour == "release" else "none"
    path = _object(compiled_in) if compiled_in not in (None, "none") else None
    loaded = _loaded.get(flavour)
    if loaded is None:
        name = f"_core_{flavour}"
        module = load_module(name) if path is None else _load_file(f"{__package__}.{name}", path)
        file = Path(module.__file__ or "").resolve()
        loaded = Core(module.ffi, module.lib, flavour, file, compiled_in or "none")
        check_fresh(loaded)
        _loaded[flavour] = loaded
    elif compiled_in not in (None, loaded.broken):
        raise Unsupported(
            f"broken = {broken!r} in the release flavour: this process has loaded the object of "
            f"{loaded.broken!r}, and it can have one only; take another process"
        )
    return loaded


def release_variants() -> tuple[str, ...]:
    """List the broken variants of which the release flavour has an object, in alphabetical order.

    They are those that an interrupt of one CPU can set off, unless the build was told to make none.
    """
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    return tuple(sorted(path.name.removesuffix(suffix) for path in _objects().glob(f"*{suffix}")))


def install_directory() -> Path:
    """Return the folder that the compiled modules lie in, without loading one.

    Raises: BuildMissing.
    """
    name, package = "_core_release", "shmalloc"
    spec = importlib.util.find_spec(f"{package}.{name}")
    found = Path(spec.origin) if spec is not None and spec.origin else _installed(name, package)
    if found is None:
        raise BuildMissing(_missing(f"{package}.{name}"))
    # The module that is loaded may itself be the object of a broken variant.
    return found.parent.parent if found.parent.name == _OBJECTS else found.parent


def _objects() -> Path:
    """Return the folder of the broken variants' objects: below the one of the release flavour's module."""
    return install_directory() / _OBJECTS


def _object(broken: str | None) -> Path:
    path = _objects() / f"{broken}{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    if not path.is_file():
        raise Unsupported(f"broken = {broken!r} in the release flavour: {_why_none(broken)}")
    return path


def _why_none(broken: str | None) -> str:
    """Say why a variant has no object, by the table that the checked flavour has, too."""
    table = core("checked")
    names = table.names("broken")
    if broken not in names:
        return f"allowed is one of none, {', '.join(release_variants())}"
    other = table.text(table.lib.shm_broken_set_off_by(names.index(broken)))
    if other is None:
        return f"it was built without the objects of broken variants; {_REBUILD}"
    return (
        f"no interrupt sets it off, so there is no object of it; it takes: {other}. "
        f"There are {', '.join(release_variants()) or 'none'}"
    )


def check_fresh(loaded: Core) -> None:
    """Compare a loaded core with the sources beside this package, if there are any.

    Raises: StaleBuildError.
    """
    _check_fresh(loaded, _PACKAGE_DIR / "core")


def load_module(name: str, package: str = "shmalloc") -> ModuleType:
    """Import a compiled module of a package, also where a source tree shadows the install that has it.

    Raises: BuildMissing.
    """
    full_name = f"{package}.{name}"
    try:
        return importlib.import_module(full_name)
    except ModuleNotFoundError as error:
        if error.name != full_name:
            raise
    path = _installed(name, package)
    if path is None:
        raise BuildMissing(_missing(full_name))
    return _load_file(full_name, path)


def _missing(full_name: str) -> str:
    return (
        f"the compiled module {full_name} is neither in this tree nor in an installed shmalloc on "
        f"sys.path of {sys.executable}; {_REBUILD}"
    )


def _load_file(full_name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(full_name, path)
    if spec is None or spec.loader is None:
        raise BuildMissing(f"{path} is no extension module of {sys.executable}; {_REBUILD}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[full_name] = module
    spec.loader.exec_module(module)
    return module


def _installed(name: str, package: str) -> Path | None:
    """Find the module in the installed package that this one shadows."""
    for entry in sys.path:
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            path = Path(entry, *package.split("."), name + suffix)
            if path.is_file():
                return path.resolve()
    return None


def _check_fresh(loaded: Core, core_dir: Path) -> None:
    """Compare the sources, if they are in *core_dir*, with those that the binary was made from."""
    if not (core_dir / "arena.h").is_file():
        return
    flags = loaded.text(loaded.lib.shm_build_flags()) or ""
    current = _buildid.source_id(core_dir, flags)
    if current != loaded.build_id:
        raise StaleBuildError(
            f"{loaded.path} was built from other sources (build id {loaded.build_id}) than those in "
            f"{core_dir} ({current}); {_REBUILD}"
        )
