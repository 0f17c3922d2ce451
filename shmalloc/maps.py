# SPDX-License-Identifier: MIT
"""Hash maps whose elements a design allocates, called from one CPU."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from shmalloc.errors import MapError

if TYPE_CHECKING:
    from shmalloc.calls import Calls

ANY, NOEXIST, EXIST = "any", "noexist", "exist"
_NAMES = {errno.EDEADLK: "EDEADLK"}  # errorcode has its other name
_FACTOR, _SALT = 0xD6E8FEB86659FD93, 0x5CA1AB1E
_FLAGS = {ANY: "BPF_ANY", NOEXIST: "BPF_NOEXIST", EXIST: "BPF_EXIST"}


class HashMap:
    """A hash map of an arena. Make one with `Cpu.map_create`, look at one with `Cpu.map`.

    Attributes:
        index: in the arena's table of maps.
        key_bytes, value_bytes: sizes.
    """

    def __init__(self, calls: Calls, index: int) -> None:
        self._calls = calls
        self.index = index
        row = calls.arena.item("struct shm_map", "maps", index)
        self.key_bytes, self.value_bytes = int(row.key_size), int(row.value_size)

    def __repr__(self) -> str:
        return f"<map {self.index} of {self._calls.arena.name}>"

    def __len__(self) -> int:
        """Return how many elements are in the buckets."""
        return int(self._calls.arena.item("struct shm_map", "maps", self.index).count)

    def update(self, key: int | bytes, value: int | bytes, flag: str = ANY) -> None:
        """Insert or replace.

        Mirrors: kernel/bpf/hashtab.c htab_map_update_elem (6.18).

        Args:
            key: its bytes, or a number, which is stored little-endian.
            value: the same.
            flag: "any", "noexist" or "exist".

        Raises:
            MapError: E2BIG (full), ENOMEM, EEXIST, ENOENT, EDEADLK or ETIMEDOUT (the bucket's lock).

        Context: any that the map's design allows.
        """
        if flag not in _FLAGS:
            raise ValueError(f"flag = {flag!r}: allowed are {', '.join(_FLAGS)}")
        lib = self._calls.lib
        arguments = self._key(key), self._value(value), getattr(lib, _FLAGS[flag])
        self._check("update", self._calls.call(lib.shm_map_update, self.index, *arguments))

    def lookup(self, key: int | bytes) -> bytes | None:
        """Return the value of a key, or None."""
        out = self._calls.arena.core.ffi.new("unsigned char[]", self.value_bytes)
        result = self._calls.call(self._calls.lib.shm_map_lookup, self.index, self._key(key), out)
        if result == -errno.ENOENT:
            return None
        self._check("lookup", result)
        return bytes(out)

    def delete(self, key: int | bytes) -> None:
        """Remove a key.

        Raises:
            MapError: ENOENT, EDEADLK or ETIMEDOUT.
        """
        self._check("delete", self._calls.call(self._calls.lib.shm_map_delete, self.index, self._key(key)))

    def destroy(self) -> None:
        """Give all of its memory back; nobody may be working on it."""
        self._calls.run(self._calls.lib.shm_map_destroy, self.index)

    def _key(self, key: int | bytes) -> bytes:
        return _bytes("key", key, self.key_bytes)

    def _value(self, value: int | bytes) -> bytes:
        return _bytes("value", value, self.value_bytes)

    def _check(self, what: str, result: int) -> None:
        if result:
            self._calls.refuse_caller()
            self._calls.raise_verdict()
            name = _NAMES.get(-result) or errno.errorcode.get(-result, str(result))
            raise MapError(name, f"{what} of map {self.index}: {name}: {os.strerror(-result)}")


def _bytes(what: str, data: int | bytes, size: int) -> bytes:
    """Return exactly *size* bytes."""
    if isinstance(data, int):
        try:
            return data.to_bytes(size, "little")
        except OverflowError as error:
            raise ValueError(f"{what} = {data}: {size} bytes do not hold it") from error
    if len(data) != size:
        raise ValueError(f"{what} = {len(data)} bytes: allowed are exactly {size}")
    return bytes(data)


def pattern(number: int, size: int) -> bytes:
    """Return the value that replayed ops give to a key that is a number; lookups of theirs check it."""
    words = (_mix((number << 32 | at) + _SALT) for at in range(-(-size // 8)))
    return b"".join(word.to_bytes(8, "little") for word in words)[:size]


def _mix(value: int) -> int:
    value ^= value >> 32
    value = value * _FACTOR & (1 << 64) - 1
    return value ^ value >> 32
