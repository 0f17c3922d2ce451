# SPDX-License-Identifier: MIT
"""A run's page in a browser: from disk, light and dark, narrow, printed, by keyboard, with and without scripts."""

import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import browser
import pytest
import running

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).parents[2]
Open = Callable[..., "Page"]
_STOPS = "[...document.querySelectorAll('a, code.copy, summary, input')]"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the page of two runs: one with a matrix and interrupts, one with violations."""
    folder = tmp_path_factory.mktemp("runs")
    text = running.SMALL.replace("cpus = 2", 'cpus = 2\ndesign = ["kmalloc", "kmalloc_nolock"]')
    config = running.config(folder, text + "[interrupts.nmi]\nrate_hz = 2000.0\n")
    deadlock = ROOT / "configs/slides/nmi_kmalloc.toml"
    done = running.run("run", config, deadlock, "--no-progress", "--no-plots", "--out", "out", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    done = running.run("report", "out", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "report.html"


@pytest.fixture(params=["small/report.html", "nmi_kmalloc/report.html", "report.html", "../report.html"])
def path(request: pytest.FixtureRequest, report: Path) -> Path:
    """Return each page: of one run, of links, of runs side by side."""
    return (report.parent / "out" / request.param).resolve()


def test_it_opens_from_disk_light_and_dark(path: Path, open_page: Open) -> None:
    for dark in (False, True):
        page = open_page(path, dark=dark)
        assert page.locator("h1").locator(".good").inner_text() == "passed"
        ground = browser.pixels(page)[-1, -1]
        assert bool(ground.mean() < 60) is dark
        ink = page.evaluate("getComputedStyle(document.querySelector('main, header')).color")
        light = sum(map(int, re.findall(r"\d+", ink)[:3])) / 3
        assert abs(light - ground.mean()) > 150, "text is to be read"


@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_does_not_scroll_sideways(path: Path, open_page: Open, width: int) -> None:
    page = open_page(path, width=width)
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert browser.too_wide(page) == []


def test_all_is_there_without_scripts(path: Path, open_page: Open) -> None:
    with_scripts, without = (open_page(path, script=script) for script in (True, False))
    tables = [page.locator("table").count() for page in (with_scripts, without)]
    assert tables[0] == tables[1] > 0
    assert without.locator("h1").locator(".good").inner_text() == "passed"
    for summary in without.locator("section > details > summary").all():
        if not summary.evaluate("each => each.parentElement.open"):
            summary.click()
        assert summary.evaluate("each => each.parentElement.open")


def test_what_is_folded_is_printed(report: Path, open_page: Open) -> None:
    page = open_page(report)
    folded = page.locator("details:not([open])")
    assert (before := folded.count()) > 3
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert folded.count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert folded.count() == before
    pdf = browser.printed(page)
    assert browser.sheets(pdf) > 3
    assert folded.count() == before, "as it was, after printing"


def test_what_is_long_is_folded_on_paper(report: Path, open_page: Open) -> None:
    page = open_page(report)
    counters = page.locator("#counters details.long")
    row = "const row = each.querySelector('tr'); for (let at = 0; at < 121; at++) row.after(row.cloneNode(true));"
    counters.evaluate(f"each => {{ {row} }}")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert not counters.evaluate("each => each.open")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert counters.evaluate("each => each.open")


def test_nothing_is_cut_on_paper(report: Path, open_page: Open) -> None:
    page = open_page(report, width=718, height=1000)  # the part of A4 that is printed on, at 96 dpi
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    # Chromium makes what is up to twice as wide fit
    widest = page.evaluate(
        "Math.max(...[...document.querySelectorAll('body *')].map(e => e.getBoundingClientRect().right))"
    )
    assert widest < 2 * 718
    assert not page.locator("nav").is_visible() and not page.locator(".controls").first.is_visible()


def test_the_dark_page_is_printed_light(report: Path, open_page: Open) -> None:
    page = open_page(report, dark=True)
    page.emulate_media(media="print", color_scheme="dark")
    assert bool(browser.pixels(page)[-1, -1].mean() > 240)


def test_counters_are_filtered(report: Path, open_page: Open) -> None:
    page = open_page(report)
    rows = page.locator("#counters tbody tr")
    everything = rows.count()
    box = page.locator("#counters input")
    box.fill("FASTPATH slab_")
    shown = [row.inner_text().split()[0] for row in rows.all() if row.is_visible()]
    assert 0 < len(shown) < everything
    assert all("fastpath" in name or "slab_" in name for name in shown)
    assert page.locator("#counters output").inner_text() == f"{len(set(shown))} shown"
    box.fill("no_such_counter")
    assert not any(row.is_visible() for row in rows.all())
    box.fill("")
    assert all(row.is_visible() for row in rows.all())


def test_a_command_is_copied_by_click_and_key(report: Path, open_page: Open) -> None:
    page = open_page(report)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    commands = page.locator("code.copy")
    for at, act in ((0, "click"), (1, "key")):
        command = commands.nth(at)
        text = command.inner_text()
        assert text.startswith("shmalloc run ")
        if act == "click":
            command.click()
        else:
            command.focus()
            page.keyboard.press("Enter")
        page.wait_for_function(
            "at => document.querySelectorAll('code.copy')[at].classList.contains('done')", arg=at
        )
        assert page.evaluate("navigator.clipboard.readText()") == text
        assert page.evaluate("getSelection().toString()") == text


def test_everything_can_be_reached_by_keyboard(report: Path, open_page: Open) -> None:
    page = open_page(report)
    wanted = page.evaluate(f"{_STOPS}.filter((each) => each.checkVisibility()).length")
    seen = set()
    for _ in range(4 * wanted):  # boxes that scroll are stops, too
        page.keyboard.press("Tab")
        at = page.evaluate(
            f"document.activeElement === document.body ? -2 : {_STOPS}.indexOf(document.activeElement)"
        )
        if at == -2:
            break
        seen.add(at)
    assert len(seen - {-1}) == wanted
    page.locator("details:not([open]) > summary").first.focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.parentElement.open")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none", "what has the focus shows it"


def test_links_within_the_page_lead_there(report: Path, open_page: Open) -> None:
    page = open_page(report)
    page.locator("nav a", has_text="Violations").click()
    top = page.evaluate("document.getElementById('violations').getBoundingClientRect().top")
    assert 0 <= top < 200, "below what stays at the top"


def test_bytes_are_unpacked(tmp_path: Path, open_page: Open) -> None:
    from harness.page import Markup, Section, document

    raw = bytes(range(256)) * 1001
    section = Section(
        "one", "One", Markup("<p></p>"), packed={"bytes": raw}, data={"small": {"a": ["</script>", 7]}}
    )
    file = tmp_path / "x.html"
    file.write_text(document("x", Markup(""), [section]), encoding="utf-8")
    assert file.stat().st_size < 20_000, "they are compressed"
    page = open_page(file)
    found = page.evaluate("shmalloc.unpack('bytes').then((buffer) => Array.from(new Uint8Array(buffer)))")
    assert zlib.crc32(bytes(found)) == zlib.crc32(raw) and len(found) == len(raw)
    assert page.evaluate("shmalloc.data('small')") == {"a": ["</script>", 7]}
    assert page.evaluate("Object.keys(window).filter((name) => name === 'shmalloc').length") == 1
