# SPDX-License-Identifier: MIT
"""SVG made part of a page: its ids and colours are the page's, and it brings no style of its own."""

import re
from collections import Counter
from typing import Any

import pytest
from html_page import Page
from plots_sample import HELD, ORDER, PAIR, cell, loaded, of_nodes, samples

from harness.page import document, element
from harness.page.svg import embedded
from harness.plots.sections import sections

TEXT = """<?xml version="1.0"?>
<!DOCTYPE svg PUBLIC "x" "y">
<svg xmlns:xlink="x" width="3pt" viewBox="0 0 3 4" xmlns="http://www.w3.org/2000/svg">
 <metadata><a/></metadata>
 <defs><style type="text/css">*{stroke: red}</style></defs>
 <g id="a&amp;b">
  <path id="m" style="fill: #f1e0a1" clip-path="url(#m)"/>
  <use xlink:href="#m"/>
  <text style="font: 9px 'DejaVu Sans', 'Arial', sans-serif; text-anchor: middle">x</text>
 </g>
</svg>
"""


def test_what_is_embedded_is_the_pages() -> None:
    found = embedded(
        TEXT, "p", {"#f1e0a1": "var(--ink)"}, "var(--f)", {"a&b": "1 < 2"}, role="img", aria_label="L"
    )
    assert found == (
        '<svg viewBox="0 0 3 4" role="img" aria-label="L"><g id="p-a&amp;b"><title>1 &lt; 2</title> '
        '<path id="p-m" style="fill: var(--ink)" clip-path="url(#p-m)"/> <use href="#p-m"/> '
        '<text style="font: 9px var(--f); text-anchor: middle">x</text> </g></svg>'
    )


def test_what_is_no_svg_is_refused() -> None:
    with pytest.raises(ValueError, match="no SVG"):
        embedded("<p>", "p", {}, "", {})


def page_of(*cells: dict[str, Any], **keys: Any) -> tuple[Page, str]:
    text = document("t", element("h1", "t"), sections([loaded(*cells, **keys)], ORDER))
    return Page(text), text


def test_ids_of_all_figures_are_unique_and_every_reference_has_its_target() -> None:
    swept = [
        cell(design, 101, 1, **{"workload.remote": share})
        for design in ("kmalloc", "kmalloc_nolock")
        for share in (0.0, 0.5, 1.0)
    ]
    for cells in (PAIR, swept, of_nodes()):
        page, text = page_of(*cells, samples={made["id"]: samples(1, 2, 3, 4) for made in cells})
        ids = Counter(found["id"] for _, found in page.elements if "id" in found)
        assert set(ids.values()) == {1}
        assert set(re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", text)) != set()
        for pair in re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", text):
            assert ids["".join(pair)] == 1


def test_colours_are_the_pages_variables_only() -> None:
    _, text = page_of(*PAIR, samples=HELD)
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert not re.search(r"#[0-9a-f]{6}\b", drawn)
    assert not re.search(r"(fill|stroke): (black|white|#)", drawn)
    assert "var(--series-0)" in drawn
    assert "DejaVu" not in drawn
    assert "<style" not in drawn


def test_every_figure_has_a_caption_and_its_numbers_behind_it() -> None:
    cells = of_nodes()
    page, _ = page_of(*cells, samples={made["id"]: samples(1, 2, 3, 4) for made in cells})
    figures = page.all("figure")
    assert len(figures) == 8
    for figure in figures:
        assert page.inside(figure, "figcaption")
        assert page.inside(figure, "svg") or page.inside(figure, "i")
        name = page.elements[figure][1]["id"]
        if name != "figure-latency":  # whose numbers are behind the percentile curves
            (details,) = page.inside(figure, "details")
            assert len(page.inside(details, "tr")) >= 3, name


def test_marks_say_what_they_are() -> None:
    page, _ = page_of(*PAIR, samples=HELD)
    titles = {page.text(at) for at in page.all("title")}
    assert "kmalloc_nolock, task: 75.0% of 100" in titles
    assert "kmalloc_nolock, zone_busy: 25 of 100 requests" in titles
    assert any(title.startswith("kmalloc in task: p50 23, p99 101") for title in titles)


def test_nodes_are_a_matrix_of_numbers() -> None:
    page, _ = page_of(*of_nodes())
    heat, _ = [rows for rows in page.tables("figure-numa-matrix") if rows[0][0].startswith("CPU")]
    assert heat[1:] == [["node0", "75.0%30", "25.0%10"], ["node1", "32.8%20", "67.2%41"]]
    behind = page.tables("figure-numa-matrix")[-1]
    assert ["kmalloc", "node0", "node1", "10", "25.0%"] in behind
    one = cell("kmalloc", 7)
    assert "figure-numa-matrix" not in {found.get("id") for _, found in page_of(one)[0].elements}
