# SPDX-License-Identifier: MIT
"""The atlas's page in a browser: its maps and points are made there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import atlas_sample
import browser
import pytest

from harness.atlas import page

DOCUMENT = atlas_sample.atlas()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return page.write(tmp_path_factory.mktemp("atlas"), atlas_sample.run(DOCUMENT), DOCUMENT)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1280])
def test_it_opens(open_page: Callable[..., Any], path: Path, width: int, *, dark: bool) -> None:
    opened = open_page(path, dark=dark, width=width)
    assert opened.locator("figure").count() == 5
    assert opened.locator("#functions tr.row").count() == len(DOCUMENT["cells"][0]["functions"])
    assert browser.too_wide(opened) == []
    assert bool(browser.pixels(opened)[0, 0].mean() < 100) is dark
