# SPDX-License-Identifier: MIT
"""Results from counts that were made up: every number is told apart by a prime."""

from typing import Any

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram

from harness import latency, vocabulary
from harness.results import Snapshot, blank_cell, measure
from shmalloc import layout

WORDS = vocabulary.load()
CPUS, CACHES, ZONES = 3, 5, 2
CONTEXT = {name: at for at, name in enumerate(vocabulary.CONTEXTS)}
DESIGN = {name: at for at, name in enumerate(WORDS.designs)}
REASON = {name: at for at, name in enumerate(WORDS.reasons, start=1)}


@pytest.fixture
def blank() -> Snapshot:
    return Snapshot(
        telemetry=np.zeros(CPUS, layout.dtype("shm_telemetry")),
        cache_stats=np.zeros((CPUS, CACHES), layout.dtype("kmem_cache_stat")),
        sheaves=np.zeros((CPUS, CACHES), layout.dtype("slub_percpu_sheaves")),
        pagesets=np.zeros((ZONES, CPUS), layout.dtype("per_cpu_pages")),
        zones=np.zeros(ZONES, layout.dtype("zone")),
        nodes=np.zeros(1, layout.dtype("node")),
        memcg_cpus=np.zeros(CPUS, layout.dtype("memcg_cpu")),
        tsc_hz=2e9,
    )


def test_counts_are_summed_over_cpus_and_designs(blank: Snapshot) -> None:
    counts = blank.telemetry["counts"]
    counts["allocs"][0, DESIGN["kmalloc"], CONTEXT["task"]] = 23
    counts["allocs"][2, DESIGN["kmalloc"], CONTEXT["task"]] = 101
    counts["allocs"][1, DESIGN["kmalloc_nolock"], CONTEXT["nmi"]] = 7
    counts["frees"][1, DESIGN["kmalloc_nolock"], CONTEXT["irq"]] = 11
    counts["failures"][1, DESIGN["kmalloc_nolock"], CONTEXT["nmi"], REASON["zone_busy"]] = 13
    counts["failures"][0, DESIGN["kmalloc"], CONTEXT["task"], REASON["below_watermark"]] = 17
    found = measure(blank, WORDS)
    assert (found["allocs"], found["frees"]) == (131, 11)
    assert found["failures"]["zone_busy"] == 13
    assert found["failures"]["below_watermark"] == 17
    assert sum(found["failures"].values()) == 30
    assert found["contexts"]["nmi"]["allocs"] == 7
    assert found["contexts"]["nmi"]["failures"]["zone_busy"] == 13
    assert found["contexts"]["task"]["allocs"] == 124
    assert found["designs"] == {
        "kmalloc": {"task": {"allocs": 124, "frees": 0, "failures": {"below_watermark": 17}}},
        "kmalloc_nolock": {
            "irq": {"allocs": 0, "frees": 11, "failures": {}},
            "nmi": {"allocs": 7, "frees": 0, "failures": {"zone_busy": 13}},
        },
    }


def test_a_failure_without_a_reason_is_not_lost(blank: Snapshot) -> None:
    blank.telemetry["counts"]["failures"][0, 0, 0, 0] = 3
    assert measure(blank, WORDS)["counters"]["failures_without_reason"] == 3


def test_interrupts_and_counters(blank: Snapshot) -> None:
    blank.telemetry["interrupts"]["sent"][:, 0] = [1, 2, 4]
    blank.telemetry["interrupts"]["in_slow_path"][1, 1] = 5
    blank.telemetry["irq_work_runs"] = [3, 0, 4]
    blank.telemetry["retries_max"] = [3, 9, 4]
    blank.cache_stats["alloc_fastpath"][1:, 2:] = 7
    blank.pagesets["pcp_busy"][1, 2] = 11
    blank.zones["nr_deferred_free"] = [13, 17]
    found = measure(blank, WORDS)
    assert found["interrupts"]["nmi"]["sent"] == 7
    assert found["interrupts"]["irq"]["in_slow_path"] == 5
    counters = found["counters"]
    assert (counters["irq_work_runs"], counters["retries_max"]) == (7, 9)
    assert (counters["alloc_fastpath"], counters["pcp_busy"], counters["nr_deferred_free"]) == (42, 11, 30)


def test_sums_do_not_wrap(blank: Snapshot) -> None:
    blank.cache_stats["alloc_fastpath"][...] = 0xFFFFFFFF
    assert measure(blank, WORDS)["counters"]["alloc_fastpath"] == CPUS * CACHES * 0xFFFFFFFF


