# SPDX-License-Identifier: MIT
"""Recorded events of runs, and of live arenas from outside."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from peer import until
from running import LIMIT_S, SMALL, command, config, only_cell, results, run, run_apart

from shmalloc import Arena, Cpu
from shmalloc.trace import NO_PFN, Events

ROOT = Path(__file__).resolve().parents[2]
NMIS = """
[interrupts.nmi]
source = "timer"
rate_hz = 2003.0
[trace]
events = ["*"]
buffer = "16MiB"
"""


def trace_of(path: Path, cell: dict[str, object]) -> Events:
    trace = cell["trace"]
    assert isinstance(trace, dict)
    return Events.load(path.parent / "out" / str(trace["file"]))


@pytest.mark.parametrize("design", ["kmalloc", "kmalloc_nolock", "sheaves"])
def test_a_run_leaves_its_events_and_they_are_what_it_has_counted(tmp_path: Path, design: str) -> None:
    path = config(tmp_path, SMALL + NMIS)
    cell = only_cell(
        results(path, "--set", f"design={design}", "--set", 'must_happen=["interrupts.nmi.handled"]')
    )
    events, trace = trace_of(path, cell), cell["trace"]
    assert (trace["lost"], trace["overwritten"], trace["selected"]) == (0, 0, ["*"])
    assert trace["events"] == trace["recorded"] == len(events) > 20_000
    assert sum(each["events"] for each in trace["cpus"]) == trace["events"]
    assert (
        trace["tsc_start"] < int(events.records["ts"][0]) < int(events.records["ts"][-1]) < trace["tsc_stop"]
    )
    allocs, frees = events.select("shmalloc:alloc"), events.select("shmalloc:free")
    for number, context in enumerate(events.contexts):
        counts = cell["contexts"][context]
        own = allocs[allocs["ctx"] == number]
        assert int((own["ptr"] != 0).sum()) == counts["allocs"]
        failed = {name: n for name, n in counts["failures"].items() if n}
        reasons, numbers = np.unique(own["reason"][own["ptr"] == 0], return_counts=True)
        assert {events.reasons[r]: n for r, n in zip(reasons, numbers, strict=True)} == failed
    assert len(frees) == cell["frees"]
    entries = events.select("handler_entry")
    assert int((entries["arg"] == 0).sum()) == cell["interrupts"]["nmi"]["handled"]
    assert len(events.select("lock:contention_begin")) == cell["counters"]["lock_waits"]
    pages = events.select("mm_page_alloc")
    assert len(pages[pages["pfn"] != NO_PFN]) > 0
    assert any("replay" in name for name in events.symbols.values())
    assert all(pid > 1 for cpu, pid in events.pids.items() if cpu < 2)


def test_without_the_table_nothing_is_recorded(tmp_path: Path) -> None:
    path = config(tmp_path)
    assert "trace" not in only_cell(results(path))
    assert not list((tmp_path / "out").glob("arrays/trace-*"))


def test_each_cell_has_its_own(tmp_path: Path) -> None:
    path = config(tmp_path, SMALL + NMIS)
    found = results(path, "--set", 'design=["kmalloc","kmalloc_nolock"]', "--set", 'trace.events=["kmem:*"]')
    files = [cell["trace"]["file"] for cell in found["cells"]]
    assert files == ["arrays/trace-000.npz", "arrays/trace-001.npz"]
    spinning, nolock = (trace_of(path, cell) for cell in found["cells"])
    assert len(spinning.select("kmalloc")) > 1000 and not len(nolock.select("kmalloc"))
    assert not len(spinning.select("shmalloc:*"))


def test_a_verdict_leaves_what_led_to_it(tmp_path: Path) -> None:
    path = config(tmp_path, SMALL.replace("ops = 20_000", "duration_s = 30.0") + NMIS)
    sets = ('broken="double_free"', 'flavour="checked"', 'trace.buffer="64KiB"', "workload.remote=0.5")
    cell = only_cell(results(path, *(word for each in sets for word in ("--set", each)), status=1))
    assert cell["verdict"] in ("corruption", "lost_memory")
    deferred = {int(record["ptr"]) for record in trace_of(path, cell).select("free_deferred")}
    assert deferred and cell["violations"]


SCRIPT = """
engine = "script"
cpus = 2
[[step]]
do = "alloc"
size = 96
repeat = 23
as = "objects"
[[step]]
do = "free"
which = "objects"
repeat = 23
"""


def test_a_script_leaves_its_events(tmp_path: Path) -> None:
    path = config(tmp_path, SCRIPT)
    plain = only_cell(results(path))
    cell = only_cell(results(path, "--set", 'trace.events=["shmalloc:*"]'))
    events = trace_of(path, cell)
    assert len(events.select("alloc")) == cell["allocs"] == plain["allocs"] >= 23
    assert len(events.select("free")) == cell["frees"] == plain["frees"]
    assert {k: n for k, n in cell["counters"].items() if "us" not in k and "cycles" not in k} == {
        k: n for k, n in plain["counters"].items() if "us" not in k and "cycles" not in k
    }


def test_an_atlas_records_none(tmp_path: Path) -> None:
    done = run("show", config(tmp_path, 'engine = "atlas"'), "--set", 'trace.events=["*"]', cwd=tmp_path)
    assert done.returncode == 2 and "trace.events" in done.stderr and 'engine = "atlas"' in done.stderr


@pytest.mark.parametrize(
    ("sets", "says"),
    [
        ('trace.events=["kmaloc"]', "kmaloc"),
        ('trace.buffer="3KiB"', "a power of two from 4KiB to 1GiB"),
        ('trace.buffer="3MiB"', "a power of two from 4KiB to 1GiB"),
        ('trace.mode="ring"', "overwrite"),
        ('trace.size="1MiB"', "trace.size"),
    ],
)
def test_a_bad_key_is_named(tmp_path: Path, sets: str, says: str) -> None:
    done = run("show", config(tmp_path), "--set", sets, cwd=tmp_path)
    assert done.returncode == 2 and says in done.stderr


def test_rings_do_not_take_from_the_memory(tmp_path: Path) -> None:
    plain = only_cell(results(config(tmp_path)))
    traced = only_cell(results(config(tmp_path, SMALL + NMIS)))
    assert traced["memory"]["arena_bytes"] - plain["memory"]["arena_bytes"] == 5 * (16 << 20) + 4096


@contextmanager
def live(trace_bytes: int = 1 << 16) -> Iterator[tuple[Arena, Cpu]]:
    with (
        Arena.create(size="16MiB", pageblock_order=5, trace_bytes=trace_bytes) as arena,
        Cpu(arena, 0) as cpu,
    ):
        yield arena, cpu


def trace(arena: Arena, *arguments: object, status: int = 0) -> tuple[str, str]:
    done = run_apart("trace", arena.name, *arguments, cwd=ROOT)
    assert done.returncode == status, done.stderr
    return done.stdout, done.stderr


def test_a_live_arena_is_switched_and_shown(tmp_path: Path) -> None:
    with live() as (arena, cpu):
        assert "off; mode discard, 1024 events for each CPU" in trace(arena)[0]
        assert trace(arena, "--on", "--events", "kfree", "--events", "kmem:kmalloc", "--mode", "discard") == (
            "",
            "",
        )
        cpu.kfree(cpu.kmalloc(96))
        state = trace(arena)[0]
        assert "recording kmem:kmalloc, kmem:kfree; mode discard" in state
        assert "CPU 0   events 2  there 2  taken 0  overwritten 0  lost 0" in state
        shown = trace(arena, "--show")[0]
        assert [line.split(": ")[1] for line in shown.splitlines() if line[0] != "#"] == ["kmalloc", "kfree"]
        assert trace(arena, "--off") == ("", "")
        cpu.kfree(cpu.kmalloc(96))
        trace(arena, "--save", tmp_path / "saved.npz")
        assert len(Events.load(tmp_path / "saved.npz")) == 2
        assert len(arena.trace.read()) == 2  # nobody has taken them


def test_a_cpu_without_handlers_is_named() -> None:
    keys = {"size": "16MiB", "pageblock_order": 5, "trace_bytes": 1 << 16}
    with Arena.create(**keys) as arena, Cpu(arena, 1, handlers=False) as cpu:
        _, said = trace(arena, "--on")
        assert "CPUs that take no interrupts now: 1" in said
        cpu.kmalloc(20_000)
        assert arena.trace.behind() == []


def test_events_are_followed_until_the_arena_ends(tmp_path: Path) -> None:
    with live(4096) as (arena, cpu):
        arena.trace.on(["kmem:kfree"])
        for _ in range(64 + 23):
            cpu.kfree(cpu.kmalloc(96))
        with (tmp_path / "followed").open("w") as out:
            process = subprocess.Popen(command("trace", arena.name, "--follow"), cwd=ROOT, stdout=out)
        until(lambda: arena.trace.states()[0].taken == 64, "it takes what is there")
        cpu.kfree(cpu.kmalloc(96))
    assert process.wait(timeout=LIMIT_S) == 0
    lines = (tmp_path / "followed").read_text().splitlines()
    assert sum("kfree: " in line for line in lines) == 65
    assert sum(line.startswith("# tracer") for line in lines) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--on", "--events", "kmaloc"), "--events = kmaloc: allowed is what matches one of kmem:kmalloc"),
        (("--on", "--mode", "ring"), "--mode = ring: allowed is one of overwrite, discard"),
        (("--events", "kfree"), "--events: allowed is with --on only"),
        (("--save", "x.txt"), "--save = x.txt: allowed is a name that ends in .npz"),
        (("--on", "--off"), "not allowed with"),
    ],
)
def test_bad_options_are_named(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    done = run("trace", *arguments, cwd=tmp_path)
    assert done.returncode == 2 and says in done.stderr


def test_an_arena_without_rings_says_so() -> None:
    with live(0) as (arena, _):
        assert "made without rings" in trace(arena, "--on", status=3)[1]
