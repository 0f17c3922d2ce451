# SPDX-License-Identifier: MIT
"""The pool of cores that the tests share."""

import subprocess
import sys

import leases
import pytest

_TRY = """
import fcntl, sys
try:
    fcntl.flock(open(sys.argv[1], "w"), fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("held")
"""


def other_process_finds(core: int) -> str:
    path = leases.pool_dir() / f"core-{core}.lock"
    return subprocess.check_output([sys.executable, "-c", _TRY, path], text=True).strip()


def test_a_lease_keeps_the_core_from_other_processes() -> None:
    with leases.lease(1) as (core,):
        assert core in leases.cores()
        assert other_process_finds(core) == "held"


def test_a_lease_ends() -> None:
    with pytest.raises(KeyError), leases.lease(1):
        raise KeyError
    with leases.lease(1) as got:
        assert len(got) == 1


def test_more_cores_than_there_are_is_a_skip_with_its_reason() -> None:
    count = len(leases.cores()) + 1
    with pytest.raises(pytest.skip.Exception, match=f"needs {count} cores"), leases.lease(count):
        pass


def test_a_second_lease_of_one_process_is_refused() -> None:
    with leases.lease(1), pytest.raises(RuntimeError, match="already leases"), leases.lease(1):
        pass