def test_every_key_is_there_with_zeros(blank: Snapshot) -> None:
    blank_json, found = blank_cell(WORDS), measure(blank, WORDS)

    def same_keys(left: Any, right: Any) -> None:
        if isinstance(left, dict):
            assert list(left) == list(right)
            for key in left:
                same_keys(left[key], right[key])

    for key in ("failures", "contexts", "interrupts", "counters"):
        same_keys(blank_json[key], found[key])
    assert found["contexts"]["softirq"]["latency_ns"] == {"p50": None, "p99": None, "p999": None, "max": None}
    assert found["contexts"]["softirq"]["latency_curve"] == []
    assert set(found["contexts"]) == {"task", "softirq", "irq", "nmi"}


def test_the_counters_have_the_names_of_the_arenas_structures() -> None:
    names = WORDS.counter_names
    assert len(set(names)) == len(names)
    assert {"alloc_fastpath", "numa_hit", "zone_busy", "lock_waits", "nr_deferred_drained"} <= set(names)
    assert not [name for name in names if name.startswith("pad")]


def test_bucket_edges_meet_and_grow() -> None:
    edges = latency.lower_ticks(1120)
    assert edges[:34].tolist() == list(range(34))
    assert (np.diff(edges) > 0).all()
    assert edges[64] == 64
    assert edges[65] == 66
    assert edges[96] == 128


def bucket(ticks: int) -> int:
    """Compute the bucket as the arena's header describes it."""
    if ticks < 32:
        return ticks
    octave = ticks.bit_length() - 1
    return (octave - 4) * 32 + ((ticks >> (octave - 5)) & 31)


def test_each_value_lies_between_the_edges_of_its_bucket() -> None:
    edges = latency.lower_ticks(1120)
    for ticks in [*range(5000), 2**20, 2**20 + 12345, 2**33 - 1]:
        at = bucket(ticks)
        assert edges[at] <= ticks < edges[at + 1]


def test_percentiles_agree_with_another_histogram() -> None:
    random = np.random.default_rng(23)
    values = np.concatenate([random.lognormal(5, 1, 10_007), random.lognormal(9, 1, 101)]).astype(int) + 1
    oracle = HdrHistogram(1, 10**9, 3)
    histogram = np.zeros(1120, np.uint32)
    for value in values:
        oracle.record_value(int(value))
        histogram[bucket(int(value))] += 1
    found = latency.summary(histogram, 1e9)
    for name, percentile in (("p50", 50), ("p99", 99), ("p999", 99.9)):
        assert found[name] == pytest.approx(oracle.get_value_at_percentile(percentile), rel=0.035)
    assert found["max"] == pytest.approx(values.max(), rel=0.035)


def test_a_single_value_is_every_percentile() -> None:
    histogram = np.zeros(1120, np.uint32)
    histogram[20] = 1
    assert latency.summary(histogram, 2e9) == {"p50": 10.0, "p99": 10.0, "p999": 10.0, "max": 10.0}


def test_a_curve_rises_to_the_longest_and_goes_through_the_percentiles() -> None:
    random = np.random.default_rng(23)
    histogram = np.zeros(1120, np.uint32)
    values = random.lognormal(5, 1, 10_007).astype(int) + 1
    np.add.at(histogram, [bucket(int(value)) for value in values], 1)
    curve = latency.curve(histogram, 1e9)
    shares, times = zip(*curve, strict=True)
    found = latency.summary(histogram, 1e9)
    assert list(shares) == sorted(set(shares))
    assert list(times) == sorted(times)
    at = dict(curve)
    assert (at[0.5], at[0.99], at[0.999], at[1.0]) == (
        found["p50"],
        found["p99"],
        found["p999"],
        found["max"],
    )
    assert at[0.0] == pytest.approx(values.min(), rel=0.035)
    # the last but one leaves one of 10,007 out, or more; half of it would be none
    assert 1 / 10_007 <= 1 - shares[-2] < 2 / 10_007


def test_a_curve_of_little_is_short() -> None:
    histogram = np.zeros(1120, np.uint32)
    assert latency.curve(histogram, 2e9) == []
    histogram[20] = 1
    assert latency.curve(histogram, 2e9) == [[0.0, 10.0], [1.0, 10.0]]
    histogram[30] = 1
    assert latency.curve(histogram, 2e9) == [[0.0, 10.0], [0.2, 10.0], [0.4, 10.0], [0.5, 10.0], [1.0, 15.0]]
