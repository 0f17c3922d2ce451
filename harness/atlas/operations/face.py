# SPDX-License-Identifier: MIT
"""The exported calls by name: each may have a fast path compiled into it, and what is called must be what is swept.

Their start states are those of the same paths through the calls that take a design's number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from harness.atlas.call import Call
from harness.atlas.operations import nothing, operation
from harness.atlas.operations.sheaves import DESIGN, GEOMETRY, SIZE, sheaf_alloc, sheaf_free, start
from harness.atlas.operations.slab import alloc_fastpath, free_fastpath
from harness.atlas.staging import Request, Staging
from shmalloc import designs

SPINNING, NOLOCK, SHEAVES = ("kmalloc",), ("kmalloc_nolock",), (DESIGN,)

#: What the call is given, of what the design's call is given (design, what, ...).
Arguments = Callable[[Staging, tuple[int, ...]], tuple[int, ...]]

_ALLOC = {"allocs": "== 1", "alloc_fastpath": "== 1", "alloc_slowpath": "== 0"}
_FREE = {"frees": "== 1", "free_fastpath": "== 1", "free_slowpath": "== 0", "defer_free": "== 0"}


def named_cache(stage: Staging) -> None:
    """Have objects come from a cache of their own."""
    stage.named = stage.cpus[0].kmem_cache_create("named", stage.size)


def _cache_and_object(stage: Staging, args: tuple[int, ...]) -> tuple[int, ...]:
    assert stage.named is not None
    return (int(stage.named.index), args[1])


def _size(_stage: Staging, args: tuple[int, ...]) -> tuple[int, ...]:
    return args[1:2]


def _size_and_flags(_stage: Staging, args: tuple[int, ...]) -> tuple[int, ...]:
    return args[1:3]


def _all_but_design(_stage: Staging, args: tuple[int, ...]) -> tuple[int, ...]:
    return args[1:]


def _by(design: str) -> Arguments:
    """Give the same to another design."""
    return lambda _stage, args: (designs.index(design), *args[1:])


def _called(
    name: str,
    function: str,
    summary: str,
    arguments: Arguments,
    tasks: tuple[str, ...],
    prepare: Callable[[Staging], None] = nothing,
) -> None:
    """Register a call; the main sheaf serves it if the task's design is the one of 7.x arenas, else the cpu slab."""
    allocates = "alloc" in function
    keys: dict[str, Any] = {}
    if tasks == SHEAVES:
        arrange, keys = sheaf_alloc if allocates else sheaf_free, {"geometry": GEOMETRY, "size": SIZE}
    else:
        arrange = alloc_fastpath if allocates else free_fastpath

    def before(stage: Staging) -> None:
        if tasks == SHEAVES:
            start(stage)
        prepare(stage)

    @operation(
        name,
        f"{function}: {summary} the {'main sheaf' if tasks == SHEAVES else 'cpu slab'}",
        group="sheaf" if tasks == SHEAVES else "alloc" if allocates else "free",
        designs=tasks,
        path=_ALLOC if allocates else _FREE,
        before=before,
        **keys,
    )
    def called(stage: Staging) -> Request:
        request = arrange(stage)
        return replace(request, call=Call(function, arguments(stage, request.call.args)))


_OBJECT = _size  # what is freed is where the size would be
for _function, _summary, _arguments, _tasks, _prepare in (
    ("shm_kmalloc", "from", _size_and_flags, SPINNING, nothing),
    ("shm_kmalloc_node", "any node will do, from", _all_but_design, SPINNING, nothing),
    ("shm_kmalloc_nolock", "from", _all_but_design, NOLOCK, nothing),
    ("shm_kfree", "to", _OBJECT, SPINNING, nothing),
    ("shm_kfree_nolock", "to", _OBJECT, NOLOCK, nothing),
    ("shm_kmem_cache_alloc", "of a named cache, from", _all_but_design, SPINNING, named_cache),
    ("shm_kmem_cache_alloc_nolock", "of a named cache, from", _all_but_design, NOLOCK, named_cache),
    ("shm_kmem_cache_free", "of a named cache, to", _cache_and_object, SPINNING, named_cache),
    ("shm_malloc", "for programs, from", _size, SPINNING, nothing),
    ("shm_malloc_nolock", "for programs, from", _size, NOLOCK, nothing),
    ("shm_zalloc", "for programs, zeroed, from", _size, SPINNING, nothing),
    ("shm_free", "for programs, to", _OBJECT, SPINNING, nothing),
    ("shm_free_nolock", "for programs, to", _OBJECT, NOLOCK, nothing),
    ("shm_cache_alloc", "for programs, of a named cache, from", _size, SPINNING, named_cache),
    ("shm_cache_alloc_nolock", "for programs, of a named cache, from", _size, NOLOCK, named_cache),
    ("shm_cache_free", "for programs, of a named cache, to", _cache_and_object, SPINNING, named_cache),
    ("shm_cache_free_nolock", "for programs, of a named cache, to", _cache_and_object, NOLOCK, named_cache),
):
    _name = f"call_{_function.removeprefix('shm_')}"
    _called(_name, _function, _summary, _arguments, _tasks, _prepare)
    _called(f"sheaf_{_name}", _function, _summary, _arguments, SHEAVES, _prepare)

# Designs in the other kind of arena: what is compiled for both is run in both.
for _design in ("kmalloc", "kmalloc_nolock", "try_kmalloc"):
    if _design != "try_kmalloc":  # its allocation has no sheaves
        _called(f"sheaf_alloc_by_{_design}", "shm_design_alloc", f"by {_design}, from", _by(_design), SHEAVES)
    _called(f"sheaf_free_by_{_design}", "shm_design_free", f"by {_design}, to", _by(_design), SHEAVES)
_called("alloc_by_sheaves", "shm_design_alloc", "by sheaves, from", _by("sheaves"), SPINNING)
_called("free_by_sheaves", "shm_design_free", "by sheaves, to", _by("sheaves"), SPINNING)
