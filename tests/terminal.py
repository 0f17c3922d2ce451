# SPDX-License-Identifier: MIT
"""A command in a pseudo-terminal, and the screen that its output makes there."""

from __future__ import annotations

import os
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pexpect
import pyte

_FIRST_SCREEN = b"\x1b[?1049l"
LIMIT_S = 60.0  # of waiting for anything; reached only if something is broken


class Terminal:
    """A command and its terminal. Attributes: child: the process.  raw: all that it has written.  screen."""

    def __init__(
        self, command: Sequence[str], *, columns: int, rows: int, environment: Mapping[str, str]
    ) -> None:
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = self._held = b""
        env = {**os.environ, "TERM": "xterm-256color", **environment}
        self.child = pexpect.spawn(
            command[0], list(command[1:]), dimensions=(rows, columns), env=env, timeout=LIMIT_S
        )
        self._modes = self._modes_at_end = termios.tcgetattr(self.child.child_fd)

    @property
    def lines(self) -> list[str]:
        """What the screen shows."""
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def read(self, seconds: float = 0.1) -> bool:
        """Take what the command has written meanwhile. Returns: False at its end."""
        try:
            data = self.child.read_nonblocking(65536, seconds)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        self.raw += data
        self._feed(data)
        return True

    def _feed(self, data: bytes) -> None:
        """pyte has one screen only: back on the first one, it is cleared."""
        data = self._held + data
        cut = next((n for n in range(len(_FIRST_SCREEN) - 1, 0, -1) if data.endswith(_FIRST_SCREEN[:n])), 0)
        data, self._held = data[: len(data) - cut], data[len(data) - cut :]
        self._stream.feed(data.replace(_FIRST_SCREEN, b"\x1b[2J\x1b[H"))

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Read until a condition holds, and return what it returned."""
        deadline = time.monotonic() + LIMIT_S
        while not (found := condition()):
            assert self.read(), f"the command ended, waited for: {what}\n{self.text}"
            assert time.monotonic() < deadline, f"waited {LIMIT_S} s for: {what}\n{self.text}"
        return found

    def shows(self, text: str) -> None:
        """Wait until the screen shows a text."""
        self.until(lambda: text in self.text, repr(text))

    def send(self, keys: str) -> None:
        self.child.send(keys)

    def resize(self, columns: int, rows: int) -> None:
        self.screen.resize(rows, columns)
        self.child.setwinsize(rows, columns)

    def end(self) -> int:
        """Read to the end, and return the exit status."""
        deadline = time.monotonic() + LIMIT_S
        while self.read():
            assert time.monotonic() < deadline, f"waited {LIMIT_S} s for the end\n{self.text}"
        self._modes_at_end = termios.tcgetattr(self.child.child_fd)
        self.child.close()
        status = self.child.exitstatus
        assert status is not None, f"ended by signal {self.child.signalstatus}"
        return int(status)

    def is_restored(self) -> bool:
        """Whether the terminal was as before at the end: modes, cursor and the first screen."""
        if b"\x1b[?1049h" in self.raw:
            last_in, last_out = self.raw.rindex(b"\x1b[?1049h"), self.raw.rfind(b"\x1b[?1049l")
            hidden, shown = self.raw.rindex(b"\x1b[?25l"), self.raw.rfind(b"\x1b[?25h")
            if last_out < last_in or shown < hidden:
                return False
        return bool(self._modes_at_end == self._modes)


@contextmanager
def terminal(
    command: Sequence[str], *, columns: int = 100, rows: int = 30, **environment: str
) -> Iterator[Terminal]:
    """Start a command in a terminal of its own; at the end it is ended if it still runs."""
    started = Terminal(command, columns=columns, rows=rows, environment=environment)
    try:
        yield started
    finally:
        started.child.close(force=True)
