# SPDX-License-Identifier: MIT
"""Colours of figures: told apart by colour-blind readers, on paper and on a dark screen, and never by colour alone."""

import itertools
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import colours
import pytest

import harness.page
from harness.plots import legend, palette, style
from harness.plots.drawing import HATCHES, MARKERS, Entry

GROUNDS = {"light": "#ffffff", "dark": "#14181d"}
SCHEMES = {"light": palette.LIGHT, "dark": palette.DARK}
BASE = (Path(harness.page.__file__).parent / "base.css").read_text(encoding="utf-8")


def test_distances_are_those_of_the_literature() -> None:
    """Black to white is 100; red and green of traffic come together for who lacks a kind of cones."""
    assert colours.distance("#000000", "#ffffff") == pytest.approx(100, abs=0.1)
    assert colours.distance("#a06040", "#6c7a3d") > 2 * colours.distance("#a06040", "#6c7a3d", "deuteranopia")
    assert colours.contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("sight", colours.SIGHTS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_two_colours_are_close(scheme: str, sight: str) -> None:
    found, one, other = colours.closest(SCHEMES[scheme], sight)
    assert found > 11, (one, other)


@pytest.mark.parametrize("sight", colours.SIGHTS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_neighbours_are_further_apart(scheme: str, sight: str) -> None:
    series = SCHEMES[scheme]
    for one, other in itertools.pairwise([*series, series[0]]):
        assert colours.distance(one, other, sight) > 14, (one, other)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_colours_stand_out_from_the_ground(scheme: str) -> None:
    assert all(colours.contrast(colour, GROUNDS[scheme]) > 2.6 for colour in SCHEMES[scheme])
    texts = {each.variable: getattr(each, scheme) for each in palette.COLOURS}
    assert colours.contrast(texts["--ink"], GROUNDS[scheme]) > 7
    assert colours.contrast(texts["--quiet"], GROUNDS[scheme]) > 4.5


def test_the_page_has_the_same_values() -> None:
    light, dark = BASE.split("@media screen and (prefers-color-scheme: dark)")
    for colour in palette.COLOURS:
        for part, value in ((light, colour.light), (dark, colour.dark)):
            found = re.findall(rf"{colour.variable}: (#\w+);", part)
            assert [_long(each) for each in found] == [value], colour


def _long(value: str) -> str:
    return value if len(value) == 7 else "#" + "".join(2 * digit for digit in value[1:])


def test_stand_ins_are_told_apart_and_are_no_colours_of_anybody() -> None:
    stand_ins = [colour.stand_in for colour in palette.COLOURS]
    assert len(set(stand_ins)) == len(stand_ins)
    assert not set(stand_ins) & {*palette.LIGHT, *palette.DARK}


def test_lines_and_areas_differ_without_colour() -> None:
    looks = [(str(style.dash(at)), MARKERS[at % len(MARKERS)]) for at in range(len(palette.LIGHT))]
    assert len(set(looks)) == len(palette.LIGHT)
    assert len(set(HATCHES)) == len(HATCHES)


def test_a_legend_shows_the_lines_that_are_drawn() -> None:
    for at, pattern in enumerate(legend.PATTERNS):
        dash = style.dash(at)
        assert pattern == (() if dash == "-" else dash[1])
    seen = set()
    for at in range(len(MARKERS)):
        text = legend.swatch(Entry("a", palette.series(at), at, at))
        ET.fromstring(f"<svg>{text}</svg>")
        seen.add(re.sub(r"#\w{6}", "", text))
    for at in range(len(HATCHES)):
        text = legend.swatch(Entry("a", palette.series(1), hatch=at))
        ET.fromstring(f"<svg>{text}</svg>")
        seen.add(text)
    assert len(seen) == len(MARKERS) + len(HATCHES)
