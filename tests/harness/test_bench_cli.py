# SPDX-License-Identifier: MIT
"""`shmalloc bench` as a user calls it, and what it writes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from html_page import Page

from harness.bench import figure, report, selection
from harness.bench.peers import Found
from harness.bench.subjects import Missing
from harness.bench.targets import targets
from harness.problems import CannotRun, ConfigError

ROOT = Path(__file__).resolve().parents[2]
CORES = sorted(os.sched_getaffinity(0))
QUICK = ("--no-storm", "--no-progress", "--samples", "1")


def bench(*words: str, cores: list[int] | None = None, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    pinned = ["taskset", "-c", ",".join(map(str, cores))] if cores else []
    return subprocess.run(
        [*pinned, sys.executable, "-P", "-m", "harness", "bench", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        timeout=300,
    )


def measured(folder: Path, *words: str, cores: list[int] | None = None) -> tuple[dict[str, Any], Path]:
    out = folder / "out"
    done = bench(*words, "--json", "--out", str(out), cores=cores, cwd=folder)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert json.loads((out / "bench.json").read_text()) == result
    return result, out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rows", "pair_46"), ["--rows = 'pair_46'", "did you mean pair_64?", "lifo512_4096", "two_cpus"]),
        (
            ("--subjects", "sheafs,floor_*"),
            ["--subjects = 'sheafs'", "did you mean sheaves?", "kmalloc_nolock"],
        ),
        (("--rows", "a", "--subjects", "b"), ["--rows = 'a'", "--subjects = 'b'"]),
        (("--rows", ""), ["--rows = ''", "allowed are names or patterns, separated by commas"]),
        (("--subjects", " , "), ["--subjects = ' , '", "allowed are names or patterns"]),
        (("--samples", "0"), ["--samples = 0", "allowed is 1..10000"]),
        (("--seconds", "-1"), ["--seconds = -1.0", "allowed is more than 0"]),
        (("--seconds", "nan"), ["--seconds = nan"]),
        (("--samples", "7", "--seconds", "1"), ["not allowed with"]),
        (("--preload", "x"), ["--preload", "allowed is NAME=PATH"]),
        (("--traces", "/nowhere"), ["--traces = '/nowhere'", "allowed is a folder with .npz files"]),
    ],
)
def test_bad_usage_names_what_is_allowed(words: tuple[str, ...], said: list[str], tmp_path: Path) -> None:
    done = bench(*words, cwd=tmp_path)

    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert all(text in done.stderr for text in said), done.stderr
    assert not list(tmp_path.iterdir())


def test_result_has_what_was_asked_for(tmp_path: Path) -> None:
    result, out = measured(
        tmp_path, "--rows", "pair_64,mix_256", "--subjects", "sheaves,floor_flag,floor_empty,glibc", *QUICK,
        "--samples", "7",
    )  # fmt: skip
    records = {(record["row"], record["subject"]): record for record in result["rows"]}
    subjects = ("sheaves", "floor_empty", "floor_flag", "glibc")

    assert set(records) == {(row, name) for row in ("pair_64", "mix_256") for name in subjects}
    for (row, name), record in records.items():
        if (row, name) == ("mix_256", "floor_flag"):
            assert record["ns_median"] is None and "one size" in record["why"]
            continue
        assert 0 < record["ns_low"] <= record["ns_median"] <= record["ns_high"], record
        assert record["samples"] == 7 and record["why"] is None
    assert {name: records["pair_64", name]["kind"] for name in subjects} == {
        "sheaves": "design", "floor_empty": "floor", "floor_flag": "floor", "glibc": "peer"
    }  # fmt: skip
    pair, glibc = records["pair_64", "sheaves"], records["pair_64", "glibc"]
    assert pair["floor"] == "floor_flag" and records["mix_256", "sheaves"]["floor"] == "floor_empty"
    assert pair["ratio_to_peers"]["glibc"][0] == pytest.approx(
        pair["ns_median"] / glibc["ns_median"], abs=1e-3
    )
    assert pair["ratio_to_peers"]["glibc"][1] <= pair["ratio_to_peers"]["glibc"][0]
    assert result["noise"]["compared"] == 2 and result["oracle"] is False
    assert result["storm"] == [] and result["missing"] == []  # no peer was asked for beside glibc
    assert {"cpu_model", "core", "pairs", "worth", "steal_ticks"} <= set(result["machine"])
    assert any(each["against"] == "floor_flag" for each in result["targets"])
    text = (out / "report.txt").read_text()
    assert "sheaves, as multiples of" in text and "noise: a second instance of sheaves" in text
    assert (out / "bench.svg").read_text().count('id="pair_64:') == 4
    page = Page((out / "report.html").read_text())
    assert len(page.all("svg", role="img")) == len(
        {record["row"] for record in result["rows"] if record["ns_median"] is not None}
    )
    (behind,) = page.tables("figures")
    found = {(row[0], row[1]): row for row in behind[1:]}
    assert found["pair_64", "sheaves"][3] == f"{pair['ns_median']:.2f}"
    assert found["pair_64", "sheaves"][5] == "7"
    assert "sheaves, as multiples of" in page.text(page.find("tables"))


def test_one_core_is_enough_and_says_so(tmp_path: Path) -> None:
    result, out = measured(
        tmp_path, "--rows", "pair_64,pc_fixed,two_cpus", "--subjects", "sheaves", "--no-plot", *QUICK, cores=CORES[:1]
    )  # fmt: skip
    records = {record["row"]: record for record in result["rows"]}

    assert records["pair_64"]["ns_median"] > 0
    for row in ("pc_fixed_near", "pc_fixed_far", "two_cpus"):
        assert records[row]["ns_median"] is None and "need two cores" in records[row]["why"]
    worth = " ".join(result["machine"]["worth"])
    assert "one core" in worth and "no peer" in worth and "no recorded trace" in worth  # in this folder
    assert not (out / "bench.svg").exists()
    assert "<svg" not in (out / "report.html").read_text()
    assert "worth: one core" in (out / "report.txt").read_text()


def test_too_few_samples_have_no_interval(tmp_path: Path) -> None:
    result, out = measured(tmp_path, "--rows", "pair_64", "--subjects", "sheaves", "--no-plot", *QUICK)
    (record,) = result["rows"]

    assert record["ns_median"] > 0 and record["ns_low"] is record["ns_high"] is None
    assert "too few samples" in (out / "report.txt").read_text()


def test_subjects_under_a_storm_are_in_the_result(tmp_path: Path) -> None:
    result, out = measured(
        tmp_path, "--rows", "pair_64", "--subjects", "floor_tag8", "--no-plot", "--no-progress", "--samples", "1",
        "--storm-seconds", "0.3",
    )  # fmt: skip
    (stormed,) = result["storm"]

    assert (stormed["subject"], stormed["kind"], stormed["outcome"]) == ("floor_tag8", "floor", "ok")
    assert stormed["handled"] > 0
    assert "storm of signals" in (out / "report.txt").read_text()


def measuring(pid: int) -> list[psutil.Process]:
    """Return a process's runners that measure: those that list subjects come and go."""
    found = []
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "row=pair" in child.cmdline():
                found.append(child)
    return found


