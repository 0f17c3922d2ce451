# SPDX-License-Identifier: MIT
"""Numbers and commands as a page writes them."""

from harness.report_page.words import again, live, memory, number, plural


def test_counts_are_exact_and_measured_values_have_four_digits() -> None:
    texts = [number(value) for value in (0, 1234567, 27577060.6, 999.96, 60.7, 0.00012345, None, "x", True)]
    assert texts == ["0", "1,234,567", "27,577,061", "1000", "60.7", "0.0001234", "-", "x", "True"]
    assert [memory(value) for value in (None, 0, 4096, 2441217)] == ["-", "0 KiB", "4 KiB", "2,441,217 B"]
    assert [live(value) for value in (None, 0, 4096)] == ["-", "0 B", "4,096 B"]
    assert [plural(count, "cell") for count in (0, 1, 1200)] == ["0 cells", "1 cell", "1,200 cells"]


def test_the_whole_run_is_run_again_without_what_makes_a_cell() -> None:
    cell = {
        "params": {"design": "a b"},
        "replay": "shmalloc run 'my file.toml' --set seed=7 --set 'design=\"a b\"'",
    }
    assert again([cell] * 2) == "shmalloc run 'my file.toml' --set seed=7"
    assert again([cell]) == cell["replay"]
    assert again([]) is None and again([{"params": {}}]) is None and again([{"replay": "'"}]) is None
