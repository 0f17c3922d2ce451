# SPDX-License-Identifier: MIT
"""What waits in a live arena: RCU callbacks by CPU, and what was left to irq_work, as text."""

from __future__ import annotations

from typing import Any

from shmalloc.audit.lists import walk_chain
from shmalloc.audit.rcu import DOMAINS
from shmalloc.audit.view import Auditable, View

__all__ = ["deferred", "rcu"]


def rcu(arena: Auditable) -> str:
    """Return the state of both domains of grace periods, and each CPU's readers and callbacks."""
    view = View.of(arena)
    lines = []
    for number, name in enumerate(DOMAINS):
        domain = view.header["rcu"][number]
        lines.append(
            f"{name}: grace periods {domain['gp_completed']} completed, {domain['gp_started']} started, "
            f"{domain['gp_wanted']} wanted; stalls {domain['stalls']}{_stalled(domain)}"
        )
        lines.append(
            f"  {'cpu':>4} {'reader':>8} {'next':>8} {'wait':>8} {'done':>8} {'queued':>10} {'invoked':>10}"
        )
        for cpu, record in enumerate(view.cpus["rcu"][:, number]):
            reader = f"gp {int(record['reader']) >> 1}" if record["reader"] else "-"
            counts = " ".join(f"{record[part]['count']:8}" for part in ("next", "wait", "done"))
            lines.append(f"  {cpu:4} {reader:>8} {counts} {record['queued']:10} {record['invoked']:10}")
    return "\n".join(lines) + "\n"


def _stalled(domain: Any) -> str:
    return f", the last one by CPU {int(domain['stalled_cpu']) - 1}" if domain["stalled_cpu"] else ""


def deferred(arena: Auditable) -> str:
    """Return what each CPU, and each zone, has left for later: objects, slabs, irq_work, pages."""
    view = View.of(arena)
    lines = [f"{'cpu':>4} {'objects':>8} {'slabs':>8} {'rcu_sheaves':>11} {'by_rcu':>8} {'irq_work':>9}"]
    for cpu, record in enumerate(view.cpus):
        objects = walk_chain(view.cells, int(record["defer_objects"]["first"]), view.memory).links
        slabs = walk_chain(view.cells, int(record["defer_slabs"]["first"]), view.page_links).links
        rcu_sheaves = walk_chain(view.cells, int(record["defer_rcu_sheaves"]["first"]), view.memory).links
        by_rcu = walk_chain(view.cells, int(record["defer_by_rcu"]["first"]), view.memory).links
        works = walk_chain(
            view.cells, int(record["raised_list"]["first"]), range(0, len(view.words) * 8, 8)
        ).links
        lines.append(
            f"{cpu:4} {len(objects):8} {len(slabs):8} {len(rcu_sheaves):11} {len(by_rcu):8} {len(works):9}"
        )
    for zone, record in enumerate(view.zones):
        pages = walk_chain(view.cells, int(record["trylock_free_pages"]["first"]), view.page_links).links
        lines.append(f"{view.zone_name(zone)}: {len(pages)} blocks of pages wait for its lock")
    return "\n".join(lines) + "\n"
