# SPDX-License-Identifier: MIT
"""A run's page: what it says is what result.json says."""

import re
from pathlib import Path

import pytest
import running
from html_page import Page
from report_runs import (
    DESIGNS,
    FAILING,
    as_shown,
    columns,
    html_of,
    made_folders,  # noqa: F401
    page_of,
    read_number,
    run_of,
)

from harness import report_page
from harness.page import Loaded, complete, load
from harness.report_page import expectations, top
from harness.report_page.words import number

# --- what is said ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stress", "script", "deadlock"])
def test_pages_are_whole(folders: dict[str, Path], name: str) -> None:
    html = (folders[name] / "report.html").read_text(encoding="utf-8")
    found = Page(html)
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    targets = {attributes["href"] for _, attributes in found.elements if "href" in attributes}
    assert {target for target in targets if target and target.startswith("#")} <= {f"#{each}" for each in ids}
    beside = {target for target in targets if target and not target.startswith("#")}
    assert beside >= {"result.json", "report.txt", "samples.csv"}
    assert all((folders[name] / target).exists() for target in beside if target)
    assert "could not be made" not in html
    data = r'(<script type="application/.*?>).*?(</script>)'
    for outside in ("http:", "https:", "src=", "url(", "@import", "<link", "fetch(", "XMLHttp", "onclick"):
        assert outside not in re.sub(data, r"\1\2", html, flags=re.S), outside
    assert not list(folders[name].glob("*.part"))


def test_the_top_says_verdict_setting_and_command(folders: dict[str, Path]) -> None:
    run, found = run_of(folders["stress"]), page_of(folders["stress"])
    (header,) = found.all("header")
    said = found.text(header)
    assert said.startswith("stress: passed verdict ok, 2 cells, ")
    assert (
        "2 of 2 cells as expected; 1 of 2 tests hold (1 about no cell of this run), 0 of 1 claim holds"
        in said
    )
    assert f"build {run['build']['id']}" in said and str(run["machine"]["system"]) in said
    assert "kmalloc, kmalloc_nolock" in said and "NMI 2,000/s" in said and "faultsfailslab" in said
    (command, *_) = [found.text(at) for at in found.inside(header, "code")]
    assert command == f"shmalloc run {folders['stress'].parent / 'stress.toml'}"
    assert all(warning in said for warning in run["machine"]["warnings"])


def test_the_top_of_an_atlas_says_what_was_swept() -> None:
    atlas = {
        "operations": ["alloc_*"],
        "handlers": ["aba", "pages"],
        "task": ["*"],
        "kinds": ["nmi"],
        "pairs": [],
    }
    config = {"engine": "atlas", "design": "kmalloc", "cpus": 2, "arena": {"size": "32MiB"}, "atlas": atlas}
    run = {"name": "a", "verdict": "ok", "seed": 1, "config": config, "cells": []}
    found = Page(f"<header>{top.header([Loaded(Path(), 'a', complete(run))])}</header>")
    terms = dict(zip(map(found.text, found.all("dt")), map(found.text, found.all("dd")), strict=True))
    del terms["on"]
    assert terms == {
        "engine": "atlas",
        "design": "kmalloc",
        "operations": "alloc_*",
        "handlers": "aba, pages",
        "task": "*",
        "kinds": "nmi",
        "seed": "1",
    }


def test_a_run_that_failed_says_why_first(folders: dict[str, Path]) -> None:
    found = page_of(folders["script"])
    (header,) = found.all("header")
    assert found.text(header).startswith("script: FAILED")
    (why,) = found.all("ul", **{"class": "why"})
    assert found.text(why) == "test does not hold: two"


def test_an_unexpected_cell_is_named_with_its_violation_and_command(folders: dict[str, Path]) -> None:
    run = run_of(folders["deadlock"])
    run["cells"][0]["expected"] = "ok"
    run["cells"][3] |= {
        "verdict": "vacuous",
        "must_happen": [{"condition": "ops > 99", "measured": 7, "holds": False}],
    }
    found = Page(html_of(run))
    (why,) = found.all("ul", **{"class": "why"})
    first, second = (found.text(at) for at in found.inside(why, "li"))
    cell = run["cells"][0]
    assert (
        first
        == f"{cell['id']}: deadlock, expected ok: {cell['violations'][0]['text']}again, alone: {cell['replay']}"
    )
    assert second.startswith(f"{run['cells'][3]['id']}: vacuous, expected ok: did not happen: ops > 99")
    links = [found.elements[at][1]["href"] for at in found.inside(why, "a")]
    assert links == ["#cell-0-0", "#cell-0-3"]
    assert found.text(found.find("cell-0-3")) == run["cells"][3]["id"]


