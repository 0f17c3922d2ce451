# SPDX-License-Identifier: MIT
"""The terminal: keys one by one, the alternate screen, signals; and all of it back as it was, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import termios
import tty
from collections.abc import Iterable, Mapping
from types import FrameType, TracebackType
from typing import Any, Self

from harness.top.view import Line

_NOTED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGTSTP,
    signal.SIGCONT,
    signal.SIGWINCH,
)
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l\x1b[H\x1b[2J", "\x1b[?25h\x1b[?1049l"
NO_LOOK = "\x1b[m"
_LOOKS = {"bold": "\x1b[1m", "reverse": "\x1b[7m", "bad": "\x1b[1;31m"}
_PLAIN_LOOKS = {"bold": "\x1b[1m", "reverse": "\x1b[7m", "bad": "\x1b[1m"}
_SPECIAL = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"\x1b[C": "right",
    b"\x1bOC": "right",
    b"\x1b[D": "left",
    b"\x1bOD": "left",
    b"\x1b[5~": "pgup",
    b"\x1b[6~": "pgdn",
    b"\x1b[H": "home",
    b"\x1bOH": "home",
    b"\x1b[1~": "home",
    b"\x1b[Z": "backtab",
}


class Ended(Exception):
    """Somebody has asked for the end. Attributes: number: of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Screen:
    """A terminal that is this program's while the context is entered.

    A dumb one, which cannot be written to at a place, gets each frame below the one before. NO_COLOR leaves
    bold and reverse.

    Args: keys, out: descriptors of the terminal.  environment: TERM and NO_COLOR are looked at.
    """

    def __init__(self, keys: int, out: int, environment: Mapping[str, str]) -> None:
        self._keys, self._out = keys, out
        self._dumb = environment.get("TERM", "") in ("", "dumb", "unknown")
        self._looks = {} if self._dumb else _PLAIN_LOOKS if environment.get("NO_COLOR") else _LOOKS
        self._before: dict[int, Any] = {}
        self._noted: list[int] = []
        self._modes: list[Any] | None = None
        self._wake, self._waker = -1, -1

    def __enter__(self) -> Self:
        self._wake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in _NOTED:
            self._before[number] = signal.signal(number, self._note)
        self._take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._wake)
        os.close(self._waker)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._noted.append(number)
        with contextlib.suppress(BlockingIOError):  # it is awake as it is
            os.write(self._waker, b"!")

    def _take(self) -> None:
        self._modes = termios.tcgetattr(self._keys)
        tty.setcbreak(self._keys, termios.TCSANOW)
        if not self._dumb:
            self._write(_ENTER)

    def _give_back(self) -> None:
        if self._modes is None:
            return
        with contextlib.suppress(OSError, termios.error):  # the terminal itself may have gone
            if not self._dumb:
                self._write(_LEAVE)
            termios.tcsetattr(self._keys, termios.TCSANOW, self._modes)
        self._modes = None

    def size(self) -> tuple[int, int]:
        """Return columns and lines; 80 and 24 of a terminal that does not know."""
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(self._out, termios.TIOCGWINSZ, bytes(8)))
        return columns or 80, rows or 24

    def draw(self, lines: Iterable[Line]) -> None:
        """Show a frame. Args: lines: no more and no longer than the screen."""
        if self._dumb:
            self._write("\n".join(line.text for line in lines) + "\n")
            return
        columns, rows = self.size()
        parts = ["\x1b[?7l"]  # what is longer than the screen is cut off, should it have shrunk just now
        for row, line in enumerate(lines, 1):
            look = self._looks.get(line.look, "")
            rest = "\x1b[K" if len(line.text) < columns else ""  # else it would erase the last character
            parts.append(f"\x1b[{row};1H{look}{line.text}{look and NO_LOOK}{rest}")
        if len(parts) - 1 < rows:
            parts.append(f"\x1b[{len(parts)};1H\x1b[J")
        self._write("".join([*parts, "\x1b[?7h"]))

    def _write(self, text: str) -> None:
        data = text.encode("ascii", "replace")
        while data:
            data = data[os.write(self._out, data) :]

    def wait(self, seconds: float) -> tuple[list[str], bool]:
        """Wait for keys, or a change of the terminal.

        Returns: the keys, and whether all must be drawn anew.
        Raises: Ended.
        """
        ready, _, _ = select.select([self._keys, self._wake], [], [], max(0.0, seconds))
        if self._wake in ready:
            os.read(self._wake, 4096)
        redraw = self._act_on_signals()
        if self._keys not in ready:
            return [], redraw
        try:
            typed = os.read(self._keys, 1024)
        except OSError:  # the terminal has gone
            typed = b""
        if not typed:
            raise Ended(signal.SIGHUP)
        return keys_of(typed), redraw

    def _act_on_signals(self) -> bool:
        redraw = False
        while self._noted:
            number = self._noted.pop(0)
            if number in _ENDS:
                raise Ended(number)
            if number == signal.SIGTSTP:
                self._stop()
            elif number == signal.SIGCONT:  # the shell may have set modes of its own
                self._give_back()
                self._take()
            redraw = True
        return redraw

    def _stop(self) -> None:
        """Stop as if SIGTSTP had not been caught, with the terminal as it was; go on where it is continued."""
        self._give_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._note)
        self._noted = [number for number in self._noted if number != signal.SIGCONT]
        self._take()


def keys_of(typed: bytes) -> list[str]:
    """Tell the keys apart in what a terminal has sent; what is none that is known is left out."""
    found = []
    while typed:
        special = next((code for code in _SPECIAL if typed.startswith(code)), b"")
        if special:
            found.append(_SPECIAL[special])
        elif typed[:1] != b"\x1b":
            found.append(chr(typed[0]))
        typed = typed[len(special) or _unknown(typed) :]
    return found


def _unknown(typed: bytes) -> int:
    """Return the bytes of a key that is not known: a whole control sequence, or one."""
    if typed[:2] not in (b"\x1b[", b"\x1bO"):
        return 1
    end = next((at for at, byte in enumerate(typed[2:], 2) if 0x40 <= byte <= 0x7E), len(typed) - 1)
    return end + 1
