# SPDX-License-Identifier: MIT
"""Hash maps of three designs: elements of a preallocated pool, of bpf_mem_alloc, and of kmalloc with call_rcu.

The key of the operation lies in the bucket that the handler map_update works on, or is its very key.
"""

from __future__ import annotations

from typing import Any

from harness.atlas.call import Call
from harness.atlas.handlers import MAP_KEY
from harness.atlas.operations import Register, operation
from harness.atlas.operations.pools import take_lock
from harness.atlas.staging import Request, Staging
from shmalloc.maps import HashMap, pattern

DESIGNS = ("prealloc", "no_prealloc", "bpf_mem_alloc")
BPF = "bpf_mem_alloc"
ENTRIES = 8
KEY_BYTES = 8
_VALUE_BYTES = {BPF: 208}  # a unit of 272 bytes: watermarks of 2 and 6, refilled by 3
_OTHER_VALUE_BYTES = 8
GEOMETRY: dict[str, Any] = {
    "max_maps": 1,
    "bpf_low_bytes": 600,
    "rcu_gp_us": 0,
    "pool_size": 8,
    "spare_pages": 128,
}
_FACTOR = 0xD6E8FEB86659FD93
_WARM = (1000, 1001)  # keys


# --- start states ---------------------------------------------------------------------------------


def start(stage: Staging) -> None:
    """Make a map with two elements, to be deleted later: there are free ones then when the operation runs."""
    sizes = (KEY_BYTES, _VALUE_BYTES.get(stage.task_design, _OTHER_VALUE_BYTES), ENTRIES)
    stage.map = stage.cpus[0].map_create(stage.task_design, *sizes).index
    for key in _WARM:
        put(stage, key)


def _settle(stage: Staging) -> None:
    for key in _WARM:
        map_of(stage).delete(key)
    stage.cpus[0].rcu_barrier()


def map_of(stage: Staging) -> HashMap:
    """Return the map of the operation, as CPU 0 uses it."""
    assert stage.map is not None
    return stage.cpus[0].map(stage.map)


def put(stage: Staging, key: int) -> None:
    """Insert a key, with the value that lookups of programs expect."""
    found = map_of(stage)
    found.update(key, pattern(key, found.value_bytes))


def _mix(word: int) -> int:
    word ^= word >> 32
    word = word * _FACTOR & (1 << 64) - 1
    return word ^ word >> 32


def bucket(stage: Staging, key: int) -> int:
    """Return the number of the bucket of a key."""
    row = stage.arena.item("struct shm_map", "maps", map_of(stage).index)
    return _mix(int(row.hashrnd) ^ key) & int(row.n_buckets) - 1


def neighbours(stage: Staging, count: int) -> list[int]:
    """Return keys of the handler's bucket, other than its own."""
    found: list[int] = []
    key = MAP_KEY
    while len(found) < count:
        key += 1
        if bucket(stage, key) == bucket(stage, MAP_KEY):
            found.append(key)
    return found


def elsewhere(stage: Staging) -> int:
    """Return a key of another bucket than the handler's."""
    return next(key for key in range(MAP_KEY + 1, 1 << 16) if bucket(stage, key) != bucket(stage, MAP_KEY))


def _key(stage: Staging, key: int) -> int:
    return stage.address_of(key.to_bytes(KEY_BYTES, "little"))


def _ask_update(stage: Staging, key: int) -> Request:
    _settle(stage)
    value = stage.address_of(pattern(key, map_of(stage).value_bytes))
    call = Call("shm_map_update", (_index(stage), _key(stage, key), value, 0))
    return Request(call, ("map_update", {"cache": _index(stage), "slot": key}))


def _ask_delete(stage: Staging, key: int) -> Request:
    _settle(stage)
    call = Call("shm_map_delete", (_index(stage), _key(stage, key)))
    return Request(call, ("map_delete", {"cache": _index(stage), "slot": key}))


def _ask_lookup(stage: Staging, key: int) -> Request:
    _settle(stage)
    out = stage.address_of(bytes(map_of(stage).value_bytes))
    call = Call("shm_map_lookup", (_index(stage), _key(stage, key), out))
    return Request(call, ("map_lookup", {"cache": _index(stage), "slot": key}))


def _index(stage: Staging) -> int:
    return map_of(stage).index


def _operation(name: str, summary: str, path: dict[str, str]) -> Register:
    return operation(name, summary, group="map", designs=DESIGNS, path=path, geometry=GEOMETRY, before=start)


# --- operations -----------------------------------------------------------------------------------


