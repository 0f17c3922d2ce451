# SPDX-License-Identifier: MIT
"""SVG drawn elsewhere, made part of a page or of another picture: its ids its own, its colours the page's."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping

from harness.page.markup import Markup

__all__ = ["embedded"]

_BEFORE = re.compile(r"^.*?(?=<svg\b)|<metadata>.*?</metadata>|<style\b.*?</style>|<!--.*?-->", re.DOTALL)
_EMPTY = re.compile(r"<defs>\s*</defs>|<g>\s*</g>")
_START = re.compile(r"<svg\b[^>]*>")
_BOX = re.compile(r'viewBox="([^"]*)"')
_ID = re.compile(r'(\bid="|href="#|url\(#)([^")]+)')
_FAMILY = re.compile(r"'DejaVu Sans'(?:, [^;\"]*)?")
_OPENED = re.compile(r'<g id="([^"]+)">')
_SPACE = re.compile(r"\s*\n\s*")


def embedded(
    text: str,
    prefix: str,
    colours: Mapping[str, str],
    font: str,
    titles: Mapping[str, str],
    **attributes: str,
) -> Markup:
    """Return the picture as an element of its own.

    Args: text: a whole SVG document, as matplotlib writes it.  prefix: of its ids, which are unique on a page.
        colours: what stands in the text -> what to write.  font: family of its texts.  titles: id of a group ->
        what the pointer shows over it.  attributes: of the element, beside its viewBox.
    """
    inner = _EMPTY.sub("", _BEFORE.sub("", text))
    start = _START.search(inner)
    if start is None:
        raise ValueError(f"no SVG: {text[:80]!r}")
    box = _BOX.search(start[0])
    inner = inner[start.end() : inner.rindex("</svg>")].replace("xlink:href", "href")
    inner = _OPENED.sub(lambda found: found[0] + _title(titles.get(html.unescape(found[1]))), inner)
    inner = _ID.sub(lambda found: f"{found[1]}{prefix}-{found[2]}", inner)
    for stand_in, colour in colours.items():
        inner = inner.replace(stand_in, colour)
    inner = _SPACE.sub(" ", _FAMILY.sub(font, inner)).strip()
    words = {**({"viewBox": box[1]} if box else {}), **attributes}
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for key, value in words.items()
    )
    return Markup(f"<svg{said}>{inner}</svg>")


def _title(text: str | None) -> str:
    return f"<title>{html.escape(text)}</title>" if text else ""
