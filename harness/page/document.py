# SPDX-License-Identifier: MIT
"""The shell: from sections to one file that a browser opens without loading anything."""

from __future__ import annotations

import base64
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from harness.page.markup import Markup, element, script_json

__all__ = ["Section", "document"]

# Nothing is loaded, from nowhere: the browser refuses what should get in all the same.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)
_PACKED = "application/octet-stream"


@dataclass(frozen=True)
class Section:
    """A part of a page, with a heading and a place in its list of contents.

    Attributes: id: of the element; unique on the page, as those of `data` and `packed` are.  title, body.
        css, js: a script is one function that leaves no names behind; equal texts are written once.
        data: element's id -> what `shmalloc.data(id)` returns.  packed: element's id -> bytes, compressed in the
        file; `await shmalloc.unpack(id)` returns them as an ArrayBuffer.
    """

    id: str
    title: str
    body: Markup
    css: str = ""
    js: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    packed: Mapping[str, bytes] = field(default_factory=dict)


def document(title: str, header: Markup, sections: Sequence[Section]) -> str:
    """Make a page. Args: header: what stands above all sections.  Raises: ValueError, for what cannot be one."""
    _check(sections)
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        [_raw("style", text) for text in _once([_own("base.css"), *(each.css for each in sections)])],
    )
    body = element(
        "body",
        element("header", header),
        _contents(sections),
        element("main", [_section(each) for each in sections]),
        [_data(each) for each in sections],
        [_raw("script", text) for text in _once([_own("base.js"), *(each.js for each in sections)])],
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _own(name: str) -> str:
    return resources.files("harness.page").joinpath(name).read_text(encoding="utf-8")


def _once(texts: Iterable[str]) -> list[str]:
    return [text for text in dict.fromkeys(texts) if text]


def _raw(tag: str, text: str) -> Markup:
    """Write a style or script, which know no escapes."""
    if f"</{tag}" in text.lower() or "<!--" in text:
        raise ValueError(f"a {tag} that ends its own element: {text[:80]!r}")
    return element(tag, Markup(text))


def _check(sections: Sequence[Section]) -> None:
    names = Counter(name for each in sections for name in (each.id, *each.data, *each.packed))
    if twice := sorted(name for name, times in names.items() if times > 1):
        raise ValueError(f"ids that a page has twice: {', '.join(twice)}")


def _contents(sections: Sequence[Section]) -> Markup | None:
    if len(sections) < 2:
        return None
    links = [element("li", element("a", each.title, href=f"#{each.id}")) for each in sections]
    return element("nav", element("ul", links), aria_label="contents")


def _section(section: Section) -> Markup:
    return element("section", element("h2", section.title), section.body, id=section.id)


def _data(section: Section) -> list[Markup]:
    texts = {
        name: json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        for name, value in section.data.items()
    }
    small = [script_json(text, name) for name, text in texts.items()]
    big = [
        element("script", Markup(base64.b64encode(zlib.compress(data, 9)).decode()), type=_PACKED, id=name)
        for name, data in section.packed.items()
    ]
    return small + big
