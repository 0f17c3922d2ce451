# SPDX-License-Identifier: MIT
"""Steps and quantities, a file a topic. Each file here is imported by itself; see `harness.script`."""
