# SPDX-License-Identifier: MIT
"""Lists become cells; overrides; what `show` prints is the same config again."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from harness import matrix, overrides, schema, toml, vocabulary
from harness.config import Cell, Config
from harness.problems import ConfigError

WORDS = vocabulary.load()


def cells(data: dict[str, Any]) -> tuple[Cell, ...]:
    return matrix.expand("test", {"name": "test", **data}, WORDS)


def test_a_value_that_varies_is_an_axis_in_the_order_of_the_file() -> None:
    found = cells({"design": ["kmalloc", "kmalloc_nolock"], "cpus": [1, 2, 3]})
    assert [cell.id for cell in found] == [
        f"design={design},cpus={cpus}" for design in ("kmalloc", "kmalloc_nolock") for cpus in (1, 2, 3)
    ]
    assert [cell.config.cpus for cell in found] == [1, 2, 3, 1, 2, 3]
    assert found[0].params == {"design": "kmalloc", "cpus": 1}


def test_lists_by_nature_stay_lists() -> None:
    (cell,) = cells({"must_happen": ["allocs", "frees"], "arena": {"cpus": 4, "cpu_node": [0, 0, 0, 0]}})
    assert cell.config.must_happen == ["allocs", "frees"]
    assert cell.params == {}
    assert cell.id == cell.config.design


def test_axes_lie_in_tables_of_any_depth() -> None:
    found = cells(
        {
            "workload": {"kind": ["pair", "mix"], "irq_off": {"every": [23, 101], "length": 7}},
            "interrupts": {"nmi": {"rate_hz": [100.0, 200.0]}, "irq": {"rate_hz": 50.0}},
        }
    )
    assert len(found) == 8
    assert found[1].params == {
        "workload.kind": "pair",
        "workload.irq_off.every": 23,
        "interrupts.nmi.rate_hz": 200.0,
    }
    assert found[1].id == "kind=pair,every=23,rate_hz=200.0"


def test_a_list_of_tables_is_an_axis_of_tables() -> None:
    found = cells({"workload": [{"kind": "pair", "size": 64}, {"kind": "burst"}]})
    assert [cell.config.workload.kind for cell in found] == ["pair", "burst"]


def test_keys_of_the_same_name_keep_their_paths_in_the_id() -> None:
    found = cells({"interrupts": {"nmi": {"rate_hz": [1.0, 2.0]}, "irq": {"rate_hz": [3.0, 4.0]}}})
    assert found[0].id == "interrupts.nmi.rate_hz=1.0,interrupts.irq.rate_hz=3.0"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"cpus": []}, "at least one"),
        ({"cpus": [1, 1]}, "a value twice"),
        ({"seed": list(range(5000))}, "5000 cells"),
        ({"cpus": [1, 0]}, "greater than or equal to 1"),
    ],
)
def test_bad_axes_are_mistakes(data: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        cells(data)


def test_the_same_mistake_in_many_cells_is_said_once() -> None:
    with pytest.raises(ConfigError) as caught:
        cells({"cpus": [1, 2, 3], "sede": 1})
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("cpus=2", ("cpus",), 2),
        ("design=kmalloc", ("design",), "kmalloc"),
        ('design="kmalloc"', ("design",), "kmalloc"),
        ("arena.size=64MiB", ("arena", "size"), "64MiB"),
        ("cpus=[1, 2]", ("cpus",), [1, 2]),
        ("interrupts.nmi.rate_hz = 5e3", ("interrupts", "nmi", "rate_hz"), 5000.0),
        ("oracle=false", ("oracle",), False),
        ('workload={kind = "pair"}', ("workload",), {"kind": "pair"}),
        ("workload.file=traces/git.npz", ("workload", "file"), "traces/git.npz"),
        ('must_happen=["allocs > 0"]', ("must_happen",), ["allocs > 0"]),
    ],
)
def test_overrides_are_toml_or_bare_words(text: str, path: tuple[str, ...], value: object) -> None:
    assert overrides.parse(text) == (path, value)


@pytest.mark.parametrize("text", ["cpus", "=2", "cpus=", "a..b=1", "cpus=[1", 'x="', "a b=1", "x=1\ny=2"])
def test_malformed_overrides_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        overrides.apply({}, [text])


def test_overrides_win_and_leave_the_rest() -> None:
    data = {"cpus": 1, "arena": {"size": 1, "nodes": 1}}
    assert overrides.apply(data, ["arena.size=2", "arena.size=3", "seed=5"]) == {
        "cpus": 1,
        "arena": {"size": 3, "nodes": 1},
        "seed": 5,
    }
    assert data["arena"] == {"size": 1, "nodes": 1}


def test_an_override_through_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="not a table"):
        overrides.apply({"cpus": 1}, ["cpus.x=2"])


def test_the_name_is_the_files_unless_it_says_another(tmp_path: Path) -> None:
    path = tmp_path / "storm.toml"
    path.write_text("cpus = 1\n")
    assert matrix.load(path, [], WORDS).name == "storm"
    assert matrix.load(path, ["name=other"], WORDS).name == "other"


def test_the_resolved_config_is_the_same_experiment(tmp_path: Path) -> None:
    path = tmp_path / "first.toml"
    path.write_text(
        'cpus = [1, 2]\nname = "x"\n[arena]\nsize = "16MiB"\nzones = [{DMA = 1, NORMAL = 3}]\n'
        '[workload]\nkind = "burst"\n[interrupts.nmi]\nrate_hz = [1.0, 2.0]\n'
        '[[expect]]\nverdict = "ok"\ncell = {cpus = 1}\n'
        '[[expect]]\ncondition = "allocs"\ntext = "a \\"b\\""\n'
    )
    first = matrix.load(path, [], WORDS)
    again = tmp_path / "again.toml"
    again.write_text(toml.dumps(first.resolved))
    second = matrix.load(again, [], WORDS)
    assert second.cells == first.cells
    assert second.resolved == first.resolved
    assert tomllib.loads(toml.dumps(first.resolved)) == tomllib.loads(toml.dumps(second.resolved))


def test_every_list_of_the_schema_is_known_as_one() -> None:
    assert {key for key in Config.model_fields if schema.is_list(schema.type_of([Config], key))} == {
        "must_happen",
        "step",
        "expect",
    }
