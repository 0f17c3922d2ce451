# SPDX-License-Identifier: MIT
"""The engine `script`: what it does, what it refuses, and how it ends."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import config, only_cell, results, run

from harness import matrix, vocabulary
from harness.arena_map.recording import Recording
from harness.problems import ConfigError
from harness.script.registry import quantities, steps
from shmalloc.pagemap import State

WORDS = vocabulary.load()
HEAD = 'engine = "script"\n[arena]\nsize = "8MiB"\npageblock_order = 5\n'
CHECKED = 'flavour = "checked"\ndesign = "kmalloc"\nlock_rules = false\n' + HEAD


def cell_of(tmp_path: Path, text: str, status: int = 0) -> dict[str, Any]:
    return only_cell(results(config(tmp_path, text), status=status))


def problems(text: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        matrix.expand("test", {"name": "test", "engine": "script", **text}, WORDS)
    return [str(problem) for problem in caught.value.problems]


# --- what it does ---------------------------------------------------------------------------------


def test_steps_count_and_facts_calculate(tmp_path: Path) -> None:
    cell = cell_of(
        tmp_path,
        HEAD
        + """
[let]
size = 64
[[step]]
do = "alloc"
size = "$size"
repeat = 23
as = "mine"
count = "got"
[[step]]
do = "free"
which = "mine"
n = 5
count = "freed"
[[step]]
do = "alloc"
size = 9000
repeat = "got - 16"
count = "large"
[[step]]
do = "fact"
name = "left"
value = "got - freed + size"
""",
    )
    assert cell["verdict"] == "ok"
    assert {name: cell["counters"][name] for name in ("got", "freed", "large", "left")} == {
        "got": 23,
        "freed": 5,
        "large": 0,
        "left": 82,
    }
    assert cell["facts"] == {"freed": 5, "got": 23, "large": 0, "left": 82}
    assert cell["failures"]["size_limit"] == 7
    assert cell["steps"][2] == {
        "step": 2,
        "do": "alloc",
        "cpu": 0,
        "result": 0,
        "reasons": {"size_limit": 7},
    }
    assert cell["allocs"] == 23
    assert cell["frees"] == 5  # at the end of the steps; the rest is freed afterwards
    assert list(cell["audits"]) == ["before the drain", "after the drain"]
    assert all(report["ok"] for report in cell["audits"].values())


def test_until_it_fails(tmp_path: Path) -> None:
    text = HEAD + '[[step]]\ndo = "pages_until_fail"\ncount = "pages"\nlimit = LIMIT\n'
    cell = cell_of(tmp_path, text.replace("LIMIT", "23"))
    assert cell["counters"]["pages"] == 23
    cell = cell_of(tmp_path, text.replace("LIMIT", "100000"))
    assert 100 < cell["counters"]["pages"] < 2048
    assert cell["failures"]["below_watermark"] == 1


NESTED = """
[[step]]
do = "alloc"
size = 1024
repeat = 2
as = "outer"
[[step]]
do = "probe"
site = "alloc_fastpath"
nth = 2
steps = [
    { do = "alloc", size = 64, as = "inner", repeat = 3, count = "inside" },
    { do = "free", which = "inner", n = 1 },
    { do = "free", which = "outer", n = 1 },
    { do = "alloc", size = 9000, count = "refused" },
]
[[step]]
do = "alloc"
size = 1024
repeat = 3
as = "outer"
[[step]]
do = "free"
which = "inner"
count = "freed"
[[step]]
do = "free"
which = "outer"
count = "outer_freed"
"""


def test_nested_steps_run_exactly_there(tmp_path: Path) -> None:
    cell = cell_of(tmp_path, CHECKED + NESTED)
    assert cell["verdict"] == "ok"
    assert cell["facts"] == {"freed": 2, "inside": 3, "outer_freed": 4, "refused": 0}
    assert cell["interleaving"] == [
        "step 0, CPU 0: alloc 1024 x 2 -> 2, kmalloc-1k",
        "step 1, CPU 0: arm alloc_fastpath (nmi, passage 2)",
        "step 2, CPU 0: alloc 1024 x 3 -> 3, kmalloc-1k",
        "    at alloc_fastpath, passage 2, as nmi on CPU 0, by kmalloc_nolock:",
        "        alloc 64 -> an object, freed below",
        "        alloc 64 -> kmalloc-64 (x 2)",
        "        free inner",
        "        free outer",
        "        alloc 9000 -> NULL: size_limit",
        "step 3, CPU 0: free inner -> 2",
        "step 4, CPU 0: free outer -> 4",
    ]
    assert cell["contexts"]["nmi"]["allocs"] == 3


def test_an_irq_waits_for_irqs(tmp_path: Path) -> None:
    cell = cell_of(
        tmp_path,
        HEAD
        + """
