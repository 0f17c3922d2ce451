# SPDX-License-Identifier: MIT
"""`shmalloc top` in a pseudo-terminal: what the screen shows, keys, sizes, and a terminal that is as it was."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from rig import Rig
from terminal import Terminal, terminal

from harness.top import slabtop

ALLOCS = 101
COMMAND = [sys.executable, "-m", "harness", "top"]


@contextmanager
def _top(
    rig: Rig, *arguments: str, columns: int = 110, rows: int = 30, **environment: str
) -> Iterator[Terminal]:
    """Start top on an arena and wait for its first frame."""
    command = [*COMMAND, rig.arena.name, "-d", "0.05", *arguments]
    with terminal(command, columns=columns, rows=rows, **environment) as shown:
        shown.shows("OBJS"[:columns])
        yield shown


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig.create() as made:
        yield made


def _rows(shown: Terminal, titles: str) -> list[list[str]]:
    """Return the cells of a table's rows."""
    lines = shown.lines
    at = next((at for at, line in enumerate(lines) if titles in line), len(lines))
    return [line.split() for line in lines[at + 1 :] if line]


def _all_allocs(shown: Terminal) -> int:
    """Return what the row of all designs says of tasks."""
    rows = [row for row in _rows(shown, "DESIGN") if row[:2] == ["all", "task"]]
    return int(rows[0][5]) if rows else -1


