# SPDX-License-Identifier: MIT
"""A page as the tests look at it: elements that must be nested well, their texts, tables and data."""

import base64
import json
import zlib
from html.parser import HTMLParser
from typing import Any

_VOID = {"br", "col", "hr", "input", "link", "meta", "wbr"}


class Page(HTMLParser):
    """Elements, checked to be nested well, with attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[int, list[str]] = {}
        self.parents: list[int | None] = []
        self._open: list[int] = []
        self.feed(html)
        self.close()
        assert not self._open, [self.elements[at] for at in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.parents.append(self._open[-1] if self._open else None)
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), "an attribute twice"
        if tag not in _VOID:
            self._open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.parents.append(self._open[-1] if self._open else None)
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self.elements[self._open[-1]][0] == tag, (tag, self.getpos())
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for at in self._open:
            self.texts.setdefault(at, []).append(data)

    def text(self, at: int) -> str:
        return "".join(self.texts.get(at, ()))

    def all(self, tag: str, **attributes: str) -> list[int]:
        return [
            at
            for at, (name, found) in enumerate(self.elements)
            if name == tag and all(found.get(key) == value for key, value in attributes.items())
        ]

    def find(self, name: str) -> int:
        (at,) = [at for at, (_, found) in enumerate(self.elements) if found.get("id") == name]
        return at

    def inside(self, outer: int, *tags: str) -> list[int]:
        """List the elements of some tags that lie in another."""
        return [at for at, (name, _) in enumerate(self.elements) if name in tags and self._is_in(at, outer)]

    def _is_in(self, at: int, outer: int) -> bool:
        parent = self.parents[at]
        while parent is not None and parent != outer:
            parent = self.parents[parent]
        return parent == outer

    def tables(self, name: str) -> list[list[list[str]]]:
        """Read the tables of an element, also those within others: rows of texts."""
        return [
            [
                [self.text(cell) for cell in self._own(row, "tr", "td", "th")]
                for row in self._own(table, "table", "tr")
            ]
            for table in self.inside(self.find(name), "table")
        ]

    def _own(self, outer: int, kind: str, *tags: str) -> list[int]:
        """List the elements that belong to one of a kind, and to none of that kind within it."""
        return [at for at in self.inside(outer, *tags) if self._nearest(at, kind) == outer]

    def _nearest(self, at: int, kind: str) -> int | None:
        parent = self.parents[at]
        while parent is not None and self.elements[parent][0] != kind:
            parent = self.parents[parent]
        return parent

    def json(self, name: str) -> Any:
        return json.loads(self.text(self.find(name)))

    def unpacked(self, name: str) -> bytes:
        return zlib.decompress(base64.b64decode(self.text(self.find(name))))

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = self.json("data")
        return found
