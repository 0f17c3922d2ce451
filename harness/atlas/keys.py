# SPDX-License-Identifier: MIT
"""What parent and workers mean by the same number or name."""

from harness.vocabulary import VACUOUS

#: The outcome of a point that was not reached: it proves nothing.
MISSED = VACUOUS
#: A key of counts is an instruction's address with the number of the level that it ran on above it.
LEVEL_SHIFT = 48
ADDRESS = (1 << LEVEL_SHIFT) - 1
#: Where a second NMI comes inside the handler of the first.
STRONGER = "stronger than hardware, where NMIs do not nest before the handler returns"
