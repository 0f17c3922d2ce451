# SPDX-License-Identifier: MIT
"""Traced runs, exported by the command: what comes out is what the run did; and the report sums it up."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from html_page import Page
from perfetto_reader import check_flows, flat, read
from running import SMALL, config, run
from trace_sample import EVERY, every, text_of

from harness import page, report_page
from harness.tracing import section as section_module
from harness.tracing.importing import Wanted, import_trace
from harness.tracing.kernel_text import TEXT_FORMATS
from shmalloc.trace import Events

# --- the command ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two cells, of which the second is given a trace, and the first another."""
    here = tmp_path_factory.mktemp("run")
    text = SMALL.replace("ops = 20_000", 'ops = 500\ndesign = ["kmalloc", "kmalloc_nolock"]')
    done = run("run", config(here, text), "--out", here / "out", "--no-plots", cwd=here)
    assert done.returncode == 0, done.stderr
    path = here / "out" / "result.json"
    result = json.loads(path.read_text())
    (here / "out" / "arrays").mkdir(exist_ok=True)
    for number, cell in enumerate(result["cells"]):
        every().save(here / "out" / "arrays" / f"trace-{number:03}.npz")
        cell["trace"] = {"file": f"arrays/trace-{number:03}.npz", "events": len(EVERY), "tsc_start": 1000}
    path.write_text(json.dumps(result))
    return here / "out"


