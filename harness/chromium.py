# SPDX-License-Identifier: MIT
"""An installed Chromium, without a window: pages are looked at and tested in it.

Nothing is downloaded: the browser is the machine's own, playwright (extra `browser`) drives it. The browser
ends when the process that started it does, however that ends: it hangs on a pipe.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from harness.problems import CannotRun

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["VARIABLE", "NoBrowser", "find", "started"]

VARIABLE = "SHMALLOC_BROWSER"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# It may be root's, has no GPU, and asks nobody for anything.
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--font-render-hinting=none",
    "--force-color-profile=srgb",
)
_LIMIT_MS = 60_000.0  # of waiting for anything; reached only if something is broken


class NoBrowser(CannotRun):
    """There is no browser here, and what would bring one."""


def find() -> str:
    """Return the path of the browser: the one that SHMALLOC_BROWSER names, else the one that PATH has.

    Raises: NoBrowser: there is none, or no playwright to drive it.
    """
    named = os.environ.get(VARIABLE)
    if named:
        path = shutil.which(named)
        if path is None:
            raise NoBrowser(f"{VARIABLE} = {named!r}: allowed is the path of an executable file")
    else:
        path = next(filter(None, map(shutil.which, _NAMES)), None)
        if path is None:
            raise NoBrowser(f"no Chromium: none of {', '.join(_NAMES)} on PATH (Debian: chromium)")
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        raise NoBrowser(f"no Chromium: {path} needs playwright (pip install 'shmalloc[browser]')") from None
    return path


@contextmanager
def started() -> Iterator[Browser]:
    """Run the browser, with a profile of its own that goes with it.

    Raises: NoBrowser: as find(), or it does not start.
    """
    path = find()
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=path, args=list(_FLAGS), timeout=_LIMIT_MS)
        except Error as error:
            raise NoBrowser(f"{path} does not start: {error.message}") from None
        try:
            yield browser
        finally:
            browser.close()
