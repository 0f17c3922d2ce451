# SPDX-License-Identifier: MIT
"""Where lines come from: files, compressed or not, or standard input, in pieces of a MiB whatever their size."""

import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from harness.problems import ConfigError, Problem

__all__ = ["MAX_LINE_BYTES", "STDIN", "Source"]

STDIN = Path("-")
#: a longer line is no line of a trace
MAX_LINE_BYTES = 1 << 13
_PIECE_BYTES = 1 << 20
_GZIP = b"\x1f\x8b"
#: how files begin that hold a trace, but not as text: what makes text of them
_BINARY = {
    b"PERFILE2": "perf's own file; allowed is its text: perf script -i {0} > {0}.txt",
    b"\x17\x08\x44tracing": "trace-cmd's own file; allowed is its text: trace-cmd report -l -i {0} > {0}.txt",
    b"PK\x03\x04": "a zip or npz file; allowed is text of perf script, tracefs or trace-cmd report",
}


class Source:
    """A file that is read line by line.

    Attributes:
        name: for messages.
        lines: read so far.
        cut: why the end is missing; empty if it is not.
    """

    def __init__(self, path: Path) -> None:
        self.name = "standard input" if path == STDIN else str(path)
        self.lines = 0
        self.cut = ""
        self._path = path

    def __iter__(self) -> Iterator[bytes]:
        """Go through the lines, without their ends. Raises: ConfigError, if this cannot be read as text."""
        try:
            with sys.stdin.buffer if self._path == STDIN else self._path.open("rb") as raw:
                yield from self._lines(self._opened(raw))
        except OSError as error:
            raise self._error(f"cannot be read: {error.strerror or error}") from None

    def _opened(self, raw: BinaryIO) -> BinaryIO:
        """Look at how a file begins, and undo its compression."""
        file = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(raw)  # type: ignore[type-var]
        start = file.peek(16)[:16]
        for magic, text in _BINARY.items():
            if start.startswith(magic):
                raise self._error("is " + text.format(self.name))
        return gzip.open(file) if start.startswith(_GZIP) else file  # type: ignore[return-value]

    def _lines(self, file: BinaryIO) -> Iterator[bytes]:
        rest = b""
        while piece := self._piece(file):
            lines = (rest + piece).split(b"\n")
            rest = lines.pop()
            if len(rest) > MAX_LINE_BYTES:
                lines.append(rest)
                rest = b""
            for line in lines:
                self.lines += 1
                yield line if len(line) <= MAX_LINE_BYTES else line[:80] + b"..."
        if rest:
            self.lines += 1
            if rest.strip():
                self.cut = self.cut or "it ends in the middle of a line, which is left out"

    def _piece(self, file: BinaryIO) -> bytes:
        read = getattr(file, "read1", file.read)  # of a pipe what is there
        try:
            return bytes(read(_PIECE_BYTES))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self.cut = f"its compressed data breaks off: {error}"
            return b""

    def _error(self, text: str) -> ConfigError:
        return ConfigError("import-trace", [Problem("FILE", self.name, text)])
