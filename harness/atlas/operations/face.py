# SPDX-License-Identifier: MIT
"""The exported calls by name: each may have a fast path compiled into it, and what is called must be what is swept.

Their start states are those of the same paths through the calls that take a design's number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from harness.atlas.call import Call
from harness.atlas.operations import nothing, operation
from harness.atlas.operations.sheaves import DESIGN as SHEAVES
from harness.atlas.operations.sheaves import GEOMETRY, SIZE, sheaf_alloc, sheaf_free, start
from harness.atlas.operations.slab import alloc_fastpath, free_fastpath
from harness.atlas.staging import Request, Staging

SPINNING, NOLOCK = ("kmalloc",), ("kmalloc_nolock",)

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


def _called(
    function: str,
    summary: str,
    arguments: Arguments,
    designs: tuple[str, ...],
    prepare: Callable[[Staging], None] = nothing,
) -> None:
    """Register a call in arenas of 6.18 as call_..., and in those of 7.x as sheaf_call_..."""
    allocates = "alloc" in function
    name, path = function.removeprefix("shm_"), _ALLOC if allocates else _FREE
    of_slabs, of_sheaves = (alloc_fastpath, sheaf_alloc) if allocates else (free_fastpath, sheaf_free)

    def with_call(arrange: Callable[[Staging], Request], stage: Staging) -> Request:
        request = arrange(stage)
        return replace(request, call=Call(function, arguments(stage, request.call.args)))

    def before_sheaves(stage: Staging) -> None:
        start(stage)
        prepare(stage)

    @operation(
        f"call_{name}",
        f"{function}: {summary} the cpu slab",
        group="alloc" if allocates else "free",
        designs=designs,
        path=path,
        before=prepare,
    )
    def slabs(stage: Staging) -> Request:
        return with_call(of_slabs, stage)

    @operation(
        f"sheaf_call_{name}",
        f"{function}: {summary} the main sheaf",
        group="sheaf",
        designs=(SHEAVES,),
        path=path,
        geometry=GEOMETRY,
        size=SIZE,
        before=before_sheaves,
    )
    def sheaves(stage: Staging) -> Request:
        return with_call(of_sheaves, stage)


_called("shm_kmalloc", "from", lambda _, args: args[1:3], SPINNING)
_called("shm_kmalloc_node", "any node will do, from", lambda _, args: args[1:4], SPINNING)
_called("shm_kmalloc_nolock", "from", lambda _, args: args[1:4], NOLOCK)
_called("shm_kfree", "to", lambda _, args: args[1:2], SPINNING)
_called("shm_kfree_nolock", "to", lambda _, args: args[1:2], NOLOCK)
_called("shm_kmem_cache_alloc", "of a named cache, from", lambda _, args: args[1:4], SPINNING, named_cache)
_called(
    "shm_kmem_cache_alloc_nolock", "of a named cache, from", lambda _, args: args[1:4], NOLOCK, named_cache
)
_called("shm_kmem_cache_free", "of a named cache, to", _cache_and_object, SPINNING, named_cache)
_called("shm_malloc", "for programs, from", lambda _, args: args[1:2], SPINNING)
_called("shm_malloc_nolock", "for programs, from", lambda _, args: args[1:2], NOLOCK)
_called("shm_free", "for programs, to", lambda _, args: args[1:2], SPINNING)
_called("shm_free_nolock", "for programs, to", lambda _, args: args[1:2], NOLOCK)
_called(
    "shm_cache_alloc",
    "for programs, of a named cache, from",
    lambda _, args: args[1:2],
    SPINNING,
    named_cache,
)
_called("shm_cache_free", "for programs, of a named cache, to", _cache_and_object, SPINNING, named_cache)
_called(
    "shm_cache_alloc_nolock",
    "for programs, of a named cache, from",
    lambda _, args: args[1:2],
    NOLOCK,
    named_cache,
)
_called("shm_cache_free_nolock", "for programs, of a named cache, to", _cache_and_object, NOLOCK, named_cache)
