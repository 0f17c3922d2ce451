# SPDX-License-Identifier: MIT
"""Lines of a text of our own events: the calls of designs, which are what a workload had asked for.

Below a call are kmem events, as the kernel has them, with the pages of slabs among them; kmalloc_nolock has none but
these.
"""

import re

from harness.tracing.lines import Fields, LineReader, address_of, node_of, size_of
from harness.workload.tracefile import KIND_CACHE, KIND_KMALLOC, KIND_PAGES, PAGE_SIZE_BYTES

__all__ = ["CallReader"]

_FIELD = re.compile(rb"(\w+)=(\S+)")
_NEEDED = {True: (b"ptr", b"design"), False: (b"ptr", b"design", b"bytes_req", b"gfp_flags")}


class CallReader(LineReader):
    """Reads calls instead of kmem events."""

    kinds = {b"alloc": (False, KIND_KMALLOC), b"free": (True, KIND_KMALLOC)}  # noqa: RUF012 - as the base's

    def _what(self, is_free: bool, kind: int, fields: bytes) -> Fields:
        found = dict(_FIELD.findall(fields))
        missing = [name for name in _NEEDED[is_free] if name not in found]
        if missing:
            raise ValueError(f"field {missing[0].decode()} is missing")
        cache = found.get(b"name", b"")
        pages = b"pages" in found.get(b"flags", b"").split(b"|")
        kind = KIND_PAGES if pages else KIND_CACHE if cache else KIND_KMALLOC
        address = address_of(found[b"ptr"])
        if is_free:
            return kind, address, 0, 0, 0, -1, cache
        order = int(found.get(b"order", b"0"), 0)
        if order > 10:
            raise ValueError(f"order {order}; allowed is 0..10")
        size = PAGE_SIZE_BYTES << order if pages else size_of(found[b"bytes_req"])
        return (
            kind,
            address,
            size,
            size,
            self.gfp.bits(found[b"gfp_flags"]),
            node_of(found.get(b"node")),
            cache,
        )
