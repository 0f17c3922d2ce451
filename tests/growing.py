# SPDX-License-Identifier: MIT
"""Whether calls leave Python objects behind."""

import gc
import sys
from collections.abc import Callable


def blocks_left(call: Callable[[], object], times: int) -> int:
    """Count the blocks of Python's memory that so many calls leave behind: the least of three rounds.

    What fills a cache once is no leak; what leaks does so in each round.
    """
    for _ in range(101):
        call()
    left = []
    for _ in range(3):
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(times):
            call()
        gc.collect()
        left.append(sys.getallocatedblocks() - before)
    return min(left)
