# SPDX-License-Identifier: MIT
"""The table of recorded events: fields by name, and files of it."""

import json
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shmalloc.trace import COLUMNS, NO_PFN, RECORD, Events, event_fields, event_names

# what no column holds as it is
_SPECIAL = {"accounted", "percpu_refill", "change_ownership"}


def made() -> Events:
    return Events.synthetic(
        [
            {
                "event": "kmem:kmem_cache_alloc",
                "ts": 200,
                "cpu": 1,
                "ptr": 64,
                "cache": "task_struct",
                "bytes_req": 100,
                "flags": ["accounted"],
            },
            {
                "event": "shmalloc:alloc",
                "ts": 100,
                "design": "kmalloc_nolock",
                "reason": "zone_busy",
                "ctx": "nmi",
            },
            {"event": "lock:contention_begin", "ts": 300, "arg": 6, "ptr": 128},
            {"event": "kmem:mm_page_alloc", "order": 3, "pfn": 77},
        ],
        caches=("kmalloc-8", "task_struct"),
        tsc_hz=2_000_000_000,
        symbols={0x40: "run_op+0x12 (replay.c:88)"},
    )


def test_the_records_are_sorted_by_time_and_counted_for_each_cpu() -> None:
    events = made()
    assert events.records["ts"].tolist() == [100, 200, 300, 301]
    assert events.records["seq"].tolist() == [1, 1, 2, 3]
    assert events.cpus == [0, 1] and events.lost == {0: 0, 1: 0}
    assert events.ns(3) == 1.5


def test_each_event_has_fields_that_a_record_holds() -> None:
    assert len(event_names()) == len(event_fields()) == len(set(event_names()))
    for (_, event), fields in zip(event_names(), event_fields(), strict=True):
        assert bool(fields) == (event != "torn")
        for name in fields:
            assert name in _SPECIAL or COLUMNS.get(name, name) in (RECORD.names or ())


def test_numbers_with_names_are_told_by_name() -> None:
    failed, cached, waits, pages = made().records
    events = made()
    assert dict(events.items(cached)) == {
        "call_site": 0,
        "ptr": 64,
        "name": "task_struct",
        "bytes_req": 100,
        "bytes_alloc": 0,
        "gfp_flags": 0,
        "node": -1,
        "accounted": True,
    }
    assert (
        events.value(failed, "design") == "kmalloc_nolock" and events.value(failed, "reason") == "zone_busy"
    )
    assert events.contexts[failed["ctx"]] == "nmi"
    assert dict(events.items(waits)) == {"lock_addr": 128, "flags": 1, "class": "zone"}
    assert events.value(pages, "pfn") == 77 and events.value(waits, "pfn") == NO_PFN
    assert events.name(pages) == "kmem:mm_page_alloc"


def test_a_number_that_nothing_is_known_of_stays_one() -> None:
    events = made()
    record = events.records[0].copy()
    record["id"], record["cache"], record["design"] = 250, 9, 99
    assert events.name(record) == "unknown:250" and events.items(record) == []
    assert events.value(record, "name") == "9" and events.value(record, "design") == "99"


@pytest.mark.parametrize(
    ("globs", "found"),
    [(["kmem:*"], 2), (["kmem:*", "lock:*"], 3), (["mm_page_*"], 1), (["*"], 4), (["nothing"], 0), ([], 0)],
)
def test_events_are_selected_by_glob(globs: list[str], found: int) -> None:
    assert len(made().select(*globs)) == found


def test_an_unknown_event_is_named_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"event = 'kmaloc': allowed is one of kmem:kmalloc, "):
        made().number("kmaloc")


def test_a_file_holds_all_of_it(tmp_path: Path) -> None:
    events, path = made(), tmp_path / "trace.npz"
    events.save(path)
    again = Events.load(path)
    assert np.array_equal(again.records, events.records)
    assert {k: v for k, v in vars(again).items() if k != "records"} == {
        k: v for k, v in vars(events).items() if k != "records"
    }


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"records": np.zeros(2, RECORD)},
        {"records": np.zeros(2), "meta": np.array("{}")},
        {"records": np.zeros(2, RECORD), "meta": np.array("[]")},
        {"records": np.zeros(2, RECORD), "meta": np.array("{}")},
        {"records": np.zeros(2, RECORD), "meta": np.array("{")},
    ],
)
def test_another_file_is_refused(tmp_path: Path, arrays: dict[str, Any]) -> None:
    path = tmp_path / "other.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"other\.npz"):
        Events.load(path)


def meta_of(events: Events, **changed: Any) -> dict[str, Any]:
    arrays = events.arrays()
    meta = np.array(json.dumps(json.loads(str(arrays["meta"])) | changed))
    return {"records": arrays["records"], "meta": meta}


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"names": [[1, 2]]}, "names"),
        ({"names": [["kmem"]]}, "names"),
        ({"names": []}, "fields"),
        ({"fields": [[5]]}, "fields"),
        ({"fields": [["nonsense"]] * len(event_names())}, "fields"),
        ({"caches": [{"a": 1}]}, "caches"),
        ({"lost": {"0": "many"}}, "lost"),
        ({"lost": {"-1": 1}}, "lost"),
        ({"overwritten": {"0": -5}}, "overwritten"),
        ({"pids": {"0": 1 << 70}}, "pids"),
        ({"symbols": {"0": 7}}, "symbols"),
        ({"pageblock_order": "9"}, "pageblock_order is '9'"),
        ({"tsc_hz": 0}, "tsc_hz is 0"),
        ({"tsc_hz": True}, "tsc_hz is True"),
        ({"tsc_hz": 1.5}, "tsc_hz is 1.5"),
    ],
)
def test_names_that_are_none_are_refused(tmp_path: Path, changed: dict[str, Any], why: str) -> None:
    path = tmp_path / "odd.npz"
    np.savez(path, **meta_of(made(), **changed))
    with pytest.raises(ValueError, match=rf"odd\.npz: .*{why}"):
        Events.load(path)


def test_a_file_that_nests_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.npz"
    np.savez(path, records=np.zeros(1, RECORD), meta=np.array("[" * 100_000))
    with pytest.raises(ValueError, match=r"deep\.npz"):
        Events.load(path)


@pytest.mark.parametrize(("claimed", "held"), [(1 << 38, 0), (1 << 20, 1 << 20), (3, 2)])
def test_a_file_is_not_worth_more_memory_than_it_holds(tmp_path: Path, claimed: int, held: int) -> None:
    """A header that promises more than there is, and a few KiB of zeros that would become many MiB."""
    path = tmp_path / "large.npz"
    np.savez_compressed(path, meta=meta_of(made())["meta"])
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open("records.npy", "w", force_zip64=True) as file,
    ):
        header = {"descr": np.lib.format.dtype_to_descr(RECORD), "fortran_order": False, "shape": (claimed,)}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(bytes(held * RECORD.itemsize))
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"large\.npz: records\.npy"):
        Events.load(path)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
