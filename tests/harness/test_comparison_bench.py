# SPDX-License-Identifier: MIT
"""Two benches compared: ratios to floors, marked where their intervals are apart."""

import json
from pathlib import Path
from typing import Any

import pytest
from running import run

from harness.bench.results import SCHEMA
from harness.comparison.bench import FACTOR

ROW = {"row": "pair_64", "subject": "kmalloc", "floor": "floor_flag", "samples": 16}


def leave(folder: Path, *ratios: Any, build: str = "aa", **more: Any) -> Path:
    rows = [{**ROW, "subject": f"s{at}", "ratio_to_floor": ratio, **more} for at, ratio in enumerate(ratios)]
    folder.mkdir()
    made = {"schema": SCHEMA, "build": {"id": build}, "machine": {"load_1min": 0.5, "core": 1}, "rows": rows}
    (folder / "bench.json").write_text(json.dumps(made))
    return folder


def compared(a: Path, b: Path) -> dict[str, Any]:
    done = run("compare", a, b, "--json", cwd=a.parent)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_ratios_are_marked_where_their_intervals_are_apart(tmp_path: Path) -> None:
    a = leave(tmp_path / "a", [2.0, 1.9, 2.1], [2.0, 1.9, 2.1], [2.0, 1.9, 2.1], [2.0, None, None], None)
    over, touching = 2.1 * FACTOR * 1.001, 2.1 * FACTOR * 0.999
    b = leave(tmp_path / "b", [3.0, over, 4.0], [3.0, touching, 4.0], [1.0, 0.9, 1.1], [9.0, 8.0, 9.0], None)
    found = compared(a, b)
    assert [row["mark"] for row in found["pairs"][0]["rows"]] == ["worse", "", "better", ""]
    assert found["marks"] == {"better": 1, "worse": 1, "differs": 0}
    assert found["method"]["rows"] == 4
    said = run("compare", a, b, cwd=tmp_path).stdout
    assert "s0 / floor_flag" in said
    assert "config, build and machine are the same" in said
    assert run("compare", a, b, "--fail-if-worse", cwd=tmp_path).returncode == 1
    assert compared(a, a)["marks"] == {"better": 0, "worse": 0, "differs": 0}


def test_other_floors_are_not_compared_and_rows_of_one_side_are_named(tmp_path: Path) -> None:
    a = leave(tmp_path / "a", [1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    b = leave(tmp_path / "b", [9.0, 9.0, 9.0], floor="loop_empty", build="bb")
    found = compared(a, b)
    assert [row["mark"] for row in found["pairs"][0]["rows"]] == [""]
    assert found["unpaired"] == {"a": ["pair_64 s1"], "b": []}
    assert [each["key"] for each in found["differences"]] == ["build.id"]


def test_odd_records_are_left_out(tmp_path: Path) -> None:
    a = leave(tmp_path / "a", [1.0, 1.0, 1.0], [1.0, 1.0], "x", 7, [0.0, 0.0, 0.0], [1.0, None, 2.0])
    made = json.loads((a / "bench.json").read_text())
    made["rows"] += [None, 3, {}, {"row": 1}]
    (a / "bench.json").write_text(json.dumps(made))
    assert [row["quantity"] for row in compared(a, a)["pairs"][0]["rows"]] == [
        "s0 / floor_flag",
        "s5 / floor_flag",
    ]


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": "other"}', '{"schema": "shmalloc-bench-1"}'])
def test_what_is_no_bench_is_refused(tmp_path: Path, text: str) -> None:
    a = leave(tmp_path / "a", [1.0, 1.0, 1.0])
    (tmp_path / "b").mkdir()
    (tmp_path / "b/bench.json").write_text(text)
    done = run("compare", a, "b", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no bench" in done.stderr


def test_a_bench_and_a_run_are_not_compared(tmp_path: Path) -> None:
    a = leave(tmp_path / "a", [1.0, 1.0, 1.0])
    (tmp_path / "b").mkdir()
    done = run("compare", a, "b", cwd=tmp_path)
    assert done.returncode == 2
    assert "b/bench.json" in done.stderr
