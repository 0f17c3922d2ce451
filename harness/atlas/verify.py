# SPDX-License-Identifier: MIT
"""`shmalloc verify`: a random sample of a certificate's points, run again and compared."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.atlas import certificate, engine
from harness.atlas.crew import Crew
from harness.problems import CannotRun, ConfigError, Problem
from shmalloc import _binding

_FILE = "certificate.json"
_SHOWN = 10


def run(path: Path, points: int, seed: int, check: Callable[[], None]) -> dict[str, Any]:
    """Verify a certificate.

    Args: path: of it, or of a run's folder.  points: to be run again, at most.  seed: of the sample.  check: called
        now and then.
    Returns: verified, points, of_points, scenarios, differences, seed, seconds, build.
    Raises: ConfigError: no certificate.  CannotRun: it is of another build.
    """
    begin = time.monotonic()
    data = certificate.read(path / _FILE if path.is_dir() else path)
    total = sum(scenario["points"] for cell in data["cells"] for scenario in cell["scenarios"])
    if not total:
        raise ConfigError(str(path), [Problem("points", "0", "nothing is certified")])
    chosen = sorted(random.Random(seed).sample(range(total), min(points, total)))
    differences = list(certificate.contradictions(data))
    scenarios, first = 0, 0
    for cell in data["cells"]:
        _check_build(data["build"], cell)
        orders = list(_orders(cell, chosen, first))
        first += sum(scenario["points"] for scenario in cell["scenarios"])
        scenarios += len(orders)
        differences += _compared(cell, orders, check)
    return {
        "file": str(path),
        "verified": not differences,
        "points": len(chosen),
        "of_points": total,
        "scenarios": scenarios,
        "differences": differences,
        "seed": seed,
        "seconds": round(time.monotonic() - begin, 3),
        "build": data["build"]["id"],
    }


def _check_build(build: Mapping[str, Any], cell: Mapping[str, Any]) -> None:
    """Refuse to compare with another build: its addresses and its code are others.

    Raises: CannotRun.
    """
    core = _binding.core()
    here = {"id": core.build_id, "compiler": core.text(core.lib.shm_compiler()) or ""}
    here["flags"] = core.text(core.lib.shm_build_flags()) or ""
    for key, value in here.items():
        if build[key] != value:
            raise CannotRun(
                f"the certificate is of another build of the core: its {key} is {build[key]}, this one's {value}"
            )
    if cell["broken"] != "none" and cell["broken"] not in _binding.release_variants():
        raise CannotRun(f"this build has no variant {cell['broken']} at release quality")


def _orders(cell: Mapping[str, Any], chosen: list[int], first: int) -> Iterator[dict[str, Any]]:
    """Yield what is to be run again of a cell. Args: chosen: points, numbered through.  first: of the cell."""
    at = 0
    for scenario in cell["scenarios"]:
        last = first + scenario["points"]
        while at < len(chosen) and chosen[at] < first:
            at += 1
        indices = []
        while at < len(chosen) and chosen[at] < last:
            indices.append(chosen[at] - first)
            at += 1
        if indices:
            yield {
                "do": "verify",
                "scenario": scenario["name"],
                "indices": indices,
                "outcomes": scenario["outcomes"],
                "digest": scenario["digest"],
            }
        first = last


def _compared(
    cell: Mapping[str, Any], orders: list[dict[str, Any]], check: Callable[[], None]
) -> Iterator[dict[str, Any]]:
    """Run them, and yield what is not as certified."""
    if not orders:
        return
    spec = {"design": cell["design"], "broken": cell["broken"], "nested": False, "accesses": False}
    with Crew(engine.cores(0, len(orders)), spec) as crew:
        for order, message in crew.work_off(orders, check):
            where = {"cell": cell["id"], "scenario": order["scenario"]}
            if "differences" in message:
                for difference in message["differences"]:
                    yield {**where, **difference}
            else:
                why = message.get("died") or message.get("failed")
                yield {**where, "index": None, "certified": "covered", "measured": why}


def text(found: Mapping[str, Any]) -> str:
    """Write the result."""
    line = (
        f"{found['file']}: {found['points']} of {found['of_points']} points in {found['scenarios']} scenarios "
        f"run again in {found['seconds']} s (seed {found['seed']}, build {found['build']}): "
    )
    differences = found["differences"]
    if not differences:
        return line + "all as certified"
    lines = [f"{line}{len(differences)} NOT as certified"]
    for each in differences[:_SHOWN]:
        where = each["scenario"] + ("" if each["index"] is None else f"@{each['index']}")
        lines.append(f"  {each['cell']}: {where}: certified {each['certified']}, measured {each['measured']}")
    if len(differences) > _SHOWN:
        lines.append(f"  and {len(differences) - _SHOWN} more")
    return "\n".join(lines)
