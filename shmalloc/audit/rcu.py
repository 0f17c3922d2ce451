# SPDX-License-Identifier: MIT
"""What waits for a grace period: objects to be freed, and slabs of SLAB_TYPESAFE_BY_RCU caches."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from shmalloc.audit.kept import Keep, keep_kmalloc
from shmalloc.audit.lists import walk_chain
from shmalloc.audit.report import BROKEN_RULE, CORRUPTION, Findings
from shmalloc.audit.view import View, field_offset

__all__ = ["callback_heads", "check_readers", "keep_callbacks"]

DOMAINS = ("rcu", "tasks_trace")
_LISTS = ("next", "wait", "done")
_ARG_SHIFT = 32


def callback_heads(view: View, cpu: int, findings: Findings | None = None) -> list[int]:
    """Return the offsets of the rcu_heads that one CPU has queued, oldest last.

    Args: findings: told if a list cannot be followed, or its count is wrong; None: nobody is.
    """
    found: list[int] = []
    for domain, name in enumerate(DOMAINS):
        for part in _LISTS:
            record = view.cpus["rcu"][cpu, domain][part]
            heads, fault = _walk(view, int(record["first"]))
            found += heads
            if fault or len(heads) != record["count"]:
                text = fault or f"counts {record['count']} callbacks, there are {len(heads)}"
                if findings is not None:
                    findings.add(CORRUPTION, f"{name} callbacks ({part}) of CPU {cpu}", text)
    return found


def _walk(view: View, first: int) -> tuple[list[int], str]:
    whole = range(0, len(view.words) * 8, 8)
    chain = walk_chain(view.cells, first, whole)
    return list(dict.fromkeys(chain.links)), f"the list {chain.fault}" if chain.fault else ""


def keep_callbacks(view: View, findings: Findings) -> Iterator[Keep]:
    """Yield the objects whose rcu_head lies in them; slabs are told by `holders`."""
    for cpu in range(len(view.cpus)):
        heads = [head for head in callback_heads(view, cpu, findings) if head in view.memory]
        objects = [head - (view.cells[(head >> 3) + 1] >> _ARG_SHIFT) for head in heads]
        where = f"RCU callbacks of CPU {cpu}"
        yield keep_kmalloc(view, "rcu", where, np.array(objects, np.uint64))


def slabs_waiting(view: View) -> list[tuple[int, int]]:
    """Return (CPU, offset of the struct page) of each slab that is to be freed after a grace period."""
    lru = field_offset("page", "lru")
    return [
        (cpu, head - lru)
        for cpu in range(len(view.cpus))
        for head in callback_heads(view, cpu)
        if head in view.page_links
    ]


def check_readers(view: View, findings: Findings) -> None:
    """Report read-side sections that were never left, and callbacks that never returned."""
    for cpu, domain in np.argwhere(view.cpus["rcu"]["nesting"] != 0).tolist():
        text = f"is {view.cpus['rcu']['nesting'][cpu, domain]} deep in {DOMAINS[domain]} read-side sections"
        findings.add(BROKEN_RULE, f"CPU {cpu}", text)
    for cpu, domain in np.argwhere(view.cpus["rcu"]["invoking"] != 0).tolist():
        text = f"is in the middle of invoking its {DOMAINS[domain]} callbacks"
        findings.add(BROKEN_RULE, f"CPU {cpu}", text)
