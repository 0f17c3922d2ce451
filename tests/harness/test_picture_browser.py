# SPDX-License-Identifier: MIT
"""`shmalloc report --picture`: a part of a page as PNG, and nothing else of it."""

import io
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import running

from harness import chromium
from harness.page import Markup, Section, document, element, picture
from harness.problems import CannotRun, ConfigError

_GREEN, _RED = (0, 160, 0), (200, 0, 0)


def _box(colour: tuple[int, int, int], high: int) -> Markup:
    return element("div", style=f"height:{high}px;width:300px;background:rgb{colour}")


PAGE = document(
    "t",
    Markup("top"),
    [
        Section("before", "before", _box(_RED, 50)),
        Section(
            "both",
            "both",
            element(
                "details",
                element("summary", "folded"),
                element("figure", _box(_GREEN, 100), element("details", _box(_RED, 9)), id="figure"),
            ),
        ),
        Section("after", "after", _box(_RED, 50)),
        Section("drawn", "drawn", element("div", id="canvas"), js="""
(async () => {
	const bytes = new Uint8Array(await shmalloc.unpack("bytes"));
	const box = document.getElementById("canvas");
	box.style = `height:100px;width:100px;background:rgb(${bytes.join(",")})`;
})();""", packed={"bytes": bytes(_GREEN)}),
        Section("high", "high", _box(_RED, 9000)),
        Section("none", "none", element("figure", id="nothing", style="display:none")),
    ],
)  # fmt: skip


def _seen(png: bytes) -> np.ndarray:
    return (matplotlib.image.imread(io.BytesIO(png), format="png")[:, :, :3] * 255 + 0.5).astype(np.uint8)


def _count(seen: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((abs(seen.astype(int) - colour).max(axis=2) < 4).sum())


@pytest.mark.usefixtures("needs_browser")
def test_a_figure_is_alone_in_its_picture() -> None:
    seen = _seen(picture.take(PAGE, "figure"))
    assert _count(seen, _GREEN) == 4 * 300 * 100, "twice as fine as the page"
    assert _count(seen, _RED) == 0
    assert seen.shape == (2 * (100 + 2 * 12), 2 * (300 + 2 * 12), 3), "nothing around it"
    assert tuple(seen[0, 0]) == (255, 255, 255)


@pytest.mark.usefixtures("needs_browser")
def test_what_scripts_draw_is_there() -> None:
    seen = _seen(picture.take(PAGE, "drawn", width=500))
    assert _count(seen, _GREEN) == 4 * 100 * 100 and seen.shape[1] <= 1000


@pytest.mark.usefixtures("needs_browser")
def test_what_cannot_be_is_told() -> None:
    with pytest.raises(
        ConfigError, match=r"--picture = 'fugure': .*did you mean figure\?.*before, both, figure"
    ):
        picture.take(PAGE, "fugure")
    with pytest.raises(CannotRun, match="high"):
        picture.take(PAGE, "high")
    with pytest.raises(CannotRun, match="nothing to show"):
        picture.take(PAGE, "nothing")


@pytest.mark.usefixtures("needs_browser")
def test_the_command_leaves_a_picture_and_no_page(tmp_path: Path) -> None:
    out = tmp_path / "out"
    running.run("run", running.config(tmp_path), "--no-progress", "--no-plots", "--out", out, cwd=tmp_path)
    (out / "report.html").unlink()
    done = running.run("report", out, "--picture", "counters", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout == "counters of small: counters.png\n"
    assert (tmp_path / "counters.png").read_bytes().startswith(b"\x89PNG")
    assert not (out / "report.html").exists()
    done = running.run("report", out, "--picture", "cuonters", cwd=tmp_path)
    assert done.returncode == 2 and "did you mean counters?" in done.stderr
    done = running.run("report", out, "--picture", "counters", "--out", "x.jpg", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "command line: --out = 'x.jpg': allowed is the name of a PNG\n"


def test_without_a_browser_it_says_what_brings_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(chromium.VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        chromium.NoBrowser, match=r"no Chromium: none of chromium, .* on PATH \(Debian: chromium\)"
    ):
        picture.take(PAGE, "figure")
    monkeypatch.setenv(chromium.VARIABLE, "/no/such")
    with pytest.raises(chromium.NoBrowser, match=r"SHMALLOC_BROWSER = '/no/such': allowed is the path"):
        picture.take(PAGE, "figure")
