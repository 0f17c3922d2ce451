# SPDX-License-Identifier: MIT
"""A run's arena map: what is recorded, and what is read back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import ENDLESS, config, running, until

from harness import runs, vocabulary
from harness.arena_map import recording
from harness.arena_map.recorder import Recorder
from harness.arena_map.recording import Recording, pack_states, unpack_states
from harness.interruption import Interruption
from harness.matrix import load
from harness.progress import Silent
from shmalloc import Arena, Cpu
from shmalloc.audit import audit
from shmalloc.pagemap import SLABS, Kind, State, page_map

WORDS = vocabulary.load()
CONFIG = (
    'name = "map"\ncpus = 2\nops = 20011\n[arena]\nsize = "16MiB"\n[workload]\nkind = "mix"\nslots = 1009\n'
)


def run(folder: Path, text: str = CONFIG) -> tuple[dict[str, Any], runs.Left]:
    config = folder / "map.toml"
    config.write_text(text)
    with Interruption() as interruption:
        return runs.run_experiment(load(config, [], WORDS), WORDS, interruption, Silent())


def test_a_run_records_its_map(tmp_path: Path) -> None:
    made, left = run(tmp_path)
    (cell,) = made["cells"]
    assert cell["map"]["file"] == "arrays/map-000.npz"
    found = Recording(left.arrays["map-000"])
    labels = [each["label"] for each in found.meta["moments"]]
    assert [label for label in labels if label] == ["start", "before the drain", "after the drain"]
    assert (labels[0], labels[-1]) == ("start", "after the drain")
    assert len(found) == cell["map"]["moments"] == len(labels)
    times = [each["t_ms"] for each in found.meta["moments"]]
    assert times == sorted(times)
    assert (found.counts.sum(axis=1) == found.meta["frame"]["nr_pages"]).all()
    said = cell["audits"]
    for when in ("before the drain", "after the drain"):
        at = labels.index(when)
        counts, totals = found.counts[at], said[when]["totals"]
        assert counts[Kind.FREE] + counts[Kind.RESERVE] == totals["pages_free"]
        assert counts[Kind.PCP] == totals["pages_pcp"]
        assert counts[list(SLABS)].sum() == totals["pages_slab"]
        objects = found.objects(at)
        assert objects is not None
        states = np.bincount(objects.state, minlength=len(State))
        assert states[State.LIVE] == totals["objects_live"]
        assert states[State.ON_SLAB] == totals["objects_free_slab"]


def test_cells_of_a_matrix_have_a_file_each(tmp_path: Path) -> None:
    made, left = run(tmp_path, 'design = ["kmalloc", "kmalloc_nolock"]\n' + CONFIG)
    assert list(left.arrays) == ["map-000", "map-001"]
    assert [cell["map"]["file"] for cell in made["cells"]] == ["arrays/map-000.npz", "arrays/map-001.npz"]


@pytest.mark.parametrize(("table", "arrays"), [("moments = 0", False), ("objects = false", True)])
def test_what_the_config_switches_off(tmp_path: Path, table: str, arrays: bool) -> None:
    made, left = run(tmp_path, f"{CONFIG}[map]\n{table}\n")
    assert (made["cells"][0]["map"] is not None) == ("map-000" in left.arrays) == arrays
    if arrays:
        assert Recording(left.arrays["map-000"]).objects(0) is None


def test_planes_and_objects_are_those_of_each_moment() -> None:
    with Arena.create(size="8MiB") as arena, Cpu(arena, 0) as cpu:
        recorder = Recorder(arena, 1.0, 8, objects=True)
        maps = [page_map(arena)]
        live = []
        for _ in range(4):
            live += [cpu.kmalloc(size) for size in (64, 200, 3000) for _ in range(23)]
            for offset in live[::5]:
                cpu.kfree(offset)
            del live[::5]
            recorder.mark("x", at_rest=True)
            maps.append(page_map(arena))
        found = Recording(recorder.finish())
    for name in ("kind", "order", "cache", "cpu", "inuse", "objects", "marks"):
        plane = found.plane(name)
        for at, each in enumerate(maps):
            assert (plane[at] == getattr(each.planes, name)).all(), (name, at)
    for at, each in enumerate(maps[1:], start=1):
        objects = found.objects(at)
        assert objects is not None
        for pfn in each.objects.pfn.tolist():
            assert objects.of(pfn).tolist() == each.objects.of(pfn).tolist()


def test_moments_get_fewer_as_a_run_gets_long() -> None:
    with Arena.create(size="8MiB") as arena:
        recorder = Recorder(arena, 0.0, 8, objects=True)
        for _ in range(10_000):
            recorder.tick(0.01)
        recorder.mark("end")
        found = Recording(recorder.finish())
    times = [each["t_ms"] for each in found.meta["moments"]]
    assert 4 <= len(times) - 2 <= 8
    assert times[-1] == pytest.approx(100_000, rel=1e-3)
    steps = np.diff(times[1:-1])
    assert steps.max() < 2.1 * steps.min()


def test_of_a_huge_arena_a_cell_is_several_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MOST_CELLS", 256)
    with Arena.create(size="8MiB") as arena, Cpu(arena, 0) as cpu:
        cpu.alloc_pages(5)
        recorder = Recorder(arena, 1.0, 8, objects=True)
        found, nr_pages = Recording(recorder.finish()), arena.header.nr_pages
        said = audit(arena).totals
    assert found.meta["group"] == 8
    assert found.plane("kind").shape == (1, -(-nr_pages // 8))
    assert (found.plane("kind")[0] == Kind.PAGES).sum() == 4
    assert found.counts[0, Kind.FREE] == found.zone_counts[0, :, Kind.FREE].sum() == said["pages_free"]
    assert found.objects(0) is None


@pytest.mark.parametrize("length", [0, 1, 2, 23, 101])
def test_states_are_packed_two_a_byte(length: int) -> None:
    states = np.random.default_rng(length).integers(0, 7, length).astype(np.uint8)
    packed = pack_states(states)
    assert len(packed) == (length + 1) // 2
    for begin in range(0, length, 3):
        assert unpack_states(packed, begin, length).tolist() == states[begin:].tolist()


def test_other_arrays_are_no_map() -> None:
    with pytest.raises(ValueError, match="allowed is shmalloc-map/1"):
        Recording({"meta": np.array('{"schema": "shmalloc-map/9"}')})


def test_an_arena_that_runs_is_looked_at_without_a_word(tmp_path: Path) -> None:
    """Two CPUs take and give all the time; nothing raises, and every page is something."""
    path = config(tmp_path, ENDLESS)
    with running(path) as run_:
        run_.until_busy()
        segment = run_.segment
        assert segment is not None
        with Arena.attach(segment.name) as arena:
            kinds: set[int] = set()
            for _ in range(53):
                before = int(arena.region("cpus")["ops_done"].sum())
                found = page_map(arena)
                assert sum(found.counts().values()) == found.frame.nr_pages
                assert sum(found.object_counts().values()) == len(found.objects.state)
                kinds |= set(np.unique(found.planes.kind).tolist())
                until(lambda before=before: int(arena.region("cpus")["ops_done"].sum()) > before, "an op")
            assert kinds >= {Kind.FREE, Kind.PCP, Kind.SLAB_CPU}
