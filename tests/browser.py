# SPDX-License-Identifier: MIT
"""Pages in a real Chromium: fixtures that open them, and what can be asked of them beyond playwright.

A test takes `open_page`, or `browser_page` for an empty page of 1280 x 900 pixels, and gets playwright's own
`Page`. A test fails if a page of its said an error, met one in a script, or asked for anything that is not on
this disk. Without a browser, tests are skipped; if SHMALLOC_BROWSER names one that is missing, they fail.
"""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import leaks
import matplotlib.image
import numpy as np
import pytest

from harness import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

LIMIT_MS = 60_000.0  # of waiting for anything; reached only if something is broken
_LOCAL = ("file:", "data:", "blob:", "about:")


@pytest.fixture(scope="module")
def needs_browser() -> None:
    """Skip a test that starts a browser itself where there is none: two cannot be driven at once."""
    try:
        chromium.find()
    except chromium.NoBrowser as error:
        if os.environ.get(chromium.VARIABLE):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def browser(needs_browser: None) -> Iterator[Browser]:
    """Run one browser for the tests of a module, and see that nothing of it is left."""
    before = set(leaks.children())
    with chromium.started() as running:
        mine = {*leaks.children()} - before
        assert mine, "the browser is no child of this process"
        with leaks.set_apart(mine):
            yield running
    deadline = time.monotonic() + LIMIT_MS / 1000
    while (left := {pid: line for pid, line in leaks.children().items() if pid not in before}) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.01)
    assert not left, f"left behind by the browser: {left}"


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open pages: `open_page(path, dark=False, width=1280, height=900, script=True)`."""
    said: list[str] = []
    with ExitStack() as stack:

        def opened(
            path: Path | str | None = None,
            *,
            dark: bool = False,
            width: int = 1280,
            height: int = 900,
            script: bool = True,
            scale: float = 1.0,
        ) -> Page:
            context = browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme="dark" if dark else "light",
                device_scale_factor=scale,
                java_script_enabled=script,
                offline=True,
                locale="en-US",
                timezone_id="UTC",
                accept_downloads=False,
            )
            stack.callback(context.close)
            context.set_default_timeout(LIMIT_MS)
            page = context.new_page()
            page.on(
                "console", lambda line: said.append(f"console: {line.text}") if line.type == "error" else None
            )
            page.on("pageerror", lambda error: said.append(f"error in a script: {error}"))
            page.on("crash", lambda _: said.append("the page crashed"))
            page.on(
                "request",
                lambda one: None if one.url.startswith(_LOCAL) else said.append(f"asked for {one.url}"),
            )
            if path is not None:
                page.goto(str(path) if str(path).startswith(_LOCAL) else Path(path).resolve().as_uri())
            return page

        yield opened
    assert not said, "\n".join(said)


@pytest.fixture
def browser_page(open_page: Callable[..., Page]) -> Page:
    """Return an empty page."""
    return open_page()


def pixels(what: Page | Locator, **options: Any) -> np.ndarray:
    """Return what a page or an element of it looks like: bytes [row, column, red green blue]."""
    shot = matplotlib.image.imread(
        io.BytesIO(what.screenshot(animations="disabled", **options)), format="png"
    )
    return (shot[:, :, :3] * 255 + 0.5).astype(np.uint8)


def printed(page: Page, **options: Any) -> bytes:
    """Return the page as PDF, as it would be printed on A4."""
    return page.pdf(format="A4", print_background=True, **options)


def sheets(pdf: bytes) -> int:
    """Count the sheets of a PDF."""
    return len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf))


def too_wide(page: Page) -> list[str]:
    """Name the elements that stick out of the page to the right, but for those in a box that scrolls."""
    return page.evaluate(
        """() => {
            const edge = document.documentElement.clientWidth, found = [];
            for (const each of document.body.querySelectorAll("*")) {
                const box = each.getBoundingClientRect();
                if (!box.width || box.right <= edge + 1) continue;
                let held = false;
                for (let at = each.parentElement; at && at !== document.body; at = at.parentElement)
                    held = held || ["auto", "scroll", "hidden", "clip"].includes(getComputedStyle(at).overflowX);
                const name = each.tagName.toLowerCase() + (each.id && "#" + each.id) + "." + each.className;
                if (!held) found.push(`${name} to ${Math.round(box.right)} of ${edge}`);
            }
            return found;
        }"""
    )
