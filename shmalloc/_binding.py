# SPDX-License-Identifier: MIT
"""The way to the compiled core: one extension module per flavour, loaded on first use.

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

_PACKAGE_DIR = Path(__file__).resolve().parent
_REBUILD = "rebuild it in the root of the project: pip install ."


@dataclass(frozen=True)
class Core:
    """One flavour of the compiled core.

    Attributes: ffi, lib: as cffi makes them; the functions of api.h are lib's attributes, and release
        the GIL.  flavour: "release" or "checked".  path: the shared object.
    """

    ffi: Any
    lib: Any
    flavour: str
    path: Path

    @property
    def build_id(self) -> str:
        """Hash of the core's sources and flags, 16 hex digits."""
        return self.text(self.lib.shm_build_id()) or ""

    def text(self, pointer: Any) -> str | None:
        """Return the C string at *pointer*, or None for NULL."""
        if pointer == self.ffi.NULL:
            return None
        return str(self.ffi.string(pointer).decode())

    def names(self, what: str) -> tuple[str, ...]:
        """List the names of one of the core's enumerations, in order of their numbers.

        Args: what: "verdict", "reason", "checker", "lock_class", "design", "broken" or "probe".
        """
        function = getattr(self.lib, f"shm_{what}_name")
        found: list[str] = []
        while (name := self.text(function(len(found)))) is not None:
            found.append(name)
        return tuple(found)


@cache
def core(flavour: str = "release") -> Core:
    """Load the compiled core, once per process and flavour.

    Args: flavour: "release" (what is measured) or "checked" (probes, invariants, broken variants).
    Raises: Unsupported, for an unknown flavour.  BuildMissing.  StaleBuildError.
    """
    if flavour not in FLAVOURS:
        raise Unsupported(f"flavour = {flavour!r}: allowed are {', '.join(FLAVOURS)}")
    module = _load(f"_core_{flavour}")
    loaded = Core(module.ffi, module.lib, flavour, Path(module.__file__ or "").resolve())
    check_fresh(loaded)
    return loaded


def check_fresh(loaded: Core) -> None:
    """Compare a loaded core with the sources beside this package, if there are any.

    Raises: StaleBuildError.
    """
    _check_fresh(loaded, _PACKAGE_DIR / "core")


def _load(name: str) -> ModuleType:
    full_name = f"{__package__}.{name}"
    try:
        return importlib.import_module(full_name)
    except ModuleNotFoundError as error:
        if error.name != full_name:
            raise
    path = _installed(name)
    if path is None:
        raise BuildMissing(
            f"the compiled core {name} is neither in {_PACKAGE_DIR} nor in an installed shmalloc on "
            f"sys.path of {sys.executable}; {_REBUILD}"
        )
    spec = importlib.util.spec_from_file_location(full_name, path)
    if spec is None or spec.loader is None:
        raise BuildMissing(f"{path} is no extension module of {sys.executable}; {_REBUILD}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[full_name] = module
    spec.loader.exec_module(module)
    return module


def _installed(name: str) -> Path | None:
    """Find the module in the installed package that this one shadows."""
    for entry in sys.path:
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            path = Path(entry, "shmalloc", name + suffix)
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
