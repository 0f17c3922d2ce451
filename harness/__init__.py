# SPDX-License-Identifier: MIT
"""The experiments: configs, CPU processes, interrupt sources, workloads, engines, results, reports."""
