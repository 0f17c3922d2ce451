# SPDX-License-Identifier: MIT
"""The arena map in a real browser: the slider changes the picture, a click shows the right objects, zoom works."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import browser, browser_page, open_page, pixels
from rig import Rig

from harness.arena_map.looks import LOOKS, RAMP
from harness.arena_map.recorder import Recorder
from harness.arena_map.recording import Recording
from harness.arena_map.section import Mapped, section
from harness.page import document, element
from shmalloc import Arena, Cpu
from shmalloc.pagemap import KINDS, OBJECT_STATES, SLABS, Kind, State

__all__ = ["browser", "browser_page", "open_page"]  # fixtures

CANVAS = "[data-map=canvas]"
COLOUR_AT = """([x, y]) => {
    const canvas = document.querySelector("[data-map=canvas]"), ratio = canvas.width / canvas.clientWidth;
    return [...canvas.getContext("2d").getImageData(Math.round(x * ratio), Math.round(y * ratio), 1, 1).data];
}"""
SHARES = (0.5, 0.35, 0.65)


def record(sizes: tuple[int, ...], **geometry: Any) -> Recording:
    """A map whose moments differ: slabs come, are emptied, and go."""
    with Arena.create(size="8MiB", **geometry) as arena, Cpu(arena, 0) as cpu, Cpu(arena, 1) as other:
        recorder = Recorder(arena, 1.0, 32, objects=True)
        live = []
        for size in sizes:
            live += [cpu.kmalloc(size) for _ in range(301 if size < 5000 else 23)]
            for offset in live[::3]:
                other.kfree(offset)
            del live[::3]
            recorder.mark(f"after {size}", at_rest=True)
        for offset in live:
            cpu.kfree(offset)
        recorder.mark("after the drain", at_rest=True)
        return Recording(recorder.finish())


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Recording]]:
    found = [
        record((64, 500, 3000, 20000), pageblock_order=5),
        record((100, 8000, 16), nr_nodes=2, freelist_random=True),
    ]
    mapped = [Mapped(name, "", each) for name, each in zip(("one", "two"), found, strict=True)]
    path = tmp_path_factory.mktemp("map") / "map.html"
    path.write_text(document("map", element("h1", "map"), [section(mapped)]))
    return path, found


def ready(page: Any, at: int = 0) -> Any:
    page.wait_for_selector(f'#map-app[data-ready="{at}"]')
    return page


def go(page: Any, moment: int) -> None:
    page.locator("[data-map=slider]").evaluate(
        "(slider, at) => { slider.value = at; slider.dispatchEvent(new Event('input')); }", moment
    )


def to_page(page: Any, pfn: int) -> None:
    page.fill("[data-map=page]", str(pfn))
    page.press("[data-map=page]", "Enter")


def place(page: Any) -> tuple[float, float]:
    """Where the picked page is drawn, in pixels of the canvas."""
    data = page.locator(CANVAS).evaluate("(canvas) => ({ ...canvas.dataset })")
    return float(data["x"]), float(data["y"])


def kind_drawn(page: Any, pfn: int, ground: str = "light") -> set[Kind]:
    """Which kinds have the colour of a page's cell, found off the lines that are drawn over it."""
    to_page(page, pfn)
    x, y = place(page)
    to_page(page, 0 if pfn else 1)  # the frame of the picked page covers it
    size = float(page.locator(CANVAS).get_attribute("data-scale"))
    # a corner of the cell that patterns leave free
    seen = np.array(page.evaluate(COLOUR_AT, [x - 0.3 * size, y])[:3])

    def rgb(colour: str) -> np.ndarray:
        return np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)])

    found = {kind for kind, look in LOOKS.items() if abs(rgb(getattr(look, ground)) - seen).max() <= 2}
    free, end = rgb(getattr(LOOKS[Kind.FREE], ground)), rgb(getattr(RAMP, ground))
    if any(abs(free + (end - free) * order / 10 - seen).max() <= 2 for order in range(11)):
        found.add(Kind.FREE)
    return found


