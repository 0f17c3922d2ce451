# SPDX-License-Identifier: MIT
"""The engine `atlas`: every point covered, what a cell says, what a run leaves, and that it leaves nothing else."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from running import LIMIT_S, command, config, only_cell, run, until

from harness import vocabulary
from harness.atlas import scenario, sweeping
from harness.atlas.judging import NO_STATE
from harness.atlas.keys import MISSED
from harness.atlas.sweeper import Stage
from harness.results import blank_cell

WORDS = vocabulary.load()
REFILL = """
engine = "atlas"
design = "kmalloc_nolock"
must_happen = ["atlas.covered == atlas.points", "atlas.totals.other_bucket"]
[atlas]
operations = ["alloc_refill"]
handlers = ["alloc_same"]
task = ["kmalloc_nolock"]
accesses = true
nested = true
pairs = ["alloc_refill@*"]
"""
SPINNING = """
engine = "atlas"
design = "kmalloc"
[atlas]
operations = ["alloc_refill"]
handlers = ["alloc_same"]
[[expect]]
verdict = "deadlock"
"""
LONG = """
engine = "atlas"
design = "kmalloc_nolock"
[atlas]
operations = ["alloc_refill", "alloc_fastpath"]
handlers = ["alloc_*"]
"""
KEYS = {
    *("points", "covered", "outcomes", "deadlock_points", "deadlock_injections", "by_level", "red"),
    *("injections_per_s", "states", "scenarios", "pairs", "accesses", "cores", "pictures", "deadlocks"),
}
RED_KEYS = {
    *("address", "symbol", "source", "occurrence", "verdict", "text", "operation", "handler", "replay"),
    *("scenario", "index"),
}


def swept(folder: Path, text: str, status: int = 0) -> tuple[dict[str, Any], Path]:
    """Run a config. Returns: its result, and the folder that it left."""
    out = folder / "out"
    done = run("run", config(folder, text), "--json", "--no-progress", "--out", out, cwd=folder)
    assert done.returncode == status, done.stderr + done.stdout
    (found,) = json.loads(done.stdout)["runs"]
    return dict(found), out


@pytest.fixture(scope="module")
def refill(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    return swept(tmp_path_factory.mktemp("refill"), REFILL)


@pytest.fixture(scope="module")
def spinning(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    return swept(tmp_path_factory.mktemp("spinning"), SPINNING)


def test_every_instruction_is_covered_and_every_outcome_counted(refill: tuple[dict[str, Any], Path]) -> None:
    cell = only_cell(refill[0])
    atlas = cell["atlas"]
    assert cell["verdict"] == "ok"
    assert atlas["points"] == atlas["covered"] == sum(atlas["outcomes"].values()) > 500
    assert {"ok", "other_bucket"} == set(atlas["outcomes"])
    assert atlas["deadlock_points"] == 0
    assert (atlas["red"], atlas["deadlocks"], atlas["failed"]) == ([], [], [])
    assert atlas["injections_per_s"] > 0
    (one,) = atlas["scenarios"]
    assert one["name"] == "alloc_refill@kmalloc_nolock/alloc_same"
    assert one["path"]["alloc_refill"] == {"condition": "== 1", "measured": 1, "holds": True}
    assert one["states"] == atlas["states"] >= 2
    assert 0 < one["instructions"] <= one["points"]


def test_a_cell_has_all_the_usual_keys_and_those_of_an_atlas(refill: tuple[dict[str, Any], Path]) -> None:
    cell = only_cell(refill[0])
    assert set(cell) >= set(blank_cell(WORDS)) | {"atlas", "broken", "must_happen"}
    assert set(cell["atlas"]) >= KEYS
    assert cell["interrupts"]["nmi"]["sent"] == cell["atlas"]["points"] == cell["ops"]


def test_levels_and_pictures_add_up(refill: tuple[dict[str, Any], Path]) -> None:
    atlas = only_cell(refill[0])["atlas"]
    for rows in (atlas["by_level"], *(picture["levels"] for picture in atlas["pictures"])):
        assert sum(row["points"] for row in rows) == atlas["points"]
    assert {"kmalloc", "___slab_alloc"} <= {row["level"] for row in atlas["by_level"]}


def test_pairs_are_covered_too_and_nested_ones_are_labelled(refill: tuple[dict[str, Any], Path]) -> None:
    pairs = only_cell(refill[0])["atlas"]["pairs"]
    (one,) = pairs["scenarios"]
    assert pairs["points"] == pairs["covered"] > one["firsts"] > 10
    assert set(pairs["outcomes"]) <= {"ok", "other_bucket", "deferred"}
    nested = pairs["nested"]
    assert nested["points"] == nested["covered"] > 0
    assert "stronger than hardware" in nested["labels"][0]


def test_accesses_alone_find_the_same(refill: tuple[dict[str, Any], Path]) -> None:
    atlas = only_cell(refill[0])["atlas"]
    assert atlas["accesses"]["outcomes_equal"]
    assert 0 < atlas["accesses"]["points"] < atlas["points"]
    assert atlas["accesses"]["only_instructions"] == atlas["accesses"]["only_accesses"] == []


def test_a_run_leaves_an_atlas_and_a_certificate(refill: tuple[dict[str, Any], Path]) -> None:
    result, out = refill
    assert {"result.json", "report.txt", "atlas.json", "certificate.json"} <= {p.name for p in out.iterdir()}
    atlas = json.loads((out / "atlas.json").read_text())
    (cell,) = atlas["cells"]
    assert (atlas["schema"], cell["design"], cell["broken"]) == ("shmalloc-atlas/1", "kmalloc_nolock", "none")
    rows = [row for function in cell["functions"] for row in function["instructions"]]
    assert sum(row["points"] for row in rows) == cell["atlas"]["points"]
    certificate = json.loads((out / "certificate.json").read_text())
    assert certificate["coverage"] == f"{cell['atlas']['points']}/{cell['atlas']['points']}"
    assert certificate["outcomes"] == only_cell(result)["atlas"]["outcomes"]
    assert {"id", "compiler", "flags"} <= set(certificate["build"])


def test_spinning_kmalloc_names_every_instruction_at_which_it_deadlocks(
    spinning: tuple[dict[str, Any], Path],
) -> None:
    result, out = spinning
    cell = only_cell(result)
    atlas = cell["atlas"]
    assert (cell["verdict"], cell["expected"], result["verdict"]) == ("deadlock", "deadlock", "ok")
    assert 0 < atlas["deadlock_points"] == len(atlas["deadlocks"]) < atlas["instructions"]
    assert atlas["outcomes"]["deadlock"] == atlas["deadlock_injections"] == atlas["totals"]["deadlock"]
    assert atlas["red"] == []  # nobody has promised kmalloc in an NMI
    for entry in atlas["deadlocks"]:
        assert set(entry) >= RED_KEYS
        assert entry["verdict"] == "deadlock"
        assert "+0x" in entry["symbol"]
        assert ".c:" in entry["source"] or ".h:" in entry["source"]
    assert cell["violations"][0]["verdict"] == "deadlock"
    shown = json.loads((out / "atlas.json").read_text())["cells"][0]["atlas"]["deadlocks"][0]
    assert any("alloc" in frame for frame in shown["stacks"]["operation"])
    assert any("alloc" in frame for frame in shown["stacks"]["handler"])
    assert shown["before"]
    assert shown["after"]


def test_a_deadlock_is_replayed_with_both_stacks(
    spinning: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    entry = only_cell(spinning[0])["atlas"]["deadlocks"][0]
    words = entry["replay"].split()
    assert words[:2] == ["shmalloc", "replay"]
    done = run(*words[1:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for text in (entry["symbol"], entry["source"], "verdict    deadlock", "in the handler:", "interrupted:"):
        assert text in done.stdout
    again = json.loads(run(*words[1:], "--json", cwd=tmp_path).stdout)
    assert (again["verdict"], again["address"]) == ("deadlock", entry["address"])
    assert again["text"] == entry["text"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["kmaloc", "alloc_refill@kmalloc/aba@1"], ["unknown design (did you mean kmalloc?)"]),
        (["kmalloc", "alloc_refil@kmalloc/aba@1"], ["unknown operation (did you mean alloc_refill?)"]),
        (["kmalloc", "alloc_refill@kmalloc/abba@1"], ["unknown scenario of alloc_refill", "kmalloc/aba"]),
        (["kmalloc", "alloc_refill@kmalloc/aba@99999"], ["99999: allowed is 0 to"]),
        (["kmalloc", "alloc_refill@kmalloc/aba@7:smi"], ["KIND = smi: allowed is one of nmi, irq"]),
        (["kmalloc", "alloc_refill"], ["SCENARIO@INDEX"]),
        (
            ["--broken", "k99", "kmalloc", "alloc_refill@kmalloc/aba@1"],
            ["--broken = k99: unknown broken variant"],
        ),
    ],
)
def test_names_that_do_not_exist_are_2_and_say_what_is_allowed(
    tmp_path: Path, arguments: list[str], said: list[str]
) -> None:
    done = run("replay", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    for text in said:
        assert text in done.stderr


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (
            ['atlas.operations=["alloc_refil"]'],
            ["atlas.operations[0] = 'alloc_refil': unknown operation", "alloc_refill"],
        ),
        (['atlas.handlers=["abba"]'], ["atlas.handlers[0] = 'abba': unknown handler (did you mean aba?)"]),
        (['atlas.task=["slob"]'], ["atlas.task[0] = 'slob': unknown design"]),
        (['atlas.task=["objpool"]'], ['no scenario of design "kmalloc_nolock"']),
        (
            ['atlas.pairs=["alloc_refill"]'],
            ["atlas.pairs[0] = 'alloc_refill': no scenario of this selection"],
        ),
        (["atlas.operations=[]"], ["atlas.operations = []: allowed is at least one name"]),
        (['flavour="checked"'], ["flavour = 'checked': ", '"release"']),
        (
            ["cpus=4", "ops=3", "oracle=false"],
            ["cpus: has no meaning", "ops: has no meaning", "oracle = false"],
        ),
        (['atlas.kinds=["smi"]'], ["atlas.kinds[0] = 'smi'"]),
        (["atlas.speed=3"], ["atlas.speed = 3: unknown key"]),
        (['must_happen=["atlas.pionts"]'], ["did you mean points?"]),
        (['broken="k99"'], ["broken = 'k99'"]),
        (['engine="stress"'], ["atlas: has no meaning with engine"]),
    ],
)
def test_mistakes_in_a_config_name_key_value_and_what_is_allowed(
    tmp_path: Path, sets: list[str], said: list[str]
) -> None:
    words = [word for text in sets for word in ("--set", text)]
    done = run("run", config(tmp_path, REFILL), *words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    for text in said:
        assert text in done.stderr


def test_a_resolved_config_is_a_config(tmp_path: Path) -> None:
    shown = run("show", config(tmp_path, REFILL), cwd=tmp_path)
    again = run("show", config(tmp_path, shown.stdout, name="again"), cwd=tmp_path)
    assert (again.returncode, again.stdout) == (0, shown.stdout)


def test_scenarios_are_listed(tmp_path: Path) -> None:
    done = run("scenarios", "kmalloc_nolock", "--json", cwd=tmp_path)
    names = [row["scenario"] for row in json.loads(done.stdout)]
    assert "alloc_refill@kmalloc/aba" in names
    assert "alloc_refill@kmalloc_nolock/aba:irq" in names
    assert len(names) == len(set(names))


# --- interruptions, deaths ------------------------------------------------------------------------


@pytest.fixture
def going(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """Start a long sweep, and wait until its workers sweep."""
    arguments = command("run", config(tmp_path, LONG), "--json", "--out", tmp_path / "out")
    process = subprocess.Popen(
        arguments, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        workers: list[psutil.Process] = until(lambda: _workers(process), "workers")
        yield process, workers
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=LIMIT_S)


def _workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    assert process.poll() is None, process.communicate()
    found = psutil.Process(process.pid).children()
    return [child for child in found if _sweeps(child)]


def _sweeps(child: psutil.Process) -> bool:
    """Whether a child is past its start: it has an arena mapped."""
    try:
        return any("/shmalloc-" in region.path for region in child.memory_maps())
    except psutil.Error:
        return False


def test_ctrl_c_leaves_nothing(
    going: tuple[subprocess.Popen[str], list[psutil.Process]], tmp_path: Path
) -> None:
    process, workers = going
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, out) == (130, "")
    assert "interrupted by SIGINT" in err
    assert not any(worker.is_running() for worker in workers)
    pids = {process.pid, *(worker.pid for worker in workers)}
    assert not [name for pid in pids for name in Path("/dev/shm").glob(f"shmalloc-{pid}-*")]
    assert not (tmp_path / "out").exists()


def test_workers_end_with_their_parent(going: tuple[subprocess.Popen[str], list[psutil.Process]]) -> None:
    process, workers = going
    process.kill()
    process.communicate(timeout=LIMIT_S)
    until(lambda: not any(_lives(worker) for worker in workers), "the workers' end")


def _lives(worker: psutil.Process) -> bool:
    try:
        return worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_death_of_a_worker_names_its_scenario_and_the_rest_is_swept(
    going: tuple[subprocess.Popen[str], list[psutil.Process]],
) -> None:
    process, workers = going
    workers[0].kill()
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1, err
    cell = only_cell(json.loads(out)["runs"][0])
    (died,) = [each for each in cell["violations"] if each["checker"] == "supervisor"]
    assert "@kmalloc" in died["text"]
    assert "was killed by SIGKILL" in died["text"]
    assert cell["verdict"] == died["verdict"] == "dead_owner"
    assert len(cell["atlas"]["scenarios"]) == 11


# --- the fast way against the slow one -------------------------------------------------------------


@pytest.mark.parametrize("name", ["alloc_fastpath@kmalloc_nolock/aba", "alloc_refill@kmalloc/alloc_same"])
def test_breakpoints_and_single_steps_come_to_the_same(name: str) -> None:
    chosen = scenario.find("kmalloc_nolock", name)
    with sweeping.prepared(chosen, "none", WORDS) as task:
        indices = np.arange(0, len(task.trace), 7, dtype=np.uint32)
        fast = task.sweeper.sweep(task.built.call, task.trace, indices, "nmi")
        for row in fast:
            stage = Stage(task.trace, int(row["index"]), "nmi")
            slow = task.sweeper.run(task.built.call, [stage], by_trap_flag=True)
            assert [slow[key] for key in ("end", "value", "state", "outcome")] == [
                row[key] for key in ("end", "value", "state", "outcome")
            ]
        assert task.sweeper.run(task.built.call)["end"] == 0


def test_a_second_interrupt_comes_in_the_operation_and_not_in_what_the_first_has_left_to_a_signal() -> None:
    """The first one defers a free: its irq_work comes before the operation goes on, and runs the same code."""
    chosen = scenario.find("kmalloc_nolock", "alloc_refill@kmalloc/free_remote")
    with sweeping.prepared(chosen, "none", WORDS, times=2) as task:
        for first in sweeping.shared(task, task.trace)[4::9]:
            stage = Stage(task.trace, first)
            rest = task.sweeper.record(task.built.call, [stage])
            indices = np.arange(0, len(rest), 15, dtype=np.uint32)
            for row in task.sweeper.sweep(task.built.call, rest, indices, before=[stage]):
                stages = [stage, Stage(rest, int(row["index"]))]
                slow = task.sweeper.run(task.built.call, stages, by_trap_flag=True)
                assert [slow[key] for key in ("end", "value", "state", "outcome")] == [
                    row[key] for key in ("end", "value", "state", "outcome")
                ]


@pytest.mark.parametrize("sent", [("nmi", "nmi"), ("irq",), ("nmi", "irq")])
def test_a_point_at_which_an_interrupt_was_not_handled_is_not_covered(sent: tuple[str, ...]) -> None:
    chosen = scenario.find("kmalloc_nolock", "alloc_fastpath@kmalloc_nolock/alloc_same")
    with sweeping.prepared(chosen, "none", WORDS) as task:
        rows = task.sweeper.sweep(task.built.call, task.trace, [0, 100])
        assert [each.name for each in task.judge.names(rows, ("nmi",))] == ["ok", "ok"]
        assert [each.name for each in task.judge.names(rows, sent)] == [MISSED, MISSED]


def test_a_run_that_changes_too_much_to_be_compared_is_not_judged() -> None:
    chosen = scenario.find("kmalloc_nolock", "alloc_fastpath@kmalloc_nolock/alloc_same")
    with sweeping.prepared(chosen, "none", WORDS) as task:
        row = task.sweeper.sweep(task.built.call, task.trace, [0])[0]
        row["state"] = NO_STATE
        with pytest.raises(scenario.ScenarioError, match="more than can be compared"):
            task.judge(row, ("nmi",))


def test_no_irq_comes_to_an_operation_that_masks_them() -> None:
    names = [
        each.name for each in scenario.scenarios("kmalloc_nolock", scenario.Selection(kinds=scenario.KINDS))
    ]
    assert not [name for name in names if name.startswith("free_deferred@") and name.endswith(":irq")]
    assert "free_deferred@kmalloc_nolock/alloc_same" in names


def test_recording_again_is_the_same() -> None:
    chosen = scenario.find("kmalloc_nolock", "alloc_refill@kmalloc/alloc_same")
    with sweeping.prepared(chosen, "none", WORDS) as task:
        again = task.sweeper.record(task.built.call)
        assert np.array_equal(task.trace.rips, again.rips)
