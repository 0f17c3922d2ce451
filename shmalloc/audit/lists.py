# SPDX-License-Identifier: MIT
"""Doubly linked lists, checked without walking them; and chains, walked with a bound.

The entries of the doubly linked lists are struct pages, and their flags say that they are entries.
So instead of following links one by one, all links are checked at once: each must lead to an entry
or to an anchor (a list's head) that links back. Then next is a permutation, each entry is in exactly
one cycle, and following all links in steps of 1, 2, 4, ... finds that cycle's anchor, or that it has
none. That takes log2(entries) passes, whatever the lists look like.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shmalloc.audit.pages import flag_names
from shmalloc.audit.report import CORRUPTION, Findings
from shmalloc.audit.view import MIGRATETYPE_NAMES, Ints, View, Words, places_in

__all__ = [
    "BUDDY",
    "FULL",
    "LRU",
    "PARTIAL",
    "PCP",
    "Anchors",
    "Chain",
    "check_links",
    "find_anchors",
    "walk_chain",
]

BUDDY, PCP, PARTIAL, FULL, LRU = range(5)


@dataclass(frozen=True)
class Anchors:
    """The heads of all doubly linked lists, sorted by offset.

    Attributes: offset, next, prev: uint64, shape (anchors,).  kind: BUDDY, PCP, PARTIAL, FULL or LRU.
        place: int64, shape (anchors, 3): zone, order, migratetype; zone, cpu, list; cache, node, 0; or node, 0, 0.
    """

    offset: Words
    next: Words
    prev: Words
    kind: Ints
    place: Ints

    def describe(self, view: View, i: int) -> str:
        """Name one list."""
        a, b, c = (int(number) for number in self.place[i])
        match int(self.kind[i]):
            case 0:
                return f"{view.zone_name(a)} free list of order {b}, {MIGRATETYPE_NAMES[c]}"
            case 1:
                return f"{view.zone_name(a)} pcp list {c} of CPU {b}"
            case 2:
                return f"{view.cache_name(a)} partial list of node {b}"
            case 4:
                return f"LRU list of node {a}"
        return f"{view.cache_name(a)} list of full slabs of node {b}"

    def owner(self, i: int) -> tuple[str, int]:
        """Say whose counters a broken list makes doubtful."""
        owner = {BUDDY: "zone", PCP: "zone", LRU: "node"}.get(int(self.kind[i]), "cache")
        return owner, int(self.place[i, 0])


def find_anchors(view: View) -> Anchors:
    """Collect every list head of zones, pagesets and cache nodes."""
    heads, offset, kind, place, order = view.list_heads
    following, previous = (np.concatenate([each[way].ravel() for each in heads]) for way in ("next", "prev"))
    return Anchors(offset, following[order], previous[order], kind, place)


@dataclass(frozen=True)
class _Graph:
    """Anchors and entries with one numbering: anchors first."""

    view: View
    anchors: Anchors
    pfn: Ints
    number_of_pfn: Ints

    def resolve(self, links: Words) -> Ints:
        """Return the number of what each link leads to, -1 for anything that is no list entry."""
        is_page, pfn = places_in(links, self.view.page_links)
        number = np.full(links.shape, -1)
        number[is_page] = self.number_of_pfn[pfn]
        at = np.minimum(np.searchsorted(self.anchors.offset, links), len(self.anchors.offset) - 1)
        is_anchor = self.anchors.offset[at] == links
        return np.where(is_anchor, at, number)

    def describe(self, number: int) -> str:
        """Name an anchor or an entry."""
        if number < len(self.anchors.offset):
            return self.anchors.describe(self.view, number)
        return f"page {self.pfn[number - len(self.anchors.offset)]}"

    def target(self, link: int) -> str:
        """Say what a link leads to."""
        lru = self.view.page_links
        if link not in lru:
            return f"{link:#x}, where no list entry can be"
        pfn = lru.index(link)
        return f"page {pfn}, which is on no list ({flag_names(int(self.view.pages['flags'][pfn]))})"


def check_links(view: View, anchors: Anchors, pfn: Ints, findings: Findings) -> Ints:
    """Check all links of the entries at *pfn* and of the anchors.

    Returns: for each entry the index of the anchor whose list it is on, -1 if it is on none.
    """
    number_of_pfn = np.full(view.nr_pages, -1)
    number_of_pfn[pfn] = len(anchors.offset) + np.arange(len(pfn))
    graph = _Graph(view, anchors, pfn, number_of_pfn)
    lru = view.pages["lru"][pfn]
    following = _links(graph, anchors.next, anchors, lru["next"])
    previous = _links(graph, anchors.prev, anchors, lru["prev"])
    sound = _check_pairs(graph, following, previous, np.concatenate((anchors.next, lru["next"])), findings)
    anchor = _roots(following, len(anchors.offset))
    if not sound:
        anchor = np.maximum(anchor, _roots(previous, len(anchors.offset)))
    _doubt_unsound(graph, following, previous, anchor, findings)
    return anchor


def _links(graph: _Graph, heads: Words, anchors: Anchors, entries: Words) -> Ints:
    """Resolve one direction of all links; a head of zeros was never initialised, and is empty."""
    itself = np.arange(len(heads))
    unused = (anchors.next == 0) & (anchors.prev == 0)
    return np.concatenate((np.where(unused, itself, graph.resolve(heads)), graph.resolve(entries)))


def _check_pairs(graph: _Graph, following: Ints, previous: Ints, links: Words, findings: Findings) -> bool:
    """Report links that lead nowhere, and entries that do not link back."""
    dangling = np.flatnonzero(following < 0)
    findings.add_each(
        CORRUPTION,
        dangling,
        lambda i: (graph.describe(i), f"its next link leads to {graph.target(int(links[i]))}"),
        "links that lead nowhere",
    )
    leads = following >= 0
    one_way = np.flatnonzero(leads & (previous[following] != np.arange(len(following))))
    findings.add_each(
        CORRUPTION,
        one_way,
        lambda i: (
            graph.describe(i),
            f"its next link leads to {graph.describe(int(following[i]))}, which does not link back",
        ),
        "links that are not returned",
    )
    return not dangling.size and not one_way.size


def _roots(links: Ints, nr_anchors: int) -> Ints:
    """Follow links from each entry until an anchor; -1 if there is none on the way."""
    sink = len(links)
    jump = np.append(np.where(links < 0, sink, links), sink)
    jump[:nr_anchors] = np.arange(nr_anchors)
    for _ in range(max(1, (len(links) - nr_anchors).bit_length())):
        jump = jump[jump]
    root = jump[nr_anchors:-1]
    return np.where(root < nr_anchors, root, -1)


def _doubt_unsound(graph: _Graph, following: Ints, previous: Ints, anchor: Ints, findings: Findings) -> None:
    """Distrust the counters of every list that has an unsound link."""
    nr_anchors = len(graph.anchors.offset)
    of = np.concatenate((np.arange(nr_anchors), anchor))
    unsound = (following < 0) | (previous < 0)
    unsound |= (following >= 0) & (previous[following] != np.arange(len(following)))
    for i in np.unique(of[unsound & (of >= 0)]):
        findings.doubt(*graph.anchors.owner(int(i)))


@dataclass(frozen=True)
class Chain:
    """A singly linked list, as far as it could be followed.

    Attributes: links: the offsets it leads through.  fault: what ended it before its time, or "".
    """

    links: list[int]
    fault: str


def walk_chain(words: memoryview[int], first: int, allowed: range, next_at: int = 0) -> Chain:
    """Follow a singly linked list; no link is followed that does not lie in *allowed*.

    Args: words: the arena as 64-bit words.  first: the first link, 0 for none.  next_at: distance in
        bytes from where a link leads to the word that holds the next one.
    Returns: the chain; a circular one ends within two rounds.
    """
    links: list[int] = []
    link, checkpoint, next_checkpoint = first, 0, 1
    while link:
        if link not in allowed:
            return Chain(links, f"leads to {link:#x}, where no entry can be")
        if link == checkpoint:
            return Chain(links, f"is circular: it comes back to {link:#x}")
        links.append(link)
        if len(links) == next_checkpoint:
            checkpoint, next_checkpoint = link, 2 * next_checkpoint
        link = words[(link + next_at) >> 3]
    return Chain(links, "")
