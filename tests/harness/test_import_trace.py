# SPDX-License-Identifier: MIT
"""Texts of perf script, tracefs and trace-cmd become the workload that a naive reading of them gives.

The texts in kmem_texts were recorded on a 6.18 kernel: perf 6.1, trace-cmd 3.1.
"""

import gzip
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import cli
from harness.problems import ConfigError
from harness.tracing.gfp_text import GfpText
from harness.tracing.importing import Imported, Wanted, import_trace
from harness.tracing.lines import KmemEvent, LineReader, Lost, Other, Unknown
from harness.tracing.sources import MAX_LINE_BYTES, Source
from harness.workload import build, parse_workload
from harness.workload.tracefile import read_trace
from shmalloc import gfp

TEXTS = Path(__file__).parent / "kmem_texts"
GIT = Path(__file__).parents[2] / "configs" / "traces" / "git.npz"
ALLOCS = ("kmalloc", "kmem_cache_alloc", "mm_page_alloc")
FREES = ("kfree", "kmem_cache_free", "mm_page_free", "mm_page_free_batched")
_NAMED = re.compile(rf"\b({'|'.join([*ALLOCS, *FREES])}): +(\S.*)")
#: text: layout, events lost, events overwritten
KNOWN = {
    "tracefs": ("tracefs", 0, 0),
    "record_tgid": ("tracefs", 0, 0),
    "nohash": ("tracefs", 0, 162),
    "fields": ("tracefs", 0, 0),
    "stacktrace": ("tracefs", 0, 1992),
    "trace_pipe_lost": ("tracefs", 1423, 0),
    "latency_format": ("latency-format", 0, 0),
    "nocontext_info": ("without heads", 0, 0),
    "trace_cmd": ("tracefs", 935, 0),
    "trace_cmd_raw": ("tracefs", 935, 0),
    "trace_cmd_latency": ("latency-format", 935, 0),
    "perf_script": ("perf script", 0, 0),
    "perf_no_comm": ("perf script", 0, 0),
    "perf_pid_tid_ip": ("perf script", 0, 0),
    "perf_ns_no_cpu": ("perf script", 0, 0),
    "perf_misc_period": ("perf script", 0, 0),
    "perf_callchain": ("perf script", 0, 0),
    "perf_lost": ("perf script", 1045 + 258 + 262, 0),
}


def text_of(name: str) -> str:
    return (TEXTS / f"{name}.txt").read_text()


def imported(path: Path, **wanted: Any) -> Imported:
    return import_trace([path], Wanted(**wanted))


def written(folder: Path, text: str, name: str = "t.txt") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def naive(text: str) -> list[tuple[str, dict[str, str]]]:
    """Read events by nothing but their names and `key=value`."""
    found = (_NAMED.search(line) for line in text.splitlines() if not line.startswith("#"))
    return [(one[1], dict(re.findall(r"(\w+)=(\S+)", one[2]))) for one in found if one]


def number(text: str) -> int:
    return 0 if "nil" in text else int(text, 16)


def expected(events: list[tuple[str, dict[str, str]]]) -> list[tuple[Any, ...]]:
    """Pair events in plain Python. Returns: op, kind, req, alloc, gfp, node, cache, match of each row."""
    rows: list[tuple[Any, ...]] = []
    live: dict[tuple[bool, int], int] = {}
    for name, fields in events:
        page, what = "page" in name, 2 if "page" in name else 1 if "cache" in name else 0
        key = (page, number(fields["pfn" if page else "ptr"]))
        cache = fields.get("name", "")
        if name in ALLOCS:
            size = 4096 << int(fields["order"].split()[0], 0) if page else 0
            sizes = (size, size) if page else (int(fields["bytes_req"], 0), int(fields["bytes_alloc"], 0))
            flags = gfp.parse(fields["gfp_flags"])
            if fields.get("accounted") in ("true", "1", "(1)"):
                flags |= gfp.parse("__GFP_ACCOUNT")
            node = int(fields.get("node", "-1"), 0)
            if key[1]:
                live[key] = len(rows)
            rows.append((0, what, *sizes, flags, -1 if node == 0xFFFFFFFF else node, cache, -1))
        else:
            match = live.pop(key, -1)
            if match < 0 and name == "mm_page_free_batched":
                continue
            size = 4096 << int(fields.get("order", "0").split()[0], 0) if page else 0
            sizes = rows[match][2:4] if match >= 0 else (size, size)
            rows.append((1, what, *sizes, 0, -1, cache or (rows[match][6] if match >= 0 else ""), match))
    return rows


