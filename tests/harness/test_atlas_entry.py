"""A worker's core is chosen before any other module can ask for one."""

import subprocess
import sys
from pathlib import Path

import running


def test_beginning_a_worker_loads_no_core(tmp_path: Path) -> None:
    code = "import sys, harness.atlas.entry; print(*(name for name in sys.modules if '_core_' in name))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def test_a_cell_is_swept_with_its_broken_core(tmp_path: Path) -> None:
    text = 'engine = "atlas"\nbroken = ["none", "no_tid"]\n[atlas]\noperations = ["alloc_fastpath"]\n'
    text += 'handlers = ["aba"]\ntask = ["kmalloc_nolock"]\n'
    text += '[[expect]]\nverdict = "corruption"\ncell = { broken = "no_tid" }\n'
    found = running.results(running.config(tmp_path, text))
    right, broken = found["cells"]
    assert (right["verdict"], right["atlas"]["red"]) == ("ok", [])
    assert broken["verdict"] == "corruption"
    assert {point["symbol"].rpartition("+")[0] for point in broken["atlas"]["red"]} == {
        "kmalloc_nolock_alloc_first_cpu_slabs"
    }
