# SPDX-License-Identifier: MIT
"""Sheaves and barns of a live arena of Linux 7.x, as text.

Imports numpy: not for CPU processes.
"""

from __future__ import annotations

import numpy as np

from shmalloc.audit.sheaves import has_sheaves, read_sheaf
from shmalloc.audit.view import Auditable, View, constant

__all__ = ["sheaves"]

_HEAD = f"{'cache':<17} {'capacity':>8} {'where':>7} {'main':>5} {'spare':>5} {'rcu':>5} {'full':>5} {'empty':>5}\n"


def sheaves(arena: Auditable) -> str:
    """Return what each CPU's sheaves and each node's barn hold: a line for each that holds something.

    Objects in main, spare and rcu sheaf ("-": none there); full and empty sheaves in a barn.
    """
    view = View.of(arena)
    if not has_sheaves(view):
        return 'no sheaves: the arena\'s kernel is "6.18"\n'
    lines = [_HEAD]
    for cache in np.flatnonzero(view.caches["state"] != constant("CACHE_UNUSED")).tolist():
        lines += _lines(view, cache)
    return "".join(lines)


def _lines(view: View, cache: int) -> list[str]:
    name = bytes(view.caches["name"][cache]).decode(errors="replace")
    head = f"{name:<17} {view.caches['sheaf_capacity'][cache]:8}"
    lines = []
    for cpu, record in enumerate(view.cache_sheaves[:, cache]):
        sizes = [_size(view, int(record[place])) for place in ("main", "spare", "rcu_free")]
        if set(sizes) - {"-", "0"}:
            lines.append(f"{head} {f'cpu{cpu}':>7} " + " ".join(f"{size:>5}" for size in sizes) + "\n")
    for node, barn in enumerate(view.barns[cache]):
        if barn["nr_full"] or barn["nr_empty"]:
            counts = f"{barn['nr_full']:5} {barn['nr_empty']:5}"
            lines.append(f"{head} {f'node{node}':>7} {'':>5} {'':>5} {'':>5} {counts}\n")
    return lines


def _size(view: View, offset: int) -> str:
    sheaf = read_sheaf(view, offset) if offset else None
    return "-" if sheaf is None else str(sheaf.size)