def test_a_page_of_links_leads_to_the_cells_of_other_pages(folders: dict[str, Path]) -> None:
    runs = [run_of(folders["stress"]), run_of(folders["deadlock"])]
    runs[1]["cells"][3]["expected"] = "stall"
    found = Page(report_page.index(Path("out"), runs))
    (why,) = found.all("ul", **{"class": "why"})
    (link,) = found.inside(why, "a")
    assert found.elements[link][1]["href"] == "nmi_kmalloc/report.html#cell-0-3"


def test_numbers_of_cells_are_those_of_the_result(folders: dict[str, Path]) -> None:
    run, found = run_of(folders["stress"]), page_of(folders["stress"])
    table, commands = found.tables("cells")
    rows = columns(table)
    assert list(rows) == [cell["id"] for cell in run["cells"]]
    for cell in run["cells"]:
        row = rows[cell["id"]]
        assert row["verdict"] == "ok"
        expected = {
            "CPUs": cell["cpus"],
            "ops": cell["ops"],
            "ops/s": cell["throughput_ops_s"],
            "allocs": cell["allocs"],
            "frees": cell["frees"],
            "failed": sum(cell["failures"].values()),
            "seconds": cell["seconds"],
            "processor seconds": cell["processor_s"],
        }
        for key, value in expected.items():
            assert read_number(row[key]) == as_shown(value)
        for key, of in (
            ("peak memory", "peak_bytes"),
            ("live at the end", "live_bytes"),
            ("arena", "arena_bytes"),
        ):
            text, unit = row[key].split()
            assert unit == "B" or of != "live_bytes"
            assert int(text.replace(",", "")) * {"KiB": 1024, "B": 1}[unit] == cell["memory"][of]
    assert columns(commands) == {cell["id"]: {"command": cell["replay"]} for cell in run["cells"]}


def test_each_repeat_of_a_cell_is_told(tmp_path: Path) -> None:
    config = running.config(tmp_path, running.SMALL + "[interrupts.nmi]\nrate_hz = 0.0\n")
    run = running.results(config, "--set", "repeats=3")
    (cell,) = run["cells"]
    found = page_of(tmp_path / "out")
    _, (head, *rows), _ = found.tables("cells")
    assert len(rows) == 3 and [row[3] for row in rows].count("yes") == 1
    for row, repeat in zip(rows, cell["repeats"], strict=True):
        told = dict(zip(head, row, strict=True))
        assert (told["repeat"], told["seed"]) == (str(repeat["repeat"]), f"{repeat['seed']:,}")
        assert read_number(told["ops/s"]) == as_shown(repeat["throughput_ops_s"])
    cell["violations"] = [{"verdict": "stall", "text": "x", "repeat": 2}]
    assert "repeat 2" in Page(html_of(run)).text(Page(html_of(run)).find("violations"))


def test_numbers_of_contexts_are_those_of_the_result(folders: dict[str, Path]) -> None:
    run, found = run_of(folders["stress"]), page_of(folders["stress"])
    ((head, *rows),) = found.tables("allocations")
    read = {(row[0], row[1]): dict(zip(head[2:], row[2:], strict=True)) for row in rows}
    wanted = {
        (cell["id"], context): counts
        for cell in run["cells"]
        for context, counts in cell["contexts"].items()
        if counts["allocs"] or any(counts["failures"].values())
    }
    assert set(read) == set(wanted) and {context for _, context in wanted} == {"task", "nmi"}
    for key, counts in wanted.items():
        row, latency = read[key], counts["latency_ns"]
        expected = {
            "allocs": counts["allocs"],
            "frees": counts["frees"],
            "failed": sum(counts["failures"].values()),
            "timed": counts["timed"],
        }
        if counts["timed"]:
            expected |= {
                "p50": latency["p50"],
                "p99": latency["p99"],
                "p99.9": latency["p999"],
                "max": latency["max"],
            }
        for name, value in expected.items():
            assert read_number(row[name]) == as_shown(value)
        reasons = {
            name: int(text.replace(",", "")) for name, text in re.findall(r"(\w+) ([\d,]*\d)", row["why"])
        }
        assert reasons == {name: count for name, count in counts["failures"].items() if count}


