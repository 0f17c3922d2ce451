# SPDX-License-Identifier: MIT
"""The shared library as a program without Python would use it: its calls, by ctypes, and other processes that use it.

What a process is in an arena is known by its pid, so the core that Python has loaded does not work on the same one in
the same process.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from ctypes import POINTER, Structure, byref, c_char_p, c_int, c_uint, c_uint32, c_uint64, c_void_p
from pathlib import Path

from elftools.elf.elffile import ELFFile

from shmalloc import linking

LIBRARY = linking.libdir() / "libshmalloc.so"

ANY_CPU = -1
SPARSE, ORACLE, LINUX_6_18 = 1, 2, 4
_OWN = Path(__file__).resolve().parent


def exported() -> set[str]:
    """List what the library exports."""
    with LIBRARY.open("rb") as file:
        symbols = ELFFile(file).get_section_by_name(".dynsym").iter_symbols()
        return {symbol.name for symbol in symbols if symbol["st_shndx"] != "SHN_UNDEF" and symbol.name}


class CArena(Structure):
    """struct shmalloc_arena."""

    _fields_ = (
        ("base", c_void_p),
        ("bytes", c_uint64),
        ("roots", POINTER(c_uint64)),
        ("nr_roots", c_uint),
        ("nr_cpus", c_uint),
    )


class Options(Structure):
    """struct shmalloc_options."""

    _fields_ = (
        ("flags", c_uint),
        ("cpus", c_uint),
        ("caches", c_uint),
        ("sheaf_factor", c_uint),
        ("reserved", c_uint * 4),
    )


_SIGNATURES = {
    "shmalloc_create": (c_int, POINTER(CArena), c_char_p, c_uint64, POINTER(Options)),
    "shmalloc_attach": (c_int, POINTER(CArena), c_char_p),
    "shmalloc_detach": (c_int, POINTER(CArena)),
    "shmalloc_unlink": (c_int, c_char_p),
    "shmalloc_join": (c_int, c_int),
    "shmalloc_leave": (c_int,),
    "shmalloc_cache": (c_int, c_char_p, c_uint32, c_uint32),
    "shmalloc_cache_destroy": (c_int, c_int),
    "shmalloc_strerror": (c_char_p, c_int),
    "shmalloc_error": (c_char_p,),
    "shmalloc_reason": (c_char_p,),
    "shmalloc_verdict": (c_char_p, POINTER(CArena)),
    "shmalloc_version": (c_char_p,),
    "shm_malloc": (c_uint64, c_uint64),
    "shm_zalloc": (c_uint64, c_uint64),
    "shm_realloc": (c_uint64, c_uint64, c_uint64),
    "shm_free": (c_int, c_uint64),
    "shm_ksize": (c_uint64, c_uint64),
    "shm_malloc_nolock": (c_uint64, c_uint64),
    "shm_free_nolock": (c_int, c_uint64),
    "shm_pages": (c_uint64, c_uint),
    "shm_pages_free": (c_int, c_uint64, c_uint),
    "shm_cache_alloc": (c_uint64, c_uint),
    "shm_cache_alloc_nolock": (c_uint64, c_uint),
    "shm_cache_free": (c_int, c_uint, c_uint64),
    "shm_cache_free_nolock": (c_int, c_uint, c_uint64),
    "shm_handler_enter": (c_int,),
    "shm_handler_leave": (c_int, c_int),
}


def load() -> ctypes.CDLL:
    """Load the library, its calls with their types."""
    lib = ctypes.CDLL(str(LIBRARY))
    for name, (result, *arguments) in _SIGNATURES.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


def fresh_name() -> str:
    """Return a name that nobody uses, by which a leak would be found out."""
    return f"/shmalloc-{os.getpid()}-{os.urandom(4).hex()}"


class Program:
    """This process as a user of the library: it lets go of everything at the end."""

    def __init__(self) -> None:
        self.lib = load()
        self.arena = CArena()
        self._names: list[str] = []

    def create(self, name: str | None = None, size: int = 16 << 20, **options: int) -> int:
        given = Options(**options)
        encoded = None if name is None else name.encode()
        result = int(self.lib.shmalloc_create(byref(self.arena), encoded, size, byref(given)))
        if not result and name is not None:
            self._names.append(name)
        return result

    def attach(self, name: str) -> int:
        return int(self.lib.shmalloc_attach(byref(self.arena), name.encode()))

    def detach(self) -> int:
        return int(self.lib.shmalloc_detach(byref(self.arena)))

    def error(self) -> str:
        return str(self.lib.shmalloc_error().decode())

    def reason(self) -> str:
        return str(self.lib.shmalloc_reason().decode())

    def read(self, off: int, length: int) -> bytes:
        return ctypes.string_at(self.arena.base + off, length)

    def write(self, off: int, data: bytes) -> None:
        ctypes.memmove(self.arena.base + off, data, len(data))

    def close(self) -> None:
        if self.arena.base:
            assert self.detach() == 0, self.error()
        for name in self._names:
            self.lib.shmalloc_unlink(name.encode())


def elsewhere(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run code in another process, which has `program`, a Program, and `arguments`."""
    head = "import os, signal, sys; from libshmalloc import Program; program = Program(); lib = program.lib\n"
    return subprocess.run(
        [sys.executable, "-c", head + code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(_OWN)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
