# SPDX-License-Identifier: MIT
"""Where a C program finds what to be compiled and linked with: the header, the library, the examples.

Nothing is loaded here: the paths are those of the install that the compiled core comes from.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from shmalloc._binding import install_directory
from shmalloc.errors import BuildMissing

_LIBRARY = "libshmalloc.so"
_PACKAGE = Path(__file__).resolve().parent


def libdir() -> Path:
    """Return the folder that holds libshmalloc.so.

    Raises:
        BuildMissing: it is not there.
    """
    directory = install_directory().resolve() / "lib"
    if not (directory / _LIBRARY).is_file():
        raise BuildMissing(
            f"{directory / _LIBRARY} is missing; install it in the root of the project: pip install ."
        )
    return directory


def includedir() -> Path:
    """Return the folder that holds shmalloc.h: the one beside the library, or of the sources it was built from."""
    installed = libdir().parent / "include"
    return installed if (installed / "shmalloc.h").is_file() else _PACKAGE / "include"


def examplesdir() -> Path:
    """Return the folder with the C programs that show how."""
    return includedir().parent / "examples"


def cflags() -> list[str]:
    """List what a compiler has to be told."""
    return [f"-I{includedir()}"]


def libs() -> list[str]:
    """List what a linker has to be told; programs find the library where it is, without LD_LIBRARY_PATH."""
    directory = libdir()
    return [f"-L{directory}", "-lshmalloc", f"-Wl,-rpath,{directory}"]


def version() -> str:
    """Return the version of the package."""
    return metadata.version("shmalloc")
