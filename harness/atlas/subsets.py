# SPDX-License-Identifier: MIT
"""Which handlers are crossed with which operations, where not everything is crossed with everything.

The two main designs have the full product. The others have what this table lists, each row with its reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from harness.atlas.operations import all_operations

#: What a design of objects and nothing else can be asked for, in each order that matters to a list.
_OBJECTS = ("alloc_same", "aba", "free_own", "free_remote", "alloc_free", "burst")

#: Of that what is worth thousands of instructions.
_LONG = ("alloc_same:nmi", "aba:nmi", "free_own:nmi", "burst:nmi")


@dataclass(frozen=True)
class Choice:
    """One row; of those whose pattern an operation matches the first counts.

    Attributes: design: of the cell.  operations: pattern of their names.  handlers: names, a kind behind those that
        come as that alone.  why: these and no others.
    """

    design: str
    operations: str
    handlers: tuple[str, ...]
    why: str


CHOICES = (
    Choice("try_kmalloc", "memcg_*", ("alloc_same",), "what charges is the same as for kmalloc_nolock"),
    Choice("try_kmalloc", "pages_*", ("alloc_same",), "the pages below it are those below kmalloc_nolock"),
    Choice("try_kmalloc", "rcu_*", ("alloc_same",), "it has nothing to do with grace periods"),
    Choice("try_kmalloc", "*_irq", ("alloc_same", "aba", "free_own"), "an irq changes nothing but the level"),
    Choice(
        "try_kmalloc",
        "*",
        (*_OBJECTS, "alloc_other"),
        "all but pages and map_update, as it stands above them",
    ),
    Choice(
        "bpf_mem_alloc", "map_*", ("map_update",), "a map's lists are its own: only its updates meet in them"
    ),
    Choice(
        "bpf_mem_alloc",
        "bpf_refill",
        _LONG,
        "three objects of kmalloc, which are zeroed, with irqs off",
    ),
    Choice("bpf_mem_alloc", "bpf_alloc_low", _LONG, "the same, behind what bpf_alloc shows"),
    Choice("bpf_mem_alloc", "*", (*_OBJECTS, "alloc_other"), "it has other sizes, but no pages"),
    Choice("prealloc", "map_*", ("map_update",), "a map's pool is its own: only its updates meet in it"),
    Choice(
        "prealloc",
        "*_busy",
        ("alloc_same", "aba", "alloc_free"),
        "the CPU that has the lock never goes on: a push of both would wait for it for ever",
    ),
    Choice("prealloc", "*", _OBJECTS, "one pool of one size: neither another size nor pages"),
    Choice("objpool", "*", _OBJECTS, "one pool of one size: neither another size nor pages"),
    Choice("sheaves", "sheaf_nolock_new_slab", (*_LONG, "pages:nmi"), "nearly all of it zeroes a page"),
    Choice(
        "sheaves",
        "*",
        (
            *("alloc_same", "aba", "free_own", "free_rcu"),
            *("free_remote:nmi", "alloc_free:nmi", "burst:nmi", "alloc_other:nmi", "pages:nmi"),
        ),
        "irqs are on while sheaves are locked; not map_update, whose allocation and free are alloc_free's",
    ),
    Choice(
        "no_prealloc",
        "map_*",
        ("alloc_same", "free_own:irq", "map_update:irq"),
        "not from NMI, as before 6.1: an element comes of kmalloc and goes by call_rcu",
    ),
    Choice(
        "no_prealloc",
        "*",
        ("alloc_same", "aba:irq", "free_own:irq", "free_remote:irq", "alloc_free:irq"),
        "kmalloc in NMI shows the deadlock for which it was not allowed there, nor was call_rcu",
    ),
)


def _handlers(choices: Iterable[Choice], operation: str) -> tuple[str, ...]:
    return next((each.handlers for each in choices if fnmatchcase(operation, each.operations)), ())


def _subset(design: str) -> Mapping[str, tuple[str, ...]]:
    choices = [choice for choice in CHOICES if choice.design == design]
    return {name: found for name in all_operations() if (found := _handlers(choices, name))}


#: design -> operation -> handlers
SUBSETS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    design: _subset(design) for design in dict.fromkeys(choice.design for choice in CHOICES)
}
