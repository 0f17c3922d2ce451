# SPDX-License-Identifier: MIT
"""Lists and counters of zones: each test breaks one thing, and sees exactly that problem."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from audit_sample import Sample, only_problem, problems
from hypothesis import given
from hypothesis import strategies as st

from shmalloc.audit import audit
from shmalloc.audit.lists import walk_chain


def free_page(sample: Sample) -> Any:
    return sample.page_record(sample.first_free(2, 6))


@pytest.mark.parametrize("target", [8, 2**63, 12345])
@pytest.mark.parametrize("direction", ["next", "prev"])
def test_link_out_of_bounds(direction: str, target: int) -> None:
    def corrupt(sample: Sample) -> None:
        free_page(sample)["lru"][direction] = target

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption"
    expected = "where no list entry can be" if direction == "next" else "does not link back"
    assert expected in problem.text


def test_link_to_a_page_that_is_on_no_list() -> None:
    def corrupt(sample: Sample) -> None:
        free_page(sample)["lru"]["next"] = sample.lru_at(sample.page)

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption" and "which is on no list (PG_allocated)" in problem.text


def test_link_that_skips_an_entry() -> None:
    def corrupt(sample: Sample) -> None:
        head = sample.region("pagesets")["lists"][0, 1, 6]
        head["next"] = sample.lru_at(sample.pcp_3)

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption" and "does not link back" in problem.text


def test_circle_without_a_head() -> None:
    def corrupt(sample: Sample) -> None:
        head = sample.region("pagesets")["lists"][0, 1, 6]
        head["next"] = head["prev"] = sample.element_at(head)
        first, second = (sample.page_record(pfn)["lru"] for pfn in (sample.pcp_2, sample.pcp_3))
        first["prev"], second["next"] = sample.element_at(second), sample.element_at(first)

    found = problems(corrupt)
    assert [problem.verdict for problem in found] == ["lost_memory"] * 2
    assert all("is on no pcp list" in problem.text for problem in found)


def test_list_head_damaged() -> None:
    def corrupt(sample: Sample) -> None:
        sample.region("pagesets")["lists"]["next"][0, 1, 6] = 64

    problem = only_problem(corrupt)
    assert problem.where == "zone 0 (node 0 DMA32) pcp list 6 of CPU 1"


def move(sample: Sample, pfn: int, head: Any) -> None:
    """Move an entry to another list, with all links in order."""
    lru = sample.page_record(pfn)["lru"]
    sample.words[int(lru["prev"]) // 8] = lru["next"]
    sample.words[int(lru["next"]) // 8 + 1] = lru["prev"]
    lru["next"], lru["prev"] = head["next"], sample.element_at(head)
    sample.words[int(head["next"]) // 8 + 1] = sample.element_at(lru)
    head["next"] = sample.element_at(lru)


@pytest.mark.parametrize(
    ("zone", "order", "kind"), [(2, 5, 1), (2, 6, 0), (1, 6, 1)], ids=["order", "type", "zone"]
)
def test_free_block_on_the_wrong_list(zone: int, order: int, kind: int) -> None:
    def corrupt(sample: Sample) -> None:
        area = sample.region("zones")["free_area"]["free_list"]
        move(sample, sample.first_free(2, 6), area[zone, order, kind])

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption" and f"free list of order {order}" in problem.text


@pytest.mark.parametrize(("zone", "index"), [(0, 3), (0, 0), (1, 1)], ids=["order", "type", "zone"])
def test_pcp_page_on_the_wrong_list(zone: int, index: int) -> None:
    def corrupt(sample: Sample) -> None:
        move(sample, sample.pcp, sample.region("pagesets")["lists"][zone, 0, index])

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption" and f"pcp list {index} of CPU 0" in problem.text


def test_free_block_on_no_list_is_lost() -> None:
    def corrupt(sample: Sample) -> None:
        lru = free_page(sample)["lru"]
        sample.words[int(lru["prev"]) // 8] = lru["next"]
        sample.words[int(lru["next"]) // 8 + 1] = lru["prev"]
        lru["next"] = lru["prev"] = sample.element_at(lru)

    problem = only_problem(corrupt)
    assert problem.verdict == "lost_memory" and "is on no free list" in problem.text


@pytest.mark.parametrize(
    ("field", "value"),
    [("free_pages", 1), ("managed_pages", 255), ("free_highatomic", 3)],
)
def test_zone_counter(field: str, value: int) -> None:
    def corrupt(sample: Sample) -> None:
        sample.region("zones")[field][1] = value

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption" and problem.where == "zone 1 (node 0 Normal)"
    assert problem.text.startswith(f"{field} is {value}, counted are ")


def test_nr_free() -> None:
    def corrupt(sample: Sample) -> None:
        sample.region("zones")["free_area"]["nr_free"][2, 6] += 1

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption" and "free_area[6].nr_free is" in problem.text


@pytest.mark.parametrize("value", [-1, 9])
def test_pcp_count(value: int) -> None:
    def corrupt(sample: Sample) -> None:
        sample.region("pagesets")["count"][0, 1] = value

    problem = only_problem(corrupt)
    assert problem.text == f"count is {value}, counted are 8"


def test_deferred_page_on_no_list_is_lost() -> None:
    def corrupt(sample: Sample) -> None:
        sample.page_record(sample.deferred)["lru"]["next"] = 0

    problem = only_problem(corrupt)
    assert problem.verdict == "lost_memory" and f"page {Sample().deferred_2}" in problem.text


@pytest.mark.parametrize("target", [24, 2**64 - 8])
def test_deferred_list_leads_out_of_bounds(target: int) -> None:
    def corrupt(sample: Sample) -> None:
        sample.page_record(sample.deferred)["lru"]["next"] = target

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption" and "where no entry can be" in problem.text


def test_deferred_list_is_circular() -> None:
    def corrupt(sample: Sample) -> None:
        sample.page_record(sample.deferred_2)["lru"]["next"] = sample.lru_at(sample.deferred)

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption" and "is circular" in problem.text


def test_deferred_list_leads_to_another_page() -> None:
    def corrupt(sample: Sample) -> None:
        sample.page_record(sample.deferred_2)["lru"]["next"] = sample.lru_at(sample.page)

    found = problems(corrupt)
    assert "is no deferred block of it" in found[0].text and found[0].verdict == "corruption"


def test_deferred_pages_are_named_and_no_error() -> None:
    report = audit(Sample(), expect_live=True)
    assert report.totals["pages_deferred"] == 3
    assert any("3 pages in 2 blocks wait on trylock_free_pages" in note for note in report.notes)


@given(st.permutations(range(1, 64)), st.integers(1, 40), st.data())
def test_chain_ends_whatever_it_links_to(places: list[int], length: int, data: st.DataObject) -> None:
    links = [place * 8 for place in places[:length]]
    words = memoryview(np.zeros(64, np.uint64))
    for one, other in pairwise(links):
        words[one // 8] = other
    last = data.draw(st.sampled_from([0, 7, 512, 2**64 - 8, *links]))
    words[links[-1] // 8] = last
    chain = walk_chain(words, links[0], range(8, 512, 8))
    assert chain.links[:length] == links
    assert bool(chain.fault) == (last != 0)
    assert ("circular" in chain.fault) == (last in links)
    assert len(chain.links) <= 3 * length
