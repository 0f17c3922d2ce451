# SPDX-License-Identifier: MIT
"""Flags by name, there and back."""

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shmalloc import gfp

HEADER = Path(__file__).resolve().parents[2] / "shmalloc" / "core" / "gfp.h"
DEFINED = dict(re.findall(r"^#define (\w*GFP_\w+) (0x[0-9a-f]+)u$", HEADER.read_text(), re.MULTILINE))


def test_names_and_bits_are_those_of_the_header() -> None:
    assert {name: int(flag) for name, flag in gfp.Gfp.__members__.items()} == {
        name: int(bits, 16) for name, bits in DEFINED.items()
    }
    assert len(DEFINED) > 30


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("GFP_KERNEL", 0xCC0),
        ("GFP_KERNEL|__GFP_ZERO", 0xDC0),
        (" GFP_ATOMIC | __GFP_NOWARN ", 0x2820),
        ("0xcc0|__GFP_ZERO", 0xDC0),
        ("none", 0),
        ("0", 0),
    ],
)
def test_parse(text: str, bits: int) -> None:
    assert gfp.parse(text) == bits


@pytest.mark.parametrize(
    ("bits", "text"),
    [
        (0, "none"),
        (0xCC0, "GFP_KERNEL"),
        (0xDC0, "GFP_KERNEL|__GFP_ZERO"),
        (0x820, "GFP_ATOMIC"),
        (0x800, "__GFP_KSWAPD_RECLAIM"),
        (0x400DC0, "GFP_KERNEL_ACCOUNT|__GFP_ZERO"),
        (0x2100CCA, "GFP_HIGHUSER_MOVABLE|0x2000000"),
        (0x80000000, "0x80000000"),
    ],
)
def test_format(bits: int, text: str) -> None:
    assert gfp.format(bits) == text


@given(st.integers(0, 0xFFFFFFFF))
@example(0x7FFDFF)
def test_what_is_written_is_read_back(bits: int) -> None:
    assert gfp.parse(gfp.format(bits)) == bits


@pytest.mark.parametrize("text", ["GFP_KERNL", "GFP_KERNEL|", "", "GFP_KERNEL,__GFP_ZERO"])
def test_unknown_name_is_named_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match=r"no such flag.*allowed are .*GFP_KERNEL") as caught:
        gfp.parse(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["-1", "0x100000000"])
def test_numbers_are_32_bits(text: str) -> None:
    with pytest.raises(ValueError, match="0xffffffff"):
        gfp.parse(text)


def test_flags_combine() -> None:
    both = gfp.Gfp.GFP_KERNEL | gfp.Gfp["__GFP_ZERO"]
    assert int(both) == 0xDC0
    assert gfp.Gfp.GFP_KERNEL in both