@pytest.mark.parametrize("where", [("--out", "out"), ("--out", "a/b/out"), ()])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_neither_processes_nor_a_folder(
    number: signal.Signals, where: tuple[str, ...], tmp_path: Path
) -> None:
    words = ("--rows", "pair_64", "--subjects", "sheaves", "--seconds", "600", "--no-storm", *where)
    command = [sys.executable, "-P", "-m", "harness", "bench", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        try:
            while not (runners := measuring(process.pid)):
                assert process.poll() is None
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()

    assert process.returncode == 128 + number and f"interrupted by {number.name}" in said
    assert not list(tmp_path.iterdir()) and not any(each.is_running() for each in runners)


def test_a_peer_that_is_not_here_is_named_with_what_brings_it(tmp_path: Path) -> None:
    environment = {**os.environ, "CXX": "/nowhere/c++", "CC": "/nowhere/cc", "PATH": "/nowhere"}
    command = [sys.executable, "-P", "-m", "harness", "bench", "--subjects", "boost", *QUICK]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=300
    )

    assert (done.returncode, done.stdout) == (3, ""), done.stderr
    assert "this machine cannot do it: boost is not here: " in done.stderr
    assert "Debian: libboost-dev" in done.stderr
    assert not list(tmp_path.iterdir())


def test_absent_peers_that_a_pattern_meets_are_named_in_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    boost, dpdk = Missing("boost", "libboost", "no header"), Missing("dpdk", "libdpdk", "no header")
    monkeypatch.setattr(selection.peers, "find", lambda _preload: Found((), (boost, dpdk)))

    chosen = selection.select(["pair_64"], ["sheaves", "[a-z]*o*"], {}, None)
    assert chosen.missing == (boost,)
    assert "sheaves" in [subject.name for subject in chosen.subjects]
    assert selection.select([], [], {}, None).missing == (boost, dpdk)
    with pytest.raises(CannotRun, match=r"^boost is not here: no header \(libboost\)$"):
        selection.select([], ["sheaves", "boost"], {}, None)
    with pytest.raises(ConfigError, match="did you mean boost"):
        selection.select([], ["bost"], {}, None)