def _by_cell(tables: list[list[list[str]]]) -> dict[str, dict[str, str]]:
    """Join tables with a column for each cell to {cell: {row: text}}."""
    found: dict[str, dict[str, str]] = {}
    for head, *rows in tables:
        for at, cell in enumerate(head[1:], start=1):
            found.setdefault(cell, {}).update({row[0]: row[at] for row in rows})
    return found


def test_every_counter_is_there(folders: dict[str, Path]) -> None:
    run, found = run_of(folders["deadlock"]), page_of(folders["deadlock"])
    read = _by_cell(found.tables("counters"))
    used, unused = found.inside(found.find("counters"), "details")
    assert found.elements[used][1].get("open", "") is None, "it is open"
    summary = found.text(found.inside(used, "summary")[0])
    assert summary == f"{len(read[run['cells'][0]['id']])} counters of {len(run['cells'])} cells"
    names = {found.text(at) for at in found.inside(unused, "code")}
    for cell in run["cells"]:
        shown = {name: float(text.replace(",", "")) for name, text in read[cell["id"]].items()}
        assert shown | dict.fromkeys(names, 0) == cell["counters"]
        assert not set(shown) & names


def test_many_cells_are_several_tables(folders: dict[str, Path]) -> None:
    run = run_of(folders["deadlock"])
    run["cells"] = [{**cell, "id": f"{cell['id']},n={n}"} for n in range(3) for cell in run["cells"]]
    found = Page(html_of(run))
    tables = found.tables("counters")
    assert [len(table[0]) - 1 for table in tables] == [8, 8, 2]
    read = _by_cell(tables)
    assert list(read) == [cell["id"] for cell in run["cells"]]
    for cell in run["cells"]:
        assert all(
            int(text.replace(",", "")) == cell["counters"][name] for name, text in read[cell["id"]].items()
        )


def test_expectations_say_what_was_measured(folders: dict[str, Path]) -> None:
    run, found = run_of(folders["stress"]), page_of(folders["stress"])
    said = found.text(found.find("expectations"))
    assert "slabs are madetestholds" in said
    assert "nothing is doneclaimdoes not hold" in said
    assert "of nobodytestabout no cell of this run-" in said
    flat = [cell for table in found.tables("expectations") for row in table for cell in row]
    for cell, value in run["expectations"][0]["measured"].items():
        assert f"{cell}: {value:,}" in said
    for value in run["expectations"][1]["measured"].values():
        assert f"{value['allocs']:,}" in flat
    met = _by_cell(found.tables("expectations")[-1:])
    for cell in run["cells"]:
        assert met[cell["id"]] == {
            entry["condition"]: f"{entry['measured']:,}" for entry in cell["must_happen"]
        }


def test_what_did_not_happen_is_marked(folders: dict[str, Path]) -> None:
    run = run_of(folders["stress"])
    run["cells"][1]["must_happen"][0] |= {"measured": {"a": 0, "b": 7}, "holds": False}
    found = Page(html_of(run))
    met = _by_cell(found.tables("expectations")[-1:])
    assert met[run["cells"][1]["id"]]["interrupts.nmi.handled"] == "a: 0b: 7 (not met)"


def test_measured_values_are_words_ranges_or_tables() -> None:
    entries = [
        {"text": "said", "measured": {"a": 1, "b": 2}, "said": "one; two"},
        {"text": "words", "measured": "deadlock"},
        {"text": "yes", "measured": True},
        {"text": "many", "measured": {f"n={n}": n * 1000 for n in range(5)}},
        {"text": "tables", "measured": {"n=1": {"ops": 1, "frees": 7}, "n=2": {"ops": 2}, "n=3": None}},
    ]
    run = complete({"expectations": [{"kind": "test", "holds": True, **entry} for entry in entries]})
    (parts,) = expectations.sections([Loaded(Path(), "x", run)], ())
    found = Page(f'<div id="all">{parts.body}</div>')
    outer, *inner = found.tables("all")
    assert [row[3] for row in outer[1:] if row[0] in ("words", "yes")] == ["deadlock", "yes"]
    summaries = [found.text(at) for at in found.all("summary")]
    assert summaries == ["one; two", "0 to 4000 in 5 cells", "in 3 cells"]
    assert inner[0] == [["", "measured"], ["a", "1"], ["b", "2"]]
    assert inner[1][-1] == ["n=4", "4,000"]
    assert inner[2] == [["cell", "ops", "frees"], ["n=1", "1", "7"], ["n=2", "2", "-"], ["n=3", "-", "-"]]


