# SPDX-License-Identifier: MIT
"""What came of an import: the files that it leaves, and what it says."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness.problems import ConfigError, Problem
from harness.tracing.importing import Found, Imported
from harness.writing import replacing
from shmalloc.units import format_bytes

__all__ = ["config_of", "summary", "write"]

_MIB = 1 << 20
_LEAST_ARENA_BYTES = 32 * _MIB
_MOST_CPUS = 8

_DROPPED = {
    "frees without an allocation": "allocated before the trace began, unseen, or lost",
    "frees of NULL": "nothing to do",
    "failed": "allocations that returned NULL",
}
_NOT_TAKEN = {
    "freed in a batch, again": "mm_page_free_batched, of pages whose mm_page_free is there",
    "address hidden": "the trace does not show what they allocate or free",
    "no such CPU": "CPUs beyond 65535",
    "not of these tasks": "of tasks that --comm does not name",
}


def write(imported: Imported, out: Path) -> None:
    """Write the workload. Raises: ConfigError, if it cannot be written."""
    try:
        with replacing(out) as part, part.open("wb") as file:
            np.savez_compressed(file, **_arrays(imported))  # type: ignore[arg-type]
    except OSError as error:
        problem = Problem("--out", str(out), f"cannot be written: {error.strerror or error}")
        raise ConfigError("import-trace", [problem]) from None


def _arrays(imported: Imported) -> dict[str, np.ndarray]:
    meta = {
        "made_by": "shmalloc import-trace",
        "sources": [_without_paths(vars(found)) for found in imported.found],
        "counts": dict(imported.pairs.counts),
        "unknown_gfp": dict(imported.gfp),
        "peak_bytes": imported.pairs.peak_bytes,
    }
    return imported.arrays | {"meta": np.array(json.dumps(meta))}


def _without_paths(found: dict[str, Any]) -> dict[str, Any]:
    return found | {"name": Path(found["name"]).name, "shown": []}


def config_of(imported: Imported, npz: Path) -> str:
    """Write an experiment that replays the workload, in an arena that has room for what was live at a time."""
    cpus = min(_MOST_CPUS, len(np.unique(imported.arrays["cpu"])))
    size = max(_LEAST_ARENA_BYTES, 1 << (2 * imported.pairs.peak_bytes + 8 * _MIB * cpus).bit_length())
    return (
        f"# Replays {npz.name}, a recorded trace of {imported.arrays['op'].size} events.\n"
        'design = ["kmalloc", "kmalloc_nolock"]\n'
        f"cpus = {cpus}\nduration_s = 2\n\n"
        f'[arena]\nsize = "{size // _MIB}MiB"\n\n'
        f'[workload]\nkind = "trace"\nfile = {json.dumps(npz.name)}\n'
    )


def summary(imported: Imported) -> str:
    """Say what was found, what becomes of it, and what does not."""
    lines = [line for found in imported.found for line in _of_source(found)]
    lines += _of_pairs(imported)
    if imported.gfp:
        names = ", ".join(f"{name} ({count:,})" for name, count in imported.gfp.most_common(5))
        lines.append(f"flags that 6.18 does not have, left out: {names}")
    return "\n".join(lines)


def _of_source(found: Found) -> Iterator[str]:
    taken = f"{found.events.total():,} events that allocate or free"
    yield f"{found.name}: {found.lines:,} lines, {taken}, layout: {found.layout}"
    yield f"  {_listed(found.events)}"
    if found.others:
        yield f"  not of a workload: {_listed(found.others)}"
        if found.others["alloc"] and found.others["free"]:
            yield "  alloc, free: calls of designs, if this is a text of our own; --calls takes these instead"
    if found.overwritten:
        yield f"  {found.overwritten:,} events were gone from the ring before the first line"
    if found.lost or found.lost_unknown:
        more = f", and {found.lost_unknown:,} times it does not say how many" if found.lost_unknown else ""
        yield f"  the recorder lost {found.lost:,} events{more}: what they freed or allocated is missing"
    if found.backward:
        yield f"  {found.backward:,} events are older than the one before them; taken as they stand"
    if found.without_cpu:
        yield f"  {found.without_cpu:,} events do not name their CPU: all on CPU 0"
    if not found.with_flags:
        yield "  no line has latency flags: everything is taken to run with irqs on, in a task"
    if found.unknown:
        yield f"  {found.unknown:,} unknown lines:"
        yield from (f"    {text}" for text in found.shown)
    if found.cut:
        yield f"  cut off: {found.cut}"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.most_common(12))


def _of_pairs(imported: Imported) -> Iterator[str]:
    counts, op = imported.pairs.counts, imported.arrays["op"]
    frees, matched = int((op == 1).sum()), int((imported.arrays["match"] >= 0).sum())
    yield (
        f"workload: {op.size:,} events, {op.size - frees:,} allocations, {frees:,} frees of which {matched:,} have "
        f"their allocation ({counts['freed on another CPU']:,} on another CPU); {imported.pairs.slots:,} addresses, "
        f"at most {format_bytes(imported.pairs.peak_bytes)} live"
    )
    if counts["free not seen"]:
        yield f"  {counts['free not seen']:,} addresses were given out again though no free was seen: freed first"
    contexts = np.bincount(imported.arrays["ctx"], minlength=1)
    if contexts[0] < op.size:
        yield f"  {op.size - int(contexts[0]):,} events with irqs or BHs off or in an interrupt"
    below = len(imported.pairs.below_slabs)
    if below:
        yield f"  {below:,} page allocations seem to be slabs of what follows them; --no-slab-pages leaves them out"
    yield from _reasons("not replayed", _DROPPED, counts)
    others = {"of other CPUs": imported.other_cpus} if imported.other_cpus else {}
    yield from _reasons("left out", _NOT_TAKEN | {"of other CPUs": "than --cpus names"}, counts | others)


def _reasons(title: str, reasons: Mapping[str, str], counts: Mapping[str, int]) -> Iterator[str]:
    for name, why in reasons.items():
        if counts.get(name):
            yield f"  {title}: {counts[name]:,} {name}: {why}"