[[step]]
do = "irq_off"
[[step]]
do = "irq"
steps = [{ do = "alloc", size = 64, count = "in_irq" }]
[[step]]
do = "nmi"
steps = [{ do = "alloc", size = 64, count = "in_nmi" }]
[[step]]
do = "fact"
name = "before"
value = "in_irq"
""".replace('value = "in_irq"', 'value = "in_nmi"'),
    )
    assert cell["facts"] == {"before": 1, "in_irq": 1, "in_nmi": 1}  # taken when the script ends
    assert cell["interrupts"]["irq"]["handled"] == 1


def test_another_cpu_at_a_site(tmp_path: Path) -> None:
    step = '{ do = "alloc", size = 64, count = "others" }'
    text = CHECKED.replace("[arena]", "cpus = 2\n[arena]") + (
        f'[[step]]\ndo = "probe"\nsite = "before_new_slab"\naction = "other_cpu"\nother = 1\nsteps = [{step}]\n'
        '[[step]]\ndo = "alloc"\nsize = 64\n'
        '[[step]]\ndo = "read"\nwhat = "counter"\nname = "alloc_slab"\ncpu = 1\ncount = "slabs"\n'
    )
    assert cell_of(tmp_path, text)["facts"] == {"others": 1, "slabs": 1}


def test_audit_in_the_middle(tmp_path: Path) -> None:
    cell = cell_of(tmp_path, HEAD + '[[step]]\ndo = "alloc"\nsize = 64\n[[step]]\ndo = "audit"\nrepeat = 2\n')
    assert list(cell["audits"]) == ["at step 1", "before the drain", "after the drain"]


def test_moments_of_the_arena_map_are_kept_where_a_step_says_so(tmp_path: Path) -> None:
    text = (
        HEAD
        + '[[step]]\ndo = "alloc"\nsize = 64\nrepeat = 23\n[[step]]\ndo = "pagemap"\n'
        + '[[step]]\ndo = "audit"\n[[step]]\ndo = "alloc"\nsize = 64\n[[step]]\ndo = "pagemap"\nlabel = "more"\n'
    )
    cell = cell_of(tmp_path, text)
    assert cell["map"]["moments"] == 5
    (file,) = tmp_path.rglob("map-000.npz")
    with np.load(file, allow_pickle=False) as arrays:
        found = Recording(dict(arrays))
    labels = [each["label"] for each in found.meta["moments"]]
    assert labels == ["start", "at step 1", "more", "before the drain", "after the drain"]
    live = [(found.objects(at).state == State.LIVE).sum() for at in range(5)]
    assert live == [0, 23, 24, 24, 0]
    assert cell_of(tmp_path, HEAD + '[[step]]\ndo = "alloc"\nsize = 64\n')["map"] is None


# --- how it ends ----------------------------------------------------------------------------------

REENTERED = """
[[step]]
do = "probe"
site = "cpu_slab_locked"
design = "kmalloc"
steps = [{ do = "alloc", size = 64, repeat = 2 }]
[[step]]
do = "alloc"
size = 64
[[step]]
do = "alloc"
size = 128
[[expect]]
verdict = "deadlock"
"""


def test_a_proved_deadlock_is_the_verdict(tmp_path: Path) -> None:
    cell = cell_of(tmp_path, CHECKED + REENTERED)
    assert cell["verdict"] == cell["expected"] == "deadlock"
    assert cell["violations"][0]["lock_class"] == "cpu_slab"
    assert cell["interleaving"][-3:] == [
        "    at cpu_slab_locked, passage 1, as nmi on CPU 0, by kmalloc:",
        "        alloc 64 -> does not come back",
        "        alloc 64 -> not reached",
    ]
    assert len(cell["steps"]) == 2  # the third was not begun


def test_a_step_that_cannot_be_done_is_a_mistake_in_the_config(tmp_path: Path) -> None:
    step = '[[step]]\ndo = "cache_create"\nname = "twice"\nsize = 64\n'
    done = run("run", config(tmp_path, HEAD + step + step), "--no-progress", cwd=tmp_path)
    assert done.returncode == 2
    assert 'step[1] = do = "cache_create"' in done.stderr


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ('what = "zone.free_pages"\nnode = 7', "node = 7: allowed is 0..0"),
        ('what = "freelist.length"\nof = 64', "of = 64: allowed is 0..3"),
        (
            'what = "failures"\nreason = "zone_bussy"',
            "reason = 'zone_bussy': unknown reason (did you mean zone_busy?)",
        ),
        (
            'what = "failures"\nreason = "zone_busy"\ncontext = "tusk"',
            "context = 'tusk': unknown context (did you",
        ),
    ],
)
def test_a_quantity_of_what_is_not_there_is_a_mistake(tmp_path: Path, keys: str, problem: str) -> None:
    text = HEAD + f'[[step]]\ndo = "read"\n{keys}\ncount = "read"\n'
    done = run("run", config(tmp_path, text), "--no-progress", cwd=tmp_path)
    assert (done.returncode, problem in done.stderr) == (2, True), done.stderr


def test_a_matrix_over_let(tmp_path: Path) -> None:
    text = HEAD + '[let]\nn = [2, 3]\n[[step]]\ndo = "alloc"\nsize = 64\nrepeat = "$n"\ncount = "got"\n'
    text += '[[expect]]\ncondition = "counters.got == 2"\ncell = { let.n = 2 }\n'
    run_json = results(config(tmp_path, text))
    assert [cell["facts"]["got"] for cell in run_json["cells"]] == [2, 3]
    assert run_json["expectations"][0]["measured"] == 2


# --- what it refuses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        ({"do": "allok"}, "step[0].do = 'allok': unknown step (did you mean alloc?)"),
        ({}, "step[0].do: must be given"),
        ({"do": "alloc"}, "step[0].size: must be given"),
        ({"do": "alloc", "size": "x"}, "step[0].size = 'x': allowed is an integer"),
        ({"do": "alloc", "size": True}, "step[0].size = true: allowed is an integer"),
        ({"do": "alloc", "size": -1}, "step[0].size = -1: allowed are 0 to"),
        ({"do": "alloc", "size": 8, "cpu": 2}, "step[0].cpu = 2: allowed are 0 to 1"),
        ({"do": "alloc", "size": 8, "gfp": "GFP_X"}, "step[0].gfp = 'GFP_X':"),
        ({"do": "alloc", "size": 8, "node": 1}, "step[0].node = 1: allowed are -1 (any) to 0"),
        ({"do": "alloc", "size": 8, "design": "x"}, "step[0].design = 'x': allowed is one of kmalloc"),
        ({"do": "alloc", "size": 8, "foo": 1}, "step[0].foo = 1: unknown key; allowed are cpu, count"),
        ({"do": "alloc", "size": 8, "repeat": 0}, "step[0].repeat = 0: allowed are 1 to"),
        ({"do": "alloc", "size": 8, "repeat": "2 * x"}, "step[0].repeat = '2 * x': unknown name"),
        ({"do": "alloc", "size": 8, "count": "a b"}, "step[0].count = 'a b': allowed is a name"),
        ({"do": "alloc", "size": 8, "count": "pgfree"}, "step = pgfree: is the name of a kernel counter"),
        ({"do": "alloc", "size": "$n"}, "step[0] = '$n': unknown name of let"),
        ({"do": "free", "which": "x"}, "step[0].which = 'x': no earlier step has made it"),
        ({"do": "cache_alloc", "cache": "x"}, "step[0].cache = 'x': no earlier step has made it"),
        ({"do": "read", "what": "x", "count": "y"}, "step[0].what = 'x': unknown quantity"),
        ({"do": "read", "what": "pcp.count"}, "step[0].count: must be given"),
        ({"do": "read", "what": "cache.order", "count": "y"}, "step[0].cache: must be given"),
        ({"do": "read", "what": "pcp.count", "count": "y", "z": 1}, "step[0].z = 1: unknown key"),
        ({"do": "fact", "name": "x", "value": "y + 1"}, "step[0].value = 'y + 1': unknown name"),
        ({"do": "fact", "name": "x", "value": "1 +"}, "step[0].value = '1 +': no condition"),
        ({"do": "nmi", "steps": []}, "step[0].steps = []: allowed is a list of at least one step"),
        ({"do": "nmi", "steps": [{"do": "read"}]}, "step[0].steps[0].do = 'read': not inside an interrupt"),
        (
            {"do": "nmi", "steps": [{"do": "alloc", "size": 8, "cpu": 1}]},
            "step[0].steps[0].cpu = 1: allowed on the interrupt's own table only",
        ),
        (
            {"do": "probe", "site": "zone_locked", "steps": [{"do": "irq_off"}]},
            "step[0].site = 'zone_locked': needs flavour = \"checked\"",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_name_step_key_value_and_what_is_allowed(step: dict[str, Any], problem: str) -> None:
    found = problems({"cpus": 2, "step": [step]})
    assert any(text.startswith(problem) for text in found), found


def test_keys_of_other_engines_are_refused() -> None:
    step = {"do": "alloc", "size": 8}
    found = problems({"step": [step], "duration_s": 1.0, "workload": {"kind": "pair"}})
    assert found == [
        'workload: has no meaning with engine = "script", whose steps say what is done',
        'duration_s: has no meaning with engine = "script", whose steps say what is done',
    ]
    assert problems({}) == ["step = []: allowed is at least one [[step]]"]
    assert problems({"engine": "stress", "step": [step]}) == [
        'step: has no meaning with engine = "stress"; allowed is "script"'
    ]


def test_the_registry_is_documented() -> None:
    assert all(kind.__doc__ for kind in steps().values())
    assert all(each.function.__doc__ for each in quantities().values())
    readme = (Path(__file__).resolve().parents[2] / "configs" / "facts" / "README.md").read_text()
    assert [name for name in ("alloc", "probe", "read", "fact", "audit") if f"`{name}`" not in readme] == []


def test_maps_in_scripts_and_in_their_interrupts(tmp_path: Path) -> None:
    text = (
        HEAD.replace("[arena]", 'design = "prealloc"\n[arena]')
        + """
