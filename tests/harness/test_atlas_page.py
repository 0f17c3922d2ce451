# SPDX-License-Identifier: MIT
"""The atlas in a report: well-formed, and its data are the atlas's, whatever names there are in it."""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import atlas_sample
import colours
import pytest
import running
from html_page import Page

import shmalloc
from harness import report_page
from harness.atlas import outcome_names, page, sources, stacked
from harness.atlas.page import data
from harness.atlas.picture import ALL
from harness.page import Loaded, complete
from shmalloc import _binding

DOCUMENT = atlas_sample.atlas()
RUN = atlas_sample.run(DOCUMENT)


def report(run: dict[str, Any], document: dict[str, Any] | None) -> str:
    return report_page.html([Loaded(Path(), "sample", complete(run), {}, document)], ())


HTML = report(RUN, DOCUMENT)
PAGE = Page(HTML)
assert "could not be made" not in HTML


def packed(found: Page) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(found.unpacked(page.DATA))
    return data


DATA = packed(PAGE)


def plain(html: str) -> str:
    """A page without its data."""
    return re.sub(r'(<script type="application/.*?>).*?(</script>)', r"\1\2", html, flags=re.S)


def test_elements_are_nested_and_ids_are_unique() -> None:
    ids = Counter(found["id"] for _, found in PAGE.elements if "id" in found)
    assert set(ids.values()) == {1}
    for needed in (
        "atlas",
        "atlas-figure-1",
        "atlas-swept",
        "atlas-map",
        "atlas-wrong",
        "atlas-data",
    ):
        assert needed in ids
    targets = {found["href"] for _, found in PAGE.elements if "href" in found}
    assert {target for target in targets if target and target.startswith("#")} <= {f"#{name}" for name in ids}


def test_nothing_is_loaded_from_anywhere() -> None:
    found = plain(HTML)
    for outside in (
        "http:",
        "https:",
        "//www",
        "src=",
        "url(",
        "@import",
        "<link",
        "import(",
        "fetch(",
        "XMLHttp",
    ):
        assert outside not in found, outside
    (policy,) = [found["content"] for tag, found in PAGE.elements if "http-equiv" in found]
    assert policy is not None and policy.startswith("default-src 'none'")


def test_every_id_that_the_script_asks_for_is_there() -> None:
    script = PAGE.text(PAGE.all("script")[-1])
    asked = {f"atlas-{name}" for name in re.findall(r'byId\("([^"]+)"\)', script)}
    assert {"atlas-cell", "atlas-level", "atlas-points"} <= asked
    assert asked <= {found.get("id") for _, found in PAGE.elements}
    assert "innerHTML" not in script and "document.write" not in script and "eval(" not in script


def test_the_data_are_those_of_the_atlas() -> None:
    unpacked = data.unpack(DATA)
    for cell, found in zip(DOCUMENT["cells"], unpacked, strict=True):
        assert found["functions"] == cell["functions"]
        for kind in ("red", "deadlocks", "unpromised"):
            said = [{**point, "text": stacked.why(point)} for point in cell["atlas"][kind]]
            assert found[kind] == said
        (nested,) = found["pairs"]
        (entry,) = cell["atlas"]["pairs"]["nested"]["red"]
        assert nested["replay"] == entry["replay"] and nested["text"] == "a page is nowhere"
        row = atlas_sample.code()["__slab_alloc_node"][3]
        assert nested["source"] == f"{row['file']}:{row['line']}"
        assert nested["symbol"].startswith("__slab_alloc_node+0x")


def test_cells_of_one_build_share_their_disassembly() -> None:
    executed = {
        row["address"]
        for cell in DOCUMENT["cells"]
        for each in cell["functions"]
        for row in each["instructions"]
    }
    assert len(DATA["code"]) == len(executed)
    assert len(set(DATA["strings"])) == len(DATA["strings"])


