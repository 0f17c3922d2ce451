"""An atlas in the terminal: letters, numbers, and what is wrong with the line that replays it."""

import io
import json
import re
from pathlib import Path
from typing import Any

import atlas_sample
import pytest
import running
from rich.console import Console, RenderableType

from harness import report
from harness.atlas import outcome_names, stacked, text
from harness.verdicts import entry as entry_of

DOCUMENT = atlas_sample.atlas()
RUN = atlas_sample.run(DOCUMENT)


def printed(*parts: RenderableType, width: int = 150) -> str:
    buffer = io.StringIO()
    console = Console(file=buffer, width=width, color_system=None)
    for part in parts:
        console.print(part)
    return buffer.getvalue()


def shown(run: dict[str, Any] = RUN, width: int = 150) -> str:
    return printed(*text.parts(run), width=width)


def test_the_first_lines_are_the_talks_argument() -> None:
    lines = shown().splitlines()
    for line, cell in zip(lines, RUN["cells"], strict=False):
        atlas = cell["atlas"]
        assert line.startswith(cell["id"])
        assert (
            f"{atlas['deadlock_points']} of {atlas['instructions']} instructions are deadlock points" in line
        )
        assert f"{atlas['points']:,} of {atlas['points']:,} injections" in line
    assert RUN["cells"][0]["atlas"]["deadlock_points"] > 100


def test_levels_are_rows_and_who_arrives_in_whom_is_a_column() -> None:
    lines = shown().splitlines()
    at = next(number for number, line in enumerate(lines) if re.match(r" level +in kmalloc ", line))
    assert lines[at - 1].split() == [
        "kmalloc",
        "deadlock",
        "kmalloc_nolock",
        "deadlock",
        "try_kmalloc",
        "deadlock",
    ]
    names = [re.split(r"  +", line.strip())[0] for line in lines[at + 2 :]]
    assert tuple(names[: len(atlas_sample.LEVELS)]) == atlas_sample.LEVELS
    column = stacked.columns(RUN["cells"])[0]
    (row,) = [line for line in lines[at:] if line.startswith(" __rmqueue ")][:1]
    numbers = column.level("__rmqueue")
    assert numbers is not None
    assert f"{numbers['deadlock_points']} of {numbers['instructions']}" in row
    assert re.search(r"s*D{5,} ", row), "a bar is made of letters"