[[step]]
do = "map_create"
name = "m"
entries = 23
[[step]]
do = "map_update"
map = "m"
n = 29
count = "updated"
[[step]]
do = "map_delete"
map = "m"
first = 20
n = 2
count = "deleted"
[[step]]
do = "nmi"
steps = [{ do = "map_delete", map = "m", n = 5 }, { do = "map_update", map = "m", first = 100 }]
[[step]]
do = "map_lookup"
map = "m"
n = 101
count = "found"
[[step]]
do = "read"
what = "map.count"
map = "m"
count = "there"
"""
    )
    cell = cell_of(tmp_path, text)
    assert cell["facts"] == {"updated": 23, "deleted": 2, "found": 17, "there": 17}
    assert cell["steps"][1]["reasons"] == {"E2BIG": 6}
    assert cell["verdict"] == "ok"


def test_a_script_that_gets_nowhere_is_a_stall(tmp_path: Path) -> None:
    text = "deadline_s = 0.2\n" + HEAD + '[[step]]\ndo = "alloc_free"\nsize = 64\nn = 1_000_000\n'
    cell = cell_of(tmp_path, text, status=1)
    assert cell["verdict"] == "stall"
    assert cell["violations"][0]["text"].startswith("CPU 0")


def test_a_cell_has_all_keys_of_a_stress_cell(tmp_path: Path) -> None:
    script = cell_of(tmp_path, HEAD + '[[step]]\ndo = "alloc"\nsize = 64\n')
    stress = only_cell(results(config(tmp_path)))
    assert set(stress) <= set(script)
    assert all(
        set(stress[key]) <= set(script[key]) for key in ("memory", "counters", "failures", "interrupts")
    )
    assert all(set(stress["contexts"][name]) == set(found) for name, found in script["contexts"].items())
    assert set(stress["numa"]) == set(script["numa"])


def test_steps_are_listed(tmp_path: Path) -> None:
    done = run("designs", "--steps", "--json", cwd=tmp_path)
    found = {row["step or quantity"]: row for row in json.loads(done.stdout)}
    assert found["alloc"]["keys"] == 'size, gfp = "GFP_ATOMIC", node = -1, design = "", as = ""'
    assert found["read map.count"]["keys"] == "map"
    assert all(row["what it does"] for row in found.values())
    assert len(found) == len(steps()) + len(quantities())
