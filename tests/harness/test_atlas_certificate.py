# SPDX-License-Identifier: MIT
"""Certificates: what is in one, a sample of it run again, and what is no certificate of this build."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import config, run

from harness.atlas import certificate

FAST = """
engine = "atlas"
design = "kmalloc_nolock"
[atlas]
operations = ["alloc_fastpath"]
handlers = ["alloc_same"]
task = ["kmalloc_nolock"]
cores = 1
"""


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certified")
    done = run("run", config(folder, FAST), "--no-progress", "--out", folder / "out", cwd=folder)
    assert done.returncode == 0, done.stderr + done.stdout
    return folder / "out"


def changed(path: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Copy a certificate with a change."""
    data = json.loads(path.read_text())
    change(data)
    copy = folder / "changed.json"
    copy.write_text(json.dumps(data))
    return copy


def forge(data: dict[str, Any], *, digest: bool) -> None:
    """Certify another outcome for all points of the first scenario."""
    scenario = data["cells"][0]["scenarios"][0]
    scenario["outcomes"] = [["deferred", scenario["points"]]]
    if digest:
        scenario["digest"] = certificate.digest(
            np.zeros(scenario["points"], int), ["deferred"] * scenario["points"]
        )


def test_a_sample_is_as_certified(certified: Path) -> None:
    done = run("verify", certified, "--points", "101", "--seed", "23", "--json", cwd=certified)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["verified"], found["points"], found["seed"], found["differences"]) == (True, 101, 23, [])
    assert found["of_points"] > 101
    said = run("verify", certified / "certificate.json", "--points", "23", cwd=certified)
    assert said.returncode == 0
    assert "all as certified" in said.stdout


def test_a_certificate_says_what_was_covered_and_by_which_build(certified: Path) -> None:
    data = certificate.read(certified / "certificate.json")
    assert {"id", "compiler", "flags", "abi_hash"} <= set(data["build"])
    assert data["covered"] == data["points"] > 100
    assert data["seconds"] > 0
    (scenario,) = data["cells"][0]["scenarios"]
    assert len(certificate.outcomes(scenario)) == scenario["points"] == scenario["covered"] == data["points"]
    assert len(scenario["digest"]) == 64
    assert data["scenarios"] == 1


@pytest.mark.parametrize("digest", [False, True])
def test_a_tampered_certificate_fails(certified: Path, tmp_path: Path, digest: bool) -> None:
    path = changed(certified / "certificate.json", tmp_path, lambda data: forge(data, digest=digest))
    done = run("verify", path, "--points", "23", cwd=tmp_path)
    assert done.returncode == 1
    assert "NOT as certified" in done.stdout
    assert "certified deferred, measured" in done.stdout


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(points=9999),
        lambda data: data.update(coverage="9999/9999"),
        lambda data: data.update(outcomes={"ok": 1}),
        lambda data: data["cells"][0]["scenarios"][0].update(covered=1),
        lambda data: data["cells"][0]["scenarios"].append(data["cells"][0]["scenarios"][0]),
    ],
)
def test_totals_that_do_not_follow_from_the_points_fail(
    certified: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    path = changed(certified / "certificate.json", tmp_path, change)
    done = run("verify", path, "--points", "3", cwd=tmp_path)
    assert done.returncode == 1
    assert "NOT as certified" in done.stdout
    assert "in its own list" in done.stdout


@pytest.mark.parametrize("key", ["id", "compiler", "flags"])
def test_another_build_is_3(certified: Path, tmp_path: Path, key: str) -> None:
    path = changed(
        certified / "certificate.json", tmp_path, lambda data: data["build"].update({key: "0" * 16})
    )
    done = run("verify", path, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert "of another build" in done.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.update(schema="shmalloc-certificate/0"), "allowed is shmalloc-certificate/1"),
        (lambda data: data.pop("cells"), "cells: must be a list"),
        (lambda data: data["build"].pop("flags"), "build.flags"),
        (lambda data: data["cells"][0]["scenarios"][0].update(points=1), "outcomes: must be"),
        (lambda data: data["cells"][0].pop("design"), "cells[0].design: must be a str"),
        (lambda data: data["cells"][0].update(scenarios=[7]), "scenarios[0]: must be a table"),
        (lambda data: data["cells"].clear(), "nothing is certified"),
    ],
)
def test_what_is_no_certificate_is_2(
    certified: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    done = run("verify", changed(certified / "certificate.json", tmp_path, change), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_no_file_no_json_and_no_points_are_2(certified: Path, tmp_path: Path) -> None:
    (tmp_path / "text.json").write_text("no JSON")
    for arguments in (["missing.json"], ["text.json"], [certified, "--points", "0"]):
        assert run("verify", *arguments, cwd=tmp_path).returncode == 2


def test_a_digest_depends_on_every_part() -> None:
    digests = {
        certificate.digest(np.array(addresses), names)
        for addresses, names in (
            ([1, 2], ["ok", "ok"]),
            ([1, 3], ["ok", "ok"]),
            ([1, 2], ["ok", "none"]),
            ([1], ["ok"]),
        )
    }
    assert len(digests) == 4
