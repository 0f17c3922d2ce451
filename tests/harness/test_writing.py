# SPDX-License-Identifier: MIT
"""Files are replaced whole or not at all, and nothing is left beside them."""

from pathlib import Path

import pytest

from harness.writing import replace_text, replacing


def test_a_file_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("before")
    with replacing(path) as part:
        part.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_half_way_leaves_the_file_of_before(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), replacing(path) as part:  # noqa: PT012 - half of it is the point
        part.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_take_its_place_is_not_left(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        replace_text(tmp_path / "folder", "text")
    with pytest.raises(OSError):
        replace_text(tmp_path / "no" / "folder", "text")
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]


def test_half_a_surrogate_pair_can_be_written(tmp_path: Path) -> None:
    replace_text(tmp_path / "page.html", "a\ud800b")
    assert (tmp_path / "page.html").read_bytes() == b"a?b"
