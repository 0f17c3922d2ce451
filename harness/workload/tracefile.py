# SPDX-License-Identifier: MIT
"""Read a recorded kernel trace from an .npz file and check it before anything in it is believed."""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.workload.ops import IntArray
from harness.workload.spec import WorkloadError

__all__ = ["KIND_CACHE", "KIND_KMALLOC", "KIND_PAGES", "PAGE_SIZE_BYTES", "Trace", "TraceError", "read_trace"]

KIND_KMALLOC, KIND_CACHE, KIND_PAGES = 0, 1, 2

PAGE_SIZE_BYTES = 4096
MAX_PAGE_ORDER = 10
#: more than this is no trace of the form that is read here (50 million events come to 1.3 GB)
_MAX_UNPACKED_BYTES = 4 << 30

#: array: smallest and largest value that it may hold; a number below the smallest is no trace's
_RANGES: dict[str, tuple[int, int]] = {
    "op": (0, 1),
    "kind": (0, 2),
    "size_req": (0, 0xFFFFFFFF),
    "size_alloc": (0, 0xFFFFFFFF),
    "gfp_flags": (0, 0xFFFFFFFF),
    "node": (-1, 127),
    "cpu": (0, 0xFFFF),
    "slot": (-1, 0x7FFFFFFF),
    "ctx": (0, 0xFF),
    "cache": (0, 0xFFFF),
    "match": (-1, 0x7FFFFFFF),
}


class TraceError(WorkloadError):
    """A file that is no trace of the expected form; the text lists everything that is wrong with it."""


@dataclass(frozen=True)
class Trace:
    """A recorded trace; all arrays have the shape (events,) and the dtype int64.

    Attributes:
        op: 0 alloc, 1 free.
        kind: 0 kmalloc, 1 kmem_cache, 2 pages.
        size_req, size_alloc: bytes.
        gfp_flags: raw bits of Linux 6.18.
        node: -1 = any.
        cpu: where it was recorded.
        slot: dense id of the address or page; -1 = NULL or ZERO_SIZE_PTR.
        ctx: 1 irqs off, 8 hard irq, 16 soft irq, 64 NMI, 128 BH off.
        cache: index into cache_names.
        match: of a free, the index of its allocation; -1 = not in the trace.
        cache_names: names of caches.
    """

    op: IntArray
    kind: IntArray
    size_req: IntArray
    size_alloc: IntArray
    gfp_flags: IntArray
    node: IntArray
    cpu: IntArray
    slot: IntArray
    ctx: IntArray
    cache: IntArray
    match: IntArray
    cache_names: tuple[str, ...]


def read_trace(path: Path, events: int = 0) -> Trace:
    """Read and check a trace.

    Args: path: of the .npz file.  events: keep so many from the start, 0 = all.
    Raises: TraceError, with everything that is wrong with the file.
    """
    arrays = _load(path)
    problems = _form_problems(arrays)
    if not problems:
        problems = _value_problems(arrays)
    if problems:
        raise TraceError(f"{path} is no trace that can be replayed: " + "; ".join(problems))
    columns = {name: arrays[name].astype(np.int64)[: events or None] for name in _RANGES}
    return Trace(**columns, cache_names=tuple(str(name) for name in arrays["cache_names"]))


def _load(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
            if unpacked > _MAX_UNPACKED_BYTES:
                raise TraceError(
                    f"{path}: unpacks to {unpacked} bytes, at most {_MAX_UNPACKED_BYTES} are read"
                )
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in (*_RANGES, "cache_names") if name in file.files}
    except zipfile.BadZipFile as error:
        raise TraceError(f"{path} is no .npz file: {error}") from error
    except OSError as error:
        raise TraceError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError, MemoryError, KeyError, RuntimeError, zlib.error) as error:
        if isinstance(error, TraceError):
            raise
        raise TraceError(f"{path} holds an array that cannot be read: {error}") from error


def _form_problems(arrays: dict[str, npt.NDArray[np.generic]]) -> list[str]:
    """Check names, shapes and dtypes."""
    missing = [name for name in (*_RANGES, "cache_names") if name not in arrays]
    problems = [f"array {name} is missing" for name in missing]
    length = arrays["op"].shape if "op" in arrays else None
    for name, array in arrays.items():
        if array.ndim != 1:
            problems.append(f"array {name} has {array.ndim} dimensions instead of 1")
        elif name == "cache_names":
            if array.dtype.kind != "U":
                problems.append(f"array cache_names has dtype {array.dtype} instead of text")
        elif array.dtype.kind not in "iu":
            problems.append(f"array {name} has dtype {array.dtype} instead of an integer")
        elif array.shape != length:
            problems.append(f"array {name} has {array.size} entries, array op has {length and length[0]}")
    if length == (0,):
        problems.append("there are no events")
    return problems


def _value_problems(arrays: dict[str, npt.NDArray[np.generic]]) -> list[str]:
    """Check ranges, and that frees point at their allocations."""
    problems = []
    for name, (low, high) in _RANGES.items():
        least, most = int(arrays[name].min()), int(arrays[name].max())
        if least < low or most > high:
            problems.append(f"array {name} holds {least}..{most}, allowed are {low}..{high}")
    if problems:
        return problems
    table = {name: arrays[name].astype(np.int64) for name in _RANGES}
    return _reference_problems(table, arrays["cache_names"].size)


def _reference_problems(table: dict[str, IntArray], caches: int) -> list[str]:
    allocs, frees = table["op"] == 0, table["op"] == 1
    index = np.arange(table["op"].size)
    matched = frees & (table["match"] >= 0)
    target = np.where(matched, table["match"], 0)
    pages = allocs & (table["kind"] == KIND_PAGES)
    blocks = table["size_req"] // PAGE_SIZE_BYTES
    wrong_blocks = (table["size_req"] % PAGE_SIZE_BYTES != 0) | (blocks == 0) | (blocks & (blocks - 1) != 0)
    late = matched & (target >= index)
    safe = np.where(late, 0, target)
    checks = {
        f"cache beyond the {caches} cache_names": (table["kind"] != KIND_PAGES) & (table["cache"] >= caches),
        "a free whose match is no earlier event": late,
        "a free whose match is no allocation": matched & ~late & ~allocs[safe],
        "a free whose match has another slot": matched & ~late & (table["slot"][safe] != table["slot"]),
        f"pages in a block that is no power of two up to 2^{MAX_PAGE_ORDER}": pages
        & (wrong_blocks | (blocks > 1 << MAX_PAGE_ORDER)),
    }
    found = [_first(text, where) for text, where in checks.items()]
    targets = target[matched & ~late]
    if np.unique(targets).size != targets.size:
        found.append("an allocation is matched by more than one free")
    return [text for text in found if text]


def _first(text: str, where: npt.NDArray[np.bool_]) -> str:
    """Describe a problem with its count and the first event that has it; empty if none has."""
    events = np.flatnonzero(where)
    return f"{text} ({events.size} events, the first is {events[0]})" if events.size else ""