@pytest.mark.parametrize("dark", [False, True])
def test_the_slider_changes_what_is_drawn(
    open_page: Callable[..., Any], maps: tuple[Path, list[Recording]], dark: bool
) -> None:
    page, found = ready(open_page(maps[0], dark=dark)), maps[1][0]
    kinds = found.plane("kind")
    changing = np.flatnonzero((kinds != kinds[-1]).any(axis=0))[::17].tolist()
    assert len(changing) > 5
    for moment in (0, 2, len(found) - 1):
        go(page, moment)
        assert found.meta["moments"][moment]["label"] in page.inner_text("[data-map=time]")
        for pfn in changing:
            assert Kind(kinds[moment, pfn]) in kind_drawn(page, pfn, "dark" if dark else "light"), (
                moment,
                pfn,
            )
        counts = page.locator("[data-map=legend] button").evaluate_all(
            "(all) => all.map((one) => [+one.dataset.key, +one.lastChild.textContent.replaceAll(',', '')])"
        )
        assert {key: number for key, number in counts if number} == {
            kind: number for kind, number in enumerate(found.counts[moment].tolist()) if number
        }


@pytest.mark.parametrize("which", [0, 1])
def test_a_click_shows_the_objects_of_the_slab(
    open_page: Callable[..., Any], maps: tuple[Path, list[Recording]], which: int
) -> None:
    page, found = ready(open_page(maps[0])), maps[1][which]
    if which:
        page.select_option("[data-map=which]", "1")
        ready(page, 1)
    for moment in (1, 3):
        go(page, moment)
        objects = found.objects(moment)
        assert objects is not None
        cache, inuse = found.plane("cache")[moment], found.plane("inuse")[moment]
        slabs = objects.pfn[:: max(1, len(objects.pfn) // 5)].tolist()
        assert len(slabs) >= 3
        for pfn in slabs:
            to_page(page, pfn)  # brings it into sight
            x, y = place(page)
            to_page(page, 0)
            page.locator(CANVAS).click(position={"x": x, "y": y})
            name = found.meta["caches"][str(cache[pfn] - 1)]["name"]
            expected = [OBJECT_STATES[State(state)].name for state in objects.of(pfn).tolist()]
            page.wait_for_selector(f'.map-objects[aria-label="objects of the slab at page {pfn}"]')
            assert (
                page.locator(".map-objects li").evaluate_all("(all) => all.map((one) => one.dataset.state)")
                == expected
            )
            said = page.inner_text("[data-map=slab] dl")
            assert name in said
            assert f"{inuse[pfn]} of {len(expected)} objects" in said


def test_what_a_page_is_is_said_under_the_pointer_and_to_the_keyboard(
    open_page: Callable[..., Any], maps: tuple[Path, list[Recording]]
) -> None:
    page, found = ready(open_page(maps[0])), maps[1][0]
    go(page, 2)
    kinds = found.plane("kind")[2]
    slab = int(np.flatnonzero(np.isin(kinds, SLABS))[5])
    to_page(page, slab)
    x, y = place(page)
    page.locator(CANVAS).hover(position={"x": x, "y": y})
    assert KINDS[Kind(kinds[slab])].label in page.inner_text("[data-map=tip]")
    page.focus(CANVAS)
    page.keyboard.press("Home")
    for pfn in (0, 1, 2):
        said = page.text_content("[data-map=said]")
        assert said.startswith(f"page {pfn}: {KINDS[Kind(kinds[pfn])].label}")
        page.keyboard.press("ArrowRight")
    tile = 1 << found.meta["frame"]["pageblock_order"]
    row = 2 ** ((found.meta["frame"]["pageblock_order"] + 1) // 2)
    page.keyboard.press("Home")
    for key, pfn in (
        ("ArrowDown", row),
        ("ArrowRight", row + 1),
        ("ArrowUp", 1),
        ("PageDown", tile + 1),
        ("ArrowLeft", tile),
        ("PageUp", 0),
    ):
        page.keyboard.press(key)
        assert page.text_content("[data-map=said]").startswith(f"page {pfn:,}: "), key
    page.keyboard.press("End")
    assert page.text_content("[data-map=said]").startswith(f"page {found.meta['frame']['nr_pages'] - 1:,}")


def test_zooming_keeps_what_is_under_the_pointer(
    open_page: Callable[..., Any], maps: tuple[Path, list[Recording]]
) -> None:
    page, found = ready(open_page(maps[0])), maps[1][0]
    go(page, 2)
    scale = lambda: float(page.locator(CANVAS).get_attribute("data-scale"))  # noqa: E731
    least = scale()
    for pfn in range(0, 2048, 37):
        to_page(page, pfn)
        x, y = place(page)
        if x > 600 and y > 50:
            break
    assert x > 600, "the map is narrower than half the page"
    box = page.locator(CANVAS).bounding_box()
    page.mouse.move(box["x"] + x, box["y"] + y)
    before = page.inner_text("[data-map=tip]")
    page.mouse.wheel(0, -100)
    page.wait_for_function(
        "(least) => +document.querySelector('[data-map=canvas]').dataset.scale > least", arg=least
    )
    page.mouse.move(box["x"] + x + 1, box["y"] + y)
    assert page.inner_text("[data-map=tip]") == before
    assert Kind(found.plane("kind")[2, pfn]) in kind_drawn(page, pfn)
    page.click("[data-map=in]")
    assert scale() > 1.5 * least
    page.click("[data-map=fit]")
    assert scale() == pytest.approx(least)
    page.focus(CANVAS)
    page.keyboard.press("+")
    assert scale() > least
    page.keyboard.press("0")
    assert scale() == pytest.approx(least)


def test_a_legend_entry_highlights_and_colours_follow_the_mode(
    open_page: Callable[..., Any], maps: tuple[Path, list[Recording]]
) -> None:
    page, found = ready(open_page(maps[0])), maps[1][0]
    go(page, 2)
    kinds = found.plane("kind")[2]
    free = int(np.flatnonzero(kinds == Kind.FREE)[-1])
    slab = int(np.flatnonzero(kinds == Kind.SLAB_PARTIAL)[0])
    key = f'[data-map=legend] [data-key="{int(Kind.SLAB_PARTIAL)}"]'
    page.click(key)
    assert page.get_attribute(key, "aria-pressed") == "true"
    assert Kind.SLAB_PARTIAL in kind_drawn(page, slab)
    assert Kind.FREE not in kind_drawn(page, free)
    page.click(key)
    assert Kind.FREE in kind_drawn(page, free)
    for mode in ("cache", "fill", "type"):
        page.select_option("[data-map=mode]", mode)
        assert page.locator("[data-map=legend] button").count() > 0
        counts = page.locator("[data-map=legend] b").all_inner_texts()
        assert (
            sum(int(each.replace(",", "")) for each in counts)
            == found.counts[2].sum() - found.counts[2, Kind.HOLE]
        )
    assert slab


def test_play_ends_at_the_last_moment(
    open_page: Callable[..., Any], maps: tuple[Path, list[Recording]]
) -> None:
    page, found = ready(open_page(maps[0])), maps[1][0]
    go(page, 0)
    page.click("[data-map=play]")
    page.wait_for_function(
        "(last) => +document.querySelector('[data-map=slider]').value === last"
        " && document.querySelector('[data-map=play]').textContent === 'play'",
        arg=len(found) - 1,
    )


def test_without_scripts_and_on_a_narrow_screen(
    open_page: Callable[..., Any], maps: tuple[Path, list[Recording]]
) -> None:
    page = open_page(maps[0], script=False)
    assert page.locator("#map-still-0 svg").is_visible()
    assert not page.locator("#map-app").is_visible()
    narrow = ready(open_page(maps[0], width=400))
    assert not narrow.locator("#map-still-0 svg").is_visible()
    assert narrow.locator(CANVAS).bounding_box()["width"] <= 400
    assert narrow.evaluate("document.documentElement.scrollWidth") <= 400


def test_reserves_are_marked(open_page: Callable[..., Any], tmp_path: Path) -> None:
    with Rig.create(size="24MiB") as rig:
        rig.exhaust(0)
        recorder = Recorder(rig.arena, 1.0, 8, objects=True)
        with rig.cpu.memalloc():
            rig.cpu.kmalloc(4000, "GFP_NOWAIT")
        recorder.mark("end", at_rest=True)
        found = Recording(recorder.finish())
    marked = np.flatnonzero(found.plane("marks")[1])
    path = tmp_path / "map.html"
    path.write_text(document("map", element("h1", "map"), [section([Mapped("one", "", found)])]))
    page = ready(open_page(path))
    entry = page.locator("[data-map=legend] button", has_text="pfmemalloc")
    assert entry.locator("b").inner_text() == str(len(marked))
    to_page(page, int(marked[0]))
    assert "pfmemalloc" in page.inner_text("[data-map=slab] dl")
    before = pixels(page.locator(CANVAS))
    entry.click()
    assert (pixels(page.locator(CANVAS)) != before).any()
    go(page, 0)
    assert entry.locator("b").inner_text() == "0"
