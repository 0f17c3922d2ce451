# SPDX-License-Identifier: MIT
"""Text of recorded events has the form of real recordings, line by line, and comes back as the same operations."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import run
from trace_sample import EVERY, HZ, every, text_of

from harness.tracing.gfp_text import GfpText
from harness.tracing.importing import Imported, Wanted, import_trace
from harness.tracing.kernel_text import TEXT_FORMATS
from harness.tracing.lines import KmemEvent, LineReader
from shmalloc import gfp
from shmalloc.trace import NO_PFN, Events

TEXTS = Path(__file__).parent / "kmem_texts"

GFP = r"(?:none|(?:_*GFP_[A-Z0-9_]+|0x[0-9a-f]+)(?:\|(?:_*GFP_[A-Z0-9_]+|0x[0-9a-f]+))*)"
POINTERS = {
    "tracefs": "[0-9a-f]{16}",
    "trace-cmd": r"(?:0x[1-9a-f][0-9a-f]*|\(nil\))",
    "perf-script": r"(?:0x[1-9a-f][0-9a-f]*|\(nil\))",
}
HEADS = {
    "tracefs": r"^ *\S.*-\d+ +\[\d{3}\] [dDb.][.N][.hszHZ][.\da-f][.\da-f] +\d+\.\d{6}: EVENT: ",
    "trace-cmd": r"^(?:inst: )? *\S.*-\d+ +\[\d{3}\] +\d+\.\d{6}: (?=.{21} |\S{22,} )EVENT: +",
    "perf-script": r"^ *\S+ +\d+ \[\d{3}\] +\d+\.\d{6}: +kmem:EVENT: ",
}
SIZES = r"bytes_req=\d+ bytes_alloc=\d+ gfp_flags=GFP node=-?\d+ accounted=(?:true|false)"
FIELDS = {
    "kmalloc": f"call_site=SITE ptr=PTR {SIZES}",
    "kmem_cache_alloc": f"call_site=SITE ptr=PTR name=\\S+ {SIZES}",
    "kfree": "call_site=SITE ptr=PTR",
    "kmem_cache_free": "call_site=SITE ptr=PTR name=\\S+",
    "mm_page_alloc": "page=PTR pfn=0x[0-9a-f]+ order=\\d+ migratetype=\\d+ gfp_flags=GFP",
    "mm_page_free": "page=PTR pfn=0x[0-9a-f]+ order=\\d+",
    "mm_page_free_batched": "page=PTR pfn=0x[0-9a-f]+ order=0",
    "mm_page_alloc_zone_locked": "page=PTR pfn=0x[0-9a-f]+ order=\\d+ migratetype=\\d+ percpu_refill=[01]",
    "mm_page_pcpu_drain": "page=PTR pfn=0x[0-9a-f]+ order=\\d+ migratetype=\\d+",
    "mm_page_alloc_extfrag": "page=PTR pfn=0x[0-9a-f]+ alloc_order=\\d+ fallback_order=\\d+ pageblock_order=\\d+ "
    "alloc_migratetype=\\d+ fallback_migratetype=\\d+ fragmenting=[01] change_ownership=[01]",
}
RECORDED = {"tracefs": "tracefs", "trace-cmd": "trace_cmd", "perf-script": "perf_script"}


def form(style: str, event: str) -> re.Pattern[str]:
    fields = (
        FIELDS[event]
        .replace("PTR", POINTERS[style])
        .replace("GFP", GFP, 1)
        .replace("SITE", r"[\w.]+(?:\+0x[0-9a-f]+(?:/0x[0-9a-f]+)?)?")
    )
    return re.compile(HEADS[style].replace("EVENT", event) + fields + "$")


def matches(style: str, line: str) -> bool:
    return any(form(style, event).match(line) for event in FIELDS)


@pytest.mark.parametrize("style", TEXT_FORMATS)
def test_the_forms_are_those_of_real_recordings(style: str) -> None:
    lines = (TEXTS / f"{RECORDED[style]}.txt").read_text().splitlines()
    events = [line for line in lines if re.search(r"\d: +(kmem:)?(k|mm_)\w+: ", line)]
    assert len(events) > 100
    assert [line for line in events if not matches(style, line)] == []


@pytest.mark.parametrize("style", TEXT_FORMATS)
def test_each_event_has_the_form_of_a_recording(style: str) -> None:
    lines = [line for line in text_of(every(), style).splitlines() if not re.match(r"#|cpus=", line)]
    assert len(lines) == len(EVERY)
    assert [line for line in lines if not matches(style, line)] == []


def test_lines_of_tracefs_to_the_letter() -> None:
    lines = text_of(every(), "tracefs").splitlines()
    assert lines[2] == "# entries-in-buffer/entries-written: 11/11   #P:2"
    assert lines[12:15] == [
        "        shmalloc-4711    [000] .....     0.100000: kmalloc: call_site=shm_user+0x1c ptr=0000000000000280 "
        "bytes_req=100 bytes_alloc=128 gfp_flags=GFP_KERNEL|__GFP_ZERO node=-1 accounted=false",
        "        shmalloc-4711    [000] .....     0.200000: kmem_cache_alloc: call_site=0x0 ptr=0000000000000300 "
        "name=names bytes_req=0 bytes_alloc=0 gfp_flags=GFP_ATOMIC node=1 accounted=true",
        "        shmalloc-4711    [000] d.z1.     0.300000: kfree: call_site=0x0 ptr=0000000000000280",
    ]
    assert lines[15].startswith("        shmalloc-99999   [003] d.h1.     0.400000: kmem_cache_free: ")
    assert lines[17].endswith(
        "mm_page_alloc: page=0000000000000000 pfn=0x0 order=3 migratetype=0 gfp_flags=none"
    )


def test_own_events_are_printed_by_name() -> None:
    rows = [
        {
            "event": "shmalloc:alloc",
            "ptr": 64,
            "bytes_req": 8,
            "gfp_flags": 0xCC0,
            "design": "kmalloc",
            "dur": 3,
        },
        {"event": "lock:contention_begin", "ptr": 128},
        {"event": "lock:contention_end", "ptr": 128, "ret": -35},
    ]
    lines = text_of(Events.synthetic(rows), "perf-script").splitlines()
    assert re.search(
        r"shmalloc:alloc: call_site=0x0 ptr=0x40 bytes_req=8 gfp_flags=GFP_KERNEL node=-1 order=0 .*design=kmalloc",
        lines[0],
    )
    assert lines[1].endswith("lock:contention_begin: 0x80 (flags=SPIN)")
    assert lines[2].endswith("  lock:contention_end: 0x80 (ret=-35)")


@pytest.mark.parametrize("style", TEXT_FORMATS)
def test_what_was_lost_comes_back(style: str, tmp_path: Path) -> None:
    events = Events.synthetic(EVERY[:3], caches=("c",), lost={0: 7}, overwritten={0: 5})
    found = imported(tmp_path, text_of(events, style)).found[0]
    assert found.lost + found.overwritten == 12


@pytest.mark.parametrize(
    "bits", [0, 1, 4, 0xC00, 0xCC0, 0x400CC0, 0x140CCA, 0x52CC0, 0xD2050, 0x2800, 0x820, 0xC40, 0x1000DC0]
)
def test_flags_are_written_as_the_kernel_writes_them(bits: int) -> None:
    assert GfpText().bits(gfp.format(bits).encode()) == bits


def test_recorded_flags_are_written_again_as_they_were() -> None:
    reader, seen = GfpText(), set()
    for style in RECORDED.values():
        seen |= set(re.findall(r"gfp_flags=([A-Z_|]+)", (TEXTS / f"{style}.txt").read_text()))
    assert len(seen) > 5
    assert {gfp.format(reader.bits(text.encode())) for text in seen} == seen


def imported(folder: Path, text: str) -> Imported:
    path = folder / "t.txt"
    path.write_text(text)
    return import_trace([path], Wanted())


CACHES = ("dentry", "filp", "a-b_c.d")


@st.composite
def kmem_rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw kmem events as an arena leaves them; some frees and allocations are missing."""
    rows = []
    for number in range(draw(st.integers(1, 40))):
        event = draw(
            st.sampled_from(
                ["kmalloc", "kmem_cache_alloc", "kfree", "kmem_cache_free", "mm_page_alloc", "mm_page_free"]
            )
        )
        row: dict[str, Any] = {
            "event": f"kmem:{event}",
            "cpu": draw(st.sampled_from([0, 1, 5])),
            "ts": 10_000 * (number + 1),
        }
        row |= {"ctx": draw(st.sampled_from(["task", "softirq", "irq", "nmi"]))}
        if "page" in event:
            pfn = draw(st.sampled_from([1, 2, 3, NO_PFN] if "alloc" in event else [1, 2, 3]))
            row |= {"pfn": pfn, "ptr": 0 if pfn == NO_PFN else pfn * 4096, "order": draw(st.integers(0, 3))}
        else:
            row["ptr"] = draw(st.sampled_from([0, 64, 128, 192]))
        if "cache" in event:
            row["cache"] = draw(st.integers(0, 2))
        if "alloc" in event:
            row["gfp_flags"] = draw(st.sampled_from([0, 0xCC0, 0xDC0, 0x2800, 0x400CC0, 0x140DCA]))
        if event in ("kmalloc", "kmem_cache_alloc"):
            sizes = draw(st.tuples(st.integers(1, 9000), st.integers(1, 9000)))
            row |= {"bytes_req": min(sizes), "bytes_alloc": max(sizes), "node": draw(st.integers(-1, 1))}
        rows.append(row)
    return rows


