# SPDX-License-Identifier: MIT
"""What the checks of debug caches have found: how often, and in detail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shmalloc.objects import cache_at, cache_name

if TYPE_CHECKING:
    from shmalloc.arena import Arena

__all__ = ["SlabError", "SlabErrors"]


@dataclass(frozen=True)
class SlabError:
    """One report of a debug check; a repair is a report of its own.

    Attributes: kind: in words, ``"right red zone overwritten"``, or ``"fix: ..."`` for a repair.  cache: name.
        object: offset of the object, or of the slab's memory.  at: offset of the first wrong byte, or 0.
        found, expected: the byte, count or pointer.  bytes: from the first wrong byte to the last.  cpu: that
        found it.
    """

    kind: str
    cache: str
    object: int
    at: int
    found: int
    expected: int
    bytes: int
    cpu: int

    @property
    def is_fix(self) -> bool:
        """Whether this is what was done about the report before it."""
        return self.kind.startswith("fix: ")

    def __str__(self) -> str:
        text = f"{self.cache}: {self.kind}"
        if self.at:
            text += (
                f", {self.bytes} bytes from {self.at - self.object:+d}, 0x{self.found:02x} instead of "
                f"0x{self.expected:02x}"
            )
        elif self.found != self.expected:
            text += f", {self.found:#x} instead of {self.expected:#x}"
        return f"{text} (object at {self.object:#x})" if self.object else text


class SlabErrors:
    """The reports of one arena.  `Arena.slab_errors` is this.

    The kernel prints a report and goes on; its unit tests count.  Here the first one is a verdict that stops
    the arena, unless `stop` is switched off.
    """

    def __init__(self, arena: Arena) -> None:
        self._arena = arena

    @property
    def count(self) -> int:
        """Reports since the last `clear`, repairs included: the kernel's ``slab_errors``."""
        return int(self._arena.header.slab_errors)

    @property
    def stop(self) -> bool:
        """Whether a report is a violation and stops the arena."""
        return not self._arena.header.slab_errors_count

    @stop.setter
    def stop(self, stop: bool) -> None:
        self._arena.header.slab_errors_count = int(not stop)

    def list(self) -> list[SlabError]:
        """Read the first reports since the last `clear`, as many as there is room for (64)."""
        header = self._arena.header
        stored = min(self.count, len(header.slab_error_log))
        return [self._read(entry) for entry in header.slab_error_log[0:stored] if entry.ready]

    def clear(self) -> None:
        """Forget all reports.  Violations stay."""
        header = self._arena.header
        for entry in header.slab_error_log:
            entry.ready = 0
        header.slab_errors = 0

    def _read(self, entry: Any) -> SlabError:
        kinds = self._arena.core.names("slab_bug")
        row = cache_at(self._arena, int(entry.cache))
        return SlabError(
            kind=kinds[entry.kind] if entry.kind < len(kinds) else f"unknown {entry.kind}",
            cache="?" if row is None else cache_name(self._arena, row),
            object=int(entry.object),
            at=int(entry.at),
            found=int(entry.found),
            expected=int(entry.expected),
            bytes=int(entry.bytes),
            cpu=int(entry.cpu),
        )
