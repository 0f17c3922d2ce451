# SPDX-License-Identifier: MIT
"""What one line of a trace says: perf script's, tracefs's and trace-cmd's layouts, the events of group kmem.

A line is a head (task, CPU, flags, time), the event's name, and its fields. Heads differ by tool and by option, so
the layout that matched last is tried first. Fields are read by the formats of kmem's events, and if they have another
order (tracefs with `fields`) by name.
"""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias

from harness.tracing.gfp_text import GfpText
from harness.workload.trace import CTX_BH_OFF, CTX_HARD_IRQ, CTX_IRQS_OFF, CTX_NMI, CTX_SOFT_IRQ
from harness.workload.tracefile import KIND_CACHE, KIND_KMALLOC, KIND_PAGES, PAGE_SIZE_BYTES

__all__ = ["NOTHING", "ZERO_SIZE", "Fields", "KmemEvent", "LineReader", "Lost", "Other", "Unknown"]

#: kmalloc(0) returns this; nothing lies there
ZERO_SIZE = 16

#: what of an event's fields is used: kind, address, size_req, size_alloc, gfp_flags, node, cache
Fields: TypeAlias = tuple[int, int, int, int, int, int, bytes]
NOTHING: Final = "nothing"  # a line that is no event: a comment, a call stack
_EVENT = rb"(?:(\w+):)?(\w+):\s+(\S.*)"
_TIME = rb"(\d+(?:\.\d+)?)"
_FLAGS = rb"([^\s\d]\S{2,5})"
#: groups of each: comm, tid, cpu, flags, time, system, event, fields
_LAYOUTS = {
    "tracefs": re.compile(
        rb"\s*+(.*?)-(\d+)\s+(?:\([\s\d-]+\)\s+)?\[(\d+)\]\s+(?:"
        + _FLAGS
        + rb"\s+)?"
        + _TIME
        + rb":\s+"
        + _EVENT
    ),
    "perf script": re.compile(
        rb"\s*+(.*?)\s*+(?:(?<!\S)(\d+(?:/ *\d+)?)\s+)?(?:\[(\d+)\]\s+)?(?:()[A-Z]{1,3}\s+)?"
        rb"(?:(\d+\.\d+):\s+(?:\d+\s+)?)?(?<!\S)(\w+):(\w+):\s+(\S.*)"
    ),
    "latency-format": re.compile(
        rb"\s*+(.*?)-(\d+)\s+(\d+)" + _FLAGS + rb"\s+" + _TIME + rb"(?:us)?[ +!#*@$]?\s*:\s+" + _EVENT
    ),
    "without heads": re.compile(
        rb"()()()()()(?:(kmem):)?(kmalloc|kfree|kmem_cache_\w+|mm_\w+|rss_stat):\s+(\S.*)"
    ),
}
_ALLOC = re.compile(
    rb"call_site=.*? ptr=\s*(\S+) (?:name=(.*?) )?bytes_req=(\d+) bytes_alloc=(\d+) gfp_flags=(\S+)"
    rb"(?: node=(-?\d+))?(?: accounted=(\w+))?"
)
_FREE = re.compile(rb"call_site=.*? ptr=\s*(\S+)(?: name=(.+?))?(?:\s+[0-9a-f]{8,}\s.*)?\s*$")
_PAGE = re.compile(rb"page=\s*\S+ pfn=(\w+) order=(\d+)(?: migratetype=-?\d+)?(?: gfp_flags=(\S+))?")
_FIELD = re.compile(rb"(\w+)=(\S+)(?: \(-?\d+\))?|accounted=\((\d)\)")
_LOST = re.compile(
    rb"(?:\S+: )?\s*CPU:\d+ \[(?:LOST (?:(\d+) )?EVENTS|(?:(\d+) )?EVENTS DROPPED)\]|"
    rb".*: PERF_RECORD_LOST(?:_SAMPLES)? lost (\d+)"
)
_OVERWRITTEN = re.compile(rb"#\s+entries-in-buffer/entries-written: (\d+)/(\d+)")
_NOTHING = re.compile(
    rb"\s*$|#|\s*=> |\s+[0-9a-f]{8,16} \S|.*<stack trace>\s*$|cpus=\d+|version = \d|CPU \d+ is empty|.*: PERF_RECORD_"
)
_NULL = frozenset([b"(nil)", b"(null)", b"0"])