def expected(rows: list[dict[str, Any]], with_contexts: bool) -> list[tuple[Any, ...]]:
    """Say which rows of a workload come of it: op, kind, req, alloc, gfp, node, cpu, ctx, cache, match."""
    bits = {"task": 0, "softirq": 16, "irq": 9, "nmi": 65}
    live: dict[tuple[bool, int], int] = {}
    found: list[tuple[Any, ...]] = []
    for row in rows:
        event = row["event"].partition(":")[2]
        page = "page" in event
        kind = 2 if page else 1 if "cache" in event else 0
        where = (row["pfn"] if row["pfn"] != NO_PFN else 0) if page else row["ptr"]
        size = 4096 << row["order"] if page else 0
        context = bits[row["ctx"]] if with_contexts else 0
        cache = CACHES[row["cache"]] if kind == 1 else ""
        if "alloc" in event:
            sizes = (size, size) if page else (row["bytes_req"], row["bytes_alloc"])
            if where:
                live[page, where] = len(found)
            found.append(
                (0, kind, *sizes, row["gfp_flags"], row.get("node", -1), row["cpu"], context, cache, -1)
            )
        else:
            match = live.pop((page, where), -1)
            sizes = found[match][2:4] if match >= 0 else (size, size)
            cache = cache or (found[match][8] if match >= 0 else "")
            found.append((1, kind, *sizes, 0, -1, row["cpu"], context, cache, match))
    return found


