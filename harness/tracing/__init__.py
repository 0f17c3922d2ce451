# SPDX-License-Identifier: MIT
"""Traces in the tools of others: kmem events read from their text, recorded events written for them.

Importing: `lines` knows what a line of perf script, tracefs or trace-cmd says, `sources` where lines come from,
`pairing` which free belongs to which allocation, `importing` puts them together, `imported` says what came of it.

Exporting: `timeline` finds what ran within what, `lives` which free ends which allocation, `perfetto` and
`kernel_text` write them down, `exporting` finds what to write; `section` is the report's.
"""
