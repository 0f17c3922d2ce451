# SPDX-License-Identifier: MIT
"""At rest no lock is held, no interrupt masked or pending, and no deferred work forgotten."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from shmalloc.audit.holders import DEFERRED, WAITS_RCU, Holders
from shmalloc.audit.objects import FreeObjects
from shmalloc.audit.pages import Blocks
from shmalloc.audit.rcu import DOMAINS, check_readers
from shmalloc.audit.report import BROKEN_RULE, LOST_MEMORY, Findings
from shmalloc.audit.view import Records, View, constant

__all__ = ["check_contexts", "check_deferred_work", "check_locks"]

_CONTEXT = {
    "irqs_disabled": "local_irq_save without its restore",
    "irq_pending": "an interrupt that arrived while masked was never taken",
    "bh_count": "local_bh_disable without its enable",
    "preempt_count": "preempt_disable without its enable",
    "mems_allowed_seq": "the nodes that its task may use are half written",
    "level": "a handler that never returned",
    "waiting_for": "it still spins on a lock",
}


def check_locks(view: View, blocks: Blocks, findings: Findings) -> None:
    """Report every lock that is held."""
    header = view.header
    for name in ("slab_mutex", "ipi_lock", "obj_hash_lock"):
        _report_lock(int(header[name]["word"]), name, "arena", findings)
    for domain, name in enumerate(DOMAINS):
        _report_lock(int(header["rcu"]["lock"]["word"][domain]), f"{name} grace periods", "arena", findings)
    _check_words(view.zones["lock"], "zone", lambda zone: view.zone_name(zone), findings)
    _check_words(view.nodes["lru_lock"], "lru", lambda node: f"node {node}", findings)
    _check_words(
        view.pagesets["lock"],
        "pcp",
        lambda zone, cpu: f"{view.zone_name(zone)} pageset of CPU {cpu}",
        findings,
    )
    _check_words(
        view.cpus["entropy"]["lock"], "batched_entropy", lambda cpu: f"random numbers of CPU {cpu}", findings
    )
    _check_words(
        view.cache_nodes["list_lock"],
        "list_lock",
        lambda cache, node: f"{view.cache_name(cache)} node {node}",
        findings,
    )
    _check_words(
        view.cache_cpus["lock"],
        "cpu_slab",
        lambda cpu, cache: f"{view.cache_name(cache)} cpu slab of CPU {cpu}",
        findings,
    )
    for name in ("objcg_lock", "kernfs_lock", "percpu_charge_mutex"):
        _report_lock(int(header[name]["word"]), name, "arena", findings)
    for part, name in (("stock", "memcg_stock"), ("obj", "obj_stock")):
        _check_words(view.memcg_cpus[part]["lock"], name, lambda cpu: f"stocks of CPU {cpu}", findings)
    for name in ("pool_lock",):
        _check_words(view.memcg_cpus[name], name, lambda cpu: f"CPU {cpu}", findings)
    slabs = blocks.pfn[blocks.of("PG_slab")]
    words = view.pages["refcount"][slabs]
    findings.add_each(
        BROKEN_RULE,
        np.flatnonzero(words),
        lambda i: (f"slab at page {slabs[i]}", _held(int(words[i]), "slab_lock")),
        "slabs that are locked",
    )


def _check_words(locks: Records, name: str, describe: Callable[..., str], findings: Findings) -> None:
    for place in np.argwhere(locks["word"] != 0).tolist():
        _report_lock(int(locks["word"][tuple(place)]), name, describe(*place), findings)


def _report_lock(word: int, name: str, where: str, findings: Findings) -> None:
    if word:
        findings.add(BROKEN_RULE, where, _held(word, name))


def _held(word: int, name: str) -> str:
    """Say who has a lock, from its word: the CPU + 1 and the execution level."""
    cpu, level = (word & 0xFFFF) - 1, word >> 16 & 0xFF
    owner = f"CPU {cpu} took it at level {level}" if cpu >= 0 else f"its word {word:#x} names no CPU"
    return f"lock never released: {name}, {owner}"


def check_contexts(view: View, findings: Findings) -> None:
    """Report CPUs that are not at rest at task level."""
    for field, meaning in _CONTEXT.items():
        odd = 1 if field == "mems_allowed_seq" else ~0
        for cpu in np.flatnonzero(view.cpus[field].astype(np.int64) & odd).tolist():
            findings.add(BROKEN_RULE, f"CPU {cpu}", f"{field} is {int(view.cpus[field][cpu]):#x}: {meaning}")
    check_readers(view, findings)


def check_deferred_work(
    view: View, holders: Holders, free: FreeObjects, drained: bool, findings: Findings
) -> None:
    """Name what waits for irq_work; it is lost if no work is queued, or if all of it should have run."""
    waiting = np.bincount(holders.cpu[holders.holder == WAITS_RCU], minlength=len(view.cpus))
    for cpu in np.flatnonzero(waiting).tolist():
        what = f"{waiting[cpu]} slab{'s wait' if waiting[cpu] != 1 else ' waits'} for a grace period"
        if drained:
            findings.add(LOST_MEMORY, f"CPU {cpu}", f"{what}, though everything should have been freed")
        else:
            findings.notes.append(f"CPU {cpu}: {what}")
    queued = view.cpus["defer_work"]["flags"] & constant("IRQ_WORK_PENDING") != 0
    slabs = np.bincount(holders.cpu[holders.holder == DEFERRED], minlength=len(view.cpus))
    for cpu in np.flatnonzero((slabs > 0) | (free.deferred_by > 0)).tolist():
        what = f"{free.deferred_by[cpu]} objects and {slabs[cpu]} slabs wait on its deferred lists"
        if not queued[cpu]:
            findings.add(LOST_MEMORY, f"CPU {cpu}", f"{what}, and no irq_work is queued that would free them")
        elif drained:
            findings.add(LOST_MEMORY, f"CPU {cpu}", f"{what}, though everything should have been freed")
        else:
            findings.notes.append(f"CPU {cpu}: {what} for irq_work")
