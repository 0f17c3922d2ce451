# SPDX-License-Identifier: MIT
"""Fixtures of the whole suite, and the check that no test leaves anything behind."""

import os
from collections import Counter
from collections.abc import Generator, Iterator

import hypothesis
import leaks
import leases
import pytest

try:
    from shmalloc import _binding
except ImportError as error:
    raise pytest.UsageError(f"install the project first (pip install '.[test]'): {error}") from error

from browser import browser, browser_page, needs_browser, open_page  # noqa: F401

# The same examples in every run, and no deadline: the cores are shared with the other workers.
# pytest --hypothesis-profile=explore looks further.
_QUIET = [hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture]
hypothesis.settings.register_profile(
    "steady", deadline=None, derandomize=True, database=None, print_blob=True, suppress_health_check=_QUIET
)
hypothesis.settings.register_profile(
    "explore", deadline=None, max_examples=1000, print_blob=True, suppress_health_check=_QUIET
)
hypothesis.settings.load_profile("steady")

_FOUND_BEFORE = pytest.StashKey[set[str]]()
_FAILED = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    leaks.watch_spawns()
    config.stash[_FOUND_BEFORE] = set(leaks.ownerless_segments())


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the whole run if a segment is left whose maker no test could be held to account for."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    left = set(leaks.ownerless_segments()) - session.config.stash[_FOUND_BEFORE]
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(f"\nsegments left in {leaks.SHM_DIR}: {', '.join(sorted(left))}", red=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests had no browser, and why: a page nobody has looked at is not tested."""
    skipped = [
        report for report in terminalreporter.getreports("skipped") if isinstance(report.longrepr, tuple)
    ]
    for reason, times in Counter(report.longrepr[2] for report in skipped).items():
        if "Chromium" in reason:
            terminalreporter.write_line(f"{times} tests of pages: {reason}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a segment, a process or a descriptor.

    A test that failed anyway is left alone: its frames, and all that they hold, live on in the report.
    """
    before = leaks.Snapshot.take()
    yield
    if request.node.stash.get(_FAILED, False):
        return
    found = before.leaks()
    if found:
        pytest.fail("left behind: " + "; ".join(found), pytrace=False)


@pytest.fixture(params=_binding.FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    """Name a flavour of the core: the test runs once with each."""
    return str(request.param)


@pytest.fixture
def core(flavour: str) -> _binding.Core:
    """Load the core, in one flavour after the other."""
    return _binding.core(flavour)


@pytest.fixture(name="lease")
def lease_fixture() -> object:
    """Hand out `leases.lease`: `with lease(2) as cores: ...`."""
    return leases.lease
