# SPDX-License-Identifier: MIT
"""The NMI atlas: an NMI at every instruction of every path of the allocators, nothing sampled.

An operation is recorded once, instruction by instruction, and then run once more for each of them from an
identical arena, with an NMI delivered exactly there; the machine code is the one that is measured.
"""
