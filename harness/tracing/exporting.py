# SPDX-License-Identifier: MIT
"""Find a recorded trace, in a run's folder or alone, and write it for another tool."""

from __future__ import annotations

import sys
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.problems import ConfigError, Problem, one_of, unknown
from harness.tracing.kernel_text import TEXT_FORMATS, write_text
from harness.tracing.perfetto import Memory, protos, write_perfetto
from shmalloc.trace import Events

__all__ = ["FORMATS", "Recorded", "find", "write"]

PERFETTO = "perfetto"
FORMATS = (PERFETTO, *TEXT_FORMATS)
STDOUT = Path("-")


@dataclass(frozen=True)
class Recorded:
    """A trace. Attributes: title: what was traced.  name: for files.  memory: from the run's samples."""

    title: str
    name: str
    events: Events
    memory: Memory = ()


def find(path: Path, cell: str | None) -> Recorded:
    """Read a trace.

    Args: path: the folder of a run, or a trace's file.  cell: id; may be None if one cell only has a trace.
    Raises: ConfigError.
    """
    if path.is_dir():
        return _of_run(path, cell)
    if cell is not None and path.exists():
        raise _error("--cell", cell, f"{path} is one trace; allowed with the folder of a run")
    return Recorded(path.stem, path.stem, _load(path))


def _load(path: Path) -> Events:
    try:
        events = Events.load(path)
        if not (isinstance(events.tsc_hz, int) and events.tsc_hz > 0):
            raise ValueError(f"tsc_hz is {events.tsc_hz!r}")
        return events
    except OSError as error:
        raise _error("DIR|FILE.npz", str(path), f"cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        why = f"allowed is the folder of a run, or one of its arrays/trace-NNN.npz ({error})"
        raise _error("DIR|FILE.npz", str(path), f"is no trace: {why}") from None


def _of_run(folder: Path, cell: str | None) -> Recorded:
    from harness import page

    loaded = page.load(folder)
    traced = {one["id"]: one for one in loaded.run["cells"] if _has_file(one.get("trace"))}
    if not traced:
        text = "no cell of this run was traced; allowed is a run whose config has [trace]"
        raise _error("DIR|FILE.npz", str(folder), text)
    if cell is None and len(traced) > 1:
        raise _error("--cell", None, one_of(traced))
    if cell is not None and cell not in traced:
        raise _error("--cell", cell, unknown("cell with a trace", cell, list(traced)))
    one = traced[cell if cell is not None else next(iter(traced))]
    trace: Mapping[str, Any] = one["trace"]
    file = folder / trace["file"]
    events = _load(file)
    start = trace.get("tsc_start")
    samples = loaded.samples.get(one["id"], []) if start is not None else []
    memory = [(int(start + sample.t_s * events.tsc_hz), sample) for sample in samples if start is not None]
    return Recorded(f"{loaded.label} {one['id']}", file.stem, events, memory)


def _has_file(trace: Any) -> bool:
    return isinstance(trace, Mapping) and isinstance(trace.get("file"), str)


def write(recorded: Recorded, form: str, out: Path) -> None:
    """Write a trace. Args: form: one of FORMATS.  out: "-" is standard output.  Raises: ConfigError, CannotRun."""
    try:
        if form == PERFETTO:
            protos()  # before there is a file
            with nullcontext(sys.stdout.buffer) if out == STDOUT else out.open("wb") as file:
                write_perfetto(recorded.events, file, recorded.title, recorded.memory)
        else:
            with nullcontext(sys.stdout) if out == STDOUT else out.open("w", encoding="utf-8") as text:
                write_text(recorded.events, text, form)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _error("--out", str(out), f"cannot be written: {error.strerror or error}") from None


def _error(option: str, value: str | None, allowed: str) -> ConfigError:
    return ConfigError("export-trace", [Problem(option, value, allowed)])
