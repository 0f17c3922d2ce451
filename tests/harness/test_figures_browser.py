# SPDX-License-Identifier: MIT
"""Figures in a browser: nothing sticks out or lies over something else, whatever the width, the scheme, the names."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import browser
import pytest
from plots_sample import HELD, ORDER, PAIR, cell, loaded, of_nodes, samples, window
from rich.text import Text

from harness.bench import page as bench_page
from harness.page import Loaded, document, element
from harness.plots import palette
from harness.plots.sections import sections

if TYPE_CHECKING:
    from playwright.sync_api import Page

Open = Callable[..., "Page"]
LONG = "a_workload_whose_name_somebody_has_made_long of_several_words and_then_some"


def _busy(made: dict[str, Any]) -> dict[str, Any]:
    made["interrupts"]["nmi"] |= {
        "sent": 110_000,
        "handled": 100_000,
        "in_allocator": 30_000,
        "in_slow_path": 20_000,
    }
    for at, reason in enumerate(made["failures"]):
        made["failures"][reason] = 1000 * (at + 1)
    made["contexts"]["nmi"] = {**made["contexts"]["task"], "allocs": 1_234_567, "timed": 234_567}
    made["windows"] = [window(9, 1, 90e6, 20.0), window(10, 0, 120e6, 30.0)]
    return made


def _runs(name: str) -> list[Loaded]:
    kinds = {
        "pair": lambda: list(PAIR),
        "one": lambda: [_busy(cell("kmalloc", 1_234_567, 89))],
        "forty": lambda: [
            _busy(cell(design, 1_234_567, 89, **{"workload.kind": kind}))
            for kind in ("mix", "burst", "wave", "pair", LONG)
            for design in ORDER
        ],
        "swept": lambda: [
            cell(design, 101, at, **{"workload.remote": share})
            for design in ORDER
            for at, share in enumerate((0.0, 0.25, 0.5, 0.75, 1.0))
        ],
        "nodes": of_nodes,
    }
    if name == "runs":
        return [loaded(*PAIR, samples=HELD, label=f"{label} {LONG}") for label in ("before", "after")]
    cells = kinds[name]()
    return [loaded(*cells, samples={made["id"]: samples(1, 2, 3, 2, 5) for made in cells})]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("figures")
    found = {"bench": folder / "bench.html"}
    records = [
        {
            "row": row,
            "subject": subject,
            "kind": kind,
            "ns_median": ns,
            "ns_low": 0.9 * ns,
            "ns_high": 1.7 * ns,
            "samples": 16,
            "taken": 112,
        }
        for row in ("pair_64", "lifo64_16")
        for subject, kind, ns in (
            ("kmalloc", "design", 12.0),
            ("floor_cas16", "floor", 3.25),
            ("glibc", "peer", 2850.0),
        )
    ]
    machine = {"core": 1, "cpu_model": "a processor"}
    drawings = bench_page.drawings_of_bench({"rows": records, "machine": machine}, ORDER)
    found["bench"].write_text(
        bench_page.html("bench", [Text("headline")], drawings, drawn=True), encoding="utf-8"
    )
    for name in ("pair", "one", "forty", "swept", "nodes", "runs"):
        found[name] = folder / f"{name}.html"
        found[name].write_text(
            document(name, element("h1", name), sections(_runs(name), ORDER)), encoding="utf-8"
        )
    return found


_BOXES = """() => [...document.querySelectorAll("svg[role=img]")].map((svg) => {
    const box = (each) => { const r = each.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]; };
    return {
        name: svg.getAttribute("aria-label"), box: box(svg),
        texts: [...svg.querySelectorAll("text")].map((each) => [each.textContent, box(each)]),
        marks: [...svg.querySelectorAll("g")].filter((each) => each.querySelector(":scope > title")).map(box),
    };
})"""


def _is_over(one: list[float], other: list[float]) -> bool:
    """Whether two boxes share more than their edges: a line of text is less high than its box."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return wide > 1 and high > 0.35 * min(one[3] - one[1], other[3] - other[1])


