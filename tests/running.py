# SPDX-License-Identifier: MIT
"""Running the command for real, in this process or in one of its own."""

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from harness import cli

LIMIT_S = 120.0  # of waiting for anything; reached only if something is broken
SMALL = """
cpus = 2
ops = 20_000
[arena]
size = "16MiB"
[workload]
kind = "mix"
slots = 101
array_ops = 2003
"""
ENDLESS = SMALL.replace("ops = 20_000", "duration_s = 600.0")


def config(folder: Path, text: str = SMALL, name: str = "small") -> Path:
    """Write a config."""
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def command(*arguments: object) -> list[str]:
    """Return the command line of `shmalloc`."""
    return [sys.executable, "-m", "harness", *map(str, arguments)]


@dataclass(frozen=True)
class Done:
    """How a command ended. Attributes: returncode, stdout, stderr."""

    returncode: int
    stdout: str
    stderr: str


def run(*arguments: object, cwd: Path) -> Done:
    """Run the command in this process, which saves its start; its CPUs are processes all the same."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), chdir(cwd):
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as ended:
            status = int(ended.code or 0)
    return Done(status, out.getvalue(), err.getvalue())


def run_apart(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, to its end."""
    return subprocess.run(
        command(*arguments), cwd=cwd, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


def results(path: Path, *arguments: object, status: int = 0) -> dict[str, Any]:
    """Run one config without plots, and return its result; its exit status must be the one given."""
    out = path.parent / "out"
    done = run(
        "run", path, "--json", "--no-progress", "--no-plots", "--out", out, *arguments, cwd=path.parent
    )
    assert done.returncode == status, done.stderr + done.stdout
    found: dict[str, Any] = json.loads(done.stdout)
    (run_json,) = found["runs"]
    return dict(run_json)


def only_cell(run_json: dict[str, Any]) -> dict[str, Any]:
    """Return the only cell of a run."""
    (cell,) = run_json["cells"]
    return dict(cell)


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait until a condition is true, and return what it returned."""
    deadline = time.monotonic() + LIMIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {LIMIT_S} s for: {what}"
        time.sleep(0.01)
    return found


class Running:
    """A run in progress. Attributes: process: the parent.  segment: in /dev/shm.  children.

    zygotes: what has made the children, which is a child, too.
    """

    def __init__(self, process: subprocess.Popen[str], count: int) -> None:
        self.process = process
        self.children = until(lambda: self._children(count), f"{count} children")
        self.segment = until(self._segment, "the segment")

    def _children(self, count: int) -> list[psutil.Process]:
        assert self.process.poll() is None, self.process.communicate()
        found = [child for child in psutil.Process(self.process.pid).children() if _has_started(child)]
        self.zygotes = [child for child in found if "harness.zygote" in child.cmdline()]
        found = [child for child in found if child not in self.zygotes]
        return found if len(found) == count else []

    def _segment(self) -> Path | None:
        return next(iter(Path("/dev/shm").glob(f"shmalloc-{self.process.pid}-*")), None)

    def busy(self) -> int:
        """Return the ops that the slowest CPU has done."""
        from shmalloc.arena import Arena

        cpus = [child for child in self.children if "harness.cpu_process" in child.cmdline()]
        with Arena.attach(self.segment.name) as arena:
            return int(arena.region("cpus")["ops_done"][: len(cpus)].min())

    def until_busy(self) -> None:
        """Wait until each CPU has done some ops."""
        until(self.busy, "ops")

    def ended(self) -> tuple[int, str, str]:
        """Wait for the parent, then for all children to be gone; return status, stdout, stderr."""
        out, err = self.process.communicate(timeout=LIMIT_S)
        until(self.is_gone, "the children's end")
        return self.process.returncode, out, err

    def is_gone(self) -> bool:
        """Whether no child lives."""
        return not any(_lives(child) for child in [*self.children, *self.zygotes])


def _has_started(child: psutil.Process) -> bool:
    """Whether a child runs its own program; between fork and exec it still shows its parent's command line."""
    try:
        return any(argument.startswith("harness.") for argument in child.cmdline())
    except psutil.NoSuchProcess:
        return False


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def running(path: Path, *arguments: object, children: int = 2) -> Iterator[Running]:
    """Start a run that does not end by itself, and wait until its processes are there."""
    process = subprocess.Popen(
        command("run", path, "--json", "--no-progress", "--out", path.parent / "out", *arguments),
        cwd=path.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Running(process, children)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=LIMIT_S)