def test_scripts_are_told_step_by_step(folders: dict[str, Path]) -> None:
    run, found = run_of(folders["deadlock"]), page_of(folders["deadlock"])
    section = found.find("script")
    told = [found.text(at).rstrip("\n") for at in found.inside(section, "pre")]
    assert told == ["\n".join(cell["interleaving"]) for cell in run["cells"]]
    facts, *steps = found.tables("script")
    read = _by_cell([facts])
    for cell, table in zip(run["cells"], steps, strict=True):
        assert {name: read_number(text) for name, text in read[cell["id"]].items()} == cell["facts"]
        assert [(row[1], row[3]) for row in table[1:]] == [
            (step["do"], number(step["result"])) for step in cell["steps"]
        ]
        failed = [
            ", ".join(f"{name} {count}" for name, count in step["reasons"].items()) for step in cell["steps"]
        ]
        assert [row[4] for row in table[1:]] == failed


def test_violations_have_their_stack_level_by_level(folders: dict[str, Path]) -> None:
    run, found = run_of(folders["deadlock"]), page_of(folders["deadlock"])
    section = found.find("violations")
    told = [at for at in found.inside(section, "div") if found.elements[at][1].get("class") == "violation"]
    wanted = [(cell, violation) for cell in run["cells"] for violation in cell["violations"]]
    assert len(told) == len(wanted) > 2
    for at, (cell, violation) in zip(told, wanted, strict=True):
        said = found.text(at)
        assert said.startswith(f"{violation['verdict']} by {violation['checker']}: {violation['text']}")
        assert f"{violation['lock_class']} lock at {violation['lock']:#x}, held by CPU 0 at level 0" in said
        symbols = [found.text(row) for row in found.inside(at, "code")]
        assert symbols[::2] == [frame["symbol"] for frame in violation["stack"]]
        assert symbols[1::2] == [f"{frame['address']:#x}" for frame in violation["stack"]]
        levels = [found.text(row) for row in found.inside(at, "th")]
        assert levels == ["level 1, nmi", "interrupted: level 0, task"]
        assert cell["replay"] in found.text(section)


def test_all_violations_of_all_cells_are_counted(folders: dict[str, Path]) -> None:
    run = run_of(folders["deadlock"])
    first = next(cell for cell in run["cells"] if cell["violations"])
    first["violations"] = first["violations"][:1] * 5
    whole = sum(len(cell["violations"]) for cell in run["cells"])
    assert f"; {whole} violations" in html_of(run)
    first["violations"] = first["violations"][:1]
    run["cells"] = [first]
    assert re.search(r"; 1 violation\b", html_of(run))


def test_commands_within_a_violation_can_be_copied(folders: dict[str, Path]) -> None:
    run = run_of(folders["deadlock"])
    run["cells"][0]["violations"] = [
        {"verdict": "deadlock", "text": "bad (3 injections, the first: shmalloc replay a b@c/d@7)"}
    ] * 9
    found = Page(html_of(run))
    section = found.find("violations")
    copies = [
        found.text(at) for at in found.inside(section, "code") if found.elements[at][1].get("class") == "copy"
    ]
    assert copies.count("shmalloc replay a b@c/d@7") == 9
    assert "1 more" in [found.text(at) for at in found.inside(section, "summary")]


def test_interrupts_faults_and_audits(folders: dict[str, Path]) -> None:
    run = run_of(folders["stress"])
    for at, cell in enumerate(run["cells"]):
        cell["counters"] |= {"failslab": 23 + at, "fault_dumps": 0}
        cell["failures"]["injected"] = 101 + at
    found = Page(html_of(run))
    (head, *rows), *_ = (table for table in found.tables("interrupts") if "handler's design" in table[0])
    assert [row[:3] for row in rows] == [
        [cell["id"], "NMI", cell["handlers"]["nmi"]] for cell in run["cells"]
    ]
    for row, cell in zip(rows, run["cells"], strict=True):
        assert dict(zip(head[3:], row[3:], strict=True)) == {
            key.replace("_", " "): f"{value:,}" for key, value in cell["interrupts"]["nmi"].items()
        }
    attributes, counted = found.tables("faults")
    assert attributes[1][0] == "failslab" and "probability = 23" in attributes[1][1]
    for cell, values in _by_cell([counted]).items():
        (of,) = [each for each in run["cells"] if each["id"] == cell]
        assert values["failslab"] == f"{of['counters']['failslab']:,}"
        assert values["requests that failed"] == f"{of['failures']['injected']:,}"
    audits, totals = found.tables("audits")
    assert [row[:3] for row in audits[1:]] == [
        [cell["id"], when, "clean"] for cell in run["cells"] for when in cell["audits"]
    ]
    for title, values in _by_cell([totals]).items():
        cell, _, when = title.rpartition(", ")
        (of,) = [each["audits"][when]["totals"] for each in run["cells"] if each["id"] == cell]
        assert {name: int(text.replace(",", "")) for name, text in values.items()}.items() <= of.items()