def test_numbers_follow_what_is_done(rig: Rig) -> None:
    with _top(rig) as shown:
        shown.send("3")
        shown.until(lambda: _all_allocs(shown) == 0, "no allocation")
        rig.take(ALLOCS)
        shown.until(lambda: _all_allocs(shown) == ALLOCS, f"{ALLOCS} allocations")
        shown.send("1")
        per_slab = rig.per_slab()
        slabs = -(-ALLOCS // per_slab)
        wanted = [str(slabs * per_slab), str(slabs * per_slab), "100%", "1.00K", str(slabs)]
        shown.until(
            lambda: wanted in [row[:5] for row in _rows(shown, "OBJS") if row[-1] == "kmalloc-1k"],
            "the cache's objects and slabs",
        )
        shown.send("q")
        assert shown.end() == 0
        assert shown.is_restored()


def test_every_section_has_its_key(rig: Rig) -> None:
    titles = ("OBJS ACTIVE", "WAITS/S", "DESIGN", "REASON", "MANAGED", "MEMCG", "caches by")
    with _top(rig) as shown:
        for number, title in enumerate(titles, 1):
            shown.send(str(number))
            shown.shows(title)
        shown.send("\t")
        shown.shows("[caches]")
        shown.send("\x1b[Z")
        shown.shows("[all]")
        shown.send("h")
        shown.shows("sort caches by active objects")
        shown.send("1")
        shown.shows("OBJS ACTIVE")


def test_letters_sort_as_in_slabtop(rig: Rig) -> None:
    rig.take(ALLOCS)
    rig.take(ALLOCS, 64)
    with _top(rig, "-s", "n", rows=60) as shown:
        names = sorted(row["name"] for row in slabtop.caches(_slabs(rig), "n").rows)
        shown.until(lambda: [row[-1] for row in _rows(shown, "OBJS")] == names, "names from a on")
        shown.send("s")
        shown.until(lambda: _rows(shown, "OBJS")[0][3] == "8.00K", "the largest objects first")
        shown.send("o")
        shown.until(lambda: _rows(shown, "OBJS")[0][-1] == "kmalloc-64", "most objects first")
        shown.send("c")
        shown.until(lambda: _rows(shown, "OBJS")[0][-1] == "kmalloc-1k", "the largest cache first")


def _slabs(rig: Rig) -> list[object]:
    from shmalloc.procfs import slab_rows

    return slab_rows(rig.arena)  # type: ignore[return-value]


def test_a_paused_view_stands_still(rig: Rig) -> None:
    with _top(rig) as shown:
        shown.send("3P")
        shown.shows("PAUSED")
        rig.take(ALLOCS)
        for key, title in (
            ("2", "WAITS/S"),
            ("5", "MANAGED"),
            ("3", "DESIGN"),
        ):  # frames are drawn all the same
            shown.send(key)
            shown.shows(title)
        assert _all_allocs(shown) == 0
        shown.send(" ")
        shown.until(lambda: _all_allocs(shown) == ALLOCS, "one look on demand")
        shown.send("P")
        shown.until(lambda: "PAUSED" not in shown.text, "it goes on")


def test_resizing_redraws_to_fit(rig: Rig) -> None:
    with _top(rig) as shown:
        for columns, rows in (40, 10), (20, 5), (120, 40), (1, 1), (80, 24):
            shown.resize(columns, rows)
            last = rows - 1
            if rows > 5:
                shown.until(lambda last=last: shown.lines[last], f"a last line in {columns}x{rows}")
                shown.shows("OBJS ACTIVE")
        assert shown.lines[0].startswith(rig.arena.name[:20])
        shown.send("q")
        assert shown.end() == 0
        assert shown.is_restored()


def test_a_tiny_terminal(rig: Rig) -> None:
    with _top(rig, columns=40, rows=10) as shown:
        assert len(_rows(shown, "OBJS")) > 2
        first = _rows(shown, "OBJS")[0]
        shown.send("\x1b[B")
        shown.until(lambda: _rows(shown, "OBJS")[0] != first, "scrolled down")
        shown.send("\x1b[C" * 4)
        shown.shows("NAME")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_the_terminal_restored(rig: Rig, number: signal.Signals) -> None:
    with _top(rig) as shown:
        shown.child.kill(number)
        assert shown.end() == 128 + number
        assert shown.is_restored()


def test_ctrl_c_ends_it(rig: Rig) -> None:
    with _top(rig) as shown:
        shown.send("\x03")
        assert shown.end() == 130
        assert shown.is_restored()


def test_ctrl_z_gives_the_terminal_back_until_fg(rig: Rig) -> None:
    with terminal(["/bin/bash", "--norc", "--noprofile", "-i"], PS1="ready> ", HISTFILE="") as shell:
        shell.shows("ready>")
        shell.send(" ".join([*COMMAND, rig.arena.name, "-d", "0.05"]) + "\r")
        shell.shows("[caches]")
        shell.send("\x1a")
        shell.until(lambda: "Stopped" in shell.text and "[caches]" not in shell.text, "the shell again")
        assert shell.raw.rindex(b"\x1b[?1049l") > shell.raw.rindex(b"\x1b[?1049h")
        assert shell.raw.rindex(b"\x1b[?25h") > shell.raw.rindex(b"\x1b[?25l")
        shell.send("echo sa''id\r")  # echoed, as before
        shell.shows("said")
        shell.send("fg\r")
        shell.shows("[caches]")
        shell.send("3")
        shell.shows("DESIGN")
        shell.send("q")
        shell.until(lambda: "DESIGN" not in shell.text, "the shell at the end")
        shell.send("echo status $?\r")
        shell.shows("status 0")
        shell.send("exit\r")
        assert shell.end() == 0


def test_the_end_of_the_arena_is_said_on_a_restored_terminal(rig: Rig) -> None:
    with _top(rig) as shown:
        rig.arena.unlink()
        assert shown.end() == 0
        assert f"shmalloc: {rig.arena.name} has ended" in shown.text.replace("\n", "")
        assert shown.is_restored()


def test_a_paused_view_outlives_the_arena(rig: Rig) -> None:
    rig.take(ALLOCS)
    with _top(rig) as shown:
        shown.send("P")
        shown.shows("PAUSED")
        rig.arena.unlink()
        shown.send("3")
        shown.until(lambda: _all_allocs(shown) == ALLOCS, "the last look")
        shown.send("P")
        assert shown.end() == 0


def test_waiting_for_an_arena_and_for_the_next() -> None:
    with Rig.create() as other:
        name = f"{other.arena.name[1:]}-next"
    with terminal([*COMMAND, name, "--wait", "-d", "0.05"]) as shown:
        shown.shows("there is no such segment")
        for allocs in 7, 23:
            with Rig.create(name=name) as rig:
                shown.shows("[c")
                shown.send("3")
                rig.take(allocs)
                shown.until(lambda allocs=allocs: _all_allocs(shown) == allocs, f"{allocs} allocations")
            shown.shows("there is no such segment")
        shown.send("q")
        assert shown.end() == 0
        assert shown.is_restored()


def test_a_dumb_terminal_gets_no_control_sequence(rig: Rig) -> None:
    with _top(rig, TERM="dumb") as shown:
        shown.send("q")
        assert shown.end() == 0
        assert b"\x1b" not in shown.raw
        assert shown.is_restored()


@pytest.mark.parametrize(("no_color", "is_red"), [("", True), ("1", False)])
def test_no_color_leaves_out_colours_only(rig: Rig, no_color: str, is_red: bool) -> None:
    rig.exhaust(0)
    with _top(rig, "-d", "600", NO_COLOR=no_color) as shown:
        shown.send("4")
        shown.shows("below_watermark")
        shown.send("q")
        assert shown.end() == 0
        assert (b"\x1b[1;31m" in shown.raw) == is_red
        assert b"\x1b[7m" in shown.raw


def test_an_arena_that_is_not_there_leaves_the_terminal_alone() -> None:
    with terminal([*COMMAND, "no-such-arena"]) as shown:
        assert shown.end() == 1
        assert "there is no such segment" in shown.text
        assert shown.is_restored()


def test_it_ends_when_its_terminal_goes(rig: Rig) -> None:
    with _top(rig) as shown:
        shown.child.close(force=False)  # the master's end: SIGHUP
        assert not shown.child.isalive()
