# SPDX-License-Identifier: MIT
"""The registry as Python sees it."""

import pytest

from shmalloc import _binding, designs

CONTEXTS = {"task", "softirq", "irq", "nmi"}


def test_both_flavours_have_the_same_designs() -> None:
    assert designs.names() == _binding.core("checked").names("design")
    assert {"kmalloc", "kmalloc_nolock"} <= set(designs.names())


@pytest.mark.parametrize("name", designs.names())
def test_every_row_is_complete(name: str) -> None:
    info = designs.info(name)
    assert info.name == name
    assert designs.names()[info.index] == name
    assert info.summary
    assert info.contexts
    assert set(info.contexts) <= CONTEXTS


def test_only_the_nolock_design_may_run_in_nmi() -> None:
    assert "nmi" in designs.info("kmalloc_nolock").contexts
    assert "nmi" not in designs.info("kmalloc").contexts


def test_unknown_design_is_named_with_what_is_allowed() -> None:
    with pytest.raises(ValueError, match=r"design = 'slob': allowed are .*kmalloc"):
        designs.info("slob")


def test_broken_variants_begin_with_the_correct_one() -> None:
    variants = designs.broken_variants()
    assert next(iter(variants)) == "none"
    assert len(variants) > 1
    assert all(variants.values())
    assert [designs.broken_index(name) for name in variants] == list(range(len(variants)))


def test_unknown_variant_is_named_with_what_is_allowed() -> None:
    with pytest.raises(ValueError, match=r"broken = 'k99': allowed are none, "):
        designs.broken_index("k99")


def test_probe_sites_are_named_once() -> None:
    sites = designs.probe_sites()
    assert sites
    assert len(set(sites)) == len(sites)
