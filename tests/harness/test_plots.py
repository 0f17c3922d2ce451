# SPDX-License-Identifier: MIT
"""Figures: what is drawn are the numbers of the result, and nothing is drawn of nothing."""

import copy
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import running
from plots_sample import CURVE, HELD, ORDER, PAIR, cell, loaded, of_nodes, samples, window

from harness import plots, vocabulary
from harness.memory import MOST_SAMPLES, SAMPLE_PERIOD_S, Sample, Sampler
from harness.page import Loaded, complete
from harness.plots import sections
from harness.plots.drawing import Drawing
from harness.plots.grid import MOST_ROWS, Grid
from harness.results import blank_cell
from shmalloc import Arena

WORDS = vocabulary.load()
SVG = "{http://www.w3.org/2000/svg}"
_MIB = 1 << 20


def drawn(*cells: dict[str, Any], **keys: Any) -> dict[str, Drawing]:
    return plots.drawings([loaded(*cells, **keys)], ORDER)


def grid(*cells: dict[str, Any]) -> Grid:
    found = plots.grid_of([loaded(*cells)], ORDER)
    assert found is not None
    return found


def artist(drawing: Drawing, gid: str) -> Any:
    (found,) = [
        each for panel in drawing.panels for each in panel.figure.findobj(lambda each: each.get_gid() == gid)
    ]
    return found


def texts(drawing: Drawing) -> set[str]:
    """All texts of a figure, and what the pointer shows."""
    found = {entry.label for entry in drawing.legend}
    for panel in drawing.panels:
        found |= {each.get_text() for each in panel.figure.findobj(lambda each: hasattr(each, "get_text"))}
        found |= set(panel.titles.values())
    return found


def row_of(drawing: Drawing, *begins: str) -> dict[str, str]:
    assert drawing.numbers is not None
    (row,) = [row for row in drawing.numbers.rows if tuple(row[: len(begins)]) == begins]
    return dict(zip(drawing.numbers.head, row, strict=True))


def whiskers(drawing: Drawing) -> list[list[float]]:
    """Least and most of each upright or level line that has no gid: ends of whiskers."""
    lines = [
        each
        for panel in drawing.panels
        for each in panel.figure.axes[0].lines
        if each.get_gid() is None and len(each.get_xdata()) == 6 and each.get_linewidth() < 1
    ]
    return [[min(each.get_xdata()), max(each.get_xdata())] for each in lines]


def test_the_numbers_drawn_are_those_of_the_result() -> None:
    found = drawn(*PAIR, samples=HELD)
    assert artist(found["success"], "success-task-0").get_width() == 100
    assert artist(found["success"], "success-task-1").get_width() == 75
    assert artist(found["throughput"], "throughput-0").get_width() == pytest.approx(101)
    assert artist(found["failures"], "failures-3-1").get_width() == 25
    assert list(artist(found["latency"], "latency-task-0").get_xdata()) == [23, 101, 1009]
    assert list(artist(found["memory"], "memory-0-0").get_ydata()) == [0, 7, 3, 2]
    assert list(artist(found["memory"], "memory-0-0").get_xdata()) == [0, 0.02, 0.04, 0.06]
    assert list(artist(found["memory"], "memory-0-1").get_ydata()) == [5, 5, 5, 5]


def test_numbers_and_their_counts_are_written_beside_the_bars() -> None:
    found = drawn(*PAIR, samples=HELD)
    assert {"100% of 101", "75.0% of 100", "kmalloc", "kmalloc_nolock"} <= texts(found["success"])
    assert {"25 of 100 (25.0%)", "zone_busy"} <= texts(found["failures"])
    assert "pcp_busy" not in texts(found["failures"])
    assert row_of(found["failures"], "kmalloc_nolock", "task", "zone_busy")["share"] == "25.0%"
    assert {"23 / 101 of 14", "23 / 101 of 10"} <= texts(found["latency"])
    assert any("4 samples a line, one every 20 ms" in said for said in found["memory"].said)