@_operation(
    "map_update_new",
    "a new element, in front of another one of its bucket",
    {"map_updates": "== 1", "allocs": "== 1", "frees": "== 0"},
)
def map_update_new(stage: Staging) -> Request:
    """One element in the bucket; the handler's is not there."""
    first, second = neighbours(stage, 2)
    put(stage, first)
    return _ask_update(stage, second)


@_operation(
    "map_update_first",
    "a new element in an empty bucket; the handler has the same key",
    {"map_updates": "== 1", "allocs": "== 1", "frees": "== 0"},
)
def map_update_first(stage: Staging) -> Request:
    """An empty map."""
    return _ask_update(stage, MAP_KEY)


@_operation(
    "map_update_replace",
    "an element in the place of the old one; the handler has the same key",
    {"map_updates": "== 1", "allocs": "== 1", "frees": "== 1"},
)
def map_update_replace(stage: Staging) -> Request:
    """It is there, behind another."""
    put(stage, MAP_KEY)
    put(stage, neighbours(stage, 1)[0])
    return _ask_update(stage, MAP_KEY)


@_operation(
    "map_replace_beside",
    "an element in the place of the old one; the handler does the same in another bucket",
    {"map_updates": "== 1", "allocs": "== 1", "frees": "== 1"},
)
def map_replace_beside(stage: Staging) -> Request:
    """Both are there: of a preallocated map both want the CPU's spare element."""
    key = elsewhere(stage)
    put(stage, MAP_KEY)
    put(stage, key)
    return _ask_update(stage, key)


@_operation(
    "map_update_beside",
    "a new element; so is the handler's, in another bucket",
    {"map_updates": "== 1", "allocs": "== 1", "frees": "== 0"},
)
def map_update_beside(stage: Staging) -> Request:
    """An empty map."""
    return _ask_update(stage, elsewhere(stage))


@_operation("map_update_full", "a new element of a full map: E2BIG", {"map_e2big": "== 1", "allocs": "== 0"})
def map_update_full(stage: Staging) -> Request:
    """As many elements as it may have, the handler's among them."""
    put(stage, MAP_KEY)
    *others, new = neighbours(stage, ENTRIES)
    for key in others[: -len(_WARM)]:
        put(stage, key)
    request = _ask_update(stage, new)
    for key in others[-len(_WARM) :]:
        put(stage, key)
    return request


@_operation(
    "map_update_busy",
    "the bucket is locked, and will be for long: ETIMEDOUT",
    {"map_etimedout": "== 1", "allocs": "== 0"},
)
def map_update_busy(stage: Staging) -> Request:
    """Another CPU of this thread works in it."""
    request = _ask_update(stage, MAP_KEY)
    row = stage.arena.item("struct shm_map", "maps", map_of(stage).index)
    at = int(row.buckets.blocks[0].offset) + bucket(stage, MAP_KEY) * int(row.buckets.elem_size)
    take_lock(stage, stage.arena.pointer("struct bucket", at).lock)
    return request


@_operation(
    "map_delete", "an element; the handler has the same key", {"map_deletes": "== 1", "frees": "== 1"}
)
def map_delete(stage: Staging) -> Request:
    """It is there, between two others."""
    before, behind = neighbours(stage, 2)
    for key in (behind, MAP_KEY, before):
        put(stage, key)
    return _ask_delete(stage, MAP_KEY)


@_operation(
    "map_delete_beside",
    "an element; the handler replaces another one, in another bucket",
    {"map_deletes": "== 1", "frees": "== 1"},
)
def map_delete_beside(stage: Staging) -> Request:
    """Both are there."""
    key = elsewhere(stage)
    put(stage, MAP_KEY)
    put(stage, key)
    return _ask_delete(stage, key)


@_operation("map_lookup", "an element, past the handler's", {"map_lookups": "== 1", "map_misses": "== 0"})
def map_lookup(stage: Staging) -> Request:
    """The handler's element comes first in the bucket."""
    (behind,) = neighbours(stage, 1)
    put(stage, behind)
    put(stage, MAP_KEY)
    return _ask_lookup(stage, behind)


@_operation(
    "map_lookup_same", "the element that the handler replaces", {"map_lookups": "== 1", "map_misses": "== 0"}
)
def map_lookup_same(stage: Staging) -> Request:
    """It is there."""
    put(stage, MAP_KEY)
    return _ask_lookup(stage, MAP_KEY)


@_operation("map_lookup_none", "no such element", {"map_lookups": "== 1", "map_misses": "== 1"})
def map_lookup_none(stage: Staging) -> Request:
    """Only the handler's is in the bucket."""
    put(stage, MAP_KEY)
    return _ask_lookup(stage, neighbours(stage, 1)[0])
