# SPDX-License-Identifier: MIT
"""Configs: defaults, limits, and every mistake said at once."""

from pathlib import Path
from typing import Any

import pytest

from harness import matrix, vocabulary
from harness.checks import geometry, zone_permille
from harness.config import ArenaSpec, Config
from harness.problems import ConfigError

WORDS = vocabulary.load()


def problems(data: dict[str, Any]) -> dict[str, str]:
    """Validate tables and return the mistakes, path -> value and what is allowed."""
    with pytest.raises(ConfigError) as caught:
        matrix.expand("test", {"name": "test", **data}, WORDS)
    return {problem.path: f"{problem.value}: {problem.allowed}" for problem in caught.value.problems}


def valid(data: dict[str, Any]) -> Config:
    """Validate tables that make one cell."""
    (cell,) = matrix.expand("test", {"name": "test", **data}, WORDS)
    return cell.config


def test_an_empty_file_is_a_config() -> None:
    config = valid({})
    assert (config.engine, config.flavour, config.broken, config.sample) == ("stress", "release", "none", 61)
    assert config.possible_cpus >= 4
    assert config.seconds > 0
    assert config.has_pattern


def test_every_mistake_is_said_at_once_with_path_value_and_what_is_allowed() -> None:
    found = problems(
        {
            "design": "kmaloc",
            "cpus": 0,
            "sede": 3,
            "duration_s": "long",
            "arena": {"size": "16 apples", "nodes": 99, "colour": "red"},
            "interrupts": {"nmi": {"source": "sun", "rate_hz": -1.0}},
            "workload": {"kind": "pair", "sise": 3},
            "must_happen": ["interrupts.nmi.in_slw_path > 0"],
        }
    )
    assert set(found) == {
        "design",
        "cpus",
        "sede",
        "duration_s",
        "arena.size",
        "arena.nodes",
        "arena.colour",
        "interrupts.nmi.source",
        "interrupts.nmi.rate_hz",
        "workload.sise",
        "must_happen[0]",
    }
    assert found["design"].startswith("'kmaloc': allowed is one of kmalloc")
    assert found["sede"].startswith("3: unknown key (did you mean seed?)")
    assert "greater than or equal to 1" in found["cpus"]
    assert "'none', 'timer', 'injector' or 'ops'" in found["interrupts.nmi.source"]
    assert "did you mean in_slow_path?" in found["must_happen[0]"]


def test_types_are_not_converted() -> None:
    found = problems({"cpus": "2", "oracle": 1, "seed": 1.5, "name": 7, "must_happen": "x"})
    assert set(found) == {"cpus", "oracle", "seed", "name", "must_happen"}


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"broken": "no_tid"}, "broken"),
        ({"lock_rules": True}, "lock_rules"),
        ({"cpus": 8, "arena": {"cpus": 4}}, "arena.cpus"),
        ({"arena": {"cpus": 4, "cpu_node": [0, 0]}}, "arena.cpu_node"),
        ({"arena": {"nodes": 2, "zones": [{"NORMAL": 1}]}}, "arena.zones"),
        ({"arena": {"zones": [{"NORMAL": 0}]}}, "arena.zones"),
        ({"arena": {"slab_min_order": 4, "slab_max_order": 3}}, "arena.slab_min_order"),
        ({"arena": {"size": 12345}}, "arena.size"),
        ({"arena": {"size": "64KiB"}}, "arena.size"),
        ({"arena": {"nodes": 2, "distance": [[10, 10], [20, 10]]}}, "arena.distance[0][1]"),
        ({"arena": {"nodes": 2, "cpus": 4, "cpu_node": [0, 0, 1, 2]}}, "arena.cpu_node[3]"),
        ({"cpus": 4, "ops": 3}, "ops"),
        ({"sample": 60}, "sample"),
        ({"arena": {"slab_debug": "FX"}}, "arena.slab_debug"),
        ({"arena": {"slab_debug": "F-,kmalloc-64"}}, "arena.slab_debug"),
        ({"arena": {"slab_debug": 15}}, "arena.slab_debug"),
        ({"arena": {"slab_errors": "ignore"}}, "arena.slab_errors"),
        ({"interrupts": {"nmi": {"source": "timer"}}}, "interrupts.nmi.rate_hz"),
        ({"interrupts": {"irq": {"source": "ops"}}}, "workload.irq_every"),
        (
            {
                "workload": {"kind": "pair", "nmi_every": 3},
                "interrupts": {"nmi": {"source": "timer", "rate_hz": 9}},
            },
            "workload.nmi_every",
        ),
        ({"interrupts": {"nmi": {"rate_hz": 9.0, "program": "free"}}}, "interrupts.nmi.program"),
        ({"design": "sheaves", "arena": {"kernel": "6.18"}}, "arena.kernel"),
        ({"design": "try_kmalloc", "arena": {"kernel": "7.0"}}, "arena.kernel"),
        ({"expect": [{"text": "nothing"}]}, "expect[0]"),
        ({"expect": [{"verdict": "great"}]}, "expect[0].verdict"),
        ({"expect": [{"verdict": "ok", "cell": {"desing": "kmalloc"}}]}, "expect[0].cell"),
        ({"expect": [{"verdict": "ok", "cell": {"design": "malloc"}}]}, "expect[0].cell"),
        ({"expect": [{"condition": "allocs >"}]}, "expect[0].condition"),
    ],
)
def test_contradictions_are_mistakes(data: dict[str, Any], path: str) -> None:
    assert list(problems(data)) == [path]