def test_a_percentile_curve_is_drawn_over_decades_of_the_rest() -> None:
    timed = cell("kmalloc", 7 * 5000)
    line = artist(drawn(timed)["percentiles"], "percentiles-0-0")
    assert list(line.get_ydata()) == [ns for _, ns in CURVE]
    # 0, p50, p90, p99, p99.9, and the longest of 5,000 where half of a 5,000th is left
    assert list(line.get_xdata()) == pytest.approx([0, 0.30103, 1, 2, 3, 4])
    numbers = row_of(drawn(timed)["percentiles"], "kmalloc", "task")
    assert (numbers["timed"], numbers["shortest, ns"], numbers["longest, ns"]) == ("5,000", "11", "2,003")
    # of 5,000 the ranks 49.3 to 50.7 % are between 0.4861 and 0.5139
    assert numbers["p50, ns"] == "23 (23 to 24)"
    assert numbers["p99.99, ns"] == "-"


def test_an_old_result_has_the_curve_that_there_is_of_it() -> None:
    old = cell("kmalloc", 7 * 5000)
    del old["contexts"]["task"]["latency_curve"]
    for key in ("numa", "counters", "interrupts", "seconds"):
        del old[key]
    found = drawn(old)
    line = artist(found["percentiles"], "percentiles-0-0")
    assert list(line.get_ydata()) == [23, 101, 1009, 2003]
    assert any("older than whole ones" in said for said in found["percentiles"].said)
    assert not any("Bands" in said for said in found["percentiles"].said)
    assert "latency" in found
    for drawing in found.values():
        assert all(panel.svg for panel in drawing.panels)


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield key
            yield from _names(part)
    elif isinstance(value, list):
        for part in value:
            yield from _names(part)


def _without(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(name, part) for key, part in value.items() if key != name}
    return [_without(name, part) for part in value] if isinstance(value, list) else value


def test_whatever_an_older_result_lacks_the_rest_is_drawn() -> None:
    whole = of_nodes()[0]
    whole["interrupts"]["nmi"] |= {"sent": 110, "handled": 100, "in_allocator": 30, "in_slow_path": 20}
    whole["failures"]["zone_busy"] = 3
    whole["windows"] = [window(9, 1, 90e6, 20.0), window(10, 0, 120e6, 30.0)]
    for part in ("memory_per_node", "events"):
        del whole["numa"][part]
    unread = {*whole["counters"], *(name for name in whole["failures"] if name != "zone_busy")}
    names = [
        name for name in dict.fromkeys(_names(whole)) if name not in {"id", "allocs", "contexts", *unread}
    ]
    assert {"latency_curve", "windows", "p50", "design", "seconds", "allocs_from", "interrupts"} <= set(names)
    for name in names:
        older = complete({"cells": [_without(name, whole)], "machine": {}, "config": {}, "name": "x"})
        found = sections.sections([Loaded(Path("nowhere"), "x", older)], ORDER)
        assert "throughput" in {each.id for each in found} or name == "throughput_ops_s", name


def test_spread_is_over_windows_and_says_so() -> None:
    made = cell("kmalloc", 100)
    made["windows"] = [window(9, 1, 90e6, 20.0), window(10, 0, 120e6, 30.0), window(7, 3, 100e6, 25.0)]
    found = drawn(made, cell("kmalloc_nolock", 100))
    assert any("least and most of 3 windows" in said for said in found["throughput"].said)
    assert whiskers(found["throughput"]) == [[90, 120]]
    assert [70, 100] in [[round(each, 6) for each in pair] for pair in whiskers(found["success"])]
    assert row_of(found["success"], "kmalloc", "task")["least to most"] == "70.0% to 100%"
    assert row_of(found["percentiles"], "kmalloc", "task")["p50, least to most"] == "20 to 30"
    assert row_of(found["percentiles"], "kmalloc", "task")["p99, least to most"] == "80 to 120"
    axes = found["percentiles"].panels[0].figure.axes[0]
    upright = [sorted(each.get_ydata()) for each in axes.lines if len({*each.get_xdata()}) == 1]
    assert [pair for pair in upright if len(pair) == 2] == [[20, 30], [80, 120]]
    assert row_of(found["throughput"], "kmalloc")["of"] == "3 windows"


def test_spread_is_over_repeats_where_there_are_any() -> None:
    made = cell("kmalloc", 100)
    made["windows"] = [window(9, 1, 90e6, 20.0), window(10, 0, 120e6, 30.0)]
    made["repeats"] = [{"throughput_ops_s": speed} for speed in (97e6, 101e6, 103e6)]
    found = drawn(made)
    assert row_of(found["throughput"], "kmalloc")["least to most"] == "97,000,000 to 103,000,000"
    assert any("3 repeats" in said for said in found["throughput"].said)


