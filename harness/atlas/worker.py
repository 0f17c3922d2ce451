# SPDX-License-Identifier: MIT
"""A process that sweeps scenarios, one after the other, as the parent deals them.

It hears and says lines of JSON on a socket. entry.py begins it, once its core is loaded.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from typing import Any, NoReturn

from harness import child, vocabulary
from harness.atlas import explain, functions, levels, pairs, scenario, sweeping
from harness.atlas.image import CoreImage
from harness.atlas.scenario import ScenarioError
from harness.problems import CannotRun
from shmalloc import _binding
from shmalloc.errors import NoRoom


class Worker:
    """This process. Args: spec: design, broken, nested, accesses, fd.  talk: with the parent."""

    def __init__(self, spec: Mapping[str, Any], talk: socket.socket) -> None:
        self._spec = spec
        self._talk = talk
        self._words = vocabulary.load()

    def say(self, **message: Any) -> None:
        """Tell the parent."""
        self._talk.sendall(json.dumps(message).encode() + b"\n")

    def run(self) -> None:
        """Do what the parent says, until it says no more."""
        with self._talk.makefile("rb") as lines:
            for line in lines:
                order = json.loads(line)
                try:
                    self.say(**getattr(self, f"_{order['do']}")(order))
                except ScenarioError as error:
                    self.say(failed=str(error))
                except (CannotRun, NoRoom) as error:
                    self.say(cannot=str(error))
                except Exception as error:
                    traceback.print_exc(file=sys.stderr)
                    last = traceback.extract_tb(error.__traceback__)[-1]
                    where = f"{os.path.basename(last.filename)}:{last.lineno}"
                    self.say(failed=f"{type(error).__name__}: {error} ({where})")

    def _sweep(self, order: Mapping[str, Any]) -> dict[str, Any]:
        chosen = scenario.find(self._spec["design"], order["scenario"])
        with sweeping.prepared(chosen, self._spec["broken"], self._words) as task:
            report = sweeping.sweep(task, self._tell, with_accesses=self._spec["accesses"])
            if order["pairs"] and chosen.kind == "irq":
                report["pairs"] = pairs.sweep(task, self._tell, (pairs.INSIDE,))
        if order["pairs"]:
            self._sweep_pairs(chosen, report)
        return {"report": report}

    def _sweep_pairs(self, chosen: scenario.Scenario, report: dict[str, Any]) -> None:
        """Have two interrupts of the scenario's kind come; a start state of its own holds what both free."""
        begin = time.perf_counter()
        inside = (pairs.INSIDE,) if self._spec["nested"] and chosen.kind == "nmi" else ()
        with sweeping.prepared(chosen, self._spec["broken"], self._words, times=2) as task:
            found = pairs.sweep(task, self._tell, (pairs.AFTER, *inside))
        report["pairs"] = {**report.get("pairs", {}), **found}
        report["seconds"] = round(report["seconds"] + time.perf_counter() - begin, 6)

    def _tell(self, points: int) -> None:
        self.say(points=points)

    def _explain(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Run some points again, to show what they come from."""
        chosen = scenario.find(self._spec["design"], order["scenario"])
        with sweeping.prepared(chosen, self._spec["broken"], self._words) as task:
            found = {str(index): explain.point(task, index).details() for index in order["indices"]}
        return {"explained": found}

    def _replay(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Run one point again and show all there is to see."""
        chosen = scenario.find(self._spec["design"], order["scenario"])
        places = [explain.Place(index, kind, inside) for index, kind, inside in order["places"]]
        # what an NMI inside an irq runs is set up for scenarios of irqs
        kind = "irq" if any(place.kind == "irq" for place in places) else None
        times = sum(place.kind == places[0].kind for place in places)
        with sweeping.prepared(chosen, self._spec["broken"], self._words, kind, times) as task:
            try:
                return explain.explain(task, places).as_json()
            except IndexError as error:
                return {"beyond": str(error)}

    def _verify(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Run some points again and compare them with what is certified."""
        chosen = scenario.find(self._spec["design"], order["scenario"])
        with sweeping.prepared(chosen, self._spec["broken"], self._words) as task:
            return {"differences": list(sweeping.compare(task, order))}

    def _annotate(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Lay outcomes over the code, which only a process that has the very core loaded can."""
        core = _binding.core()
        image = CoreImage.of(core)
        counts = {int(address): found for address, found in order["counts"].items()}
        names = {str(address): image.symbol_at(image.base + address) for address in counts}
        return {
            "functions": functions.annotated(image, counts),
            "levels": list(levels.LEVELS),
            "build": {
                "id": core.build_id,
                "compiler": core.text(core.lib.shm_compiler()) or "",
                "flags": core.text(core.lib.shm_build_flags()) or "",
                "abi_hash": f"{core.lib.shm_abi_hash():#018x}",
            },
            "symbols": {
                address: [found[0], found[1] - image.base] for address, found in names.items() if found
            },
        }


def work(process: child.Child) -> NoReturn:
    """Sweep. Args: process: this one, which has loaded its core."""
    with socket.socket(fileno=process.spec["fd"]) as talk:
        Worker(process.spec, talk).run()
    process.end(child.FINISHED)
