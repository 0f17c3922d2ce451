# SPDX-License-Identifier: MIT
"""The yardstick: every design, the floors and the peers in one interleaved run, as ratios."""