def test_the_arena_is_of_the_kernel_that_the_design_is_of() -> None:
    assert valid({"design": "sheaves"}).kernel == "7.0"
    assert valid({"design": "kmalloc_nolock"}).kernel == "6.18"
    assert valid({"design": "kmalloc_nolock", "arena": {"kernel": "7.0"}}).kernel == "7.0"


def test_contradictions_are_found_beside_keys_that_are_wrong() -> None:
    found = problems({"sede": 3, "broken": "no_tid", "arena": {"cpus": 1}, "cpus": 2})
    assert set(found) == {"sede", "broken", "arena.cpus"}


def test_nothing_more_is_said_of_a_key_that_is_wrong_by_itself() -> None:
    assert list(problems({"arena": {"size": "big", "cpus": 64}})) == ["arena.size"]


def test_sizes_are_numbers_or_texts() -> None:
    assert valid({"arena": {"size": "64MiB"}}).arena.size == 64 << 20
    assert valid({"arena": {"size": 16 << 20}}).arena.size == 16 << 20


def test_zone_shares_add_up_to_all_memory() -> None:
    arena = ArenaSpec(nodes=3, zones=[{"DMA": 1.0, "NORMAL": 2.0}, {"NORMAL": 3.0}, {"MOVABLE": 1.0}])
    rows = zone_permille(arena)
    assert rows is not None
    assert sum(map(sum, rows)) == 1000
    assert [[share > 0 for share in row] for row in rows] == [
        [True, False, True, False],
        [False, False, True, False],
        [False, False, False, True],
    ]


def test_the_geometry_is_the_configs() -> None:
    config = valid(
        {"seed": 23, "oracle": False, "cpus": 6, "arena": {"slab_debug": "FZ", "freelist_random": True}}
    )
    made = geometry(config, nr_slots=101)
    assert (made.nr_cpus, made.seed, made.oracle, made.nr_slots) == (6, 23, False, 101)
    assert (made.slab_debug, made.freelist_random) == ("FZ", True)


@pytest.mark.parametrize("value", [True, False, "", "FZPU", "FZ,kmalloc-64,task*;U,mine"])
def test_slab_debug_reaches_the_geometry_as_it_is(value: str | bool) -> None:
    assert geometry(valid({"arena": {"slab_debug": value}}), nr_slots=0).slab_debug == value


def test_ops_are_shared_out_to_the_last() -> None:
    config = valid({"cpus": 3, "ops": 101})
    assert [config.ops_of(cpu) for cpu in range(3)] == [34, 34, 33]
    assert config.seconds == 0


def test_the_source_of_interrupts_follows_from_what_is_given() -> None:
    given = {"interrupts": {"nmi": {"rate_hz": 100.0}}, "workload": {"kind": "pair", "irq_every": 7}}
    config = valid(given)
    assert (config.source("nmi"), config.source("irq")) == ("timer", "ops")
    assert valid({}).source("nmi") == "none"


def test_an_nmi_handler_does_not_use_a_design_that_may_not_run_there() -> None:
    assert WORDS.handler_design("kmalloc", "nmi") == "kmalloc_nolock"
    assert WORDS.handler_design("kmalloc", "irq") == "kmalloc"
    assert WORDS.handler_design("kmalloc_nolock", "nmi") == "kmalloc_nolock"


@pytest.mark.parametrize("text", ["x = ", "a = 1\na = 2\n", "\udcff"])
def test_a_file_that_is_no_toml_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match="no TOML"):
        matrix.load(path, [], WORDS)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        matrix.load(tmp_path / "none.toml", [], WORDS)