def test_without_windows_the_spread_is_over_parts_of_the_samples() -> None:
    made = cell("kmalloc", 100)
    ops = [0, *range(100, 2100, 100), *range(2200, 6200, 200)]
    taken = [Sample(at * 0.1, 0, done, 0, 0, 0) for at, done in enumerate([*ops, ops[-1] + 1, ops[-1] + 1])]
    found = drawn(made, samples={made["id"]: taken})
    numbers = row_of(found["throughput"], "kmalloc")
    assert (numbers["least to most"], numbers["of"]) == ("1,000 to 2,000", "10 parts")
    over_time = artist(found["throughput-over-time"], "throughput-over-time-0-0").get_ydata() * 1e6
    # neither the sample in which CPUs finished nor those after it pull the end down
    assert over_time.min() == pytest.approx(1000)
    assert over_time.max() == pytest.approx(2000)


def test_an_interval_by_wilson_is_right() -> None:
    made = cell("kmalloc", 9, 1)
    # by the formula, with pencil and paper: (0.9 + z2/20 -+ z sqrt(0.09/10 + z2/400)) / (1 + z2/10)
    assert row_of(drawn(made)["success"], "kmalloc", "task")["95 % (Wilson)"] == "59.6% to 98.2%"
    assert whiskers(drawn(made)["success"])[0] == pytest.approx([59.585, 98.212], abs=1e-3)


def test_interrupts_are_told_by_what_they_came_upon() -> None:
    made = cell("kmalloc", 100)
    made["interrupts"]["nmi"] |= {"sent": 110, "handled": 100, "in_allocator": 30, "in_slow_path": 20}
    found = drawn(made)["interrupts"]
    assert [artist(found, f"interrupts-nmi-{at}-0").get_width() for at in range(3)] == [20, 10, 70]
    assert "30.0% / 20.0% of 100, 110 sent" in texts(found)
    assert row_of(found, "kmalloc", "NMI")["handled a second"] == "50"


def test_a_number_that_is_swept_makes_lines() -> None:
    cells = [
        cell(design, served, 100 - served, **{"workload.remote": share})
        for design, step in (("kmalloc", 10), ("kmalloc_nolock", 20))
        for share, served in ((0.0, 100), (0.5, 100 - step), (1.0, 100 - 2 * step))
    ]
    assert grid(*cells).sweep == "workload.remote"
    found = drawn(*cells, samples={each["id"]: samples(1, 2) for each in cells})
    line = artist(found["success"], "success-task-1-1")
    assert list(line.get_xdata()) == [0, 0.5, 1]
    assert list(line.get_ydata()) == [100, 80, 60]
    assert list(artist(found["latency"], "latency-task-0-0-p99").get_ydata()) == [101] * 3
    titles = [panel.figure.axes[0].get_title(loc="left") for panel in found["memory"].panels]
    assert titles == ["remote = 0.0", "remote = 0.5", "remote = 1.0"]
    assert [entry.label for entry in found["memory"].legend] == ["kmalloc", "kmalloc_nolock"]
    assert found["memory"].legend == found["success"].legend  # one look, in all figures


def test_nodes_have_a_figure_in_which_what_is_modelled_says_so() -> None:
    cells = of_nodes()
    found = drawn(*cells)["numa"]
    for name, wanted in (("mismatch", 0), ("slow_path", 81), ("elsewhere", 25), ("remote", 12.5)):
        assert artist(found, f"numa-{name}-1").get_width() == pytest.approx(wanted)
    assert artist(found, "numa-modelled-0").get_width() == 120
    assert found.panels[-1].figure.axes[0].get_title(loc="left") == "MODELLED, not measured"
    for made in cells:
        made["numa"]["modelled_ns"] = {"per_alloc": None, "if_all_local": None}
    found = drawn(*copy.deepcopy(cells))["numa"]
    assert not any("model" in text.lower() for text in (*texts(found), *found.said))