def rows_of(arrays: dict[str, np.ndarray]) -> list[tuple[Any, ...]]:
    names = ("op", "kind", "size_req", "size_alloc", "gfp_flags", "node", "cache", "match")
    table = [arrays[name].tolist() for name in names]
    table[6] = [str(arrays["cache_names"][i]) for i in table[6]]
    return list(zip(*table, strict=True))


def test_every_text_is_known() -> None:
    assert {path.stem for path in TEXTS.glob("*.txt")} == set(KNOWN)


@pytest.mark.parametrize("name", KNOWN)
def test_a_recorded_text_becomes_what_a_naive_reading_gives(name: str) -> None:
    made = imported(TEXTS / f"{name}.txt")
    found = made.found[0]
    assert (found.layout, found.lost, found.overwritten) == KNOWN[name]
    assert found.unknown == 0, found.shown
    assert rows_of(made.arrays) == expected(naive(text_of(name)))


@pytest.mark.parametrize("name", ["tracefs", "latency_format", "trace_cmd_latency"])
def test_contexts_come_from_the_latency_flags(name: str) -> None:
    made = imported(TEXTS / f"{name}.txt")
    flags = re.findall(
        r"(?:\[\d+\] |\d)([dDbX.][.NnpPBb][.hHszZ][.\da-f][.\da-f]) .*?\s([a-z_]+): ", text_of(name)
    )
    kept = [flag for flag, event in flags if event in ALLOCS + FREES]
    wanted = [(1 if f[0] == "d" else 0) | (16 if f[2] == "s" else 0) for f in kept]
    batched = made.pairs.counts["freed in a batch, again"]
    assert len(wanted) == made.arrays["ctx"].size + batched > 0
    assert sorted(set(wanted)) == sorted(set(made.arrays["ctx"].tolist()))
    assert any(wanted)


@pytest.mark.parametrize(
    ("flags", "ctx"),
    [
        ("....", 0),
        (".....", 0),
        ("d..1.", 1),
        ("D..1.", 129),
        ("b..1.", 128),
        ("dNh1.", 9),
        ("..s1.", 16),
        ("dNH2.", 25),
        ("d.z2.", 65),
        ("d.Z2.", 73),
        ("dnh31", 9),
    ],
)
def test_each_flag(flags: str, ctx: int) -> None:
    line = f"  a b-7  [003] {flags} 12.500001: kfree: call_site=f+0x1/0x2 ptr=00000000deadbeef"
    event = LineReader(GfpText()).read(line.encode())
    assert isinstance(event, KmemEvent)
    assert (event.ctx, event.cpu, event.tid, event.comm, event.address) == (ctx, 3, 7, b"a b", 0xDEADBEEF)


@pytest.mark.parametrize(
    "comm", ["a", "a b", "Web Content 2", "k/0:1-ev", "x-1 [2]", "1", "0x10", "[7]", "ä", "kfree: x"]
)
def test_names_of_tasks_may_be_anything(comm: str) -> None:
    fields = "kfree: call_site=f+0x1/0x2 ptr=00000000deadbeef"
    lines = {
        f"{comm:>16}-12      [001] ..s1. 5.000001: {fields}": 16,
        f"{comm:>16}-12      ( 12) [001] ..s1. 5.000001: {fields}": 16,
        f"{comm:>16}    12 [001]     5.000001:               kmem:{fields}": 0,
        f"{comm:>16} 11/12 [001]     5.000001:          1    kmem:{fields}": 0,
        f"{comm:>8}-12        1..s1. 5000001us : {fields}": 16,
    }
    for line, ctx in lines.items():
        event = LineReader(GfpText()).read(line.encode())
        assert isinstance(event, KmemEvent), line
        assert (event.comm.decode().strip(), event.tid, event.cpu, event.ctx) == (comm, 12, 1, ctx), line


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("GFP_KERNEL", 0xCC0),
        ("GFP_KERNEL|__GFP_ZERO", 0xDC0),
        ("GFP_KERNEL|GFP_ZERO", 0xDC0),
        ("GFP_NOWAIT", 0x2800),
        ("GFP_ATOMIC|__GFP_ATOMIC", 0x820),
        ("__GFP_WAIT", 0xC00),
        ("GFP_TRANSHUGE", 0x1C24CA),
        ("GFP_TRANSHUGE_LIGHT", 0x1C20CA),
        ("GFP_TEMPORARY", 0xCD0),
        ("GFP_KERNEL|0x800000", 0x800CC0),
        ("__GFP_ZEROTAGS", 0x800000),
        ("0xcc0", 0xCC0),
        ("none", 0),
        ("0", 0),
    ],
)
def test_flags_of_any_kernel(text: str, bits: int) -> None:
    reader = GfpText()
    assert reader.bits(text.encode()) == bits
    assert not reader.unknown


