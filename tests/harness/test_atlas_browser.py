# SPDX-License-Identifier: MIT
"""The atlas's part of a report in a browser: its maps and points are made there."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atlas_sample
import browser
import pytest

from harness import report_page
from harness.atlas import outcome_names, stacked
from harness.page import Loaded, complete

DOCUMENT = atlas_sample.atlas()
CELLS = DOCUMENT["cells"]
ROWS = "#atlas-functions > .wide > table > tbody > tr.row"
POINTS = "#atlas-points > .wide > table > tbody > tr.row"
Open = Callable[..., Any]


def write(folder: Path, document: dict[str, Any]) -> Path:
    loaded = Loaded(folder, "sample", complete(atlas_sample.run(document)), {}, document)
    path = folder / "report.html"
    assert report_page.write(path, [loaded], ()) == []
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("atlas"), DOCUMENT)


@pytest.fixture
def page(open_page: Open, path: Path) -> Any:
    return ready(open_page(path))


def ready(page: Any) -> Any:
    page.locator("#atlas-cell").wait_for()
    return page


def wrong(cell: dict[str, Any]) -> list[dict[str, Any]]:
    atlas = cell["atlas"]
    pairs = ((atlas.get("pairs") or {}).get("nested") or {}).get("red", [])
    return [*atlas["red"], *atlas["unpromised"], *atlas["deadlocks"], *pairs]


def worst(row: dict[str, Any]) -> str:
    return outcome_names.worst(row["outcomes"])


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1280])
def test_it_opens(open_page: Open, path: Path, width: int, *, dark: bool) -> None:
    page = ready(open_page(path, dark=dark, width=width))
    assert page.locator("figure").count() == 5
    assert page.locator(ROWS).count() == len(CELLS[0]["functions"])
    assert browser.too_wide(page) == []
    assert bool(browser.pixels(page)[0, 0].mean() < 100) is dark
    look = outcome_names.look("ok")
    seen = browser.pixels(page.locator("#atlas-figure-1 .bar i.o-ok").first)
    middle = seen[seen.shape[0] // 2, seen.shape[1] // 2]
    assert "#{:02X}{:02X}{:02X}".format(*middle) == (look.dark if dark else look.colour)


def test_a_function_opens_and_shows_every_instruction(page: Any) -> None:
    by_name = {each["name"]: each for each in CELLS[0]["functions"]}
    row = page.locator(ROWS).first
    function = by_name[row.locator("td").first.inner_text().strip("▸▾ \xa0")]
    assert row.get_attribute("aria-expanded") == "false"
    row.click(position={"x": 5, "y": 5})
    below = page.locator("#atlas-functions tr.body").first
    shown = below.locator("tr[data-at]")
    assert [int(each) for each in shown.evaluate_all("all => all.map(e => e.dataset.at)")] == [
        each["address"] for each in function["instructions"]
    ]
    for at in (0, len(function["instructions"]) - 1):
        each = function["instructions"][at]
        text = shown.nth(at).inner_text()
        assert each["text"] in text and f"{each['address']:x}" in text
        assert all(f"{count:,}" in text for count in each["outcomes"].values())
    assert row.get_attribute("aria-expanded") == "true"
    row.press("Enter")
    assert below.is_hidden()
    row.press(" ")
    assert below.is_visible()


def test_a_part_of_a_function_leads_to_its_first_instruction(page: Any) -> None:
    parts = page.locator(ROWS).first.locator(".strip i")
    last = parts.last
    function = next(
        each
        for each in CELLS[0]["functions"]
        if each["name"] == page.locator(ROWS).first.locator("code").first.inner_text()
    )
    executed = [each for each in function["instructions"] if each["points"]]
    runs = [at for at, each in enumerate(executed) if not at or worst(executed[at - 1]) != worst(each)]
    assert parts.count() == len(runs) and len(runs) > 1
    assert int(last.get_attribute("data-address")) == executed[runs[-1]]["address"]
    assert f"+{executed[runs[-1]]['address'] - function['start']:#x}" in last.get_attribute("title")
    for _ in range(2):  # what is open stays open
        last.click()
        page.locator(f'#atlas-functions tr[data-at="{executed[runs[-1]]["address"]}"]').first.wait_for()
        box = page.locator(
            f'#atlas-functions tr[data-at="{executed[runs[-1]]["address"]}"]'
        ).first.bounding_box()
        assert 0 < box["y"] < 900


def test_an_instruction_where_something_is_wrong_opens(page: Any) -> None:
    point = CELLS[0]["atlas"]["deadlocks"][0]
    name = point["symbol"].rpartition("+")[0]
    page.locator("#atlas-name").fill(name)
    page.locator(ROWS).first.locator("td").first.click()
    page.locator(f'#atlas-functions tr.row[data-at="{point["address"]}"]').click()
    text = page.locator("#atlas-functions tr.body tr.body").inner_text()
    assert point["replay"] in text and stacked.why(point) in text
    assert point["stacks"]["operation"][0] in text and point["stacks"]["handler"][0] in text


def test_points_have_their_stacks_and_the_line_that_replays_them(page: Any) -> None:
    expected = wrong(CELLS[0])
    assert page.locator("#atlas-points > p").inner_text() == f"{CELLS[0]['id']}: {len(expected):,} points"
    while (more := page.locator("#atlas-points button")).is_visible():
        more.click()
    assert page.locator(POINTS).count() == len(expected)
    first = page.locator(POINTS).first
    assert expected[0]["replay"] in first.inner_text()
    first.locator(".copy").click()
    assert page.evaluate("() => String(getSelection())") == expected[0]["replay"]
    assert page.locator("#atlas-points tr.body").count() == 0, "copied, not opened"
    first.press("Enter")
    text = page.locator("#atlas-points tr.body").inner_text()
    for line in (*expected[0]["stacks"]["operation"], *expected[0]["changed"]):
        assert line in text


def test_filters_choose(page: Any) -> None:
    page.locator("#atlas-cell").select_option(label=CELLS[1]["id"])
    assert page.locator(ROWS).count() == len(CELLS[1]["functions"])
    outcome = worst(CELLS[1]["functions"][0]["instructions"][0])
    page.locator("#atlas-outcome").select_option(outcome)
    having = [
        each["name"]
        for each in CELLS[1]["functions"]
        if any(outcome in row["outcomes"] for row in each["instructions"])
    ]
    names = page.locator(f"{ROWS} > td:first-child code").all_inner_texts()
    assert sorted(names) == sorted(having)
    page.locator("#atlas-outcome").select_option("")
    page.locator("#atlas-name").fill("SLAB_ALLOC")
    names = page.locator(f"{ROWS} > td:first-child code").all_inner_texts()
    assert names and all("slab_alloc" in name for name in names)
    page.locator("#atlas-name").fill("nothing like it")
    said = page.locator("#atlas-functions > p").inner_text()
    assert said == f"{CELLS[1]['id']}: 0 functions (nothing like it)"


def test_the_picture_leads_to_the_map_of_its_level(page: Any) -> None:
    link = page.locator("#atlas-figure-1 a[data-level]").nth(3)
    cell, level = link.get_attribute("data-cell"), link.get_attribute("data-level")
    link.click()
    assert page.locator("#atlas-cell option:checked").inner_text() == cell
    assert page.locator("#atlas-level").input_value() == level
    assert page.locator(ROWS).count() > 0
    page.locator("#atlas .tile").nth(1).focus()
    page.keyboard.press("Enter")
    assert page.locator("#atlas-cell option:checked").inner_text() == CELLS[1]["id"]
    assert page.locator("#atlas-level").input_value() == ""


def test_on_paper_nothing_is_cut_and_controls_are_gone(page: Any) -> None:
    page.emulate_media(media="print")
    assert page.locator("#atlas-cell").is_hidden()
    assert page.locator(ROWS).first.is_visible()
    assert browser.sheets(browser.printed(page)) > 2


def test_without_scripts_there_are_the_picture_the_tables_and_the_first_points(
    open_page: Open, path: Path
) -> None:
    page = open_page(path, script=False)
    assert page.locator("#atlas-cell").is_hidden()
    assert page.locator("#atlas-figure-1 .bar").first.is_visible()
    points = page.locator("#atlas-wrong table").first
    assert CELLS[0]["atlas"]["deadlocks"][0]["replay"] in points.inner_text()
    assert points.bounding_box()["height"] > 100
    assert "shmalloc map DIR" in page.locator("#atlas-map noscript").inner_text()


def test_hostile_names_stay_text(open_page: Open, tmp_path: Path) -> None:
    document = copy.deepcopy(DOCUMENT)
    cell, bad = document["cells"][0], atlas_sample.HOSTILE
    cell["id"] = bad
    function = cell["functions"][0]
    function["name"] = function["file"] = bad
    function["instructions"][0] |= {"text": bad, "inlined": [bad], "level": bad, "outcomes": {"<b>": 10**9}}
    cell["atlas"]["deadlocks"][0] |= {"text": bad, "replay": bad, "symbol": bad}
    page = ready(open_page(write(tmp_path, document)))
    page.locator("#atlas-level").select_option(bad)
    page.locator(ROWS).first.locator("td").first.click()
    assert page.locator("#atlas-functions").get_by_text(bad).count() >= 3
    assert page.locator("img").count() == 0
