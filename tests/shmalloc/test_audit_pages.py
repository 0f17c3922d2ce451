# SPDX-License-Identifier: MIT
"""Blocks of pages: each test breaks one thing in a consistent arena, and sees exactly that problem."""

from typing import Any

import pytest
from audit_sample import Sample, only_problem, problems

from shmalloc.audit import audit


def flag(pfn: str, name: str) -> Any:
    """Set a flag on a page of the sample, which is named by attribute."""

    def corrupt(sample: Sample) -> None:
        sample.page_record(getattr(sample, pfn))["flags"] |= sample.c[name]

    return corrupt


def test_the_sample_is_sound() -> None:
    report = audit(Sample())
    assert report.ok and report.verdict == "ok"
    assert report.totals["pages_total"] == 640 and report.totals["pages_nowhere"] == 0


def test_page_in_two_places() -> None:
    problem = only_problem(flag("pcp", "PG_allocated"))
    assert problem.verdict == "corruption"
    assert "in two places at once: PG_pcp|PG_allocated" in problem.text


def test_head_inside_another_block() -> None:
    def corrupt(sample: Sample) -> None:
        free = sample.first_free(2, 6)
        sample.page_record(free + 5)["flags"] = sample.c["PG_buddy"]

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption" and "inside the block of order 6" in problem.text


def test_slab_on_a_node_list_that_says_it_is_on_a_pageset() -> None:
    def corrupt(sample: Sample) -> None:
        sample.page_record(sample.hardened_partial.pfn)["flags"] = sample.c["PG_pcp"]

    first, *_ = problems(corrupt)
    assert first.verdict == "corruption" and "PG_pcp" in first.text


def test_page_that_is_nowhere_is_lost() -> None:
    def corrupt(sample: Sample) -> None:
        sample.page_record(sample.page)["flags"] = 0
        sample.region("oracle_owned")[sample.page * 8 : sample.page * 8 + 8] = 0
        sample.region("oracle_start")[sample.page * 8] = 0
        sample.region("oracle_end")[sample.page * 8 + 7] = 0

    problem = only_problem(corrupt)
    assert problem.verdict == "lost_memory" and problem.where == "zone 1 (node 0 Normal)"
    assert "1 pages" in problem.text and "nowhere" in problem.text


@pytest.mark.parametrize("order", [11, 2**31])
def test_impossible_order(order: int) -> None:
    def corrupt(sample: Sample) -> None:
        sample.page_record(sample.pcp)["order"] = order

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption" and f"block of order {order}" in problem.text


def test_block_that_leaves_its_zone() -> None:
    def corrupt(sample: Sample) -> None:
        sample.page_record(sample.page)["order"] = 8  # zone 1 is 256 pages, and not aligned to that

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption" and "which cannot lie there" in problem.text


def test_tail_names_another_head() -> None:
    def corrupt(sample: Sample) -> None:
        sample.page_record(sample.compound + 3)["compound_head"] = sample.compound + 1

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption" and "compound_head says" in problem.text


def test_tail_not_marked() -> None:
    def corrupt(sample: Sample) -> None:
        sample.page_record(sample.compound + 3)["flags"] = 0

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption" and "6 of 7 tails are marked" in problem.text


def test_tail_outside_of_a_compound_block() -> None:
    def corrupt(sample: Sample) -> None:
        sample.page_record(sample.first_free(2, 6) + 1)["flags"] = sample.c["PG_tail"]

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption" and "outside of any compound block" in problem.text


@pytest.mark.parametrize(
    ("page", "name"),
    [("pcp", "PG_partial"), ("deferred", "PG_head"), ("page", "PG_disabled"), ("pcp", "PG_pfmemalloc")],
)
def test_stale_flag_on_a_head(page: str, name: str) -> None:
    found = problems(flag(page, name))
    assert any(f"carries {name}" in problem.text for problem in found)
    assert {problem.verdict for problem in found} == {"corruption"} or name == "PG_partial"


def test_stale_flag_inside_a_block() -> None:
    def corrupt(sample: Sample) -> None:
        sample.page_record(sample.first_free(2, 6) + 9)["flags"] = sample.c["PG_pfmemalloc"]

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption" and "carries PG_pfmemalloc" in problem.text


@pytest.mark.parametrize(("page", "count"), [("page", 0), ("page", 2), ("pcp", 1), ("deferred", 1)])
def test_wrong_refcount(page: str, count: int) -> None:
    def corrupt(sample: Sample) -> None:
        sample.page_record(getattr(sample, page))["refcount"] = count

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption" and f"refcount {count}" in problem.text


def split_a_free_block(sample: Sample, zone: int, order: int) -> None:
    """Turn a free block into its two halves, with lists and counters in order."""
    pages, area = sample.region("pages"), sample.region("zones")[zone]["free_area"]
    pfn = sample.first_free(zone, order)
    lru, half = pages[pfn]["lru"], pfn + (1 << (order - 1))
    sample.words[int(lru["prev"]) // 8] = lru["next"]
    sample.words[int(lru["next"]) // 8 + 1] = lru["prev"]
    kind = int(sample.region("pageblocks")["migratetype"][pfn >> sample.pageblock_order])
    head = area[order - 1]["free_list"][kind]
    for part in (pfn, half):
        pages[part]["flags"], pages[part]["order"] = sample.c["PG_buddy"], order - 1
        pages[part]["lru"]["next"], pages[part]["lru"]["prev"] = head["next"], sample.element_at(head)
        sample.words[int(head["next"]) // 8 + 1] = sample.lru_at(part)
        head["next"] = sample.lru_at(part)
    area["nr_free"][order] -= 1
    area["nr_free"][order - 1] += 2


@pytest.mark.parametrize("order", [4, 6])
def test_buddies_not_merged(order: int) -> None:
    problem = only_problem(lambda sample: split_a_free_block(sample, 2, order))
    assert problem.verdict == "broken_rule" and problem.where == "zone 2 (node 1 Normal)"
    assert "buddies not merged" in problem.text and f"order {order - 1}" in problem.text


def test_whole_pageblocks_of_different_types_are_not_buddies() -> None:
    report = audit(Sample())
    assert report.ok  # pageblock 6 is HighAtomic, 7 is Movable: the sample has that pair
    sample = Sample()
    pages = sample.region("pages")
    assert pages["flags"][6 << 4] == pages["flags"][7 << 4] == sample.c["PG_buddy"]
    assert pages["order"][6 << 4] == pages["order"][7 << 4] == 4


def test_pageblock_in_the_wrong_zone() -> None:
    def corrupt(sample: Sample) -> None:
        sample.region("pageblocks")["zone"][10] = 2

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption" and problem.where == "pageblock 10"


def test_zones_that_do_not_tile_the_pages() -> None:
    def corrupt(sample: Sample) -> None:
        sample.region("zones")["spanned_pages"][1] += 16

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption" and problem.where == "zone table"


def test_many_alike_are_counted_not_listed() -> None:
    def corrupt(sample: Sample) -> None:
        free = sample.first_free(2, 6)
        sample.region("pages")["flags"][free + 1 : free + 24] = sample.c["PG_pfmemalloc"]

    found = problems(corrupt)
    assert len(found) == 6 and found[-1].text.startswith("18 more") and "23 in all" in found[-1].text
