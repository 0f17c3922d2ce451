# SPDX-License-Identifier: MIT
"""Recorded events: what the tracepoints of one or more CPUs have left, as one table sorted by time.

Imports numpy: not for CPU processes.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import math
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shmalloc._binding import core as load_core

__all__ = [
    "COLUMNS",
    "FLAGS",
    "NO_CACHE",
    "NO_PFN",
    "RECORD",
    "Events",
    "event_fields",
    "event_names",
    "sorted_by_time",
]

NO_CACHE = 0xFFFF
NO_PFN = 0xFFFF_FFFF_FFFF_FFFF
"""pfn of an allocation that got no page, as in the kernel's tracepoint."""

RECORD = np.dtype(
    [
        ("seq", "u8"),  # place among its CPU's events, from 1; what is missing was overwritten
        ("ts", "u8"),  # TSC when the event was written; along one CPU it grows with seq
        ("dur", "u8"),  # TSC ticks that what ends here has taken
        ("call_site", "u8"),  # relative to the core's load address, or absolute: FLAGS["outside"]
        ("ptr", "u8"),  # offset in the arena of the object, page memory or lock; 0 = NULL
        ("pfn", "u8"),  # of a page event, else NO_PFN
        ("bytes_req", "u4"),  # 0xffffffff = that or more
        ("bytes_alloc", "u4"),
        ("gfp_flags", "u4"),
        ("arg", "u4"),  # handlers: kind; locks: class; irq_work: func
        ("ret", "i4"),  # 0 or a negative errno
        ("cpu", "u2"),
        ("cache", "u2"),  # index, or NO_CACHE
        ("id", "u1"),  # index of the event's name
        ("flags", "u1"),  # FLAGS
        ("ctx", "u1"),  # index of Events.contexts
        ("level", "u1"),  # execution level: 0 task, +1 for each nested handler
        ("node", "i1"),  # that was asked for, -1 = any
        ("order", "u1"),
        ("migratetype", "u1"),
        ("fallback_order", "u1"),
        ("fallback_migratetype", "u1"),
        ("pending", "u1"),  # handlers: IRQ_PENDING_* of an irq
        ("design", "u1"),  # index of Events.designs
        ("reason", "u1"),  # index of Events.reasons, 0 = it succeeded
    ]
)

FLAGS = {
    "accounted": 0x01,  # to a memcg
    "percpu_refill": 0x02,
    "change_ownership": 0x04,
    "bulk": 0x08,  # one of the objects of a bulk call
    "pages": 0x10,  # alloc, free: whole pages
    "outside": 0x20,  # call_site is an address of the process, not within the core
    "rcu": 0x40,  # free: after a grace period
    "called": 0x80,  # handler: taken where irqs were enabled again, or called; it has hit no instruction
}
"""Bits of the column flags."""

COLUMNS = {
    "name": "cache",
    "lock_addr": "ptr",
    "class": "arg",
    "kind": "arg",
    "func": "arg",
    "rip": "call_site",
    "alloc_order": "order",
    "alloc_migratetype": "migratetype",
}
"""Fields of an event that lie in a column of another name."""

_LCB_F_SPIN = 1
_BITS = {"accounted", "percpu_refill", "change_ownership"}
_MOST = {"pids": 1 << 31, "lost": 1 << 62, "overwritten": 1 << 62}
#: of an npz file: bytes that are read in any case, and how many times more than the file's own bytes
_ALWAYS_BYTES, _DENSEST = 1 << 26, 200
_CONTEXTS = ("task", "softirq", "irq", "nmi")
_KINDS = ("nmi", "irq")


def event_names() -> tuple[tuple[str, str], ...]:
    """List group and name of all events, in order of their numbers."""
    return tuple((group, name) for group, _, name in (n.partition(":") for n in load_core().names("trace")))


def event_fields() -> tuple[tuple[str, ...], ...]:
    """List the fields of all events, in the order in which they are printed."""
    core = load_core()
    lib = core.lib
    return tuple(tuple((core.text(lib.shm_trace_fields(i)) or "").split()) for i in range(len(event_names())))


def _names(what: str) -> tuple[str, ...]:
    return load_core().names(what)


