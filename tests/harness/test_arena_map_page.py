# SPDX-License-Identifier: MIT
"""The arena map as a section of a page, without a browser; and colours as colour-blind people see them."""

import re
from itertools import combinations
from pathlib import Path

import colours
import numpy as np
import pytest
from html_page import Page

from harness.arena_map import sections, shown
from harness.arena_map.looks import LOOKS, RAMP, STATE_LOOKS, Appearance
from harness.arena_map.recorder import Recorder
from harness.arena_map.recording import Recording
from harness.arena_map.section import Mapped, section
from harness.arena_map.thumbnail import draw, tile_shape
from harness.page import Loaded, complete, document, element
from harness.problems import ConfigError
from shmalloc import Arena, Cpu
from shmalloc.pagemap import KINDS, Kind, State, Zone

LEAST = 10  # in the unit of `colours`, of two kinds of one pattern


@pytest.mark.parametrize("sight", colours.SIGHTS)
@pytest.mark.parametrize("ground", ["light", "dark"])
@pytest.mark.parametrize("looks", [{**LOOKS, "ramp": RAMP}, STATE_LOOKS], ids=["pages", "objects"])
def test_kinds_are_told_apart(looks: dict[object, Appearance], ground: str, sight: str) -> None:
    for (one, a), (other, b) in combinations(looks.items(), 2):
        if {one, other} == {Kind.FREE, "ramp"}:
            continue  # two ends of one ramp
        distance = colours.distance(getattr(a, ground), getattr(b, ground), sight)
        assert a.pattern != b.pattern or distance > LEAST, (one, other, distance)


def test_every_kind_and_state_has_a_look() -> None:
    assert set(LOOKS) == set(Kind)
    assert set(STATE_LOOKS) == set(State)


@pytest.fixture(scope="module")
def recorded() -> Recording:
    with Arena.create(size="8MiB", nr_nodes=2, pageblock_order=5) as arena, Cpu(arena, 0) as cpu:
        recorder = Recorder(arena, 1.0, 32, objects=True)
        for size in (64, 500, 20000) * 5:
            for _ in range(23):
                cpu.kmalloc(size)
            recorder.tick(0.05)
        recorder.mark("before the drain", at_rest=True)
        return Recording(recorder.finish())


def test_the_section_has_a_still_a_legend_and_a_table(recorded: Recording) -> None:
    made = section([Mapped("plain", "arrays/map-000.npz", recorded)])
    page = Page(document("t", element("h1", "t"), [made]))
    (table,) = page.tables("map-table-0")
    kinds = [kind for kind in Kind if recorded.counts[:, kind].any()]
    assert table[0] == ["ms", "", *(KINDS[kind].label for kind in kinds)]
    assert len(table) == 1 + len(recorded)
    said = [[int(cell.replace(",", "")) for cell in row[2:]] for row in table[1:]]
    assert said == recorded.counts[:, [int(kind) for kind in kinds]].tolist()
    assert table[-1][1] == "before the drain"
    still = page.find("map-still-0")
    assert "before the drain" in page.text(still)
    assert {page.elements[at][1]["class"] for at in page.inside(still, "path")} == {
        f"map-k{int(kind)}" for kind in kinds if recorded.counts[-1, kind]
    }
    data = page.json("map-data")
    assert data["maps"][0]["counts"] == recorded.counts.tolist()
    assert len(data["kinds"]) == len(Kind)


def test_a_drawing_has_as_many_cells_as_there_are_pages() -> None:
    kinds = np.arange(1024, dtype=np.uint8) % 5
    drawn = draw(kinds, [("a", Zone(0, 0, 0, 512)), ("b", Zone(1, 0, 512, 512))], 5, 1)
    runs = [int(length) for length in re.findall(r"M\d+ \d+h(\d+)v1", drawn)]
    assert sum(runs) == 1024
    assert tile_shape(9) == (32, 16) and tile_shape(5) == (8, 4) and tile_shape(0) == (1, 1)


def test_a_page_carries_as_many_moments_as_there_is_room_for(recorded: Recording) -> None:
    labels = [each["label"] for each in recorded.meta["moments"]]
    assert shown.choose(labels, 99) == list(range(len(labels)))
    few = shown.choose(labels, 5)
    assert len(few) == 5 and few[0] == 0 and few[-1] == len(labels) - 1
    pages = recorded.plane("kind").shape[1]
    made = shown.show(recorded, 5 * pages, 10**9)
    assert made.moments == few and made.meta["recorded"] == len(labels)
    assert all(each["objects"] for each in made.meta["moments"])
    end = recorded.objects(len(labels) - 1)
    assert end is not None
    made = shown.show(recorded, 5 * pages, len(end.state))
    assert [each["objects"] for each in made.meta["moments"]] == [True, False, False, False, True]


def test_runs_without_a_map_have_no_section(tmp_path: Path) -> None:
    run = complete({"name": "old", "cells": [{"id": "a"}]})
    assert sections([Loaded(tmp_path, "old", run)], ()) == []


def test_a_map_of_another_version_is_named(tmp_path: Path) -> None:
    (tmp_path / "arrays").mkdir()
    np.savez(tmp_path / "arrays" / "map-000.npz", meta=np.array('{"schema": "shmalloc-map/9"}'))
    run = complete({"name": "new", "cells": [{"id": "a", "map": {"file": "arrays/map-000.npz"}}]})
    with pytest.raises(ConfigError, match=r"map-000\.npz.*allowed is shmalloc-map/1"):
        sections([Loaded(tmp_path, "new", run)], ())