@pytest.mark.parametrize("width", [60, 80, 120, 250])
def test_every_width_shows_every_column(width: int) -> None:
    said = shown(width=width)
    assert max(map(len, said.splitlines())) <= width
    tables = sum(line.split()[:2] == ["all", "levels"] for line in said.splitlines())
    side_by_side = said.splitlines()[_header(said)].count("in ")
    groups = stacked.groups(stacked.columns(RUN["cells"]))
    assert [len(group) for _, group in groups] == [5, 1, 2]
    assert groups[-1][0] == stacked.BROKEN
    assert tables == sum(-(-len(group) // side_by_side) for _, group in groups[:-1])


def _header(said: str) -> int:
    return next(number for number, line in enumerate(said.splitlines()) if line.startswith(" level"))


def test_the_interrupted_design_of_the_slides_comes_first_and_broken_ones_last() -> None:
    lines = [column.line for column in stacked.columns(RUN["cells"])]
    assert lines == [
        "kmalloc in kmalloc",
        "kmalloc_nolock in kmalloc",
        "try_kmalloc in kmalloc",
        "kmalloc_nolock in kmalloc_nolock",
        "try_kmalloc in try_kmalloc",
        "objpool in objpool",
        "kmalloc_nolock in kmalloc, broken: no_tid, all handlers",
        "kmalloc_nolock in kmalloc_nolock, broken: no_tid, all handlers",
    ]


def test_a_cell_without_the_asked_handler_is_shown_with_all_and_says_so() -> None:
    cell = atlas_sample.cell("objpool")
    pictures = [each for each in cell["atlas"]["pictures"] if each["handler"] != "alloc_same"]
    cell["atlas"]["pictures"] = pictures
    run = atlas_sample.run(atlas_sample.atlas(cell))
    assert [column.line for column in stacked.columns(run["cells"])] == ["objpool in objpool, all handlers"]
    assert "it allocates" not in shown(run)


def test_bars_show_all_that_happened_and_are_as_long_as_asked() -> None:
    assert stacked.shares({}, 20) == []
    assert stacked.shares({"ok": 0}, 20) == []
    assert stacked.shares({"deadlock": 1, "ok": 999_999}, 20) == [("ok", 19), ("deadlock", 1)]
    for width in (7, 20, 23):
        made = stacked.shares({"ok": 1, "deferred": 1, "null:pcp_busy": 1, "deadlock": 101}, width)
        assert sum(parts for _, parts in made) == width
        assert [name for name, _ in made] == ["ok", "deferred", "null:pcp_busy", "deadlock"]


def test_what_is_wrong_has_its_replay_and_the_rest_is_counted() -> None:
    said = shown(width=300)
    broken = next(cell for cell in RUN["cells"] if cell["atlas"]["red"])
    (entry,) = broken["atlas"]["red"]
    offset = entry["symbol"].rpartition("+")[2]
    assert f"  corruption in __slab_alloc_node: 1 instruction, +{offset} ({entry['source']})\n" in said
    assert f"    {entry['replay']}\n" in said
    cell = {
        **RUN["cells"][0],
        "violations": [entry_of("deadlock", "atlas", "a lock (23 injections, the first: X)")],
    }
    run = {**RUN, "cells": [cell]}
    assert f"{cell['id']}: a lock (23 injections, the first: X)\n" in shown(run)
    assert report.text(run).count("the first: X") == 1, "not once more as other engines do"


def test_what_else_goes_wrong_where_nothing_is_promised_is_counted() -> None:
    cell = atlas_sample.cell("kmalloc")
    first, second = cell["atlas"]["deadlocks"][:2]
    cell["atlas"]["unpromised"] = [{**each, "verdict": "lost_memory"} for each in (first, first, second)]
    run = atlas_sample.run(atlas_sample.atlas(cell))
    assert "instructions are deadlock points, lost memory at 2 more  (" in shown(run)


def test_levels_are_in_the_order_of_the_stack_whatever_the_first_column_reached() -> None:
    def column(*names: str) -> stacked.Column:
        return stacked.Column({}, {"levels": [{"level": name} for name in names]})

    columns = [column("kmalloc", "__rmqueue"), column("alloc_pages", "no level at all", "(call)")]
    assert stacked.levels(columns) == ["kmalloc", "alloc_pages", "__rmqueue", "(call)", "no level at all"]


def test_points_are_summed_up_by_function() -> None:
    at = [
        ("f+0x10", "a.c:3", 0x110),
        ("f+0x8", "a.c:2", 0x108),
        ("f+0x10", "a.c:3", 0x110),
        ("g+0x0", "b.c:1", 0x200),
    ]
    points = [
        {"symbol": symbol, "source": source, "address": address, "occurrence": number, "verdict": "deadlock"}
        for number, (symbol, source, address) in enumerate(at, 1)
    ]
    first, second = stacked.spots(points)
    assert (first.function, first.instructions, first.where) == ("f", 2, "+0x8 (a.c:2) to +0x10 (a.c:3)")
    assert (second.function, second.instructions, second.where) == ("g", 1, "+0x0 (b.c:1)")


def test_a_run_of_broken_ones_only_shows_their_picture() -> None:
    run = atlas_sample.run(atlas_sample.atlas(atlas_sample.cell("kmalloc_nolock", "no_tid")))
    assert stacked.BROKEN in shown(run) and stacked.BROKEN not in shown()


def test_what_was_not_covered_is_red() -> None:
    run = atlas_sample.run(atlas_sample.atlas(atlas_sample.cell("objpool")))
    run["cells"][0]["atlas"]["covered"] -= 1
    points = run["cells"][0]["atlas"]["points"]
    assert f"{points - 1:,} of {points:,} injections" in shown(run)
    assert "all  " not in shown(run).split("covered")[1].splitlines()[2]


def test_two_interrupts_and_accesses_are_told() -> None:
    atlas = atlas_sample.cell("objpool")["atlas"]
    pairs, nested, accesses = stacked.beyond(atlas)
    assert pairs == (
        "nmi, then nmi: 2,003 of 2,003 injections in 1 scenario, each before any access to shared memory: "
        "NULL (pcp_busy) 3, success 2000",
        True,
    )
    assert (
        nested[0].startswith("nmi in nmi (stronger than hardware): 101 of 101 injections") and not nested[1]
    )
    assert accesses[0].endswith("(307 points in 3 scenarios) find the same outcomes") and accesses[1]
    atlas["accesses"] |= {
        "outcomes_equal": False,
        "states_equal": False,
        "only_instructions": ["null:zone_busy"],
    }
    *_, (said, good) = stacked.beyond(atlas)
    assert (
        "not the same outcomes (only at other instructions: NULL (zone_busy)), not all of the states" in said
    )
    assert not good
    assert list(stacked.beyond({"pairs": None, "accesses": None})) == []


def test_a_path_that_was_not_taken_says_what_should_have_been() -> None:
    path = {
        "alloc_refill": {"condition": "== 1", "measured": 1, "holds": True},
        "new_slab": {"condition": ">= 2", "measured": 0, "holds": False},
    }
    assert stacked.path({"path": path}) == "alloc_refill 1, new_slab 0 (should be >= 2)"


def test_a_functions_map_has_a_row_for_each_instruction() -> None:
    cell = DOCUMENT["cells"][0]
    function = next(each for each in cell["functions"] if each["name"] == "rmqueue_bulk")
    lines = {function["file"]: [f"\tline_{number}();" for number in range(1, 103)]}
    said = printed(*text.function_map(cell, "rmqueue_bulk", lines))
    for row in function["instructions"]:
        letter = outcome_names.look(outcome_names.worst(row["outcomes"])).letter if row["points"] else ""
        columns = (letter, f"{row['address']:x}", stacked.counts(row["outcomes"]), row["text"])
        assert re.search("^ *" + " *".join(map(re.escape, columns)), said, re.M)
    executed = [row for row in function["instructions"] if row["points"]]
    assert f"{len(executed)} of {len(function['instructions'])} instructions executed" in said
    assert f"{function['file']}:101  line_101();  [rmqueue_bulk]" in said
    assert f"{function['file']}:103  [rmqueue_bulk]" in said, "no text beyond the end of what is there"
    with pytest.raises(KeyError):
        list(text.function_map(cell, "never_executed"))


def test_functions_are_listed_the_worst_first() -> None:
    cell = DOCUMENT["cells"][0]
    rows = [line.split() for line in printed(text.functions(cell)).splitlines()[3:] if line.strip()]
    assert len(rows) == len(cell["functions"])
    is_deadlock = ["deadlock" in row for row in rows]
    assert any(is_deadlock) and is_deadlock == sorted(is_deadlock, reverse=True)


def test_the_map_of_a_run_in_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "atlas.json").write_text(json.dumps(DOCUMENT))
    listed = running.run("map", tmp_path, cwd=tmp_path)
    assert listed.returncode == 0 and "rmqueue_bulk" in listed.stdout
    shown = running.run("map", tmp_path, "new_slab", "--cell", "design=objpool", cwd=tmp_path)
    assert shown.returncode == 0 and shown.stdout.startswith("new_slab (")
    assert "design=objpool" in shown.stdout
    for wrong in (("nowhere",), ("new_slab", "--cell", "no such cell")):
        done = running.run("map", tmp_path, *wrong, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "") and "allowed" in done.stderr
    (tmp_path / "atlas.json").write_text("{}")
    assert running.run("map", tmp_path, cwd=tmp_path).returncode == 2


def test_hostile_names_are_text_and_no_markup() -> None:
    cell = atlas_sample.cell("objpool")
    cell["functions"][0] |= {"name": "[bold]f", "file": "[/]"}
    cell["functions"][0]["instructions"][0]["text"] = "mov [red]rax[/red]"
    said = printed(*text.function_map(cell, "[bold]f"))
    assert "[bold]f ([/])" in said
    assert "mov [red]rax[/red]" in said


def test_a_run_of_the_atlas_is_reported_with_its_picture() -> None:
    said = report.text(RUN)
    assert said.splitlines()[0] == "sample: passed, verdict ok, 5 cells"
    assert "instructions are deadlock points" in said and "__rmqueue" in said
    assert "allocs" not in said, "the tables of other engines"
