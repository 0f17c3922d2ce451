# SPDX-License-Identifier: MIT
"""Repeats: their order and seeds, and the one cell that is made of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import running
from running import SMALL, config, only_cell, results

from harness import matrix, vocabulary
from harness.repeats import Done, merge, order, with_seed_of

WORDS = vocabulary.load()


def cells(*sets: str) -> Sequence[Any]:
    return matrix.expand("a.toml", {"name": "a", "repeats": 3, **matrix.overrides.apply({}, sets)}, WORDS)


def test_repeats_are_interleaved_there_and_back() -> None:
    made = cells("cpus=[1, 2, 3]")
    forth, back = [0, 1, 2], [2, 1, 0]
    assert [at for at, _ in order(made)] == [*forth, *back, *forth]
    assert [repeat for _, repeat in order(made)] == [0] * 3 + [1] * 3 + [2] * 3


def test_cells_may_have_different_numbers_of_repeats() -> None:
    made = cells("repeats=[1, 3]")
    assert list(order(made)) == [(0, 0), (1, 0), (1, 1), (1, 2)]


def test_each_repeat_has_a_seed_of_its_own_and_the_first_the_configs() -> None:
    one, other = cells("cpus=[1, 2]", "seed=23")
    seeds = [with_seed_of(one, repeat).config.seed for repeat in range(3)]
    assert seeds[0] == 23
    assert len(set(seeds)) == 3
    assert [with_seed_of(other, repeat).config.seed for repeat in range(3)] == seeds
    last = replace(one, config=one.config.model_copy(update={"seed": (1 << 63) - 1}))
    assert 0 <= with_seed_of(last, 1).config.seed < 1 << 63


def done(ops_s: float, verdict: str = "ok", expected: str = "ok", *, met: bool = True) -> Done:
    found = [{"verdict": verdict, "text": f"at {ops_s}"}] if verdict in ("corruption", "deadlock") else []
    cell = {
        "verdict": verdict,
        "expected": expected,
        "throughput_ops_s": ops_s,
        "violations": found,
        "must_happen": [{"condition": "allocs", "measured": ops_s, "holds": met}],
        "windows": [{"ops": ops_s}],
        "repeats": [{"verdict": verdict, "throughput_ops_s": ops_s}],
    }
    return Done(cell, [], {"arrays": [(f"map-{ops_s}", {})]})


def test_one_run_is_left_as_it_is() -> None:
    only = done(23.0)
    assert merge([only], WORDS) is only


def test_the_median_is_shown_whole_and_all_are_kept() -> None:
    found = merge([done(5.0), done(1.0), done(3.0), done(4.0)], WORDS)
    assert found.cell["throughput_ops_s"] == 3.0
    assert found.cell["windows"] == [{"ops": 3.0}]
    assert found.pieces == {"arrays": [("map-3.0", {})]}
    assert [entry["throughput_ops_s"] for entry in found.cell["repeats"]] == [5.0, 1.0, 3.0, 4.0]
    assert [entry["shown"] for entry in found.cell["repeats"]] == [False, False, True, False]
    assert [entry.get("windows") for entry in found.cell["repeats"]] == [
        [{"ops": 5.0}],
        [{"ops": 1.0}],
        None,  # the cell's
        [{"ops": 4.0}],
    ]


@pytest.mark.parametrize("at", range(3))
def test_one_bad_repeat_is_the_cells_verdict_wherever_it_is(at: int) -> None:
    all_ = [done(1.0), done(2.0), done(3.0)]
    all_[at] = done(7.0, "corruption")
    found = merge(all_, WORDS)
    assert (found.cell["verdict"], found.cell["throughput_ops_s"]) == ("corruption", 7.0)
    assert found.cell["violations"] == [{"verdict": "corruption", "text": "at 7.0", "repeat": at}]


def test_the_worst_of_several_bad_ones_counts_and_the_violations_of_all_are_told() -> None:
    found = merge([done(1.0, "deadlock"), done(2.0, "corruption"), done(3.0)], WORDS)
    assert found.cell["verdict"] == WORDS.worst(["deadlock", "corruption"])
    assert [(each["verdict"], each["repeat"]) for each in found.cell["violations"]] == [
        ("deadlock", 0),
        ("corruption", 1),
    ]


def test_a_bug_must_show_in_every_repeat() -> None:
    always = merge([done(1.0, "deadlock", "deadlock")] * 2, WORDS)
    assert always.cell["verdict"] == "deadlock"
    once = merge([done(1.0, "deadlock", "deadlock"), done(2.0, "ok", "deadlock")], WORDS)
    assert once.cell["verdict"] == "vacuous"
    assert once.cell["throughput_ops_s"] == 2.0  # the one that proved nothing


def test_what_must_happen_must_happen_in_each() -> None:
    found = merge([done(1.0), done(2.0, "vacuous", met=False), done(3.0)], WORDS)
    assert found.cell["verdict"] == "vacuous"
    assert found.cell["must_happen"] == [{"condition": "allocs", "measured": 2.0, "holds": False}]
    met = merge([done(1.0), done(2.0), done(3.0)], WORDS)
    assert met.cell["must_happen"] == [{"condition": "allocs", "measured": 2.0, "holds": True}]


def test_a_run_with_repeats(tmp_path: Path) -> None:
    found = results(config(tmp_path), "--set", "repeats=3", "--set", "cpus=[1, 2]")
    for cell in found["cells"]:
        assert cell["verdict"] == "ok"
        assert [entry["repeat"] for entry in cell["repeats"]] == [0, 1, 2]
        assert len({entry["seed"] for entry in cell["repeats"]}) == 3
        (shown,) = [entry for entry in cell["repeats"] if entry["shown"]]
        for key in ("ops", "throughput_ops_s", "seconds", "processor_s"):
            assert shown[key] == cell[key]
        assert shown["contexts"]["task"]["allocs"] == cell["contexts"]["task"]["allocs"]
        assert shown["used_bytes"] == cell["memory"]["peak_bytes"]
        rates = sorted(entry["throughput_ops_s"] for entry in cell["repeats"])
        assert cell["throughput_ops_s"] == rates[1]
    one, two = found["cells"]
    starts = sorted((entry["started"], cell["id"]) for cell in (one, two) for entry in cell["repeats"])
    assert [name for _, name in starts] == ["cpus=1", "cpus=2", "cpus=2", "cpus=1", "cpus=1", "cpus=2"]


def test_each_repeat_is_the_run_that_its_seed_gives(tmp_path: Path) -> None:
    path = config(tmp_path, SMALL.replace("cpus = 2", "cpus = 1"))
    entries = only_cell(results(path, "--set", "repeats=2"))["repeats"]
    again = [only_cell(results(path, "--set", f"seed={entry['seed']}"))["repeats"][0] for entry in entries]
    assert [each["counters"] for each in again] == [entry["counters"] for entry in entries]
    assert entries[0]["counters"] != entries[1]["counters"]


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["repeats=0"], "repeats = 0: "),
        (["repeats=1.5"], "repeats = 1.5: "),
        (["repeats=2", "engine=atlas"], 'repeats = 2: allowed is 1 with engine = "atlas"'),
    ],
)
def test_mistakes_name_the_key(tmp_path: Path, sets: list[str], said: str) -> None:
    words = [word for each in sets for word in ("--set", each)]
    found = running.run("run", config(tmp_path), *words, cwd=tmp_path)
    assert (found.returncode, found.stdout) == (2, "")
    assert said in found.stderr
