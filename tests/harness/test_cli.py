# SPDX-License-Identifier: MIT
"""The command: exit statuses, what is on stdout, and what a run leaves."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from running import ENDLESS, LIMIT_S, SMALL, command, config, only_cell, results, run, run_apart, until

from harness import cli
from shmalloc.arena import Arena

KEYS = {"schema", "name", "verdict", "seed", "build", "machine", "config", "expectations", "cells"}
CELL_KEYS = {
    *(
        "id",
        "params",
        "design",
        "verdict",
        "expected",
        "violations",
        "seconds",
        "cpus",
        "ops",
        "allocs",
        "frees",
    ),
    *("failures", "contexts", "interrupts", "throughput_ops_s", "memory", "windows", "counters"),
}


def test_a_run_leaves_a_folder_and_prints_a_table(tmp_path: Path) -> None:
    done = run("run", config(tmp_path), "--out", tmp_path / "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("small: passed, verdict ok, 1 cell")
    assert "small [1/1] kmalloc_nolock: ok" in done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "arrays",
        "result.json",
        "samples.csv",
        "report.html",
        "report.txt",
        "plots",
    }
    assert (tmp_path / "out/report.txt").read_text().startswith("small: passed")
    assert (tmp_path / "out/samples.csv").read_text().startswith("cell,t_s,used_bytes,ops,nmi,irq,failures\n")
    shown = run("show", tmp_path / "out", cwd=tmp_path)
    assert shown.stdout.startswith("small: passed")


def test_json_is_all_of_stdout_and_equal_to_the_file(tmp_path: Path) -> None:
    done = run("run", config(tmp_path), "--json", "--out", "out", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert list(found) == ["runs"]
    assert found["runs"] == [json.loads((tmp_path / "out/result.json").read_text())]
    (run_json,) = found["runs"]
    assert set(run_json) >= KEYS
    cell = only_cell(run_json)
    assert set(cell) >= CELL_KEYS
    assert (cell["ops"], cell["cpus"], cell["expected"]) == (20_000, 2, "ok")
    assert {"p50", "p99", "p999", "max"} == set(cell["contexts"]["task"]["latency_ns"])
    assert {"peak_bytes", "live_bytes", "arena_bytes"} <= set(cell["memory"])
    assert cell["memory"]["arena_bytes"] == 16 << 20
    assert cell["allocs"] > 0
    assert cell["allocs"] >= cell["frees"]


def test_several_files_have_a_folder_each(tmp_path: Path) -> None:
    files = [config(tmp_path, name=name) for name in ("one", "two")]
    done = run("run", *files, "--out", "out", "--json", "--no-progress", cwd=tmp_path)
    assert [each["name"] for each in json.loads(done.stdout)["runs"]] == ["one", "two"]
    assert (tmp_path / "out/one/result.json").is_file()
    assert (tmp_path / "out/two/result.json").is_file()
    assert done.stderr == ""


def test_a_run_that_is_interrupted_leaves_no_folder(tmp_path: Path) -> None:
    words = command("run", config(tmp_path, ENDLESS), "--no-progress")
    with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        try:
            until((tmp_path / "results").is_dir, "the folder of the results")
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=LIMIT_S)
        finally:
            process.kill()
    assert process.returncode == 128 + signal.SIGTERM, said
    assert not (tmp_path / "results").exists()


def test_without_out_results_are_in_a_fresh_folder(tmp_path: Path) -> None:
    for _ in range(2):
        assert run("run", config(tmp_path), "--no-progress", cwd=tmp_path).returncode == 0
    folders = list((tmp_path / "results").iterdir())
    assert len(folders) == 2
    assert all(folder.name.startswith("small-2") for folder in folders)


def test_a_matrix_is_one_table_of_cells(tmp_path: Path) -> None:
    found = results(config(tmp_path), "--set", 'design=["kmalloc", "kmalloc_nolock"]', "--set", "cpus=[1, 2]")
    assert [cell["params"] for cell in found["cells"]] == [
        {"cpus": cpus, "design": design} for cpus in (1, 2) for design in ("kmalloc", "kmalloc_nolock")
    ]
    assert [cell["verdict"] for cell in found["cells"]] == ["ok"] * 4
    assert found["config"]["cpus"] == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "sede=3"], ["sede = 3: unknown key (did you mean seed?)"]),
        (["--set", "cpus=0", "--set", "pin=never"], ["cpus = 0: ", "pin = 'never': "]),
        (["--set", "cpus"], ["KEY=VALUE"]),
        (["--set", "must_happen=['nothing']"], ["unknown name"]),
        (["--set", "workload.kind=trace"], ["workload.file"]),
        (["--set", 'workload={kind="trace", file="none.npz"}'], ["none.npz"]),
        (["--set", "arena.size=100KiB"], ["arena.size = ", "at least"]),
        (["--bogus"], ["--bogus"]),
    ],
)
def test_bad_usage_is_2_and_stdout_is_empty(tmp_path: Path, arguments: list[str], said: list[str]) -> None:
    done = run("run", config(tmp_path), "--json", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    for text in said:
        assert text in done.stderr
    assert not (tmp_path / "results").exists()


def test_the_mistakes_of_all_files_are_said_before_anything_runs(tmp_path: Path) -> None:
    good = config(tmp_path)
    bad = [config(tmp_path, f"{key} = 1\n", name=key) for key in ("foo", "bar")]
    done = run("run", good, *bad, "missing.toml", "--out", "out", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    for text in ("foo.toml: foo = 1", "bar.toml: bar = 1", "missing.toml: the file: cannot be read"):
        assert text in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_is_said_before_anything_runs(tmp_path: Path) -> None:
    path = config(tmp_path)
    done = run("run", path, "--out", path / "below", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no folder for results" in done.stderr


def test_two_configs_of_one_name_are_refused(tmp_path: Path) -> None:
    first = config(tmp_path)
    (tmp_path / "sub").mkdir()
    second = config(tmp_path / "sub")
    done = run("run", first, second, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "two configs have it" in done.stderr


def test_what_this_machine_cannot_do_is_3_and_stdout_is_empty(tmp_path: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    done = run(
        "run",
        config(tmp_path),
        "--json",
        "--set",
        "pin=exclusive",
        "--set",
        f"cpus={cores + 1}",
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert f"this process may use {cores} cores" in done.stderr


def test_an_arena_without_room_is_3_with_the_sizes(tmp_path: Path) -> None:
    done = run("run", config(tmp_path), "--json", "--set", "arena.size=900GiB", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert "900 GiB" in done.stderr
    assert "left" in done.stderr


def test_a_failed_expectation_is_1_and_a_claim_is_not(tmp_path: Path) -> None:
    text = SMALL + '\n[[expect]]\ntext = "never"\ncondition = "allocs < 0"\nkind = "{}"\n'
    claim = results(config(tmp_path, text.format("claim")))
    assert claim["expectations"][0]["holds"] is False
    test = results(config(tmp_path, text.format("test")), status=1)
    assert test["expectations"] == [
        {**claim["expectations"][0], "kind": "test", "measured": test["cells"][0]["allocs"]}
    ]
    assert test["verdict"] == "ok"


def test_what_must_happen_and_did_not_is_vacuous(tmp_path: Path) -> None:
    found = results(
        config(tmp_path), "--set", 'must_happen=["interrupts.nmi.handled > 0", "allocs"]', status=1
    )
    cell = only_cell(found)
    assert (found["verdict"], cell["verdict"]) == ("vacuous", "vacuous")
    assert [entry["holds"] for entry in cell["must_happen"]] == [False, True]


def test_show_resolves_and_does_not_run(tmp_path: Path) -> None:
    done = run("show", config(tmp_path), "--set", "cpus=[2, 3]", cwd=tmp_path)
    assert done.returncode == 0
    assert "sample = 61" in done.stdout
    assert done.stdout.endswith("# 2 cells:\n#   cpus=2\n#   cpus=3\n")
    again = config(tmp_path, done.stdout, name="again")
    assert run("show", again, cwd=tmp_path).stdout == done.stdout
    assert run("show", again, "--set", "cpus=0", cwd=tmp_path).returncode == 2
    assert run("show", tmp_path, cwd=tmp_path).returncode == 2


def test_designs_broken_variants_and_probe_sites_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["designs"]) == 0
    assert "kmalloc_nolock" in capsys.readouterr().out
    assert cli.main(["designs", "--broken"]) == 0
    assert "spin_in_nmi" in capsys.readouterr().out
    assert cli.main(["designs", "--probes", "--json"]) == 0
    assert {"probe site": "zone_locked"} in json.loads(capsys.readouterr().out)


def test_a_live_arena_is_listed_looked_into_and_not_removed(capsys: pytest.CaptureFixture[str]) -> None:
    with Arena.create(size="4MiB", pageblock_order=4) as arena:
        assert cli.main(["ls", "--json"]) == 0
        (found,) = [each for each in json.loads(capsys.readouterr().out) if each["name"] == arena.name]
        assert found["users"] == [os.getpid()]
        for view, said in (
            ("slabinfo", "slabinfo - version: 2.1"),
            ("buddyinfo", "Node 0, zone   Normal"),
            ("zoneinfo", "pages free"),
            ("numastat", "numa_hit"),
            ("maps", "free on each CPU"),
            ("pagetypeinfo", "Page block order: 4"),
            ("alloc_traces", "No data"),
            ("free_traces", "No data"),
            ("slab_errors", "No data"),
        ):
            assert cli.main([view, arena.name]) == 0
            assert said in capsys.readouterr().out
        assert cli.main(["rm", arena.name]) == 1
        assert f"in use by process {os.getpid()}" in capsys.readouterr().err


def test_a_name_that_is_no_arenas_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["slabinfo", "shmalloc-0-nothing"]) == 1
    assert cli.main(["rm", "shmalloc-0-nothing"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "shmalloc-0-nothing" in captured.err


@pytest.mark.parametrize("words", [["slabinfo"], ["pagemap"], ["top", "-o"], ["stat"], ["trace"], ["rm"]])
@pytest.mark.parametrize("name", ["a/b", "../a", ".", "x" * 300])
def test_a_name_that_no_arena_can_have_is_bad_usage(
    capsys: pytest.CaptureFixture[str], words: list[str], name: str
) -> None:
    assert cli.main([*words, name]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"shmalloc: arena: name = {name!r}: allowed are ")


def test_module_and_command_are_the_same(tmp_path: Path) -> None:
    done = run_apart("--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("run", "show", "designs", "ls", "rm", "slabinfo", "buddyinfo", "zoneinfo"):
        assert name in done.stdout
    assert run_apart(cwd=tmp_path).returncode == 2


def test_a_run_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = run_apart("run", config(tmp_path), "--json", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["runs"][0]["verdict"] == "ok"