def test_source_lines_go_along_where_there_are_any() -> None:
    rows = [row for each in DOCUMENT["cells"][0]["functions"] for row in each["instructions"]]
    file = next(row["file"] for row in rows if row["file"] != "made_up.c")
    wanted = {row["line"] for row in rows if row["file"] == file}
    lines = {file: [f"\tline_{number}();" for number in range(1, max(wanted))], "other.c": ["nothing"]}
    made = data.pack([(DOCUMENT["cells"][0], lines), (DOCUMENT["cells"][1], {})])
    shown = {(made["strings"][row[2]], row[3], made["strings"][row[6]]) for row in made["code"]}
    assert {each for each in shown if each[2]} == {
        (file, line, f"line_{line}();") for line in wanted - {max(wanted)}
    }
    assert {DATA["strings"][row[6]] for row in DATA["code"]} == {""}


def test_sources_are_those_of_the_binary_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path(__file__).parents[2]
    monkeypatch.setattr(shmalloc, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.chdir(tmp_path)
    assert sources.find() == {}
    monkeypatch.chdir(here)
    found = sources.find()
    assert found["slub.c"] == (here / "shmalloc/core/slub.c").read_text().splitlines()
    shutil.copytree(here / "shmalloc/core", tmp_path / "core")
    (tmp_path / "core/slub.c").write_text("other")
    monkeypatch.chdir(tmp_path)
    assert sources.find() == {}


def test_every_outcome_has_a_look_and_a_style() -> None:
    names = [DATA["strings"][look[0]] for look in DATA["looks"]]
    assert names == outcome_names.sort(data.outcomes_of(DOCUMENT["cells"]))
    (style,) = [PAGE.text(at) for at in PAGE.all("style") if "--hatch" in PAGE.text(at)]
    for _, css, letter, said in DATA["looks"]:
        assert style.count(f"{css}{{--c:") == 2, "light and dark"
        assert letter and said


def test_letters_are_read_on_their_colours() -> None:
    inks = re.findall(r"--c:(#\w{6});--t:#(000|fff)", HTML)
    assert len(inks) == 2 * len(DATA["looks"]) and {ink for _, ink in inks} == {"000", "fff"}
    for ground, ink in inks:
        assert colours.contrast(ground, f"#{ink * 2}") >= 4.5, ground


def test_every_figure_has_its_table_and_the_counts_add_up() -> None:
    columns = [
        column
        for handler in ("alloc_same", ALL)
        for name, group in stacked.groups(stacked.columns(RUN["cells"], handler))
        for column in group
        if (name, handler) != (stacked.BROKEN, ALL)
    ]
    figures = PAGE.all("figure")
    assert len(figures) == 5, "two groups for the same size and for all handlers, one for what is broken"
    tables = [_tables(at) for at in figures]
    assert [len(found) for found in tables] == [3] * len(figures), "the picture, instructions, injections"
    for number, key in ((1, "instructions"), (2, "points")):
        rows = [row for found in tables for row in found[number][1:]]
        totals = [row for row in rows if row[1] == "all levels"]
        assert [row[0] for row in totals] == [column.line for column in columns]
        for row, column in zip(totals, columns, strict=True):
            counts = [int(text.replace(",", "")) for text in row[2:]]
            assert counts[:2] == [column.picture[key], column.picture["deadlock_points"]]
            assert sum(counts[2:]) == counts[0]
    (legend, *_) = PAGE.all("ul", **{"class": "legend"})
    assert "zone_busy" in PAGE.text(legend) and "deadlock" in PAGE.text(legend)
    letters = [PAGE.text(at) for at in PAGE.inside(legend, "i") if PAGE.text(at)]
    assert len(set(letters)) == len(letters), "what looks alike is named once"


def _tables(figure: int) -> list[list[list[str]]]:
    """Read the tables of a figure: rows of texts."""
    parser = _Tables()
    identity = PAGE.elements[figure][1]["id"]
    found = re.search(rf'<figure id="{identity}">.*?</figure>', HTML, re.S)
    assert found
    parser.feed(found[0])
    return parser.tables


class _Tables(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self._is_cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._is_cell = True

    def handle_endtag(self, tag: str) -> None:
        self._is_cell = self._is_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._is_cell:
            self.tables[-1][-1][-1] += data


def test_it_says_how_much_was_done_and_the_number_it_is_about() -> None:
    said = PAGE.text(PAGE.find("atlas"))
    points = sum(cell["atlas"]["points"] for cell in RUN["cells"])
    assert f"{points:,} of {points:,} injections" in said
    kmalloc = RUN["cells"][0]["atlas"]
    assert (
        f"{kmalloc['deadlock_points']}of {kmalloc['instructions']} instructions are deadlock points" in said
    )
    assert "shmalloc verify" in PAGE.text(PAGE.find("atlas-swept"))


def test_injections_are_counted_where_they_are_swept_and_not_as_ops_a_second() -> None:
    timed = {**RUN, "cells": [{**cell, "throughput_ops_s": 123.0} for cell in RUN["cells"]]}
    table, *_ = Page(report(timed, DOCUMENT)).tables("cells")
    assert "cell" in table[0] and "ops/s" not in table[0]


def test_a_scenario_that_proved_nothing_is_told() -> None:
    run = atlas_sample.run(DOCUMENT)
    run["cells"][0]["atlas"]["failed"] = [{"scenario": "alloc_x", "why": "did not take its <path>"}]
    found = Page(report(run, DOCUMENT))
    assert "alloc_x: did not take its <path>" in found.text(found.find("atlas"))


def test_several_runs_each_have_their_atlas() -> None:
    one, other = (Loaded(Path(), label, complete(RUN), {}, DOCUMENT) for label in ("one", "other"))
    empty = Loaded(Path(), "none", complete({**RUN, "cells": []}))
    found = Page(report_page.html([one, empty, other], ()))
    cells = [cell["id"] for cell in packed(found)["cells"]]
    assert cells == [f"{label}: {cell['id']}" for label in ("one", "other") for cell in RUN["cells"]]
    assert len(packed(found)["code"]) == len(DATA["code"]), "one build is there once"
    (heads,) = [[found.text(at) for at in found.inside(found.find("atlas"), "h3")]]
    assert heads == ["one", "other"]
    links = {attributes["data-cell"] for _, attributes in found.elements if "data-cell" in attributes}
    assert links <= set(cells)


def test_source_lines_are_shown_only_of_the_build_that_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    assert sources.find()
    own = {**RUN, "build": {**RUN["build"], "id": _binding.core().build_id}}
    for run, has in ((own, True), (RUN, False)):
        made = packed(Page(report(run, DOCUMENT)))
        assert any(made["strings"][row[6]] for row in made["code"]) is has


def test_without_scripts_the_first_points_are_there() -> None:
    (part,) = PAGE.inside(PAGE.find("atlas-wrong"), "noscript")
    codes = [PAGE.text(at) for at in PAGE.inside(part, "code")]
    replays = [point["replay"] for point in DOCUMENT["cells"][0]["atlas"]["deadlocks"]]
    assert replays[0] in codes and len(PAGE.inside(part, "tr")) > len(DOCUMENT["cells"])


def test_a_run_without_maps_has_its_numbers() -> None:
    found = Page(report(RUN, None))
    assert "atlas-map" not in {attributes.get("id") for _, attributes in found.elements}
    assert found.tables("atlas-swept")


def test_every_scenario_is_in_a_table() -> None:
    names = [each["name"] for cell in RUN["cells"] for each in cell["atlas"]["scenarios"]]
    codes = Counter(PAGE.text(at) for at in PAGE.all("code"))
    for name, times in Counter(names).items():
        assert codes[name] >= times


def test_hostile_names_stay_text() -> None:
    cell = atlas_sample.cell("kmalloc_nolock", "no_tid")
    cell["id"] = atlas_sample.HOSTILE
    function = cell["functions"][0]
    function["name"] = function["file"] = atlas_sample.HOSTILE
    function["instructions"][0] |= {
        "text": atlas_sample.HOSTILE,
        "inlined": [atlas_sample.HOSTILE],
        "outcomes": {"<b>": 1},
    }
    cell["atlas"]["red"][0]["text"] = atlas_sample.HOSTILE
    cell["atlas"]["scenarios"][0]["name"] = atlas_sample.HOSTILE
    cell["atlas"]["pictures"][0]["levels"][0]["level"] = atlas_sample.HOSTILE
    document = atlas_sample.atlas(cell)
    run = atlas_sample.run(document)
    run["name"] = atlas_sample.HOSTILE
    found = Page(report(run, document))
    assert not found.all("img")
    assert data.unpack(packed(found))[0]["functions"] == cell["functions"]
    assert data.unpack(packed(found))[0]["red"] == cell["atlas"]["red"]
    assert atlas_sample.HOSTILE in found.text(found.find("atlas"))


def test_what_is_not_covered_is_told() -> None:
    run = atlas_sample.run(DOCUMENT)
    run["cells"][0] |= {"expected": "ok"}
    run["cells"][0]["atlas"] = {**run["cells"][0]["atlas"], "covered": 7}
    found = Page(report(run, DOCUMENT))
    (cells, *_) = found.tables("atlas-swept")
    assert cells[1][1] == "deadlock, expected ok" and cells[1][5] == "7"


def test_a_run_without_an_atlas_has_none_of_it() -> None:
    assert page.sections([Loaded(Path(), "x", complete({**RUN, "cells": []}), {}, DOCUMENT)], ()) == []


def test_points_of_a_run_may_lack_stacks() -> None:
    cell = atlas_sample.cell("kmalloc")
    for entry in cell["atlas"]["deadlocks"]:
        del entry["stacks"], entry["before"], entry["after"], entry["changed"]
    (found,) = data.unpack(data.pack([(cell, {})]))
    assert found["deadlocks"][0]["stacks"] == {"operation": [], "handler": []}


def test_style_and_script_are_installed(tmp_path: Path) -> None:
    code = "from importlib import resources as r; f = r.files('harness.atlas.page');"
    code += "print(*(len(f.joinpath(n).read_text()) for n in ('page.css', 'page.js')))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert min(map(int, done.stdout.split())) > 1000


@pytest.mark.parametrize("name", ["page.css", "page.js"])
def test_style_and_script_cannot_end_their_element(name: str) -> None:
    text = Path(page.__file__).with_name(name).read_text(encoding="utf-8")
    assert "</" not in text


def test_a_run_leaves_its_page(tmp_path: Path) -> None:
    text = 'engine = "atlas"\ndesign = "kmalloc"\n[atlas]\noperations = ["alloc_refill"]\nhandlers = ["alloc_same"]\n'
    text += '[[expect]]\nverdict = "deadlock"\n'
    out = tmp_path / "out"
    done = running.run("run", running.config(tmp_path, text), "--no-progress", "--out", out, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = Page((out / "report.html").read_text(encoding="utf-8"))
    assert not (out / "atlas.html").exists()
    document = json.loads((out / "atlas.json").read_text())
    (cell,) = document["cells"]
    (unpacked,) = data.unpack(packed(found))
    assert unpacked["functions"] == cell["functions"]
    assert [point["replay"] for point in unpacked["deadlocks"]] == [
        point["replay"] for point in cell["atlas"]["deadlocks"]
    ]
    dead, of = cell["atlas"]["deadlock_points"], cell["atlas"]["instructions"]
    assert f"{dead}of {of} instructions are deadlock points" in found.text(found.find("atlas"))
    assert f"{dead} of {of} instructions are deadlock points" in done.stdout
    assert "___slab_alloc" in done.stdout and done.stdout == done.stdout.replace("allocs", "")
    assert unpacked["deadlocks"][0]["stacks"]["handler"], "both call stacks, and what changed"
    assert unpacked["deadlocks"][0]["changed"]
