# SPDX-License-Identifier: MIT
"""Python's rows of the bench: each subject answers as the native runner does, and one that is unsound is caught."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from typing import Any

import pytest

from harness.bench import python_loops, python_rows
from harness.bench.python_loops import Loop
from harness.bench.rows import Row
from harness.bench.runner import Failed, Runner
from harness.bench.subjects import Subject

SUBJECTS = {subject.name: subject for subject in python_rows.subjects()}


def row_of(subject: Subject) -> Row:
    assert subject.rows is not None
    return Row(subject.rows[0], "", "python")


def core() -> int:
    return min(os.sched_getaffinity(0))


@pytest.mark.parametrize("name", SUBJECTS)
def test_each_subject_is_sound_and_answers(name: str) -> None:
    subject = SUBJECTS[name]
    with Runner(subject, row_of(subject), [core()], None) as runner:
        runner.ready()
        assert runner.check(101).fault is None
        burst = runner.run(3, 50)
        assert len(burst.ns) == 3
        assert all(pairs > 0 for pairs in burst.pairs)
        assert burst.refused == (0, 0, 0)


def test_every_row_has_a_peer_or_a_floor_beside_what_is_ours() -> None:
    kinds: dict[str, set[str]] = {}
    for subject in SUBJECTS.values():
        kinds.setdefault(row_of(subject).name, set()).add(subject.kind)
    assert all("design" in found and len(found) > 1 for found in kinds.values())
    assert set(python_loops.LOOPS) >= set(SUBJECTS) - {"bulk_in_c"}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["subject=nothing", "row=py_pair_64", "cores=0"], "subject=nothing row=py_pair_64: allowed are"),
        (["subject=python_block", "row=pair_64", "cores=0"], "subject=python_block row=pair_64: allowed are"),
        (["subject=python_block", "row=py_pair_64", "cores=x"], "cores=x"),
        (["subject=python_block", "row=py_pair_64", "cores=4095"], "cores=4095"),
    ],
)
def test_what_it_cannot_is_said(words: list[str], why: str) -> None:
    command = [sys.executable, "-P", "-m", "harness.bench.python_rows", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, input="")
    assert why in json.loads(done.stdout)["cannot"]


def test_a_command_that_is_none() -> None:
    subject = SUBJECTS["python_block"]
    with Runner(subject, row_of(subject), [core()], None) as runner:
        runner.ready()
        with pytest.raises(Failed, match="'walk 3': allowed are run"):
            runner._ask("walk 3")


def test_objects_that_overlap_are_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def overlapping() -> Any:
        memory = memoryview(bytearray(1024))
        yield Loop(
            lambda rounds: None,
            lambda pairs: python_loops._distinct([memory[at * 7 : at * 7 + 64] for at in range(23)]),
        )

    monkeypatch.setitem(python_loops.LOOPS, "python_block", overlapping)
    monkeypatch.setattr(sys, "stdin", ["check 23\n"])
    python_rows._serve("python_block", core())
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert said[-1]["fault"] == "object 0 of 23 was written to by another"


def test_the_empty_loop_is_taken_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A loop that does nothing costs next to nothing: less than one call of C."""

    @contextmanager
    def nothing() -> Any:
        yield Loop(python_loops.empty, lambda pairs: None)

    takes = iter(range(10**9))
    monkeypatch.setattr(python_loops, "timed", lambda body, rounds: 1000 * len(rounds) + next(takes) % 2)
    monkeypatch.setitem(python_loops.LOOPS, "python_block", nothing)
    monkeypatch.setattr(sys, "stdin", ["run 5 1000\n"])
    python_rows._serve("python_block", core())
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [sample[0] for sample in answer["samples"]] == [0.01] * 5
