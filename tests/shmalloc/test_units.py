# SPDX-License-Identifier: MIT
"""Sizes as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmalloc.units import format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("4096", 4096),
        (7, 7),
        ("100B", 100),
        ("64MiB", 64 << 20),
        ("64M", 64 << 20),
        (" 1.5 GiB ", 3 << 29),
        ("2kib", 2048),
        ("0.5K", 512),
        ("1KB", 1000),
        ("3 TB", 3 * 10**12),
        ("1T", 1 << 40),
    ],
)
def test_sizes(text: str | int, size_bytes: int) -> None:
    assert parse_bytes(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "x", "-1", -1, "1.0001", "5iB", "3.3KiB", True, None, 1.5, "64 M B", "1e6"]
)
def test_no_sizes(text: object) -> None:
    with pytest.raises(ValueError, match=r"not a (size|whole number)"):
        parse_bytes(text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (100, "100 B"), (4096, "4 KiB"), (5000, "4.9 KiB"), (64 << 20, "64 MiB"), (-2048, "-2 KiB")],
)
def test_formatted(size_bytes: int, text: str) -> None:
    assert format_bytes(size_bytes) == text


@given(st.integers(0, 2**20), st.sampled_from([0, 10, 20, 30]))
def test_what_is_exact_reads_back(number: int, shift: int) -> None:
    text = format_bytes(number << shift)
    if "." not in text:
        assert parse_bytes(text) == number << shift
