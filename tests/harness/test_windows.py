# SPDX-License-Identifier: MIT
"""Windows of a run, and the quantiles in them: counts that were made up, on a clock that is the test's."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from running import SMALL, config, only_cell, results

from harness import vocabulary
from harness.latency import lower_ticks
from harness.quantiles import mid_quantiles
from harness.windows import FIRST_PERIOD_S, START_S, WINDOWS, Windows, processor_s
from shmalloc.arena import Arena
from shmalloc.layout import constants

WORDS = vocabulary.load()
BUCKETS = constants()["HIST_BUCKETS"]
FINISHED = 2
NMI, TASK = vocabulary.CONTEXTS.index("nmi"), vocabulary.CONTEXTS.index("task")
MIX = 'kind = "mix"'


@dataclass
class Bench:
    """An arena of two CPUs that nobody uses, and a clock."""

    arena: Arena
    now_s: float = 100.0

    def windows(self, seconds: float) -> Windows:
        return Windows(self.arena, [os.getpid()] * 2, seconds, FINISHED, lambda: self.now_s)

    def do(self, ops: int) -> None:
        self.arena.region("cpus")["ops_done"][:2] += ops

    def finish(self, cpu: int) -> None:
        self.arena.region("cpus")["phase_done"][cpu] = FINISHED


@pytest.fixture
def bench() -> Iterator[Bench]:
    with Arena.create(size="4MiB", nr_cpus=4, pageblock_order=4) as arena:
        yield Bench(arena)


def test_a_run_of_known_duration_has_its_number_of_windows(bench: Bench) -> None:
    windows = bench.windows(13.0)
    for second in range(13):
        bench.do(23 * second + 1)
        windows.tick(second)
        bench.now_s += 1.0
    bench.do(1_000_003)
    bench.finish(1)
    windows.tick(1 << 40)
    found = windows.as_json(WORDS)
    assert len(found) == WINDOWS
    assert [window["ops"] for window in found] == [2 * (23 * second + 1) for second in range(1, 13)]
    assert [window["t_s"] for window in found] == list(range(12))
    assert {window["seconds"] for window in found} == {1.0}
    assert [window["throughput_ops_s"] for window in found] == [window["ops"] for window in found]
    assert [window["used_bytes"] for window in found] == list(range(1, 13))


def test_nothing_before_all_have_begun_or_after_one_has_finished(bench: Bench) -> None:
    done = bench.arena.region("cpus")["ops_done"]
    windows = bench.windows(13.0)
    done[0] = 101
    windows.tick(0)
    bench.now_s += 5.0
    done[1] = 103  # now both
    windows.tick(0)
    bench.now_s += 1.0
    done[0] += 7
    windows.tick(0)
    bench.now_s += 1.0
    done[0] += 11
    bench.finish(0)
    windows.tick(0)
    bench.now_s += 1.0
    windows.tick(0)
    assert [(window["ops"], window["seconds"]) for window in windows.as_json(WORDS)] == [(7, 1.0)]


def test_windows_of_a_run_of_unknown_duration_are_few_equal_and_lose_nothing(bench: Bench) -> None:
    windows = bench.windows(0.0)
    ticks = 1009
    bench.do(1)
    for tick in range(ticks):
        windows.tick(tick)
        bench.do(23)
        bench.now_s += FIRST_PERIOD_S * 1.0001
    found = windows.as_json(WORDS)
    assert WINDOWS <= len(found) <= 2 * WINDOWS
    assert len({round(window["seconds"], 3) for window in found}) == 1
    whole = round(found[0]["seconds"] / FIRST_PERIOD_S)
    assert [window["ops"] for window in found] == [2 * 23 * whole] * len(found)
    assert [window["used_bytes"] for window in found] == [whole * (at + 1) for at in range(len(found))]
    assert all(now["t_s"] < then["t_s"] for now, then in pairwise(found))


def test_a_late_look_makes_a_long_window_and_none_that_is_too_short(bench: Bench) -> None:
    windows = bench.windows(13.0)
    bench.do(1)
    windows.tick(0)
    for now_s in (100.9, 101.2, 102.7, 103.1, 103.9, 104.0):
        bench.now_s = now_s
        bench.do(5)
        windows.tick(0)
    assert [window["seconds"] for window in windows.as_json(WORDS)] == pytest.approx([1.2, 1.5, 1.3])
    assert [window["ops"] for window in windows.as_json(WORDS)] == [20, 10, 30]


def test_a_window_has_its_own_counts_by_context_and_reason(bench: Bench) -> None:
    counts = bench.arena.region("telemetry")["counts"]
    latency = bench.arena.region("telemetry")["latency"]
    windows = bench.windows(13.0)
    bench.do(1)
    counts["allocs"][0, 0, TASK] = 1009  # before: in no window
    latency[0, TASK, 200] = 1013
    windows.tick(0)
    bench.now_s += 1.0
    counts["allocs"][:2, 0, TASK] += np.array([23, 101], np.uint64)
    counts["failures"][1, 1, NMI, 1 + WORDS.reasons.index("zone_busy")] = 7
    latency[1, TASK, 20] = 499
    bench.arena.region("telemetry")["interrupts"]["handled"][1] = [13, 17]
    windows.tick(0)
    (window,) = windows.as_json(WORDS)
    assert set(window["contexts"]) == {"task", "nmi"}
    assert window["contexts"]["task"]["allocs"] == 124
    assert window["contexts"]["task"]["failures"] == {}
    assert window["contexts"]["nmi"]["failures"] == {"zone_busy": 7}
    assert window["contexts"]["task"]["timed"] == 499
    ns = 20 * 1e9 / float(bench.arena.header.tsc_hz)
    assert window["contexts"]["task"]["latency_ns"] == {
        "p50": pytest.approx(ns, abs=0.01),
        "p99": pytest.approx(ns, abs=0.01),
        "p999": None,
    }
    assert window["interrupts"] == {"nmi": 13, "irq": 17}


def test_the_failures_of_the_start_are_kept_apart(bench: Bench) -> None:
    counts = bench.arena.region("telemetry")["counts"]
    failures = counts["failures"][:, 0, TASK, 1 + WORDS.reasons.index("zone_busy")]
    windows = bench.windows(13.0)
    assert windows.start_json(WORDS) == {}
    bench.do(1)
    for failed in (3, 5, 7):  # when all have begun; early; and later in the same window
        counts["allocs"][0, 0, TASK] += np.uint64(101)
        failures[1] += np.uint64(failed)
        windows.tick(0)
        assert bool(windows.start_json(WORDS)) == (failed > 3)
        bench.now_s += START_S * 1.5
    assert windows.start_json(WORDS) == {"task": {"allocs": 202, "failures": {"zone_busy": 8}}}


def test_processor_time_is_that_of_the_process() -> None:
    assert (processor_s(os.getpid()) or 0) > 0
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    assert processor_s(ended.pid) is None


def test_what_a_real_run_had_in_windows_is_part_of_what_it_had(tmp_path: Path) -> None:
    text = SMALL.replace("ops = 20_000", "duration_s = 0.4") + "\n[interrupts.nmi]\nrate_hz = 2003\n"
    cell = only_cell(results(config(tmp_path, text)))
    windows = cell["windows"]
    assert len(windows) <= WINDOWS
    assert sum(window["ops"] for window in windows) <= cell["ops"]
    for context, counts in cell["contexts"].items():
        seen = [window["contexts"].get(context, {"allocs": 0, "timed": 0}) for window in windows]
        assert sum(each["allocs"] for each in seen) <= counts["allocs"]
        assert sum(each["timed"] for each in seen) <= counts["timed"]
    assert all(window["processor_s"] is None or window["processor_s"] >= 0 for window in windows)
    assert all(window["used_bytes"] <= cell["memory"]["peak_bytes"] for window in windows)


def histogram(values: np.ndarray) -> np.ndarray:
    """Sort values into the arena's buckets."""
    return np.histogram(values, lower_ticks(BUCKETS))[0]