def test_files_are_svg_that_name_run_and_designs(tmp_path: Path) -> None:
    files = plots.draw(loaded(*PAIR, samples=HELD, folder=tmp_path), ORDER)
    names = {"success", "latency", "percentiles", "throughput", "throughput-over-time", "memory", "failures"}
    assert {path.name for path in files} == {f"{name}.svg" for name in names}
    assert set(files) == set((tmp_path / "plots").iterdir())
    for path in files:
        root = ET.parse(path).getroot()
        assert root.tag == f"{SVG}svg"
        said = {"".join(each.itertext()) for each in root.iter(f"{SVG}text")}
        assert any("seed 23" in text for text in said)
        assert "kmalloc_nolock" in said
        ids = [each.get("id") for each in root.iter() if each.get("id")]
        assert len(ids) == len(set(ids))
        assert "#f1e0" not in path.read_text()  # a stand-in is no colour


def test_the_same_numbers_give_the_same_bytes(tmp_path: Path) -> None:
    first = plots.draw(loaded(*copy.deepcopy(PAIR), samples=HELD, folder=tmp_path / "a"), ORDER)
    second = plots.draw(loaded(*copy.deepcopy(PAIR), samples=HELD, folder=tmp_path / "b"), ORDER)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_page_and_files_share_what_was_drawn(tmp_path: Path) -> None:
    one = loaded(*PAIR, samples=HELD, folder=tmp_path)
    plots.draw(one, ORDER)
    before = plots.drawings([one], ORDER)
    assert sections.sections([one], ORDER)
    assert plots.drawings([one], ORDER) is before
    assert plots.drawings([loaded(*copy.deepcopy(PAIR))], ORDER) is not before


def test_of_one_cell_only_what_says_something_is_drawn() -> None:
    lone = cell("kmalloc", 99, 1)
    found = drawn(lone, samples={lone["id"]: samples(1, 2)})
    assert set(found) == {"success", "percentiles", "throughput", "memory", "failures"}


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    idle = loaded({**blank_cell(WORDS), "id": "script"}, folder=tmp_path)
    assert plots.draw(idle, ORDER) == []
    assert sections.sections([idle], ORDER) == []
    assert not (tmp_path / "plots").exists()
    assert plots.draw(loaded(*PAIR, folder=tmp_path, engine="script"), ORDER) == []
    well = drawn(cell("kmalloc", 101), cell("kmalloc_nolock", 101))
    assert set(well) == {"success", "latency", "percentiles", "throughput"}


def test_what_a_figure_leaves_out_is_said() -> None:
    many = [cell("kmalloc", 101, 1, name=f"n{at}") for at in range(MOST_ROWS + 30)]
    found = drawn(*many, samples={made["id"]: samples(1, 2) for made in many})
    for name in ("success", "throughput", "latency", "failures"):
        cut = f"{MOST_ROWS} of {MOST_ROWS + 30} cells; the table has all of them."
        assert cut in found[name].said, name
        if found[name].numbers is not None:
            assert len(found[name].numbers.rows) == MOST_ROWS + 30
    assert "The first 12 of 13 panels." in found["memory"].said
    assert not any(
        "The first" in said or " cells; the table" in said
        for each in drawn(*PAIR).values()
        for said in each.said
    )


def test_cells_that_belong_to_no_other_share_panels_and_differ_in_look() -> None:
    cells = [cell("kmalloc", 101, broken=f"k{at:02d}") for at in range(7)]
    found = drawn(*cells, samples={made["id"]: samples(1, 2) for made in cells})["memory"]
    titles = [panel.figure.axes[0].get_title(loc="left") for panel in found.panels]
    assert titles == ["cells 1 to 6", "cells 7 to 7"]
    looks = {(entry.colour, entry.dash, entry.marker) for entry in found.legend}
    assert len(looks) == len(found.legend) == 7


def test_runs_side_by_side_are_lines_of_one_panel() -> None:
    runs = [loaded(*copy.deepcopy(PAIR), samples=HELD, label=label) for label in ("before", "after")]
    found = plots.drawings(runs, ORDER)
    (panel,) = found["memory"].panels
    names = [entry.label for entry in found["memory"].legend]
    assert names == ["before: kmalloc", "before: kmalloc_nolock", "after: kmalloc", "after: kmalloc_nolock"]
    assert len({(entry.colour, entry.dash) for entry in found["memory"].legend}) == 4
    assert {"before: kmalloc", "after: kmalloc"} <= texts(found["success"])
    assert len(panel.titles) == 4


