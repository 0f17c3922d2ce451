# SPDX-License-Identifier: MIT
"""The shell of pages: one file, nothing loaded, nothing that ends an element, ids once."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from html_page import Page

from harness import page
from harness.page import Loaded, Section, document, element, join, matrix, table
from harness.page.markup import Markup, script_json
from harness.problems import ConfigError

HOSTILE = "</script><!--\"'&<img src=x onerror=alert(1)>]]>\u2028"


def test_a_page_has_its_sections_data_and_bytes() -> None:
    parts = [
        Section("one", "First", element("p", "<1>"), data={"numbers": {"a": [1, None, HOSTILE]}}),
        Section("two", "Second", element("p", "2"), packed={"bytes": bytes(range(256)) * 9}),
    ]
    found = Page(document(f"a {HOSTILE}", element("h1", HOSTILE), parts))
    assert found.text(found.all("title")[0]) == f"a {HOSTILE}"
    assert found.text(found.all("h1")[0]) == HOSTILE
    assert [found.text(at) for at in found.all("h2")] == ["First", "Second"]
    assert found.text(found.inside(found.find("one"), "p")[0]) == "<1>"
    assert found.json("numbers") == {"a": [1, None, HOSTILE]}
    assert found.unpacked("bytes") == bytes(range(256)) * 9
    assert not found.all("img")
    (nav,) = found.all("nav")
    links = [found.elements[at][1]["href"] for at in found.inside(nav, "a")]
    assert links == ["#one", "#two"]


def test_the_policy_lets_nothing_in() -> None:
    html = document("t", Markup(""), [])
    (policy,) = [found["content"] for tag, found in Page(html).elements if "http-equiv" in found]
    assert policy is not None
    assert policy.split("; ")[0] == "default-src 'none'" and "base-uri 'none'" in policy
    for outside in ("http:", "https:", "src=", "url(", "@import", "<link", "import(", "fetch(", "XMLHttp"):
        assert outside not in html, outside
    for dangerous in ("innerHTML", "document.write", "eval(", "onclick"):
        assert dangerous not in html, dangerous


def test_style_and_script_are_written_once() -> None:
    parts = [
        Section(name, name, Markup(""), css=".x{top:7px}", js=f"(() => 23)();{more}")
        for name, more in (("a", ""), ("b", ""), ("c", "//"))
    ]
    found = Page(document("t", Markup(""), parts))
    assert [found.text(at) for at in found.all("style")].count(".x{top:7px}") == 1
    assert [found.text(at) for at in found.all("script")][1:] == ["(() => 23)();", "(() => 23)();//"]


@pytest.mark.parametrize("wrong", [{"css": "a{}</STYLE>"}, {"js": "x = '</script>'"}, {"js": "x = '<!--'"}])
def test_style_and_script_cannot_end_their_element(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="ends its own element"):
        document("t", Markup(""), [Section("a", "a", Markup(""), **wrong)])


def test_ids_are_unique() -> None:
    with pytest.raises(ValueError, match="twice: x, y"):
        document(
            "t",
            Markup(""),
            [
                Section("x", "", Markup(""), data={"y": 1}),
                Section("z", "", Markup(""), packed={"x": b"", "y": b""}),
            ],
        )


def test_what_json_cannot_say_is_refused() -> None:
    with pytest.raises(ValueError):
        document("t", Markup(""), [Section("x", "", Markup(""), data={"y": float("nan")})])


def test_markup_escapes_what_is_no_markup() -> None:
    assert element(
        "p", "<&>\"'", Markup("<b></b>"), None, ["x", 7], class_='a"b', data_cell="1", hidden=True
    ) == ('<p class="a&quot;b" data-cell="1" hidden>&lt;&amp;&gt;&quot;&#x27;<b></b>x7</p>')
    assert element("meta", charset="utf-8", name=None) == '<meta charset="utf-8">'
    assert "</script" not in script_json('"</script><!--"', "x").removesuffix("</script>")
    assert '<td>a</td><td class="n">1</td>' in table(("x", "y"), [("a", "1")])
    assert join("<", None, [Markup("<br>"), [">"]]) == "&lt;<br>&gt;"


def test_a_matrix_has_a_column_for_each_cell_and_rows_where_there_is_something() -> None:
    rows = [("a", ["1", "-", "0"]), ("b", ["-", "-", "7"]), ("c", ["-", "-", "-"])]
    found = Page(f'<div id="all">{matrix("x", ["n=1", "n=2", "n=3"], rows, most=2)}</div>')
    assert found.tables("all") == [
        [["x", "n=1", "n=2"], ["a", "1", "-"]],
        [["x", "n=3"], ["a", "0"], ["b", "7"]],
    ]


def test_style_and_script_are_installed(tmp_path: Path) -> None:
    code = "from importlib import resources as r; f = r.files('harness.page');"
    code += "print(*(len(f.joinpath(n).read_text()) for n in ('base.css', 'base.js')))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert min(map(int, done.stdout.split())) > 1000


def test_every_colour_of_the_dark_page_is_one_of_the_light() -> None:
    css = Path(page.__file__).with_name("base.css").read_text()
    light, dark = css.split("@media screen and (prefers-color-scheme: dark)")
    wanted = {f"--series-{at}" for at in range(8)} | {
        "--ground",
        "--ink",
        "--quiet",
        "--line",
        "--good",
        "--bad",
    }
    named = [set(re.findall(r"(--[a-z0-9-]+):", text.partition("\n* {")[0])) for text in (light, dark)]
    assert wanted <= named[1] <= named[0]


def _leave(folder: Path, **keys: object) -> Path:
    folder.mkdir(exist_ok=True)
    run = {"schema": "shmalloc-result/1", "cells": [{"id": "a"}], **keys}
    (folder / "result.json").write_text(json.dumps(run))
    return folder


def test_an_old_result_is_loaded_and_nothing_is_made_up(tmp_path: Path) -> None:
    found = page.load(_leave(tmp_path, name="old"))
    assert (found.label, found.samples, found.atlas, found.folder) == ("old", {}, None, tmp_path)
    (cell,) = found.run["cells"]
    assert cell["counters"] == {} and cell["violations"] == [] and "ops" not in cell
    assert found.run["expectations"] == [] and found.run["machine"] == {}


def test_samples_atlas_and_arrays_are_read(tmp_path: Path) -> None:
    folder = _leave(tmp_path, name="all")
    (folder / "samples.csv").write_text("cell,t_s,used_bytes,ops,nmi,irq,failures\na,0.5,4096,23,1,2,3\n")
    (folder / "atlas.json").write_text('{"cells": []}')
    (folder / "arrays").mkdir()
    np.savez_compressed(folder / "arrays/map-000.npz", pages=np.arange(23))
    found = page.load(folder, "other")
    assert found.label == "other" and found.atlas == {"cells": []}
    (sample,) = found.samples["a"]
    assert (sample.t_s, sample.used_bytes, sample.ops, sample.failures) == (0.5, 4096, 23, 3)
    arrays = found.arrays("map-000")
    assert arrays is not None and arrays["pages"].tolist() == list(range(23))
    assert found.arrays("map-001") is None


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("result.json", "{", "no result"),
        ("result.json", "[]", "no result: not a JSON object"),
        ("result.json", '{"schema": "other"}', "allowed is shmalloc-result/1"),
        ("result.json", '{"schema": "shmalloc-result/1", "cells": 7}', "cells = 7: "),
        ("result.json", '{"schema": "shmalloc-result/1", "cells": [7]}', "cells[0] = 7: "),
        (
            "result.json",
            '{"schema": "shmalloc-result/1", "cells": [{"id": "a", "counters": 7}]}',
            "cells[0].counters",
        ),
        ("atlas.json", "", "no result"),
        ("samples.csv", "cell,t_s,used_bytes,ops,nmi,irq,failures\na,x,1,1,1,1,1\n", "damaged"),
        ("samples.csv", "cell\na\n", "damaged"),
    ],
)
def test_what_is_damaged_is_named(tmp_path: Path, file: str, text: str, said: str) -> None:
    folder = _leave(tmp_path)
    (folder / file).write_text(text)
    with pytest.raises(ConfigError) as caught:
        page.load(folder)
    assert str(folder / file) in str(caught.value) and said in str(caught.value)


def test_damaged_arrays_are_named(tmp_path: Path) -> None:
    folder = _leave(tmp_path)
    (folder / "arrays").mkdir()
    (folder / "arrays/map-000.npz").write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(ConfigError, match=r"map-000\.npz.*damaged"):
        page.load(folder).arrays("map-000")


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    folder = _leave(tmp_path)
    (folder / "arrays").mkdir()
    np.savez_compressed(folder / "arrays/map-000.npz", bad=np.array([{"a": 7}], dtype=object))
    with pytest.raises(ConfigError, match=r"map-000\.npz.*damaged"):
        page.load(folder).arrays("map-000")


def test_cells_of_several_runs_are_named_by_their_run() -> None:
    run = {"cells": [{"id": "x"}, {"id": "y"}]}
    one, two = (Loaded(Path(), label, run) for label in ("a", "b"))
    assert [name for *_, name in page.named_cells([one])] == ["x", "y"]
    assert [name for *_, name in page.named_cells([one, two])] == ["a: x", "a: y", "b: x", "b: y"]