def test_mid_quantiles_agree_with_the_values() -> None:
    values = np.random.default_rng(23).lognormal(8, 1, 100_003).astype(int)
    found = mid_quantiles(histogram(values), 1e9)
    for name, share in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999)):
        assert found[name] == pytest.approx(np.quantile(values, share), rel=0.02)


def test_a_small_change_below_a_clocks_step_is_a_small_change_of_the_quantile() -> None:
    def of(below: int) -> float:
        return float(
            mid_quantiles(histogram(np.repeat([100, 120], [below, 10_000 - below])), 1e9)["p50"] or 0
        )

    medians = [of(below) for below in range(4900, 5101, 10)]
    assert medians == sorted(medians, reverse=True)
    assert max(here - there for here, there in pairwise(medians)) < 0.1  # the plain median: 20 at once
    assert of(5000) == pytest.approx(np.mean([100, 120]), abs=3)  # buckets are 4 wide there


def test_a_quantile_beyond_which_there_is_no_sample_is_none() -> None:
    assert mid_quantiles(np.zeros(BUCKETS), 1e9) == {"p50": None, "p99": None, "p999": None}
    few = histogram(np.arange(100))
    assert [name for name, found in mid_quantiles(few, 1e9).items() if found is not None] == ["p50", "p99"]
    assert mid_quantiles(few[:1] * 0 + 1, 1e9)["p50"] is None  # a single sample has no quantile