def test_a_cell_of_a_run(folder: Path, tmp_path: Path) -> None:
    done = run("export-trace", folder, "--cell", "design=kmalloc", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "trace-000.pftrace: 11 events of 2 CPUs\n"
    viewer = read((tmp_path / "trace-000.pftrace").read_bytes())
    (memory,) = [uuid for uuid, track in viewer.tracks.items() if track.name == "memory in use"]
    assert max(value for _, value in viewer.counters[memory]) > 4096


def test_text_goes_to_standard_output(folder: Path, tmp_path: Path) -> None:
    file = folder / "arrays" / "trace-001.npz"
    done = run("export-trace", file, "--format", "tracefs", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout == text_of(every(), "tracefs")
    done = run("export-trace", file, "--format", "trace-cmd", "--out", "t.txt", cwd=tmp_path)
    assert done.stdout == "t.txt: 11 events of 2 CPUs\n"
    assert (tmp_path / "t.txt").read_text() == text_of(every(), "trace-cmd")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["FOLDER"], "--cell: allowed is one of design=kmalloc, design=kmalloc_nolock"),
        (
            ["FOLDER", "--cell", "design=kmaloc"],
            r"--cell = design=kmaloc: unknown cell.*did you mean design=kmalloc\?",
        ),
        (["FILE", "--cell", "x"], "--cell = x: .* is one trace; allowed with the folder of a run"),
        (["FILE", "--format", "perfeto"], r"--format = perfeto: unknown format \(did you mean perfetto\?\)"),
        (["FILE", "--out", "no/where"], "--out = no/where: cannot be written: No such file"),
        (["nowhere.npz"], "DIR|FILE.npz = nowhere.npz: cannot be read: No such file"),
        (["OTHER"], r"is no trace: allowed is the folder of a run, or one of its arrays/trace-NNN.npz"),
        (["CUT"], r"is no trace: allowed is the folder of a run, or one of its arrays/trace-NNN.npz"),
        (["HZ"], r"is no trace: .*tsc_hz is 0"),
        (["TEXT"], r"is no trace: allowed is the folder of a run, or one of its arrays/trace-NNN.npz"),
        (["."], "no result"),
    ],
)
def test_what_is_wrong_is_said(options: list[str], why: str, folder: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", op=np.zeros(3))
    text = tmp_path / "text.npz"
    text.write_text("hello")
    names = {
        "FOLDER": folder,
        "FILE": folder / "arrays" / "trace-000.npz",
        "OTHER": tmp_path / "other.npz",
        "TEXT": text,
        "CUT": tmp_path / "cut.npz",
        "HZ": tmp_path / "hz.npz",
    }
    whole = bytearray(names["FILE"].read_bytes())
    whole[200:260] = bytes(60)
    names["CUT"].write_bytes(whole)
    Events.synthetic(EVERY[:1], tsc_hz=0, caches=("c",)).save(names["HZ"])
    there = {one.name for one in tmp_path.iterdir()}
    done = run("export-trace", *(names.get(one, one) for one in options), cwd=tmp_path)
    assert done.returncode == 2
    assert re.search(why, done.stderr), done.stderr
    assert not done.stdout
    assert {one.name for one in tmp_path.iterdir()} == there


def test_without_the_formats_of_perfetto(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "perfetto.protos.perfetto.trace", None)
    file = folder / "arrays" / "trace-000.npz"
    done = run("export-trace", file, cwd=tmp_path)
    assert done.returncode == 3
    assert "this machine cannot do it: Perfetto's formats are missing" in done.stderr
    assert "pip install perfetto" in done.stderr
    assert not list(tmp_path.iterdir())
    assert run("export-trace", file, "--format", "tracefs", cwd=tmp_path).returncode == 0


def test_a_run_without_a_trace(folder: Path, tmp_path: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    for cell in result["cells"]:
        del cell["trace"]
    (tmp_path / "result.json").write_text(json.dumps(result))
    done = run("export-trace", tmp_path, cwd=tmp_path)
    assert done.returncode == 2
    assert "no cell of this run was traced; allowed is a run whose config has [trace]" in done.stderr


# --- a run that was traced ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two designs, of which nothing was lost."""
    here = tmp_path_factory.mktemp("traced")
    text = SMALL.replace("ops = 20_000", 'ops = 5_000\ndesign = ["kmalloc", "kmalloc_nolock"]')
    text += '[interrupts.nmi]\nrate_hz = 3000\nprogram = "mix"\n[trace]\nevents = ["*"]\nbuffer = "4MiB"\n'
    done = run("run", config(here, text), "--out", here / "out", "--no-plots", cwd=here)
    assert done.returncode == 0, done.stderr
    return here / "out"


def cells(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "result.json").read_text())["cells"]
    for cell in found:
        assert cell["trace"]["lost"] == cell["trace"]["overwritten"] == 0
    return found


def asked(cell: dict[str, Any]) -> int:
    return int(cell["allocs"]) + sum(sum(each["failures"].values()) for each in cell["contexts"].values())


@pytest.mark.parametrize("style", TEXT_FORMATS)
def test_the_calls_of_a_run_are_its_operations(style: str, traced: Path, tmp_path: Path) -> None:
    for cell in cells(traced):
        out = tmp_path / "t.txt"
        done = run(
            "export-trace", traced, "--cell", cell["id"], "--format", style, "--out", out, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        op = import_trace([out], Wanted(calls=True)).arrays["op"]
        assert ((op == 0).sum(), (op == 1).sum()) == (asked(cell), cell["frees"])


def test_the_kmem_events_of_a_run_pair(traced: Path, tmp_path: Path) -> None:
    """Of a design that the kernel traces: everything that was freed was allocated."""
    cell = cells(traced)[0]
    events = Events.load(traced / cell["trace"]["file"])
    (tmp_path / "t.txt").write_text(text_of(events, "tracefs"))
    made = import_trace([tmp_path / "t.txt"], Wanted())
    assert made.found[0].unknown == 0, made.found[0].shown
    frees = events.select("kmem:kfree", "kmem:kmem_cache_free", "kmem:mm_page_free")
    assert made.pairs.counts["matched frees"] == len(frees) > 0
    allocs = events.select("kmem:kmalloc", "kmem:kmem_cache_alloc")
    rows = (made.arrays["op"] == 0) & (made.arrays["kind"] < 2)
    assert made.arrays["size_req"][rows].tolist() == allocs["bytes_req"].tolist()
    assert made.arrays["gfp_flags"][rows].tolist() == allocs["gfp_flags"].tolist()


def test_a_run_is_shown_whole(traced: Path, tmp_path: Path) -> None:
    """Every call is a slice, every interrupt has both its ends, and all else is there as well."""
    for cell in cells(traced):
        done = run("export-trace", traced, "--cell", cell["id"], "--out", "t.pftrace", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        viewer = read((tmp_path / "t.pftrace").read_bytes())
        check_flows(viewer)
        shown = [one for slices in viewer.slices.values() for one in flat(slices)]
        assert sum(one.category == "shmalloc" for one in shown) == asked(cell) + cell["frees"]
        events = Events.load(traced / cell["trace"]["file"])
        assert sum(one.category == "interrupt" for one in shown) == len(events.select("handler_entry"))
        assert not [one for one in shown if "not recorded" in one.args and one.category != "lock"]
        points = sum(len(each) for each in viewer.instants.values())
        assert points == len(events.select("kmem:*", "*defer*", "*park*", "irq_work_queue"))


def test_the_report_of_a_traced_run(traced: Path) -> None:
    html = (traced / "report.html").read_text()
    assert "could not be made" not in html
    rows = {row[0]: row for each in Page(html).tables("trace") for row in each if row[0] == "shmalloc:free"}
    assert int(rows["shmalloc:free"][-1].replace(",", "")) == cells(traced)[-1]["frees"]


# --- the report -------------------------------------------------------------------------------------


def test_the_report_sums_the_trace_up(folder: Path) -> None:
    loaded = page.load(folder)
    html = report_page.html([loaded], [])
    assert "could not be made" not in html
    found = Page(html)
    (section,) = section_module.sections([loaded], [])
    assert section.id == "trace"
    assert f"shmalloc export-trace {folder} --cell design=kmalloc" in html
    tables = [rows for rows in found.tables("trace") if rows and rows[0][0] == "event"]
    assert len(tables) == 2
    counts = {row[0]: row[1:] for row in tables[0][1:]}
    assert tables[0][0] == ["event", "CPU 0", "CPU 3", "all"]
    assert counts["kmem:mm_page_alloc"] == ["2", "0", "2"]
    assert counts["kmem:kmem_cache_free"] == ["0", "1", "1"]
    assert counts["lost"] == counts["overwritten"] == ["0", "0", "0"]


def test_the_longest_calls(tmp_path: Path, folder: Path) -> None:
    rows = [
        {"event": "shmalloc:handler_entry", "ts": 5010, "level": 1},
        {"event": "shmalloc:handler_exit", "ts": 5090, "level": 1, "dur": 81},
        {"event": "shmalloc:alloc", "ts": 5100, "dur": 100, "ptr": 64, "design": "kmalloc"},
        {"event": "shmalloc:free", "ts": 6100, "dur": 30, "ptr": 64, "design": "kmalloc"},
    ]
    loaded = page.load(folder)
    run = {**loaded.run, "cells": loaded.run["cells"][:1]}
    (tmp_path / "arrays").mkdir()
    Events.synthetic(rows, tsc_hz=1_000_000_000).save(tmp_path / "arrays" / "trace-000.npz")
    other = page.Loaded(tmp_path, "t", run)
    (section,) = section_module.sections([other], [])
    found = Page(f'<section id="trace">{section.body}</section>').tables("trace")
    (calls,) = [each for each in found if each[0][0] == "longest calls"]
    assert calls[1:] == [
        ["alloc kmalloc", "CPU 0, task", "", "100", "1", "0"],
        ["free kmalloc", "CPU 0, task", "", "30", "0", "0"],
    ]


def test_a_run_without_a_trace_has_no_such_section(folder: Path) -> None:
    loaded = page.load(folder)
    run = {
        **loaded.run,
        "cells": [{k: v for k, v in cell.items() if k != "trace"} for cell in loaded.run["cells"]],
    }
    assert section_module.sections([page.Loaded(folder, "t", run)], []) == []


def test_many_cells_are_folded(folder: Path) -> None:
    loaded = page.load(folder)
    run = {**loaded.run, "cells": [{**loaded.run["cells"][0], "id": f"seed={i}"} for i in range(7)]}
    (section,) = section_module.sections([page.Loaded(folder, "t", run)], [])
    found = Page(f'<section id="trace">{section.body}</section>')
    assert len(found.all("h3")) == 4
    assert [found.text(at) for at in found.all("summary")] == ["seed=4", "seed=5", "seed=6"]