@given(kmem_rows(), st.sampled_from(TEXT_FORMATS))
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], style: str
) -> None:
    events = Events.synthetic(rows, tsc_hz=HZ, caches=CACHES)
    arrays = imported(tmp_path_factory.mktemp("t"), text_of(events, style)).arrays
    names = ("op", "kind", "size_req", "size_alloc", "gfp_flags", "node", "cpu", "ctx", "cache", "match")
    table = [arrays[name].tolist() for name in names]
    table[8] = [str(arrays["cache_names"][i]) for i in table[8]]
    assert list(zip(*table, strict=True)) == expected(rows, style == "tracefs")


@given(st.integers(0, 2), st.sampled_from(TEXT_FORMATS))
def test_every_line_is_known_to_the_importer(cpu: int, style: str) -> None:
    rows = [{**row, "cpu": cpu} for row in EVERY]
    reader = LineReader(GfpText())
    lines = text_of(Events.synthetic(rows, caches=("c",)), style).splitlines()
    kinds = [type(reader.read(line.encode())) for line in lines if "mm_page_" not in line or "alloc:" in line]
    assert kinds.count(KmemEvent) == 6


@st.composite
def calls(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw calls of designs, with the kmem events below them."""
    rows: list[dict[str, Any]] = []
    for number in range(draw(st.integers(1, 30))):
        pages = draw(st.booleans())
        place = draw(st.integers(0, 6))
        row: dict[str, Any] = {
            "cpu": draw(st.integers(0, 1)),
            "ts": 100_000 * (number + 1),
            "design": "kmalloc_nolock",
        }
        row |= {
            "ptr": place * 4096,
            "flags": ["pages"] if pages else [],
            "dur": 300,
            "ctx": draw(st.sampled_from(["task", "nmi"])),
        }
        if draw(st.booleans()):
            row |= {
                "event": "shmalloc:alloc",
                "gfp_flags": draw(st.sampled_from([0xCC0, 0x2800])),
                "reason": int(not place),
            }
            row |= {"bytes_req": draw(st.integers(1, 8192)), "order": draw(st.integers(0, 3)) if pages else 0}
            if not pages and draw(st.booleans()):
                row["cache"] = draw(st.integers(0, 2))
            rows.append(
                {"event": "kmem:mm_page_alloc", "ts": row["ts"] - 50, "cpu": row["cpu"], "pfn": place + 9}
            )
        else:
            row |= {"event": "shmalloc:free"}
        rows.append(row)
    return rows


@given(calls(), st.sampled_from(TEXT_FORMATS))
def test_calls_are_read_again(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], style: str
) -> None:
    """--calls: what a run asked for, pages by their address, without the kmem events below."""
    mine = [row for row in rows if row["event"].startswith("shmalloc:")]
    folder = tmp_path_factory.mktemp("t")
    (folder / "t.txt").write_text(text_of(Events.synthetic(rows, tsc_hz=HZ, caches=CACHES), style))
    arrays = import_trace([folder / "t.txt"], Wanted(calls=True)).arrays
    live: dict[int, int] = {}
    match = []
    for number, row in enumerate(mine):
        match.append(live.pop(row["ptr"], -1) if "free" in row["event"] else -1)
        if row["event"].endswith(":alloc") and row["ptr"]:
            live[row["ptr"]] = number
    assert arrays["match"].tolist() == match
    assert arrays["op"].tolist() == [int("free" in row["event"]) for row in mine]
    allocs = [number for number, row in enumerate(mine) if row["event"].endswith(":alloc")]
    kinds = [2 if mine[i]["flags"] else 1 if "cache" in mine[i] else 0 for i in allocs]
    assert arrays["kind"][allocs].tolist() == kinds
    sizes = [4096 << mine[i]["order"] if mine[i]["flags"] else mine[i]["bytes_req"] for i in allocs]
    assert arrays["size_req"][allocs].tolist() == sizes
    assert arrays["gfp_flags"][allocs].tolist() == [mine[i]["gfp_flags"] for i in allocs]


def test_a_text_with_calls_says_so(tmp_path: Path) -> None:
    rows = [
        {"event": "kmem:mm_page_alloc", "pfn": 3, "ptr": 64},
        {"event": "shmalloc:alloc", "ptr": 64, "bytes_req": 8},
        {"event": "shmalloc:free", "ptr": 64},
    ]
    (tmp_path / "t.txt").write_text(text_of(Events.synthetic(rows), "perf-script"))
    done = run("import-trace", "t.txt", cwd=tmp_path)
    assert "--calls takes these instead" in done.stdout
    done = run("import-trace", "t.txt", "--calls", "--out", "o.npz", cwd=tmp_path)
    assert "2 events, 1 allocations, 1 frees of which 1 have their allocation" in done.stdout
    (tmp_path / "t.txt").write_text(text_of(Events.synthetic(rows[:1]), "perf-script"))
    done = run("import-trace", "t.txt", "--calls", "--out", "o.npz", cwd=tmp_path)
    assert done.returncode == 2
    assert "no call of a design in 1 lines, events mm_page_alloc" in done.stderr
