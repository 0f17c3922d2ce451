# SPDX-License-Identifier: MIT
"""The designs, broken variants and probe sites that the core's tables list."""

from dataclasses import dataclass
from functools import cache

from shmalloc import _binding

__all__ = [
    "Design",
    "broken_index",
    "broken_variants",
    "index",
    "info",
    "names",
    "probe_sites",
    "release_variants",
    "set_off_by",
]


@dataclass(frozen=True)
class Design:
    """One row of the registry.

    Attributes: index: its number in the core.  name: as in configs.  summary: one line.
        contexts: those it may be called from: "task", "softirq", "irq", "nmi".
    """

    index: int
    name: str
    summary: str
    contexts: tuple[str, ...]


@cache
def names() -> tuple[str, ...]:
    """List the designs, in order of their numbers."""
    return _binding.core().names("design")


def index(name: str) -> int:
    """Return the number of a design.

    Raises: ValueError, naming the designs there are.
    """
    return _index("design", name, names())


@cache
def info(name: str) -> Design:
    """Return what the registry says of a design.

    Raises: ValueError, naming the designs there are.
    """
    number = index(name)
    core = _binding.core()
    summary = core.text(core.lib.shm_design_summary(number)) or ""
    contexts = core.text(core.lib.shm_design_contexts(number)) or ""
    split = tuple(part.strip() for part in contexts.split(",") if part.strip())
    return Design(number, name, summary, split)


@cache
def broken_variants() -> dict[str, str]:
    """Map each broken variant of the checked flavour to one line that says what is wrong with it.

    In order of their numbers: the first is "none", the correct allocator.
    """
    core = _binding.core("checked")
    summaries = (core.text(core.lib.shm_broken_summary(i)) or "" for i in range(len(core.names("broken"))))
    return dict(zip(core.names("broken"), summaries, strict=True))


@cache
def set_off_by() -> dict[str, str | None]:
    """Map each broken variant to what it takes to set it off; None = an NMI or an irq of one CPU will do."""
    core, names = _binding.core("checked"), broken_variants()
    found = [core.text(core.lib.shm_broken_set_off_by(i)) for i in range(len(names))]
    return {name: other for name, other in zip(names, found, strict=True) if name != "none"}


def release_variants() -> tuple[str, ...]:
    """List the broken variants that the release flavour has an object of, in order of their numbers."""
    built = _binding.release_variants()
    return tuple(name for name in broken_variants() if name in built)


def broken_index(name: str) -> int:
    """Return the number of a broken variant.

    Raises: ValueError, naming the variants there are.
    """
    return _index("broken", name, tuple(broken_variants()))


@cache
def probe_sites() -> tuple[str, ...]:
    """List the probe sites of the checked flavour, in order of their numbers."""
    return _binding.core("checked").names("probe")


def _index(what: str, name: str, allowed: tuple[str, ...]) -> int:
    if name not in allowed:
        raise ValueError(f"{what} = {name!r}: allowed are {', '.join(allowed)}")
    return allowed.index(name)