_KINDS = {
    b"kmalloc": (False, KIND_KMALLOC),
    b"kmalloc_node": (False, KIND_KMALLOC),  # before 6.1, as the next
    b"kmem_cache_alloc": (False, KIND_CACHE),
    b"kmem_cache_alloc_node": (False, KIND_CACHE),
    b"kfree": (True, KIND_KMALLOC),
    b"kmem_cache_free": (True, KIND_CACHE),
    b"mm_page_alloc": (False, KIND_PAGES),
    b"mm_page_free": (True, KIND_PAGES),
    b"mm_page_free_batched": (True, KIND_PAGES),
}
_ACCOUNT = 0x400000


class KmemEvent(NamedTuple):
    """An allocation or a free.

    Attributes:
        name: of the event.
        time_s: as the trace counts; 0 = it does not say.
        address: of the object or the page's number, 0 = NULL; -1 = the trace hides it.
        size_req, size_alloc: bytes, 0 of frees; of pages by the order.
        cache: name of the kmem_cache, if there is one.
        tid: -1 = the trace does not say.
        ctx: as in the workload's files.
    """

    name: bytes
    time_s: float
    is_free: bool
    kind: int
    address: int
    size_req: int
    size_alloc: int
    gfp_flags: int
    node: int
    cache: bytes
    comm: bytes
    tid: int
    cpu: int
    ctx: int


class Lost(NamedTuple):
    """Events that the recorder lost. Attributes: events: None = it does not say how many."""

    events: int | None
    overwritten: bool = False


class Other(NamedTuple):
    """An event that neither allocates nor frees."""

    name: bytes


class Unknown(NamedTuple):
    """A line that is none of all this. Attributes: why: what is wrong with it."""

    why: str


class LineReader:
    """Reads lines of one source.

    Attributes:
        gfp: the reader of flags.
        kinds: events that allocate and free: of which kind of memory.
        layout: of the last event.
        without_cpu: events that do not say their CPU.
        with_flags: events that say their context.
    """

    kinds: Mapping[bytes, tuple[bool, int]] = _KINDS

    def __init__(self, gfp: GfpText) -> None:
        self.gfp = gfp
        self.layout = "tracefs"
        self.without_cpu = self.with_flags = 0
        self._match = _LAYOUTS[self.layout].match
        self._contexts: dict[bytes | None, int] = {None: 0, b"": 0}

    def read(self, line: bytes) -> KmemEvent | Lost | Other | Unknown | str:
        """Say what a line is. Returns: NOTHING if it is no event, and need not be one."""
        found = self._match(line)
        if found is None:
            another = self._by_another(line)
            if isinstance(another, (Lost, Unknown, str)):
                return another
            found = another
        comm, tid, cpu, flags, time, _, name, fields = found.groups()
        known = self.kinds.get(name)
        if known is None:
            return Other(name)
        is_free, kind = known
        try:
            kind, address, req, alloc, gfp, node, cache = self._what(is_free, kind, fields)
        except ValueError as error:
            return Unknown(str(error))
        if not cpu:
            self.without_cpu += 1
        if flags:
            self.with_flags += 1
        context = self._contexts.get(flags)
        if context is None:
            context = self._contexts[flags] = _context(flags)
        when, task = float(time or 0), int(tid.rpartition(b"/")[2]) if tid else -1
        return KmemEvent(
            name,
            when,
            is_free,
            kind,
            address,
            req,
            alloc,
            gfp,
            node,
            cache,
            comm,
            task,
            int(cpu or 0),
            context,
        )

    def _by_another(self, line: bytes) -> "re.Match[bytes] | Lost | Unknown | str":
        """Look at a line that the last layout does not match."""
        if lost := _lost(line):
            return lost
        if _NOTHING.match(line):
            return NOTHING
        for name, layout in _LAYOUTS.items():
            if found := layout.match(line):
                self.layout, self._match = name, layout.match
                return found
        return Unknown("no layout of perf script, tracefs or trace-cmd")

    def _what(self, is_free: bool, kind: int, fields: bytes) -> Fields:
        """Read the fields. Returns: kind, address, size_req, size_alloc, gfp_flags, node, cache."""
        if kind == KIND_PAGES:
            if found := _PAGE.match(fields):
                pfn, order, flags = found.groups()
                return self._page(int(pfn, 0), int(order), flags)
        elif is_free:
            if found := _FREE.match(fields):
                return kind, address_of(found[1]), 0, 0, 0, -1, found[2] or b""
        elif found := _ALLOC.match(fields):
            ptr, cache, req, alloc, flags, node, accounted = found.groups()
            bits = self.gfp.bits(flags) | (_ACCOUNT if accounted in (b"true", b"1") else 0)
            return kind, address_of(ptr), size_of(req), size_of(alloc), bits, node_of(node), cache or b""
        return self._by_name(is_free, kind, fields)

    def _page(self, pfn: int, order: int, flags: bytes | None) -> Fields:
        if order > 10:
            raise ValueError(f"order {order}; allowed is 0..10")
        size = PAGE_SIZE_BYTES << order
        return KIND_PAGES, pfn, size, size, self.gfp.bits(flags) if flags else 0, -1, b""

    def _by_name(self, is_free: bool, kind: int, fields: bytes) -> Fields:
        """Read fields by their names, in any order."""
        found = {name: value for name, value, _ in _FIELD.findall(fields)}
        needed = _NEEDED[is_free, kind == KIND_PAGES]
        missing = [name for name in needed if name not in found]
        if missing:
            raise ValueError(f"field {missing[0].decode()} is missing")
        if kind == KIND_PAGES:
            return self._page(
                int(found[b"pfn"], 0), int(found.get(b"order", b"0"), 0), found.get(b"gfp_flags")
            )
        address, cache = address_of(found[b"ptr"]), found.get(b"name", b"")
        if is_free:
            return kind, address, 0, 0, 0, -1, cache
        accounted = b"accounted=(1)" in fields or found.get(b"accounted") in (b"true", b"1", b"0x1")
        bits = self.gfp.bits(found[b"gfp_flags"]) | (_ACCOUNT if accounted else 0)
        sizes = size_of(found[b"bytes_req"]), size_of(found[b"bytes_alloc"])
        return kind, address, *sizes, bits, node_of(found.get(b"node")), cache


