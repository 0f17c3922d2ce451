# SPDX-License-Identifier: MIT
"""One section or figure of a page as a picture, as an installed Chromium shows it on a light ground."""

from __future__ import annotations

import io
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from harness import chromium
from harness.problems import CannotRun, ConfigError, Problem, unknown

if TYPE_CHECKING:
    from playwright.sync_api import Page

__all__ = ["WIDTH", "take"]

WIDTH = 1000  # of the page, in CSS pixels; a picture has two of its own for each
_SCALE = 2
_MARGIN = 12
_HIGHEST = 16_000  # pixels: Chromium draws nothing beyond 16,384
_LIMIT_S = 60.0  # until scripts are done; reached only if something is broken
# What is not in it, or folded away in it, is not in the picture.
_CHOOSE = """(id) => {
    const chosen = document.getElementById(id);
    for (let at = chosen; at !== document.body; at = at.parentElement) {
        if (at.matches("details")) at.open = true;
        for (const each of at.parentElement.children)
            if (each !== at && !each.matches("style, script, summary")) each.hidden = true;
    }
    for (const each of chosen.querySelectorAll("details:not([open])")) each.hidden = true;
    document.body.style.padding = "2rem";
}"""


def take(html: str, name: str, width: int = WIDTH) -> bytes:
    """Draw a part of a page. Args: name: its id; that of a section or a figure.

    Returns: a PNG.
    Raises: ConfigError: the page has no such part.  CannotRun: no browser, or the part is too high for a picture.
    """
    with tempfile.TemporaryDirectory() as folder, chromium.started() as browser:
        path = Path(folder) / "page.html"
        path.write_text(html, encoding="utf-8")
        page = browser.new_page(viewport={"width": width, "height": 900}, device_scale_factor=_SCALE)
        page.goto(path.as_uri())
        names = page.eval_on_selector_all("section[id], figure[id]", "all => all.map((each) => each.id)")
        if name not in names:
            raise ConfigError(
                "command line", [Problem("--picture", repr(name), unknown("part of the page", name, names))]
            )
        page.evaluate(_CHOOSE, name)
        return _small(_settled(page, name))


def _settled(page: Page, name: str) -> bytes:
    """Draw it until it does not change any more: scripts may still be at it."""
    last = None
    deadline = time.monotonic() + _LIMIT_S
    while time.monotonic() < deadline:
        shot = _shot(page, name)
        if shot == last:
            return shot
        last = shot
        page.wait_for_timeout(100)
    raise CannotRun(f"{name} goes on changing")


def _shot(page: Page, name: str) -> bytes:
    box = page.locator(f'[id="{name}"]').bounding_box()
    if box is None:
        raise CannotRun(f"{name} has nothing to show")
    if box["height"] * _SCALE > _HIGHEST:
        raise CannotRun(
            f"{name} is {box['height']:.0f} CSS pixels high, too much for a picture; a figure of it may be less"
        )
    top = page.evaluate("() => [scrollX, scrollY]")
    left, high = max(0.0, box["x"] + top[0] - _MARGIN), max(0.0, box["y"] + top[1] - _MARGIN)
    return page.screenshot(
        full_page=True,
        animations="disabled",
        clip={
            "x": left,
            "y": high,
            "width": box["width"] + 2 * _MARGIN,
            "height": box["height"] + 2 * _MARGIN,
        },
    )


def _small(png: bytes) -> bytes:
    """Cut off what is empty, and write it with 256 colours, which a drawing hardly has: a third of the size."""
    from PIL import Image, ImageChops

    with Image.open(io.BytesIO(png)) as opened:
        full = opened.convert("RGB")
    ground = Image.new("RGB", full.size, full.getpixel((0, 0)))
    if box := ImageChops.difference(full, ground).getbbox():
        margin = _MARGIN * _SCALE
        full = full.crop((0, 0, min(full.width, box[2] + margin), min(full.height, box[3] + margin)))
    out = io.BytesIO()
    few = full.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(out, "PNG", optimize=True)
    return out.getvalue()
