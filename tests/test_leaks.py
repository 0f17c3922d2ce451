# SPDX-License-Identifier: MIT
"""The leak check on trial: it must see each kind of leak, and nobody else's."""

import os
import subprocess
import sys

import leaks
import psutil
import pytest

_SLEEPER = [sys.executable, "-c", "input()"]


def test_a_segment_of_this_process_is_seen() -> None:
    before = leaks.Snapshot.take()
    path = leaks.SHM_DIR / f"shmalloc-{os.getpid()}-leaktest"
    path.touch()
    try:
        assert before.leaks() == [f"segment {path}"]
    finally:
        path.unlink()
    assert before.leaks() == []


def test_a_segment_of_a_dead_child_is_seen() -> None:
    before = leaks.Snapshot.take()
    code = f"import os, pathlib; pathlib.Path(f'{leaks.SHM_DIR}/shmalloc-{{os.getpid()}}-leaktest').touch()"
    child = subprocess.Popen([sys.executable, "-c", code])
    child.wait()
    path = leaks.SHM_DIR / f"shmalloc-{child.pid}-leaktest"
    try:
        assert before.leaks() == [f"segment {path}"]
    finally:
        path.unlink()


def test_a_segment_of_somebody_else_is_not_ours() -> None:
    before = leaks.Snapshot.take()
    path = leaks.SHM_DIR / f"shmalloc-{os.getppid()}-leaktest"
    path.touch()
    try:
        assert before.leaks() == []
    finally:
        path.unlink()


def test_a_child_is_seen() -> None:
    before = leaks.Snapshot.take()
    with subprocess.Popen(_SLEEPER, stdin=subprocess.PIPE) as child:
        assert any(text.startswith(f"process {child.pid}:") for text in before.leaks())
        child.communicate()
    assert before.leaks() == []


def test_an_orphan_is_seen_and_buried() -> None:
    before = leaks.Snapshot.take()
    code = "import subprocess as s; print(s.Popen(['sleep', '1000'], stdout=s.DEVNULL).pid, flush=True)"
    orphan = int(subprocess.check_output([sys.executable, "-c", code]))
    assert before.leaks() == [f"process {orphan}: sleep 1000"]
    process = psutil.Process(orphan)
    process.kill()
    process.wait()
    assert before.leaks() == []


def test_a_descriptor_is_seen() -> None:
    before = leaks.Snapshot.take()
    read_end, write_end = os.pipe()
    assert len(before.leaks()) == 2
    os.close(read_end)
    os.close(write_end)
    assert before.leaks() == []


def test_the_machine_is_fit() -> None:
    """What the suite needs; without it, tests would be skipped and the run prove little."""
    with open("/proc/cpuinfo") as file:
        flags = next(line for line in file if line.startswith("flags"))
    assert "cx16" in flags.split()
    assert os.access(leaks.SHM_DIR, os.W_OK)
    room = os.statvfs(leaks.SHM_DIR)
    assert room.f_bavail * room.f_frsize >= 64 << 20, "the suite needs 64 MiB in /dev/shm"
    if len(os.sched_getaffinity(0)) < 2:
        pytest.fail("the suite needs two cores")