@dataclass(frozen=True)
class Events:
    """A trace: its records, and what their numbers mean.

    Attributes:
        records: shape (n,), dtype `RECORD`, sorted by ts.
        names: event number -> (group, name).
        fields: event number -> its fields, in the order in which they are printed.
        caches: cache index -> name.
        designs, reasons, contexts, lock_classes, irq_works: number -> name.
        kinds: kind of a handler -> name.
        tsc_hz: ticks of ts and dur in a second.
        pids: CPU -> process that was last bound to it.
        lost: CPU -> events for which there was no room.
        overwritten: CPU -> events that were written, and overwritten before anybody took them.
        symbols: call_site -> name, of those within the core.
        pageblock_order: of the arena.
    """

    records: np.ndarray[Any, Any]
    tsc_hz: int
    caches: tuple[str, ...] = ()
    pids: Mapping[int, int] = field(default_factory=dict)
    lost: Mapping[int, int] = field(default_factory=dict)
    overwritten: Mapping[int, int] = field(default_factory=dict)
    symbols: Mapping[int, str] = field(default_factory=dict)
    names: tuple[tuple[str, str], ...] = field(default_factory=event_names)
    fields: tuple[tuple[str, ...], ...] = field(default_factory=event_fields)
    designs: tuple[str, ...] = field(default_factory=lambda: _names("design"))
    reasons: tuple[str, ...] = field(default_factory=lambda: _names("reason"))
    lock_classes: tuple[str, ...] = field(default_factory=lambda: _names("lock_class"))
    irq_works: tuple[str, ...] = field(default_factory=lambda: _names("irq_work"))
    contexts: tuple[str, ...] = _CONTEXTS
    kinds: tuple[str, ...] = _KINDS
    pageblock_order: int = 9

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[np.void]:
        return iter(self.records)

    @property
    def cpus(self) -> list[int]:
        """CPUs that the trace is of, in order."""
        return sorted({*self.lost, *map(int, np.unique(self.records["cpu"]))})

    def number(self, event: str) -> int:
        """Return the number of an event, ``"kmem:kmalloc"`` or ``"kmalloc"``.

        Raises: ValueError: there is none.
        """
        for number, (group, name) in enumerate(self.names):
            if event in (name, f"{group}:{name}"):
                return number
        raise ValueError(f"event = {event!r}: allowed is one of {', '.join(map(':'.join, self.names))}")

    def select(self, *globs: str) -> np.ndarray[Any, Any]:
        """Return the records of the events that match one of *globs* (``"kmem:*"``, ``"kmalloc"``)."""
        wanted = [
            i
            for i, (group, name) in enumerate(self.names)
            if any(fnmatch.fnmatchcase(f"{group}:{name}", g) or fnmatch.fnmatchcase(name, g) for g in globs)
        ]
        found: np.ndarray[Any, Any] = self.records[np.isin(self.records["id"], wanted)]
        return found

    def name(self, record: np.void) -> str:
        """Return ``"group:name"`` of a record."""
        return ":".join(_at(self.names, int(record["id"])) or ("unknown", str(int(record["id"]))))

    def value(self, record: np.void, field_name: str) -> int | str | bool:
        """Return one field of a record, numbers of things that have names as these names.

        Args: record: of this trace.  field_name: one of its event's fields, or a column of `RECORD`.
        """
        flags = int(record["flags"])
        match field_name:
            case "name":
                return self.cache_name(int(record["cache"]))
            case "design" | "reason":
                names = self.designs if field_name == "design" else self.reasons
                return _named(names, int(record[field_name]))
            case "class" | "kind" | "func":
                table = {"class": self.lock_classes, "kind": self.kinds, "func": self.irq_works}[field_name]
                return _named(table, int(record["arg"]))
            case "accounted" | "percpu_refill" | "change_ownership":
                return bool(flags & FLAGS[field_name])
            case "flags" if self.name(record).startswith("lock:"):
                return _LCB_F_SPIN
        return int(record[COLUMNS.get(field_name, field_name)])

    def items(self, record: np.void) -> list[tuple[str, int | str | bool]]:
        """List the fields of a record with their values, in the order in which they are printed."""
        fields = _at(self.fields, int(record["id"])) or ()
        return [(name, self.value(record, name)) for name in fields]

    def cache_name(self, index: int) -> str:
        """Return the name of a cache; "" for none."""
        return "" if index == NO_CACHE else _named(self.caches, index)

    def symbol(self, record: np.void) -> str:
        """Write a record's call site as function+0xoffset, or as a number if nothing is known of it."""
        site = int(record["call_site"])
        return self.symbols.get(site) or f"{site:#x}"

    def ns(self, ticks: int) -> float:
        """Convert TSC ticks to nanoseconds."""
        return ticks * 1e9 / self.tsc_hz

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return what an npz file of it holds: ``records`` and ``meta``, JSON in one string."""
        meta = {
            item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name != "records"
        }
        meta = {key: dict(value) if isinstance(value, Mapping) else value for key, value in meta.items()}
        return {"records": self.records, "meta": np.array(json.dumps(meta))}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Events:
        """Make a trace from what `arrays` has returned.

        Raises: ValueError: the arrays are something else.
        """
        try:
            records, meta = arrays["records"], json.loads(str(arrays["meta"]))
            if records.dtype != RECORD or records.ndim != 1:
                raise ValueError(f"records are {records.dtype}")
            for key in ("names", "fields"):
                meta[key] = tuple(tuple(item) for item in meta[key])
            for key in ("caches", "designs", "reasons", "lock_classes", "irq_works", "contexts", "kinds"):
                meta[key] = tuple(meta[key])
            for key in ("pids", "lost", "overwritten", "symbols"):
                meta[key] = {int(number): value for number, value in meta[key].items()}
            _check(meta)
            return cls(records=records, **meta)
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a trace: {error}") from error

    def save(self, path: str | Path) -> None:
        """Write it as an npz file; nothing in it is pickled."""
        np.savez_compressed(path, allow_pickle=False, **self.arrays())

    @classmethod
    def load(cls, path: str | Path) -> Events:
        """Read what `save` has written.

        Raises: ValueError: it is something else, or claims to hold more than it does.  OSError.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    _check_size(archive, member)
            with np.load(path, allow_pickle=False) as file:
                return cls.from_arrays({name: file[name] for name in file.files})
        except (ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def synthetic(
        cls, rows: Iterable[Mapping[str, Any]], *, tsc_hz: int = 1_000_000_000, **attributes: Any
    ) -> Events:
        """Make a trace out of rows, for tests.

        Args:
            rows: columns of `RECORD` by name, with ``event="kmem:kmalloc"`` instead of id, and ``flags`` as
                a number or as names of `FLAGS`; ctx, design and reason as numbers or names. What is left
                out is 0, seq counted for each CPU, ts one tick after the row before, node -1, pfn and cache none.
            tsc_hz: see there.
            **attributes: the others of `Events`.
        """
        made = cls(np.zeros(0, RECORD), tsc_hz, **attributes)
        found: list[np.ndarray[Any, Any]] = []
        seqs: dict[int, int] = {}
        ts = 0
        for given in rows:
            row = dict(given)
            record = np.zeros(1, RECORD)
            cpu = int(row.get("cpu", 0))
            seqs[cpu] = int(row.get("seq", seqs.get(cpu, 0) + 1))
            ts = int(row.get("ts", ts + 1))
            filled: dict[str, Any] = {"node": -1, "pfn": NO_PFN, "cache": NO_CACHE}
            filled |= {"id": made.number(row.pop("event"))} | row | {"seq": seqs[cpu], "ts": ts}
            for column, value in filled.items():
                record[column] = made._number_of(column, value)
            found.append(record)
        records = np.concatenate(found) if found else made.records
        counts = dict.fromkeys(seqs, 0)
        defaults = {
            "lost": dict(counts),
            "overwritten": dict(counts),
            "pids": {cpu: 1000 + cpu for cpu in seqs},
        }
        return cls(sorted_by_time(records), tsc_hz, **(defaults | attributes))

    def _number_of(self, column: str, value: Any) -> int:
        if isinstance(value, str):
            table = {
                "ctx": self.contexts,
                "design": self.designs,
                "reason": self.reasons,
                "cache": self.caches,
            }
            return table[column].index(value)
        if column == "flags" and not isinstance(value, int):
            return sum(FLAGS[name] for name in value)
        return int(value)


def sorted_by_time(records: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Sort by time; what one CPU has written stays in its order."""
    return records[np.lexsort((records["seq"], records["cpu"], records["ts"]))]


def _at(table: tuple[Any, ...], index: int) -> Any:
    return table[index] if index < len(table) else None


def _named(names: tuple[str, ...], index: int) -> str:
    return names[index] if index < len(names) else str(index)


def _check(meta: Mapping[str, Any]) -> None:
    """Refuse what the records are to be read by if it is no such thing. Raises: ValueError."""
    order = meta.get("pageblock_order", 0)
    if type(order) is not int or not 0 <= order < 64:
        raise ValueError(f"pageblock_order is {order!r}")
    if type(meta["tsc_hz"]) is not int or not 0 < meta["tsc_hz"] < 1 << 62:
        raise ValueError(f"tsc_hz is {meta['tsc_hz']!r}")
    known = {*(RECORD.names or ()), *COLUMNS, *_BITS, "flags"}
    wrong = [
        key
        for key in ("caches", "designs", "reasons", "lock_classes", "irq_works", "contexts", "kinds")
        if not all(isinstance(name, str) for name in meta[key])
    ]
    if not all(len(name) == 2 and all(isinstance(part, str) for part in name) for name in meta["names"]):
        wrong.append("names")
    if len(meta["fields"]) != len(meta["names"]) or not all(set(item) <= known for item in meta["fields"]):
        wrong.append("fields")
    if not all(isinstance(name, str) for name in meta["symbols"].values()):
        wrong.append("symbols")
    wrong += [
        key
        for key, most in _MOST.items()
        if not all(
            0 <= cpu < NO_CACHE and type(value) is int and 0 <= value < most
            for cpu, value in meta[key].items()
        )
    ]
    if wrong:
        raise ValueError(f"not a trace: {', '.join(wrong)}")


def _check_size(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Refuse an array that would need more memory than the file can be worth. Raises: ValueError."""
    if member.file_size > max(_ALWAYS_BYTES, _DENSEST * member.compress_size):
        raise ValueError(f"{member.filename}: {member.file_size} bytes out of {member.compress_size}")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        reader = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = reader(file)
        if math.prod(shape) * dtype.itemsize != member.file_size - file.tell():
            raise ValueError(f"{member.filename}: {shape} are not {member.file_size} bytes")
