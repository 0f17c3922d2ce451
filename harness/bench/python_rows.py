# SPDX-License-Identifier: MIT
"""Python as the bench's subject: a runner that speaks as native/main.c does, for the rows that are Python's own.

    python -m harness.bench.python_rows subject=NAME row=NAME cores=N

What an iteration of an empty loop takes is taken off each sample.  The garbage collector is off meanwhile.
Beside the bulk calls is the same work in C: there the native runner takes over, in the same row.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import resource
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.bench.built import built
from harness.bench.subjects import Kind, Missing, Subject

if TYPE_CHECKING:
    from harness.bench.python_loops import Loop

__all__ = ["main", "missing", "subjects"]

_IN_C = "bulk_in_c"
_LEAST_NS = 0.01
_MOST_ROUNDS = 1 << 24
_TRIES = 3

_SUBJECTS: tuple[tuple[str, Kind, str, str], ...] = (
    ("python_kmalloc", "design", "py_pair_64", "Cpu.kmalloc and kfree, 64 bytes"),
    ("python_kmalloc_oracle", "design", "py_pair_64", "the same with the ownership oracle, as arenas are by default"),
    ("python_block", "design", "py_pair_64", "Cpu.block, freed by its destructor"),
    ("python_heap", "peer", "py_pair_64", "multiprocessing.heap"),
    ("python_pyarrow", "peer", "py_pair_64", "pyarrow.allocate_buffer (private memory)"),
    ("python_bytearray", "peer", "py_pair_64", "bytearray (private memory)"),
    ("python_bulk", "design", "py_bulk_512", "Cpu.kmalloc_bulk of 512 sizes, kfree_bulk of them, the last first"),
    (_IN_C, "floor", "py_bulk_512", "the same calls from a loop in C, which also writes to each object"),
    ("python_array", "design", "py_array_8k", "Cpu.empty, give, take: made, handed over by offset, taken, freed"),
    ("python_shared_memory", "peer", "py_array_8k", "the same by multiprocessing.shared_memory, both ends here"),
    ("python_array_sent", "design", "py_sent_8k", "arrays to another process: offsets through a ring of words"),
    ("python_shared_memory_sent", "peer", "py_sent_8k", "the same by multiprocessing.shared_memory, names by number"),
    ("python_pyarrow_sent", "peer", "py_sent_8k", "the same by pyarrow: tensors in files of shared memory"),
)  # fmt: skip


def subjects() -> list[Subject]:
    """Return what there is in this installation, each with its row."""
    absent = {each.peer for each in missing()}
    runner = (sys.executable, "-P", "-m", "harness.bench.python_rows")
    return [
        Subject(name, kind, Path(), name, summary, sharing="python", runner=runner, rows=(row,))
        for name, kind, row, summary in _SUBJECTS
        if name not in absent
    ]


def missing() -> list[Missing]:
    """Return the peers that this installation does not have."""
    if importlib.util.find_spec("pyarrow") is not None:
        return []
    why = f"no module pyarrow for {sys.executable}"
    return [
        Missing(name, "PyPI: pyarrow", why) for name, *_ in _SUBJECTS if name.startswith("python_pyarrow")
    ]


def main(words: Sequence[str]) -> None:
    """Measure one subject on command; see native/main.c for what is said."""
    given = dict(word.partition("=")[::2] for word in words)
    known = {name: row for name, _, row, _ in _SUBJECTS}
    name, row = given.get("subject", ""), given.get("row", "")
    if known.get(name) != row:
        _cannot(
            f"subject={name} row={row}: allowed are {', '.join(f'{one} in {of}' for one, of in known.items())}"
        )
    try:
        core = int(given.get("cores", "").partition(",")[0])
        os.sched_setaffinity(0, {core})
    except (ValueError, OSError, OverflowError) as error:
        _cannot(f"cores={given.get('cores')}: {error}")
    if name == _IN_C:
        runner = str(built("shmalloc-bench-runner"))
        what = f"plugin={built('shmalloc.so')} subject=sheaves row=batch bytes=64 count=512 cores={core}"
        os.execv(runner, [runner, *what.split(" ")])
    _serve(name, core)


def _serve(name: str, core: int) -> None:
    from harness.bench.python_loops import LOOPS, empty, timed

    loop: Loop
    rounds = 0

    def sample(count: int) -> float:
        some = range(count)
        return (timed(loop.body, some) - timed(empty, some)) / count / loop.pairs

    def run(samples: int, microseconds: float) -> Iterator[list[float]]:
        nonlocal rounds
        rounds = rounds or _calibrated(loop, microseconds)
        sample(rounds)  # what others have left in the caches is theirs
        for _ in range(samples):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
            ns = max(sample(rounds), _LEAST_NS)
            switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - before
            yield [round(ns, 4), rounds * loop.pairs, 0 if loop.wakes else switches, 0]

    with LOOPS[name]() as loop:
        gc.collect()
        gc.disable()
        _say({"ready": name})
        for line in sys.stdin:
            match line.split():
                case ["run", samples, microseconds]:
                    steal = _steal(core)
                    found = list(run(int(samples), float(microseconds)))
                    _say({"samples": found, "line_ns": 0, "steal": _steal(core) - steal})
                case ["check", pairs]:
                    _say({"checked": int(pairs), "refused": 0, "fault": loop.sound(int(pairs))})
                case _:
                    _cannot(f"{line.strip()!r}: allowed are run SAMPLES MICROSECONDS and check PAIRS")


def _calibrated(loop: Loop, microseconds: float) -> int:
    """Return how many rounds take so long, from the fastest of a few tries, which nobody disturbed."""
    from harness.bench.python_loops import timed

    rounds = 1
    while True:
        taken = min(timed(loop.body, range(rounds)) for _ in range(_TRIES))
        if taken >= microseconds * 250 or rounds >= _MOST_ROUNDS:
            return max(1, int(rounds * microseconds * 1000 / taken))
        rounds *= 2


def _steal(core: int) -> int:
    """Ticks that the hypervisor gave to others, of a core."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{core} "):
            return int(line.split()[8])
    return 0


def _say(answer: dict[str, object]) -> None:
    print(json.dumps(answer), flush=True)


def _cannot(why: str) -> None:
    _say({"cannot": why})
    sys.exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