def test_config_machine_and_build_are_all_there(folders: dict[str, Path]) -> None:
    run, found = run_of(folders["stress"]), page_of(folders["stress"])
    said = found.text(found.find("setting"))
    for part in ("build", "machine"):
        for key, value in run[part].items():
            if isinstance(value, str) and value:
                assert f"{part}.{key}{value}" in said
    assert "[arena]\n" in said and 'size = "16MiB"' in said
    chosen, _ = found.tables("setting")
    wanted = [
        ["design", '["kmalloc", "kmalloc_nolock"]'],
        ["ops", "40000"],
        ["arena.size", '"16MiB"'],
        ["workload.slots", "101"],
        ["workload.array_ops", "2003"],
        ["interrupts.nmi.rate_hz", "2000.0"],
        ["faults.failslab.probability", "23"],
    ]
    assert all(row in chosen for row in wanted)
    assert not {"arena.nodes", "seed", "workload.kind", "name", "expect"} & {row[0] for row in chosen}


def test_defaults_of_a_workload_that_there_is_no_more_are_no_obstacle(folders: dict[str, Path]) -> None:
    run = run_of(folders["stress"])
    run["config"]["workload"] = {"kind": "of long ago", "slots": 7}
    html = html_of(run)
    assert "could not be made" not in html
    assert ["workload.kind", '"of long ago"'] in Page(html).tables("setting")[0]


def test_without_plots_there_are_no_figures_and_all_tables(folders: dict[str, Path]) -> None:
    loaded = load(folders["stress"])
    bare = Page(report_page.html([loaded], ()))
    assert not bare.all("svg")
    assert len(bare.tables("success")) == 1
    assert bare.tables("counters") == Page(report_page.html([loaded], DESIGNS)).tables("counters")


# --- several runs ----------------------------------------------------------------------------------


def test_runs_side_by_side_are_one_page(folders: dict[str, Path], tmp_path: Path) -> None:
    done = running.run("report", *folders.values(), cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "report of 3 runs: report.html\n", "")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "could not be made" not in html
    found = Page(html)
    labels = ["stress", "script", "nmi_kmalloc"]
    assert found.text(found.all("h1")[0]) == "3 runs: FAILED 2 of 3 passed"
    names = [
        f"{label}: {cell['id']}"
        for label, folder in zip(labels, folders.values(), strict=True)
        for cell in run_of(folder)["cells"]
    ]
    assert list(columns(found.tables("cells")[0])) == names
    assert [row[0] for row in found.tables("expectations")[0][1:4]] == ["stress"] * 3
    (differences,) = [table for table in found.tables("setting") if table[0][0] == "in which the runs differ"]
    assert columns(differences)["config.engine"] == {
        "stress": "stress",
        "script": "script",
        "nmi_kmalloc": "script",
    }
    assert "build.version" not in columns(differences)


def test_several_configs_leave_a_page_of_links(tmp_path: Path) -> None:
    good = running.config(tmp_path, FAILING.replace("== 2", "== 1"), "good")
    bad = running.config(tmp_path, FAILING, "bad")
    done = running.run("run", good, bad, "--no-progress", "--out", "out", cwd=tmp_path)
    assert done.returncode == 1 and done.stdout.endswith("results in out; report: out/report.html\n")
    found = page_of(tmp_path / "out")
    assert found.text(found.all("h1")[0]) == "2 runs: FAILED 1 of 2 passed"
    links = [found.elements[at][1]["href"] for at in found.all("a")]
    assert {"good/report.html", "bad/report.html", "bad/report.html#expectations"} <= set(links)
    assert (tmp_path / "out/good/report.html").is_file() and (tmp_path / "out/bad/report.html").is_file()
    assert [row[1] for row in found.tables("expectations")[0][1:]] == ["two", "two"]