def record(
    row: str, subject: str, ns: float | None, kind: str = "design", sharing: str = "shared"
) -> dict[str, Any]:
    return {
        "row": row, "subject": subject, "kind": kind, "sharing": sharing, "ns_median": ns, "ns_low": ns,
        "ns_high": ns, "samples": 15, "broken": False, "why": None, "floor": None, "ratio_to_floor": None,
        "ratio_to_peers": {},
    }  # fmt: skip


def held(*records: dict[str, Any]) -> dict[tuple[str, str, str], tuple[float, bool]]:
    return {
        (each["target"], each["subject"], each["row"]): (each["ratio"], each["holds"])
        for each in targets(records)
    }


def test_targets_are_those_of_the_figures() -> None:
    found = held(
        record("pair_64", "sheaves", 10.0),
        record("pair_64", "floor_flag", 5.0, "floor"),
        record("pair_64", "kmalloc_nolock", 13.0),
        record("pair_64", "floor_cas16", 10.0, "floor"),
        record("pair_64", "fast", 8.0, "peer", "private"),
        record("pair_64", "slow", 80.0, "peer", "private"),
        record("pair_64", "boost", 9.0, "peer"),
        record("mix_256", "sheaves", 10.0),
        record("mix_256", "slow", 20.0, "peer", "private"),
        record("mix_256", "boost", None, "peer"),
        record("lifo64_16", "objpool", 31.0),
        record("lifo64_16", "floor_objpool", 20.0, "floor"),
        record("py_pair_64", "python_kmalloc", 88.0, sharing="python"),
        record("py_bulk_512", "python_bulk", 12.0, sharing="python"),
        record("py_bulk_512", "bulk_in_c", 10.0, "floor"),
        record("py_sent_8k", "python_array_sent", 1000.0, sharing="python"),
        record("py_sent_8k", "python_shared_memory_sent", 40_000.0, "peer", "python"),
    )

    assert found == {
        ("within 2.0x of its floor", "sheaves", "pair_64"): (2.0, True),
        ("within 1.2x of its floor", "kmalloc_nolock", "pair_64"): (1.3, False),
        ("within 1.5x of its floor", "objpool", "lifo64_16"): (1.55, False),
        ("within 1.3x of the best private malloc", "sheaves", "pair_64"): (1.25, True),
        ("within 1.3x of the best private malloc", "sheaves", "mix_256"): (0.5, True),
        ("slower than the best private malloc on at most half of the rows", "sheaves", "all"): (0.5, True),
        ("faster than every shared peer", "sheaves", "pair_64"): (1.1111, False),
        ("a pair within 80 ns of an empty loop", "python_kmalloc", "py_pair_64"): (1.1, False),
        ("within 1.3x of C", "python_bulk", "py_bulk_512"): (1.2, True),
        ("50 times as fast", "python_array_sent", "py_sent_8k"): (0.025, False),
    }


def result_of(*records: dict[str, Any], **keys: Any) -> dict[str, Any]:
    machine = {"cpu_model": "a CPU", "architecture": "x86_64", "core": 1, "pairs": [], "worth": []}
    noise = {"rows": [], "compared": 0, "differing": 0, "largest_ratio": None, "median_width": None}
    build = {"flavour": "release", "id": "0123456789abcdef"}
    empty: dict[str, Any] = {
        "subjects": [],
        "targets": [],
        "storm": [],
        "missing": [],
        "noise": noise,
        "build": build,
    }
    return {**empty, "machine": machine, "rows": list(records), **keys}


def test_report_shows_spread_what_is_broken_and_what_is_missing() -> None:
    wide = {**record("pair_64", "sheaves", 10.0), "ns_low": 8.0, "ns_high": 12.0}
    broken = {**record("pair_64", "kmalloc", None), "broken": True, "why": "its runner ended with SIGSEGV"}
    missing = [{"peer": "rpmalloc", "package": "librpmalloc", "why": "not found"}]
    text = report.text(result_of(wide, broken, missing=missing))

    assert "10.0 ±20%" in text
    assert "broken: kmalloc: its runner ended with SIGSEGV (pair_64)" in text
    assert "missing: rpmalloc: not found (librpmalloc)" in text


def test_picture_is_of_what_was_measured(tmp_path: Path) -> None:
    made = result_of(
        record("pair_64", "sheaves", 10.0), record("mix_256", "glibc", 20.0, "peer"), record("x", "y", None)
    )
    path = figure.draw(tmp_path, made, ["kmalloc", "sheaves"])
    assert path is not None
    text = path.read_text()

    assert 'id="pair_64:sheaves"' in text and 'id="mix_256:glibc"' in text and "x:y" not in text
    assert figure.draw(tmp_path, result_of(record("x", "y", None)), []) is None
