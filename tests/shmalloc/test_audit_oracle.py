# SPDX-License-Identifier: MIT
"""Ownership: what is owned must be live, what is live must be owned. One thing broken in each test."""

import numpy as np
import pytest
from audit_sample import Sample, only_problem, problems

from shmalloc.audit import audit, oracle


def flip(sample: Sample, bitmap: str, offset: int) -> None:
    granule = (offset - sample.spans["memory"][0]) // 8
    sample.region(f"oracle_{bitmap}")[granule // 64] ^= np.uint64(1 << granule % 64)


def disown(sample: Sample, offset: int, size: int) -> None:
    flip(sample, "start", offset)
    flip(sample, "end", offset + size - 8)
    for at in range(offset, offset + size, 8):
        flip(sample, "owned", at)


def test_totals_of_live_memory() -> None:
    sample = Sample()
    totals = audit(sample).totals
    assert totals["live_objects"] == totals["objects_live"] + 2  # and two blocks of pages
    assert totals["live_objects"] == sum(int(word).bit_count() for word in sample.region("oracle_start"))
    assert totals["live_bytes"] == 8 * sum(int(word).bit_count() for word in sample.region("oracle_owned"))


def test_without_an_oracle_the_slabs_are_counted() -> None:
    totals, owned = audit(Sample(oracle=False)).totals, audit(Sample()).totals
    assert totals["live_objects"] == owned["live_objects"]
    assert totals["live_bytes"] > owned["live_bytes"]  # whole objects, not what was asked for


def test_start_that_is_not_owned() -> None:
    problem = only_problem(lambda sample: flip(sample, "owned", sample.object_at(sample.large_full, 3)))
    assert problem.verdict == "corruption" and "begins an owned object, and is not owned" in problem.text


@pytest.mark.parametrize("distance", [8, 504])
def test_last_bit_missing_or_too_many(distance: int) -> None:
    problem = only_problem(
        lambda sample: flip(sample, "end", sample.object_at(sample.large_full, 2) + distance)
    )
    assert problem.verdict == "corruption" and "the last of an owned object" in problem.text


def test_ranges_across_words_are_sound() -> None:
    sample = Sample()
    assert sample.region("oracle_owned")[sample.page * 8 : sample.page * 8 + 8].all()
    flip(sample, "end", sample.memory_at(sample.page) + 504)  # the last granule of the first word
    flip(sample, "start", sample.memory_at(sample.page) + 512)
    found = audit(sample).problems
    assert [problem.text.partition(" (")[0] for problem in found] == [
        "an object begins inside a block of pages"
    ]


@pytest.mark.parametrize("words", [1, 7, 64])
def test_ranges_across_chunks_are_sound(monkeypatch: pytest.MonkeyPatch, words: int) -> None:
    monkeypatch.setattr(oracle, "_CHUNK_WORDS", words)
    sample = Sample()
    assert audit(sample).ok
    flip(sample, "end", sample.memory_at(sample.page) + 4088)
    (problem,) = audit(sample).problems
    assert problem.text.startswith(f"offset {sample.memory_at(sample.page) + 4088:#x} is marked as the last")


def test_owned_range_with_a_hole() -> None:
    problem = only_problem(lambda sample: flip(sample, "owned", sample.object_at(sample.large_full, 2) + 256))
    assert problem.verdict == "corruption" and "no owned object reaches it" in problem.text


def test_object_neither_free_nor_owned_is_lost() -> None:
    def corrupt(sample: Sample) -> None:
        disown(sample, sample.object_at(sample.large_full, 2), 512)

    problem = only_problem(corrupt)
    sample = Sample()
    assert problem.verdict == "lost_memory" and problem.where == "cache large"
    assert (
        f"1 objects are neither free nor owned, the first at {sample.object_at(sample.large_full, 2):#x}"
        in (problem.text)
    )


def test_lost_objects_are_summed_over_a_cache() -> None:
    def corrupt(sample: Sample) -> None:
        for index in (0, 2, 4):
            disown(sample, sample.object_at(sample.small_partial, index), 64)
        disown(sample, sample.object_at(sample.small_partial_2, 0), 64)

    assert only_problem(corrupt).text.startswith("4 objects are neither free nor owned")


@pytest.mark.parametrize(
    ("name", "index"), [("small_partial", 6), ("small_cpu", 5), ("small_cpu", 1), ("large_deferred", 4)]
)
def test_free_object_that_is_owned(name: str, index: int) -> None:
    problem = only_problem(lambda sample: sample.own(sample.object_at(getattr(sample, name), index), 32))
    assert problem.verdict == "corruption" and problem.text.endswith("is owned, and is free")


def test_owned_range_reaches_beyond_its_object() -> None:
    def corrupt(sample: Sample) -> None:
        first = sample.object_at(sample.tracked_full, 0)  # with 8 bytes of padding on the left
        disown(sample, first, 248)
        sample.own(first, 256)

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption" and "an owned range reaches beyond its object" in problem.text


def test_owner_in_the_middle_of_an_object() -> None:
    def corrupt(sample: Sample) -> None:
        middle = sample.object_at(sample.large_full, 2) + 64
        flip(sample, "start", middle)
        flip(sample, "end", middle - 8)

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption" and "begins where no object does" in problem.text


@pytest.mark.parametrize("name", ["pcp", "deferred"])
def test_free_page_that_is_owned(name: str) -> None:
    problem = only_problem(lambda sample: sample.own(sample.memory_at(getattr(sample, name)), 64))
    assert problem.verdict == "corruption" and "is owned, and is free" in problem.text


def test_page_in_a_free_block_that_is_owned() -> None:
    problem = only_problem(lambda sample: sample.own(sample.memory_at(sample.first_free(2, 6) + 7), 4096))
    assert problem.verdict == "corruption" and "is owned, and is free (PG_buddy)" in problem.text


@pytest.mark.parametrize(("name", "order"), [("page", 0), ("compound", 3)])
def test_block_that_nobody_owns_is_lost(name: str, order: int) -> None:
    problem = only_problem(
        lambda sample: disown(sample, sample.memory_at(getattr(sample, name)), 4096 << order)
    )
    assert problem.verdict == "lost_memory" and f"block of order {order}" in problem.text


@pytest.mark.parametrize("distance", [8, 4096, 3 * 4096 + 512])
def test_object_inside_a_block_of_pages(distance: int) -> None:
    def corrupt(sample: Sample) -> None:
        flip(sample, "start", sample.memory_at(sample.compound) + distance)
        flip(sample, "end", sample.memory_at(sample.compound) + distance - 8)

    problem = only_problem(corrupt)
    assert problem.verdict == "corruption" and "begins inside a block of pages" in problem.text


def test_drained_arena_has_nothing_live() -> None:
    found = problems(lambda sample: None, expect_live=False)
    assert [problem.verdict for problem in found] == ["lost_memory"] * 3
    assert "objects of" in found[0].text and "28 of cache small" in found[0].text
    assert "2 blocks of pages" in found[0].text
    assert {problem.where for problem in found[1:]} == {"CPU 0", "CPU 1"}  # their deferred lists