@pytest.mark.parametrize("name", ["pair", "one", "forty", "swept", "nodes", "runs", "bench"])
@pytest.mark.parametrize("width", [400, 1280])
def test_every_text_is_inside_its_figure_and_over_no_other(
    paths: dict[str, Path], open_page: Open, name: str, width: int
) -> None:
    page = open_page(paths[name], width=width)
    found = page.evaluate(_BOXES)
    assert len(found) >= (2 if name == "bench" else 5)
    for svg in found:
        left, top, right, bottom = svg["box"]
        assert right - left > 250, svg["name"]
        assert svg["marks"], svg["name"]
        for text, box in svg["texts"]:
            assert box[0] > left - 2 and box[2] < right + 2, (svg["name"], text)
            assert box[1] > top - 2 and box[3] < bottom + 2, (svg["name"], text)
        for (one, a), (other, b) in itertools.combinations(svg["texts"], 2):
            assert not _is_over(a, b), (svg["name"], one, other)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert browser.too_wide(page) == []


@pytest.mark.parametrize("width", [400, 1280])
def test_text_is_large_enough_to_be_read(paths: dict[str, Path], open_page: Open, width: int) -> None:
    page = open_page(paths["pair"], width=width)
    heights = page.evaluate(
        "[...document.querySelectorAll('svg[role=img] text')].map((each) => each.getBoundingClientRect().height)"
    )
    assert min(heights) > 9


@pytest.mark.parametrize("dark", [False, True])
def test_figures_are_in_the_colours_of_the_scheme(
    paths: dict[str, Path], open_page: Open, dark: bool
) -> None:
    page = open_page(paths["pair"], dark=dark)
    bar = page.locator("#success-task-success-task-1 path")
    colour = palette.COLOURS[1].dark if dark else palette.COLOURS[1].light
    assert bar.evaluate("each => getComputedStyle(each).fill") == _rgb(colour)
    ink = next(each for each in palette.COLOURS if each.variable == "--ink")
    title = page.locator("#figure-success svg text", has_text="task").first
    assert title.evaluate("each => getComputedStyle(each).fill") == _rgb(ink.dark if dark else ink.light)


def _rgb(colour: str) -> str:
    return f"rgb({', '.join(str(int(colour[at : at + 2], 16)) for at in (1, 3, 5))})"


def test_a_bar_is_as_long_as_its_number(paths: dict[str, Path], open_page: Open) -> None:
    page = open_page(paths["pair"])
    widths = [page.locator(f"#success-task-success-task-{at} path").bounding_box()["width"] for at in (0, 1)]
    assert widths[1] / widths[0] == pytest.approx(0.75, abs=0.01)


def test_a_mark_is_found_by_the_pointer_and_says_what_it_is(paths: dict[str, Path], open_page: Open) -> None:
    page = open_page(paths["pair"])
    box = page.locator("#success-task-success-task-1").bounding_box()
    said = page.evaluate(
        "([x, y]) => document.elementFromPoint(x, y).closest('g[id]:has(> title)').firstElementChild.textContent",
        [box["x"] + box["width"] / 3, box["y"] + box["height"] / 2],
    )
    assert said == "kmalloc_nolock, task: 75.0% of 100"


def test_the_table_behind_a_figure_opens(paths: dict[str, Path], open_page: Open) -> None:
    page = open_page(paths["pair"])
    table = page.locator("#figure-percentiles details table")
    assert not table.is_visible()
    page.locator("#figure-percentiles summary").click()
    assert table.is_visible()
    assert "kmalloc_nolock" in table.inner_text()


def test_on_paper_figures_are_whole_and_two_abreast(paths: dict[str, Path], open_page: Open) -> None:
    page = open_page(paths["one"], width=700, dark=True)
    page.emulate_media(media="print", color_scheme="dark")
    boxes = [each["box"] for each in page.evaluate(_BOXES)[:2]]
    assert boxes[0][1] == boxes[1][1], "side by side"
    assert max(box[2] for box in boxes) <= 700
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#figure-percentiles table").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 700, "tables, too"
    bar = page.locator("#success-task-success-task-0 path")
    assert bar.evaluate("each => getComputedStyle(each).fill") == _rgb(palette.LIGHT[0])
    assert browser.sheets(browser.printed(page)) >= 2


def test_a_matrix_shades_by_share(paths: dict[str, Path], open_page: Open) -> None:
    page = open_page(paths["nodes"], width=400)
    shades = page.locator(".heat").first.locator("td i").all()
    opacities = [float(each.evaluate("each => getComputedStyle(each).opacity")) for each in shades]
    assert opacities == pytest.approx([0.75 * 0.55, 0.25 * 0.55, 20 / 61 * 0.55, 41 / 61 * 0.55], abs=1e-3)
    assert browser.too_wide(page) == []
