# SPDX-License-Identifier: MIT
"""`shmalloc top`: a running arena on the terminal, in slabtop's manner."""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import closing

from harness.top import slabtop, tables
from harness.top.following import Follower, Over, Waiting
from harness.top.look import Interval, Look
from harness.top.observed import Observed
from harness.top.operands import one_of, refusal, seconds
from harness.top.screen import Ended, Screen
from harness.top.view import Line, Seen, View

_PASSED, _USAGE, _SIGNALLED = 0, 2, 128
_DELAY_S = 3.0  # slabtop's
_TICK_S = 0.2  # between two looks at whether the arena is still there
_LOOKING = 10  # a look that takes long is followed by so many times its time of peace


def top(arguments: argparse.Namespace) -> int:
    """Show what a running arena does: caches, CPUs, contexts, failures, zones, memcgs. Press h for the keys."""
    sort = one_of("-s", arguments.sort, list(slabtop.SORT_KEYS))
    delay_s = None if arguments.delay is None else seconds("-d", arguments.delay)
    follower = Follower(arguments.name, wait=arguments.wait)
    if arguments.once:
        return _once(follower, delay_s, sort, as_json=arguments.json)
    if arguments.json:
        raise refusal("--json", "without -o", "allowed is -o --json; shmalloc stat --json goes on")
    for name, stream in (("stdin", sys.stdin), ("stdout", sys.stdout)):
        if not stream.isatty():
            raise refusal(name, "no terminal", "allowed is a terminal; use -o, or shmalloc stat")
    try:
        with Screen(sys.stdin.fileno(), sys.stdout.fileno(), os.environ) as screen:
            over = _show(follower, View(sort=sort), screen, _DELAY_S if delay_s is None else delay_s)
    except Ended as ended:
        return _SIGNALLED + ended.number
    if over is None:
        return _PASSED
    return _said(over)


def _said(over: Over) -> int:
    print(f"shmalloc: {over.text}", file=sys.stderr)
    return _USAGE if over.is_usage else _PASSED


def _once(follower: Follower, delay_s: float | None, sort: str, *, as_json: bool) -> int:
    """Print one look; with a delay, of so long from now on."""
    while isinstance(found := follower.find(), Waiting):
        time.sleep(_TICK_S)
    if isinstance(found, Over):
        return _said(found)
    with closing(found):
        before, now = None, Look.at(found)
        if delay_s is not None:
            time.sleep(delay_s)
            before, now = now, Look.at(found)
    seen = Seen.of(Interval(now, before))
    if as_json:
        print(seen.as_json(sort))
        return _PASSED
    for line in seen.head():
        print(line)
    for section in seen.sections(sort):
        print(f"\n{section.title}", *tables.lines(section), sep="\n")
    return _PASSED


def _show(follower: Follower, view: View, screen: Screen, delay_s: float) -> Over | None:
    """Show one arena after the other. Returns: why there are no more, or None if the user has seen enough."""
    while not view.quits:
        found = follower.find()
        if isinstance(found, Over):
            return found
        if isinstance(found, Waiting):
            width, height = screen.size()
            screen.draw([Line(text[:width]) for text in (found.text, "q: quit")][:height])
            for key in screen.wait(_TICK_S)[0]:
                view.press(key)
            continue
        with closing(found):
            if (why := _watch(found, view, screen, delay_s)) is not None:
                follower.leave(found, why)
    return None


def _watch(arena: Observed, view: View, screen: Screen, delay_s: float) -> str | None:
    """Show one arena. Returns: why it is over, or None if the user has seen enough."""
    now = Look.at(arena)
    seen, due_s, redraw = Seen.of(Interval(now)), now.at_s + delay_s, True
    while True:
        if redraw:
            screen.draw(view.frame(seen, *screen.size()))
        keys, redraw = screen.wait(min(_TICK_S, max(0.0, due_s - time.monotonic())))
        for key in keys:
            view.press(key)
        if view.quits:
            return None
        redraw = redraw or bool(keys)
        if view.looks_now or (not view.paused and time.monotonic() >= due_s):
            view.looks_now, redraw = False, True
            begun_s = time.monotonic()
            before, now = now, Look.at(arena)
            seen = Seen.of(Interval(now, before))
            due_s = max(begun_s + delay_s, time.monotonic() + _LOOKING * (time.monotonic() - begun_s))
        if not view.paused and (why := arena.why_over()) is not None:  # paused: it can still be looked at
            return why