def test_unknown_flags_are_counted_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = (
        "a-1 [000] ..... 1.0: kmalloc: call_site=f ptr=00000000000000a{} bytes_req=8 bytes_alloc=8 "
        "gfp_flags=GFP_KERNEL|__GFP_NEW node=1 accounted=false\n"
    )
    path = written(tmp_path, "".join(line.format(i) for i in range(3)))
    made = imported(path)
    assert made.arrays["gfp_flags"].tolist() == [0xCC0] * 3
    assert made.arrays["node"].tolist() == [1] * 3
    assert cli.main(["import-trace", str(path), "--out", str(tmp_path / "o.npz")]) == 0
    assert "__GFP_NEW (3)" in capsys.readouterr().out


FORMER = """\
bash-1  [000] d... 1.000001: kmalloc: call_site=ffffffff811 ptr=ffff8801 SIZES gfp_flags=GFP_KERNEL
bash-1  [000] d... 1.000002: kmalloc_node: (foo+0x1/0x2) call_site=ff811 ptr=ffff8802 SIZES gfp_flags=GFP_KERNEL node=1
bash-1  [000] d... 1.000003: kmem_cache_alloc_node: call_site=ffffff811 ptr=ffff8803 SIZES gfp_flags=GFP_ATOMIC node=0
bash-1  [000] d... 1.000004: mm_page_alloc: page=ffffea00 pfn=4660 order=1 migratetype=0 gfp_flags=GFP_KERNEL|GFP_ZERO
bash-1  [000] d... 1.000005: mm_page_alloc: page=          (null) pfn=0 order=1 migratetype=0 gfp_flags=GFP_KERNEL
bash-1  [000] d... 1.000006: kfree: call_site=ffffffff811 ptr=          (null)
bash-1  [000] d... 1.000007: kmem_cache_free: call_site=ffffffff811 ptr=ffff8803 name=a b
bash-1  [000] d... 1.000008: kfree: call_site=ffffffff811 ptr=(____ptrval____)
bash-1  [000] d... 1.000009: mm_page_free: page=ffffea00 pfn=4660 order=1
CPU:3 [LOST EVENTS]
""".replace("SIZES", "bytes_req=8 bytes_alloc=8")


def test_former_formats(tmp_path: Path) -> None:
    """Of kernels before 6.2: nodes in events of their own, page numbers decimal, NULL as a word."""
    made = imported(written(tmp_path, FORMER))
    assert made.found[0].unknown == 0, made.found[0].shown
    assert made.found[0].lost_unknown == 1
    assert made.pairs.counts["address hidden"] == 1
    assert made.pairs.counts["failed"] == made.pairs.counts["frees of NULL"] == 1
    assert made.arrays["node"].tolist() == [-1, 1, 0, -1, -1, -1, -1, -1]
    assert made.arrays["match"].tolist() == [-1] * 6 + [2, 3]
    assert made.arrays["size_req"].tolist() == [8, 8, 8, 8192, 8192, 0, 8, 8192]
    assert made.arrays["slot"].tolist() == [0, 1, 2, 3, -1, -1, 2, 3]
    assert made.arrays["cache_names"].tolist() == ["", "a b"]


