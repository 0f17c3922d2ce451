# SPDX-License-Identifier: MIT
"""What a zygote makes is what a fresh interpreter would be, only sooner; and nothing of it stays."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import psutil
import pytest
from running import ENDLESS, config, running, until

from harness import spawning
from harness.spawning import Forked, Handle
from harness.zygote import MODULES
from shmalloc import Arena

_SPEC = {"flavour": "release", "node": 0}


@contextmanager
def _kswapd(arena: Arena, *, zygote: bool = True) -> Iterator[tuple[Handle, dict[int, int]]]:
    """Start a kswapd, which does nothing and lives on; with its descriptors by number."""
    files = {number: os.memfd_create(f"test-{number}") for number in (0, 1, 2, 77)}
    os.write(files[0], json.dumps(_SPEC).encode())
    os.lseek(files[0], 0, os.SEEK_SET)
    handed = files if zygote else {number: files[number] for number in (0, 1, 2)}
    with spawning.kept_zygote() if zygote else nullcontext():
        handle = spawning.start("harness.kswapd", (arena.name, str(os.getpid())), "release", handed)
        try:
            nodes, lib = arena.region("nodes"), arena.core.lib
            until(
                lambda: nodes["kswapd_state"][0] != lib.KSWAPD_NONE or handle.poll() is not None, "a kswapd"
            )
            yield handle, files
        finally:
            handle.kill()
            handle.wait()
            for file in files.values():
                os.close(file)


@pytest.fixture
def arena() -> Iterator[Arena]:
    with Arena.create(size="4MiB") as arena:
        arena.activate()
        yield arena


def _status(pid: int, key: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(f"{key}:"))


def _place(pid: int, arena: Arena) -> int:
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return min(int(line.split("-")[0], 16) for line in lines if arena.name in line)


def test_it_is_our_child_of_one_thread_with_what_it_was_given_and_nothing_else(arena: Arena) -> None:
    with _kswapd(arena) as (handle, files):
        assert isinstance(handle, Forked)
        shown = psutil.Process(handle.pid)
        assert shown.ppid() == os.getpid()
        assert shown.num_threads() == 1
        arguments = [argument for argument in shown.cmdline()[1:] if argument]
        assert arguments == ["-P", "-m", "harness.kswapd", arena.name, str(os.getpid())]
        folder = Path(f"/proc/{handle.pid}/fd")
        found = {int(entry.name): os.readlink(entry) for entry in folder.iterdir()}
        wanted = {number: os.readlink(f"/proc/self/fd/{file}") for number, file in files.items()}
        opened = {number for number in found if found[number] == f"/dev/shm{arena.name}"}  # by itself
        assert {number: found[number] for number in found.keys() - opened} == wanted


@pytest.mark.parametrize("key", ["SigBlk", "SigIgn", "SigCgt"])
def test_it_treats_signals_as_a_fresh_interpreter_does(arena: Arena, key: str) -> None:
    with _kswapd(arena, zygote=False) as (handle, _):
        assert not isinstance(handle, Forked)
        fresh = _status(handle.pid, key)
    with Arena.create(size="4MiB") as other:
        arena.close()
        other.activate()
        with _kswapd(other) as (handle, _):
            assert _status(handle.pid, key) == fresh


def test_each_maps_the_arena_elsewhere(arena: Arena) -> None:
    places = set()
    with spawning.kept_zygote():
        for _ in range(5):
            arena.region("nodes")["kswapd_state"][0] = arena.core.lib.KSWAPD_NONE
            with _kswapd(arena) as (handle, _):
                places.add(_place(handle.pid, arena))
    assert len(places) == 5


def test_its_end_is_told_as_that_of_any_child(arena: Arena) -> None:
    with _kswapd(arena) as (handle, _):
        assert handle.poll() is None
        os.kill(handle.pid, signal.SIGSEGV)
        assert handle.wait() == -signal.SIGSEGV
        assert handle.poll() == -signal.SIGSEGV
        handle.kill()  # of what is gone: not of what may have its pid by now
    assert not psutil.pid_exists(handle.pid)


def test_an_exception_is_on_its_stderr_and_in_its_status() -> None:
    files = {number: os.memfd_create("test") for number in range(3)}
    os.write(files[0], b"no JSON")
    os.lseek(files[0], 0, os.SEEK_SET)
    with spawning.kept_zygote():
        handle = spawning.start("harness.kswapd", ("/none", str(os.getpid())), "release", files)
        assert isinstance(handle, Forked)
        assert handle.wait() == 1
    assert b"JSONDecodeError" in os.pread(files[2], 10_000, 0)
    for file in files.values():
        os.close(file)


def test_a_zygote_that_is_gone_or_of_another_environment_is_replaced(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    def zygotes() -> list[psutil.Process]:
        return [child for child in psutil.Process().children() if "harness.zygote" in child.cmdline()]

    def start() -> None:
        arena.region("nodes")["kswapd_state"][0] = arena.core.lib.KSWAPD_NONE
        with _kswapd(arena) as (handle, _):
            assert isinstance(handle, Forked)

    with spawning.kept_zygote():
        start()
        (first,) = zygotes()
        start()
        assert zygotes() == [first]
        monkeypatch.setenv("SHMALLOC_TEST", "another")
        start()
        (second,) = zygotes()
        assert second != first
        second.kill()
        second.wait()
        start()
        assert zygotes() != [second]
    assert zygotes() == []


def test_what_a_zygote_cannot_make_is_a_fresh_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is stopped in its tracks does not hold up the run, either."""
    monkeypatch.setattr(spawning, "_ANSWER_S", 0.2)
    files = {number: os.memfd_create("test") for number in range(3)}
    with spawning.kept_zygote():
        (kept,) = spawning._kept
        kept.append(spawning.Zygote())
        os.kill(kept[0]._popen.pid, signal.SIGSTOP)
        handle = spawning.start("harness.kswapd", ("/none", str(os.getpid())), "release", files)
        assert not isinstance(handle, Forked)
        assert handle.wait() == 1  # there is no spec to read
        other = spawning.start("this", ("/none", str(os.getpid())), "release", files)
        assert not isinstance(other, Forked)
        assert other.wait() == 0  # the Zen of Python
    for file in files.values():
        os.close(file)


def test_nothing_it_imports_starts_threads() -> None:
    code = (
        "import importlib, os, sys, harness.zygote as z\n"
        "for name in z.MODULES: importlib.import_module(name)\n"
        "from shmalloc._binding import core; core(); core('checked')\n"
        "heavy = {'numpy', 'pydantic', 'rich', 'psutil', 'elftools'} & set(sys.modules)\n"
        "print(len(os.listdir('/proc/self/task')), sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1 []"
    assert "harness.cpu_process" in MODULES


def test_when_the_parent_is_killed_the_zygote_goes_too(tmp_path: Path) -> None:
    with running(config(tmp_path, ENDLESS)) as run:
        assert len(run.zygotes) == 1
        run.process.kill()
        run.ended()  # waits for the zygote, too
    until(lambda: not run.segment.exists(), "the segment's removal")


def test_a_run_goes_on_without_its_zygote(tmp_path: Path) -> None:
    text = 'design = ["kmalloc", "kmalloc_nolock", "bpf_mem_alloc"]\n' + ENDLESS.replace("600.0", "0.4")
    with running(config(tmp_path, text)) as run:
        run.zygotes[0].kill()
        status, _, err = run.ended()
    assert status == 0, err
