# SPDX-License-Identifier: MIT
"""What the designs are meant to reach, each held against the figures of one run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.bench.own import FLOORS

__all__ = ["targets"]

Record = Mapping[str, Any]
Table = Mapping[str, Mapping[str, Record]]

_SMALL = ("pair_64", *(f"lifo{count}_{size}" for count in (64, 512) for size in (16, 64, 256)))
_OWN_FLOOR = ("bpf_mem_alloc", "prealloc", "objpool")


def targets(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Hold the figures against the targets.

    Returns: of each row of each target: target, subject, row, against, ratio, limit, holds. Those of "not slower on at
        least half of the rows" are one, with the share as ratio.
    """
    table: dict[str, dict[str, Record]] = {}
    for record in records:
        if record["ns_median"] is not None:
            table.setdefault(record["row"], {})[record["subject"]] = record
    return [*_floors(table), *_private(table), *_shared(table), *_python(table)]


def _held(target: str, subject: str, row: str, against: str, value: float, limit: float) -> dict[str, Any]:
    return {
        "target": target,
        "subject": subject,
        "row": row,
        "against": against,
        "ratio": round(value, 4),
        "limit": limit,
        "holds": value <= limit,
    }


def _floors(table: Table) -> Iterator[dict[str, Any]]:
    wanted = [("sheaves", "floor_flag", row, 2.0) for row in _SMALL]
    wanted.append(("kmalloc_nolock", "floor_cas16", "pair_64", 1.2))
    for subject in _OWN_FLOOR:
        wanted += [(subject, FLOORS[subject], row, 1.5) for row in table if row.startswith(("pair", "lifo"))]
    for subject, floor, row, limit in wanted:
        here = table.get(row, {})
        if subject in here and floor in here:
            value = here[subject]["ns_median"] / here[floor]["ns_median"]
            yield _held(f"within {limit}x of its floor", subject, row, floor, value, limit)


_PAIR_NS = 80.0


def _python(table: Table) -> Iterator[dict[str, Any]]:
    pair = table.get("py_pair_64", {}).get("python_kmalloc")
    if pair is not None:
        target = f"a pair within {_PAIR_NS:.0f} ns of an empty loop"
        yield _held(target, "python_kmalloc", "py_pair_64", "", pair["ns_median"] / _PAIR_NS, 1.0)
    for subject, row, against, limit, target in (
        ("python_bulk", "py_bulk_512", "bulk_in_c", 1.3, "within 1.3x of C"),
        ("python_array_sent", "py_sent_8k", "python_shared_memory_sent", 1 / 50, "50 times as fast"),
    ):
        here = table.get(row, {})
        if subject in here and against in here:
            value = here[subject]["ns_median"] / here[against]["ns_median"]
            yield _held(target, subject, row, against, value, limit)


def _best(here: Mapping[str, Record], sharing: str) -> Record | None:
    peers = [record for record in here.values() if record["kind"] == "peer" and record["sharing"] == sharing]
    return min(peers, key=lambda record: float(record["ns_median"]), default=None)


def _private(table: Table) -> Iterator[dict[str, Any]]:
    ratios = []
    for row, here in table.items():
        best = _best(here, "private")
        if best is None or "sheaves" not in here:
            continue
        ratios.append(here["sheaves"]["ns_median"] / best["ns_median"])
        yield _held(
            "within 1.3x of the best private malloc", "sheaves", row, best["subject"], ratios[-1], 1.3
        )
    if ratios:
        slower = sum(value > 1 for value in ratios) / len(ratios)
        target = "slower than the best private malloc on at most half of the rows"
        yield _held(target, "sheaves", "all", "", slower, 0.5)


def _shared(table: Table) -> Iterator[dict[str, Any]]:
    for row, here in table.items():
        best = _best(here, "shared")
        if best is not None and "sheaves" in here:
            value = here["sheaves"]["ns_median"] / best["ns_median"]
            yield _held("faster than every shared peer", "sheaves", row, best["subject"], value, 1.0)