def line_of(row: dict[str, int], when: int, names: np.ndarray) -> str:
    """Write an event of a workload's file as tracefs would have."""
    slot, kind = row["slot"], row["kind"]
    flags = ["."] * 5
    flags[0] = {0: ".", 1: "d", 128: "b", 129: "D"}[row["ctx"] & 129]
    flags[2] = {0: ".", 8: "h", 16: "s", 24: "H"}[row["ctx"] & 24]
    head = f"task-1 [{row['cpu']:03}] {''.join(flags)} {when}.0: "
    name = (
        "kmalloc kmem_cache_alloc mm_page_alloc" if not row["op"] else "kfree kmem_cache_free mm_page_free"
    ).split()[kind]
    if kind == 2:
        order = max(row["size_req"] // 4096, 1).bit_length() - 1
        text = f"page={slot + 1:016x} pfn={slot + 1:#x} order={order}"
        return f"{head}{name}: {text}" + (
            "" if row["op"] else f" migratetype=0 gfp_flags={row['gfp_flags']:#x}"
        )
    cache = f" name={names[row['cache']]}" if kind == 1 else ""
    text = f"call_site=f+0x1/0x2 ptr={(slot + 1) * 64:016x}{cache}"
    sizes = f" bytes_req={row['size_req']} bytes_alloc={row['size_alloc']} gfp_flags={gfp.format(row['gfp_flags'])}"
    return f"{head}{name}: {text}" + ("" if row["op"] else f"{sizes} node={row['node']} accounted=false")


def test_a_trace_that_was_recorded_otherwise_comes_out_as_it_went_in(tmp_path: Path) -> None:
    """git.npz was made from the binary buffers, by other means."""
    with np.load(GIT) as file:
        git = {name: file[name] for name in file.files if file[name].ndim and name != "cache_names"}
        names = file["cache_names"]
    table = {name: column.tolist() for name, column in git.items()}
    rows = (dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True))
    path = written(tmp_path, "".join(line_of(row, when, names) + "\n" for when, row in enumerate(rows)))
    made = imported(path).arrays
    for name in ("op", "kind", "size_req", "size_alloc", "gfp_flags", "node", "cpu", "match"):
        assert np.array_equal(made[name], git[name]), name
    assert np.array_equal(made["ctx"], git["ctx"] & (1 | 8 | 16 | 64 | 128))
    numbers = np.unique(np.stack([made["slot"], git["slot"]]), axis=1)
    assert numbers.shape[1] == np.unique(git["slot"]).size == np.unique(made["slot"]).size
    of_cache = git["kind"] == 1
    assert np.array_equal(made["cache_names"][made["cache"][of_cache]], names[git["cache"][of_cache]])


@pytest.mark.parametrize("name", ["tracefs", "perf_script", "trace_cmd"])
def test_it_can_be_replayed(name: str, tmp_path: Path) -> None:
    out = tmp_path / "t.npz"
    assert cli.main(["import-trace", str(TEXTS / f"{name}.txt"), "--out", str(out)]) == 0
    trace = read_trace(out)
    work = build(
        parse_workload({"kind": "trace", "file": "t.npz"}), cpus=2, seed=1, base_dir=tmp_path, nodes=1
    )
    assert work.notes["frees"] == int((trace.match >= 0).sum()) > 0
    assert cli.main(["show", str(tmp_path / "t.toml")]) == 0


