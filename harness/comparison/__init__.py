# SPDX-License-Identifier: MIT
"""Comparing runs: medians, intervals, and a mark only where two intervals have nothing in common.

`intervals` says what an interval is and when there is one, `quantities` what is compared, `sides` what belongs
together, `comparing` puts it together as JSON, `table` and `section` show that.
"""
