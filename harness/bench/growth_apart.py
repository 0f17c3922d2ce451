# SPDX-License-Identifier: MIT
"""A process that runs cells for `shmalloc bench growth`, one for each line of JSON on stdin, and answers on stdout.

`python -P -m harness.bench.growth_apart [no-yield]`. With the word, sched_yield does nothing in it and in all that it
starts: a filter of system calls answers in the kernel's place. So the very build that is measured can be compared
with itself without yields, and nothing in the core knows of it.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.interruption import Interruption
    from harness.vocabulary import Vocabulary

NO_YIELD = "no-yield"

_SCHED_YIELD = 24  # x86-64
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # of classic BPF
_ANSWER_0, _ALLOW = 0x00050000, 0x7FFF0000


def main() -> None:
    """Serve until stdin ends."""
    if NO_YIELD in sys.argv[1:]:
        switch_yields_off()
    from harness import vocabulary
    from harness.interruption import Interrupted, Interruption
    from harness.spawning import kept_zygote

    words = vocabulary.load()
    with Interruption() as interruption, kept_zygote():
        for line in sys.stdin:
            try:
                answer = _run(json.loads(line), words, interruption)
            except Interrupted:
                return
            print(json.dumps(answer), flush=True)


def switch_yields_off() -> None:
    """Have sched_yield return at once, in this process and those that it starts; there is no way back.

    Raises: OSError: the kernel has no such filters.
    """
    program = b"".join(
        struct.pack("HBBI", *instruction)
        for instruction in (
            (_LOAD, 0, 0, 0),  # the number of the system call
            (_JUMP_IF_EQUAL, 0, 1, _SCHED_YIELD),
            (_RETURN, 0, 0, _ANSWER_0),
            (_RETURN, 0, 0, _ALLOW),
        )
    )
    held = ctypes.create_string_buffer(program, len(program))
    described = ctypes.create_string_buffer(struct.pack("H6xQ", len(program) // 8, ctypes.addressof(held)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_PR_SET_SECCOMP, _FILTER, described, 0, 0):
        raise OSError(ctypes.get_errno(), f"no filter of system calls: {os.strerror(ctypes.get_errno())}")


def _run(raw: dict[str, Any], words: Vocabulary, interruption: Interruption) -> dict[str, Any]:
    """Run the only cell of a config. Returns: its JSON, as far as growth needs it, and how long all of it took."""
    from harness import matrix, stress

    (cell,) = matrix.expand("growth", raw, words)
    job = stress.Job(cell, Path(), words, interruption)
    before = time.monotonic()
    result, _ = stress.run_cell(job)
    counters = result["counters"]
    return {
        "verdict": result["verdict"],
        "ops": result["ops"],
        "seconds": result["seconds"],
        "processor_s": result["processor_s"],
        "whole_s": time.monotonic() - before,
        "audit_s": sum(audit["seconds"] for audit in result["audits"].values()),
        "counters": {name: value for name, value in counters.items() if name.startswith("lock_")},
        "reasons": {
            reason: sum(context["failures"].get(reason, 0) for context in result["contexts"].values())
            for reason in words.reasons
        },
    }


if __name__ == "__main__":
    main()
