# SPDX-License-Identifier: MIT
"""The audit as a whole: its report, hostile headers, and arenas damaged anywhere."""

import numpy as np
import pytest
from audit_sample import Sample
from fake_arena import PAGE, FakeArena
from hypothesis import given
from hypothesis import strategies as st

from shmalloc import layout
from shmalloc.audit import AuditReport, Problem, audit

VERDICTS = {"corruption", "lost_memory", "broken_rule"}


def test_untouched_arena() -> None:
    report = audit(FakeArena().build(), expect_live=False)
    assert report.ok and report.verdict == "ok" and not report.notes
    assert report.totals["pages_free"] == report.totals["pages_total"] == 640
    assert report.totals["live_objects"] == report.totals["slabs_total"] == 0


def test_worst_verdict_wins() -> None:
    order = ["broken_rule", "lost_memory", "corruption"]
    for number, worst in enumerate(order, 1):
        report = AuditReport([Problem(verdict, "there", "that") for verdict in order[:number]])
        assert not report.ok and report.verdict == worst
    assert str(Problem("corruption", "page 7", "is odd")) == "corruption: page 7: is odd"


def test_never_initialised_lists_are_empty() -> None:
    sample = Sample()
    sample.region("cache_nodes")["partial"][1, 0] = (0, 0)
    sample.region("pagesets")["lists"][1, 1, 13] = (0, 0)
    assert audit(sample).ok


def test_views_are_given_back() -> None:
    sample = Sample()
    audit(sample)
    held = memoryview(sample.buffer)
    del sample.words, sample.header
    held.release()  # raises BufferError if the audit kept a view of its own


class Refusing(Sample):
    def region(self, name: str) -> object:
        if name == "pages" and getattr(self, "refuse", False):
            raise ValueError("region pages: 64 bytes at 12, the arena has 10")
        return super().region(name)


def test_header_that_describes_no_arena() -> None:
    sample = Refusing()
    sample.refuse = True
    (problem,) = audit(sample).problems
    assert (
        problem.verdict == "corruption" and problem.where == "header" and "the arena has 10" in problem.text
    )


def test_empty_flags_everywhere() -> None:
    sample = Sample()
    sample.region("pages")["flags"] = 0
    assert not audit(sample).ok


@pytest.mark.parametrize(
    "name", ["pages", "zones", "caches", "cache_nodes", "cache_cpus", "cpus", "pagesets"]
)
@pytest.mark.parametrize("value", [0xFF, 0x80, 0x01])
def test_region_overwritten(name: str, value: int) -> None:
    sample = Sample()
    sample.region(name).view(np.uint8)[...] = value
    report = audit(sample)
    assert not report.ok and {problem.verdict for problem in report.problems} <= VERDICTS
    assert len(report.problems) < 400


METADATA = ("cpus", "zones", "pagesets", "caches", "cache_nodes", "cache_cpus", "pageblocks", "pages")


@given(st.data())
def test_damage_anywhere_gives_a_report(data: st.DataObject) -> None:
    sample = Sample()
    interesting = st.one_of(
        st.sampled_from([0, 1, 8, 2**31, 2**32 - 1, 2**63, 2**64 - 1]),
        st.builds(sample.lru_at, st.integers(0, 639)),
        st.builds(sample.page_at, st.integers(0, 639)),
        st.builds(lambda pfn, byte: sample.memory_at(pfn) + byte, st.integers(0, 639), st.integers(0, PAGE)),
        st.integers(0, 2**64 - 1),
    )
    for _ in range(data.draw(st.integers(1, 8))):
        offset, size = sample.spans[data.draw(st.sampled_from((*METADATA, "memory", "oracle_owned")))]
        word = data.draw(st.integers(offset // 8, (offset + size) // 8 - 1))
        sample.words[word] = data.draw(interesting)
    report = audit(sample, expect_live=data.draw(st.sampled_from([True, False, None])))
    assert {problem.verdict for problem in report.problems} <= VERDICTS
    assert all(isinstance(number, int) for number in report.totals.values())


@pytest.mark.parametrize("field", layout.dtype("page").names)
def test_damage_to_every_field_of_a_page_in_use(field: str) -> None:
    """Each field of a struct page that something depends on is covered by some check."""
    ignored = {"obj_exts"}  # not used yet
    found = set()
    for name in ("pcp", "compound", "deferred", "page"):
        sample = Sample()
        record = sample.page_record(getattr(sample, name))
        record[field] = (88, 88) if field == "lru" else record[field] ^ type(record[field])(1)
        found.add(audit(sample).ok)
    for slab in ("small_partial", "small_cpu", "large_full"):
        sample = Sample()
        record = sample.page_record(getattr(sample, slab).pfn)
        record[field] = (88, 88) if field == "lru" else record[field] ^ type(record[field])(1)
        found.add(audit(sample).ok)
    if field in ignored:
        assert found == {True}
    elif field != "compound_head":  # of tails only
        assert False in found