def test_runs_of_one_name_are_told_apart() -> None:
    runs = [loaded(*copy.deepcopy(PAIR)) for _ in range(2)]
    assert {"many: kmalloc", "many (2): kmalloc"} <= texts(plots.drawings(runs, ORDER)["success"])


def test_a_design_keeps_its_colour_whatever_it_is_beside() -> None:
    alone = grid(cell("kmalloc_nolock", 7))
    assert alone.rows[0].colour == grid(*PAIR).rows[1].colour == ORDER.index("kmalloc_nolock")


def test_handlers_of_another_design_are_named() -> None:
    made = copy.deepcopy(PAIR[0])
    made["contexts"]["nmi"] = copy.deepcopy(made["contexts"]["task"])
    made["designs"] = {"kmalloc": {"task": {}}, "kmalloc_nolock": {"nmi": {}}}
    found = drawn(made)
    said = "In nmi, cells of kmalloc are served by kmalloc_nolock."
    assert said in found["success"].said
    assert said in found["percentiles"].said
    assert row_of(found["success"], "kmalloc", "nmi")["design"] == "kmalloc_nolock"


def test_a_run_leaves_its_plots_unless_told_not_to(tmp_path: Path) -> None:
    path = running.config(tmp_path, 'design = ["kmalloc", "kmalloc_nolock"]\n' + running.SMALL)
    done = running.run("run", path, "--no-progress", "--out", tmp_path / "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {"success.svg", "memory.svg"} <= {found.name for found in (tmp_path / "out/plots").iterdir()}
    assert "<svg" in (tmp_path / "out/report.html").read_text()
    done = running.run("run", path, "--no-plots", "--no-progress", "--out", tmp_path / "bare", cwd=tmp_path)
    assert done.returncode == 0
    assert not (tmp_path / "bare/plots").exists()
    assert "<svg" not in (tmp_path / "bare/report.html").read_text()
    assert 'id="figure-success"' in (tmp_path / "bare/report.html").read_text()


def test_nobody_imports_matplotlib_before_there_is_something_to_draw() -> None:
    code = (
        "import sys, harness.cli, harness.cpu_process, harness.runs, harness.plots.sections; "
        "print('matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_samples_are_few_however_long_a_run_is() -> None:
    with Arena.create(size="16MiB") as arena:
        sampler = Sampler(arena)
        sampler.peak_bytes = 23 * _MIB
        for _ in range(5 * MOST_SAMPLES):
            sampler.tick(SAMPLE_PERIOD_S)
        assert MOST_SAMPLES // 2 < len(sampler.samples) <= MOST_SAMPLES
        assert sampler.period_s == 8 * SAMPLE_PERIOD_S
        assert sampler.peak_bytes == 23 * _MIB  # a look that was dropped since counts
        steps = [b.t_s - a.t_s for a, b in zip(sampler.samples, sampler.samples[1:], strict=False)]
        assert min(steps) == pytest.approx(sampler.period_s, abs=1e-3)
        del sampler


def test_of_many_cells_whole_groups_are_shown_and_failures_are_not_lost() -> None:
    cells = [
        cell(design, 101, **{"workload.kind": f"k{at}"}) for design in ORDER[:2] for at in range(MOST_ROWS)
    ]
    cells[-1]["failures"]["zone_busy"] = 3
    shown = grid(*cells).shown
    assert [row.design for row in shown[:4]] == ["kmalloc", "kmalloc_nolock"] * 2
    assert len(shown) == MOST_ROWS
    (bar,) = drawn(*cells)["failures"].panels[0].titles.values()
    assert bar == f"kmalloc_nolock, kind = k{MOST_ROWS - 1}, zone_busy: 3 of 104 requests"


def test_more_lines_than_anybody_can_follow_are_rows() -> None:
    few, many = (
        [
            cell("kmalloc", 101, seed=seed, **{"workload.slots": at})
            for seed in range(number)
            for at in (11, 23, 37)
        ]
        for number in (16, 17)
    )
    assert grid(*few).sweep == "workload.slots"
    assert grid(*many).sweep == ""
