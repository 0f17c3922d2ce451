# SPDX-License-Identifier: MIT
"""The table of claims, and what is said to have been measured."""

import json
from pathlib import Path

import pytest
from running import config, results, run

from harness import matrix, vocabulary
from harness.problems import ConfigError

STEPS = """engine = "script"
[arena]
size = "8MiB"
pageblock_order = 5
[let]
n = [2, 3]
[[step]]
do = "alloc"
size = 64
repeat = "$n"
count = "got"
"""
CLAIM = """
[[expect]]
kind = "claim"
text = "three are there"
condition = "counters.got == 3"
measured = "{counters.got} of {counters.got + 3}, {verdict}"
"""
OTHER = """
[[expect]]
kind = "claim"
text = "one more"
condition = 'cells["let.n=3"].counters.got == cells["let.n=2"].counters.got + 1'
measured = '{cells["let.n=2"].counters.got} and {cells["let.n=3"].counters.got}'
"""
TEST = '[[expect]]\ncondition = "counters.got > 1"\n'


def test_claims_of_all_configs_are_one_table(tmp_path: Path) -> None:
    first = config(tmp_path, STEPS + CLAIM, "first")
    second = config(tmp_path, STEPS + OTHER + TEST, "second")
    done = run("run", first, second, "--no-progress", "--out", tmp_path / "out", cwd=tmp_path)
    assert done.returncode == 0
    lines = [" ".join(line.split()) for line in done.stdout.splitlines() if line.strip()]
    assert lines == [
        "claim measured config",
        lines[1],
        "three are there n=2: 2 of 5, ok; n=3: 3 of 6, ok does not hold first",
        "one more 2 and 3 holds second",
        "1 of 2 claims hold",
        f"results in {tmp_path / 'out'}; report: {tmp_path / 'out/report.html'}",
    ]


def test_a_config_that_failed_is_shown_in_full(tmp_path: Path) -> None:
    good = config(tmp_path, STEPS + CLAIM, "good")
    bad = config(tmp_path, STEPS + CLAIM + TEST.replace("> 1", "> 2"), "bad")
    done = run("run", good, bad, "--no-progress", "--out", tmp_path / "out", cwd=tmp_path)
    assert done.returncode == 1
    assert "bad: FAILED" in done.stdout
    assert "good: passed" not in done.stdout
    assert "0 of 2 claims hold" in done.stdout


def test_claims_in_json(tmp_path: Path) -> None:
    path = config(tmp_path, STEPS + CLAIM)
    done = run("run", path, "--json", "--no-progress", "--out", tmp_path / "out", cwd=tmp_path)
    assert json.loads(done.stdout)["claims"] == [
        {
            "config": "small",
            "claim": "three are there",
            "measured": "n=2: 2 of 5, ok; n=3: 3 of 6, ok",
            "holds": False,
        }
    ]
    found = results(path)["expectations"][0]
    assert found["measured"] == {"n=2": 2, "n=3": 3}
    done = run(
        "run", config(tmp_path, STEPS), "--json", "--no-progress", "--out", tmp_path / "out", cwd=tmp_path
    )
    assert list(json.loads(done.stdout)) == ["runs"]


@pytest.mark.parametrize(
    ("text", "why"),
    [("{counters.nope}", "unknown name"), ("{allocs", "braces do not match"), ("{1 +}", "no condition")],
)
def test_mistakes_in_what_is_measured(text: str, why: str) -> None:
    expect = [{"condition": "allocs", "measured": text}]
    with pytest.raises(ConfigError) as caught:
        matrix.expand("test", {"name": "test", "expect": expect}, vocabulary.load())
    (problem,) = caught.value.problems
    assert problem.path == "expect[0].measured"
    assert why in problem.allowed
