# SPDX-License-Identifier: MIT
"""The pictures of the README: there, small, and each with the command that makes it."""

import re
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_README = (_ROOT / "README.md").read_text(encoding="utf-8")
_MOST_BYTES = 200_000


def test_every_picture_is_there_and_has_its_command_beside_it() -> None:
    shown = [match for match in re.finditer(r"!\[[^\]]+\]\(([^)]+)\)", _README) if "://" not in match[1]]
    for match in shown:
        assert (_ROOT / match[1]).is_file(), match[1]
        beside = _README[match.start() - 1000 : match.end() + 1000]
        made = re.search(rf"shmalloc report (\S+) --picture (\S+) --out {re.escape(match[1])}", beside)
        assert made, f"{match[1]}: no command that makes it"
        config = re.search(rf"shmalloc run (configs/\S+\.toml) .*--out {re.escape(made[1])}", beside)
        assert config and (_ROOT / config[1]).is_file()


def test_pictures_are_small() -> None:
    pictures = list((_ROOT / "configs/pictures").iterdir())
    assert pictures
    for picture in pictures:
        data = picture.read_bytes()
        assert data.startswith(b"\x89PNG") and len(data) < _MOST_BYTES, picture.name