def test_the_config_beside_it_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "t.npz"
    assert cli.main(["import-trace", str(TEXTS / "tracefs.txt"), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    config = said.rpartition("shmalloc run ")[2].strip()
    run = ["run", config, "--set", "duration_s=0.2", "--no-plots", "--no-progress"]
    assert cli.main([*run, "--out", str(tmp_path / "out")]) == 0
    assert "verdict ok" in capsys.readouterr().out or (tmp_path / "out" / "result.json").exists()


def test_the_summary_says_what_was_found_and_what_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = text_of("trace_pipe_lost") + "what is this\n" + "half a li"
    path = written(tmp_path, text)
    assert cli.main(["import-trace", str(path), "--out", str(tmp_path / "o.npz")]) == 0
    said = capsys.readouterr().out
    assert "the recorder lost 1,423 events" in said
    assert "1 unknown lines:" in said
    assert f"line {text.count(chr(10))}: no layout of perf script, tracefs or trace-cmd: what is this" in said
    assert "cut off: it ends in the middle of a line" in said
    assert "frees without an allocation" in said


def same(a: Imported, b: Imported) -> bool:
    return all(np.array_equal(a.arrays[name], b.arrays[name]) for name in a.arrays)


@pytest.mark.parametrize("name", ["tracefs", "perf_script", "fields", "nocontext_info", "trace_cmd_raw"])
def test_line_ends_and_compression_change_nothing(name: str, tmp_path: Path) -> None:
    plain = imported(TEXTS / f"{name}.txt")
    crlf = tmp_path / "crlf.txt"
    crlf.write_bytes(text_of(name).replace("\n", "\r\n").encode())
    packed = tmp_path / "t.txt.gz"
    packed.write_bytes(gzip.compress(text_of(name).encode()))
    for path in (crlf, packed):
        made = imported(path)
        assert same(plain, made), path
        assert made.found[0].unknown == 0
        assert not made.found[0].cut


def test_a_broken_gz_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    data = gzip.compress(text_of("tracefs").encode())
    packed = tmp_path / "t.gz"
    packed.write_bytes(data[: len(data) * 2 // 3])
    made = imported(packed)
    assert "breaks off" in made.found[0].cut
    whole = imported(TEXTS / "tracefs.txt")
    count = len(made.arrays["op"])
    assert 0 < count < len(whole.arrays["op"])
    assert np.array_equal(made.arrays["gfp_flags"], whole.arrays["gfp_flags"][:count])


def test_files_of_single_cpus_are_put_in_order(tmp_path: Path) -> None:
    lines = [line for line in text_of("tracefs").splitlines(keepends=True) if not line.startswith("#")]
    times = [float(re.findall(r" (\d+\.\d+): ", line)[0]) for line in lines]
    apart = [line for line, a, b in zip(lines, times, [0.0, *times], strict=False) if a != b]
    once = [re.sub(r"\[00\d\]", f"[00{number % 3 // 2}]", line) for number, line in enumerate(apart)]
    whole = imported(written(tmp_path, "".join(once), "whole.txt"))
    parts = [
        written(tmp_path, "".join(li for li in once if f"[00{cpu}]" in li), f"{cpu}.txt") for cpu in (0, 1)
    ]
    assert all(path.stat().st_size for path in parts)
    assert same(whole, import_trace(parts[::-1], Wanted()))


def test_only_some_tasks_or_cpus(tmp_path: Path) -> None:
    """Frees of their objects are taken from whoever frees; other allocations at the address end the object."""
    alloc = "kmalloc: call_site=f ptr={:016x} bytes_req=8 bytes_alloc=8 gfp_flags=GFP_KERNEL node=-1 accounted=false"
    text = (
        f"a-1 [000] ..... 1.0: {alloc.format(0x40)}\n"
        f"b-2 [001] ..... 2.0: {alloc.format(0x80)}\n"
        "b-2 [001] ..... 3.0: kfree: call_site=f ptr=0000000000000040\n"
        "a-1 [000] ..... 4.0: kfree: call_site=f ptr=0000000000000080\n"
        f"a-1 [000] ..... 5.0: {alloc.format(0x40)}\n"
        f"b-2 [001] ..... 6.0: {alloc.format(0x40)}\n"
        "b-2 [001] ..... 7.0: kfree: call_site=f ptr=0000000000000040\n"
    )
    path = written(tmp_path, text)
    made = imported(path, comms=("a*",))
    assert made.arrays["op"].tolist() == [0, 1, 1, 0]
    assert made.arrays["match"].tolist() == [-1, 0, -1, -1]
    assert made.arrays["cpu"].tolist() == [0, 1, 0, 0]
    assert made.pairs.counts["not of these tasks"] == 3
    one = imported(path, cpus=frozenset([1]))
    assert set(one.arrays["cpu"].tolist()) == {1}
    assert one.other_cpus == 3
    with pytest.raises(ConfigError, match="--comm, --cpus: no event is left"):
        imported(path, comms=("c",))


def test_pages_below_slabs_may_be_left_out(tmp_path: Path) -> None:
    page = "mm_page_alloc: page=0 pfn={:#x} order=1 migratetype=0 gfp_flags={}"
    alloc = "kmem_cache_alloc: call_site=f ptr={:016x} name=c bytes_req=8 bytes_alloc=8 gfp_flags=GFP_KERNEL node=-1"
    slab = "GFP_KERNEL|__GFP_NOWARN|__GFP_NORETRY|__GFP_COMP"
    text = (
        f"a-1 [000] ..... 1.0: {page.format(5, slab)}\n"
        f"b-2 [001] ..... 2.0: {page.format(6, 'GFP_HIGHUSER_MOVABLE|__GFP_COMP')}\n"
        f"a-1 [000] ..... 3.0: {alloc.format(0x40)}\n"
        f"b-2 [001] ..... 4.0: {alloc.format(0x80)}\n"
        "c-3 [000] ..... 5.0: mm_page_free: page=0 pfn=0x5 order=1\n"
        "c-3 [000] ..... 6.0: mm_page_free: page=0 pfn=0x6 order=1\n"
    )
    path = written(tmp_path, text)
    assert imported(path).pairs.below_slabs == {0}
    made = imported(path, slab_pages=False)
    assert made.arrays["op"].tolist() == [0, 0, 0, 1]
    assert made.arrays["match"].tolist() == [-1, -1, -1, 0]
    assert made.arrays["slot"].tolist() == [0, 1, 2, 0]


def test_a_line_without_an_end_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes(
        (b"x" * (3 << 20) + b"\n")
        + b" " * 8000
        + b"\nx"
        + b" " * 8000
        + b"x\n"
        + text_of("perf_no_comm").encode()
    )
    assert max(map(len, Source(path))) <= MAX_LINE_BYTES
    made = imported(path)
    assert made.found[0].unknown > 0
    assert same(made, imported(TEXTS / "perf_no_comm.txt"))


BAD = [
    (b"", "no kmem event in 0 lines"),
    (b"hello\nworld\n", "no kmem event in 2 lines; allowed is text of perf script.*line 1: no layout.*hello"),
    (b"PERFILE2" + bytes(200), "perf's own file; allowed is its text: perf script -i"),
    (b"\x17\x08\x44tracing" + bytes(99), "trace-cmd's own file; allowed is its text: trace-cmd report"),
    (b"PK\x03\x04" + bytes(99), "a zip or npz file"),
    (bytes(1 << 20), "no kmem event"),
    (b"a-1 [000] ..... 1.0: sched_switch: prev_comm=a\n", "no kmem event in 1 lines, events sched_switch"),
    (b"\x1f\x8b" + bytes(99), "no kmem event.*breaks off"),
]


@pytest.mark.parametrize(("data", "why"), BAD)
def test_what_is_no_trace_is_refused(
    data: bytes, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes(data)
    assert cli.main(["import-trace", str(path), "--out", str(tmp_path / "o.npz")]) == 2
    streams = capsys.readouterr()
    assert re.search(f"FILE = {re.escape(str(path))}: .*{why}", streams.err), streams.err
    assert not streams.out
    assert [one.name for one in tmp_path.iterdir()] == ["t.txt"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["nowhere.txt"], "FILE = nowhere.txt: cannot be read: No such file"),
        (["."], r"FILE = \.: cannot be read: Is a directory"),
        (["TEXT", "--cpus", "2-1"], "--cpus = 2-1: allowed are numbers and ranges"),
        (["TEXT", "--cpus", "x"], "--cpus = x: allowed are"),
        (["TEXT", "--cpus", "70000"], "--cpus = 70000: allowed are"),
        (["TEXT", "--cpus", "77"], "--comm, --cpus: no event is left"),
        (["TEXT", "--out", "x.txt"], "--out = x.txt: allowed is a name that ends in .npz"),
        (["TEXT", "--out", "no/x.npz"], "--out = no/x.npz: allowed is a file in a folder that is there"),
    ],
)
def test_options_that_are_wrong(
    options: list[str],
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    given_options = [str(TEXTS / "tracefs.txt") if one == "TEXT" else one for one in options]
    assert cli.main(["import-trace", *given_options]) == 2
    assert re.search(why, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_what_is_there_already_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = str(TEXTS / "perf_lost.txt")
    assert cli.main(["import-trace", text]) == 0
    (tmp_path / "perf_lost.toml").write_text("mine")
    assert cli.main(["import-trace", text]) == 2
    assert "--out = perf_lost.npz: is there already" in capsys.readouterr().err
    assert cli.main(["import-trace", text, "--out", "perf_lost.npz"]) == 0
    assert (tmp_path / "perf_lost.toml").read_text() == "mine"


LINES = [line.encode() for name in KNOWN for line in text_of(name).splitlines()]


@given(st.data())
def test_no_line_is_too_bad_to_be_read(data: st.DataObject) -> None:
    """Lines that are cut, or whose bytes are others, are events, or are said; never more than that."""
    line = bytearray(data.draw(st.sampled_from(LINES)))
    for _ in range(data.draw(st.integers(0, 4))):
        if line:
            line[data.draw(st.integers(0, len(line) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(line[: data.draw(st.integers(0, len(line)))])
    what = LineReader(GfpText()).read(cut.replace(b"\n", b" "))
    assert isinstance(what, (KmemEvent, Lost, Other, Unknown, str))
    if isinstance(what, KmemEvent):
        assert 0 <= what.size_req <= 0xFFFFFFFF
        assert -1 <= what.node <= 127
