# SPDX-License-Identifier: MIT
"""What a run does for each of its CPUs does not grow with their number: counted, not timed."""

from pathlib import Path
from typing import Any

import pytest
from running import SMALL, config, only_cell, results

from harness.supervisor import Crew


@pytest.mark.parametrize("cpus", [4, 16])
def test_a_cpu_is_called_by_the_others_a_few_times_however_many_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpus: int
) -> None:
    """Each call is an interrupt and two changes of process: were each to call each, 64 CPUs took seconds to end."""
    reports: list[dict[str, Any]] = []
    wait_exits = Crew.wait_exits

    def noted(crew: Crew) -> list[dict[str, Any]]:
        reports.extend(wait_exits(crew))
        return reports

    monkeypatch.setattr(Crew, "wait_exits", noted)
    text = SMALL.replace("cpus = 2", f"cpus = {cpus}").replace("ops = 20_000", f"ops = {cpus * 1000}")
    assert only_cell(results(config(tmp_path, text)))["verdict"] == "ok"
    assert len(reports) == cpus
    calls = [report["calls"] for report in reports]
    assert 0 < max(calls) <= 8, calls