_NEEDED = {
    (True, True): (b"pfn",),
    (False, True): (b"pfn", b"order", b"gfp_flags"),
    (True, False): (b"ptr",),
    (False, False): (b"ptr", b"bytes_req", b"bytes_alloc", b"gfp_flags"),
}


def _lost(line: bytes) -> Lost | None:
    if found := _LOST.match(line):
        count = found[1] or found[2] or found[3]
        return Lost(int(count) if count else None)
    found = _OVERWRITTEN.match(line)
    if found and (gone := int(found[2]) - int(found[1])) > 0:
        return Lost(gone, overwritten=True)
    return None


def address_of(text: bytes) -> int:
    if text in _NULL:
        return 0
    try:
        address = int(text, 16)
    except ValueError:
        return -1
    return 0 if address == ZERO_SIZE else address


def size_of(text: bytes) -> int:
    size = int(text, 0)
    if not 0 <= size <= 0xFFFFFFFF:
        raise ValueError(f"{size} bytes; allowed is 0..{0xFFFFFFFF}")
    return size


def node_of(text: bytes | None) -> int:
    node = int(text or b"-1", 0)
    return node if 0 <= node <= 127 else -1


def _context(flags: bytes) -> int:
    """Read the flags of a tracefs line, such as `d.h1.`: irqs and BHs, resched, interrupt, preempt depth."""
    masked, interrupt = flags[0:1], flags[2:3]
    bits = {b"d": CTX_IRQS_OFF, b"D": CTX_IRQS_OFF | CTX_BH_OFF, b"b": CTX_BH_OFF}.get(masked, 0)
    return bits | {
        b"s": CTX_SOFT_IRQ,
        b"h": CTX_HARD_IRQ,
        b"H": CTX_HARD_IRQ | CTX_SOFT_IRQ,
        b"z": CTX_NMI,
        b"Z": CTX_NMI | CTX_HARD_IRQ,
    }.get(interrupt, 0)
