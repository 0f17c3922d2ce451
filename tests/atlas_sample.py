# SPDX-License-Identifier: MIT
"""An atlas made up of real symbols: what the engine would have found, without running it."""

import random
from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import cache
from typing import Any

from harness import vocabulary
from harness.atlas import picture
from harness.atlas.outcome_names import is_verdict
from harness.results import blank_cell
from harness.vocabulary import OK
from shmalloc import _binding
from shmalloc.symbols import symbols

LEVELS = (
    "kmalloc",
    "slab_alloc_node",
    "cmpxchg16",
    "___slab_alloc",
    "new_slab",
    "alloc_pages",
    "rmqueue_pcplist",
    "__rmqueue",
    "irq_work",
    "oracle and counts",
)
SLIDES = LEVELS[:8]
#: function of the core -> the level that its instructions are on
FUNCTIONS = {
    "shm_design_alloc": "kmalloc",
    "__kmalloc_noprof": "kmalloc",
    "__slab_alloc_node": "slab_alloc_node",
    "___slab_alloc": "___slab_alloc",
    "get_freelist": "___slab_alloc",
    "new_slab": "new_slab",
    "allocate_slab": "new_slab",
    "__alloc_frozen_pages_noprof": "alloc_pages",
    "get_page_from_freelist": "alloc_pages",
    "rmqueue_bulk": "rmqueue_pcplist",
    "__rmqueue_pcplist": "rmqueue_pcplist",
    "__rmqueue": "__rmqueue",
    "expand": "__rmqueue",
    "irq_work_queue": "irq_work",
    "oracle_take": "oracle and counts",
}
_LOCKED = ("___slab_alloc", "rmqueue_pcplist", "__rmqueue")
_TEXTS = (
    "mov rax, qword ptr [rdi + 0x18]",
    "lock cmpxchg dword ptr [rbx], ecx",
    "cmpxchg16b xmmword ptr [rsi]",
    "test al, al",
    "jne 0x2b1f4",
    "call 0x{target:x} <{name}>",
    "add qword ptr [r12 + r13*8 + 0x40], 1",
    "ret",
)
HOSTILE = '</script><img src=x onerror="alert(1)">&amp;\u2028'


def _places() -> dict[str, tuple[int, str]]:
    """Addresses and files of functions: real ones where the core has them."""
    core = _binding.core()
    table = symbols(core.path)
    found: dict[str, tuple[int, str]] = {}
    for start, _, name in table._functions:
        place = table.find(start)
        found[name] = (start, (place.file if place else None) or "unknown.c")
    return found


@cache
def code(size: int = 40) -> dict[str, list[dict[str, Any]]]:
    """Return instructions of each function, without outcomes."""
    places, made, dice = _places(), {}, random.Random(23)
    address = max(start for start, _ in places.values()) + 0x1000
    for number, (name, level) in enumerate(FUNCTIONS.items()):
        start, file = places.get(name, (address + 0x400 * number, "made_up.c"))
        at, rows = start, []
        for line in range(size + 3 * number):
            text = dice.choice(_TEXTS).format(target=start + 0x101, name=name)
            inlined = [name, "this_cpu_cmpxchg16"] if "cmpxchg16b" in text else [name]
            here = "cmpxchg16" if "cmpxchg16b" in text else level
            rows.append(
                {
                    "address": at,
                    "text": text,
                    "file": file,
                    "line": 101 + line // 3,
                    "inlined": inlined[: dice.randrange(1, 3)],
                    "level": here,
                }
            )
            at += dice.randrange(2, 9)
        made[name] = rows
    return made


def _counts(dice: random.Random, level: str, task: str, handler_design: str, handler: str) -> Counter[str]:
    """Invent what was found at one instruction."""
    times = dice.randrange(1, 4)
    if level in _LOCKED and task == "kmalloc" and dice.random() < 0.7:
        if handler_design == "kmalloc":
            return Counter({"deadlock": times})
        if handler.startswith("free"):
            return Counter({"deferred": times})
        if level == "___slab_alloc":
            return Counter({"other_bucket": times})
        return Counter({f"null:{'pcp' if level == 'rmqueue_pcplist' else 'zone'}_busy": 1, OK: times})
    return Counter({OK: times})


def cell(design: str, broken: str = "none", *, tasks: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a cell of atlas.json."""
    dice = random.Random(f"{design} {broken}")
    level_of = {row["address"]: row["level"] for rows in code().values() for row in rows}
    rows, scenarios, total = [], [], defaultdict(Counter)
    for task in tasks or (design,):
        for operation, share in (("alloc_fast", 0.2), ("alloc_refill", 0.5), ("alloc_new_slab", 0.9)):
            for handler in ("alloc_same", "free_own", "burst"):
                found = {
                    row["address"]: _counts(dice, row["level"], task, design, handler)
                    for instructions in code().values()
                    for row in instructions[: max(1, int(len(instructions) * share))]
                }
                if broken == "no_tid" and handler == "alloc_same" and operation == "alloc_fast":
                    found[code()["__slab_alloc_node"][3]["address"]] = Counter({"corruption": 1})
                scenario = _scenario(operation, task, handler, design, found)
                rows.append((scenario, found))
                scenarios.append(scenario)
                for address, counts in found.items():
                    total[address].update(counts)
    everything = picture.by_level(total, level_of.__getitem__, LEVELS)
    outcomes: Counter[str] = Counter()
    for counts in total.values():
        outcomes.update(counts)
    wrong = [
        _wrong(rows, address, counts) for address, counts in total.items() if any(map(is_verdict, counts))
    ]
    promised = "deadlock" if design == "kmalloc" else None
    atlas = {
        "points": outcomes.total(),
        "covered": outcomes.total(),
        "instructions": len(total),
        "outcomes": dict(outcomes),
        "deadlock_points": sum(bool(counts["deadlock"]) for counts in total.values()),
        "deadlock_injections": outcomes["deadlock"],
        "by_level": everything,
        "pictures": picture.pictures(rows, level_of.__getitem__, LEVELS),
        "red": [entry for entry in wrong if entry["verdict"] != promised],
        "deadlocks": [entry for entry in wrong if entry["verdict"] == promised],
        "unpromised": [],
        "injections_per_s": 23_456.7,
        "states": 101,
        "scenarios": scenarios,
        "failed": [],
        "pairs": _pairs(scenarios[0]["name"], design),
        "accesses": {
            "scenarios": 3,
            "points": 307,
            "outcomes_equal": True,
            "states_equal": True,
            "only_instructions": [],
            "only_accesses": [],
        },
        "cores": 2,
        "seconds": 2.5,
    }
    identity = f"design={design}" + (f",broken={broken}" if broken != "none" else "")
    return {
        "id": identity,
        "design": design,
        "broken": broken,
        "atlas": atlas,
        "functions": _functions(total),
    }


def _pairs(name: str, design: str) -> dict[str, Any]:
    """Invent what two interrupts did."""
    address = code()["__slab_alloc_node"][3]["address"]
    row = {"name": name, "firsts": 23, "kinds": "nmi, then nmi", "label": "", "points": 2003, "covered": 2003}
    inside = {"kinds": "nmi in nmi", "label": "stronger than hardware", "points": 101, "covered": 101}
    red = {
        "points": "3^4",
        "address": address,
        "verdict": "lost_memory",
        "text": "lost_memory: a page is nowhere",
        "operation": OK,
        "handler": OK,
        "scenario": name,
        "replay": f"shmalloc replay {design} {name}@3^4",
    }
    after = {OK: 2000, "null:pcp_busy": 3}
    nested = {OK: 100, "lost_memory": 1}
    return {
        "points": 2003,
        "covered": 2003,
        "outcomes": after,
        "labels": [],
        "scenarios": [{**row, "outcomes": after}],
        "red": [],
        "nested": {
            "points": 101,
            "covered": 101,
            "outcomes": nested,
            "labels": ["stronger than hardware"],
            "scenarios": [{**row, **inside, "outcomes": nested}],
            "red": [red],
        },
    }


def _scenario(
    operation: str, task: str, handler: str, design: str, found: Mapping[int, Counter[str]]
) -> dict[str, Any]:
    outcomes: Counter[str] = Counter()
    for counts in found.values():
        outcomes.update(counts)
    return {
        "name": f"{operation}@{task}/{handler}",
        "operation": operation,
        "task_design": task,
        "handler": handler,
        "handler_design": design,
        "kind": "nmi",
        "points": outcomes.total(),
        "covered": outcomes.total(),
        "instructions": len(found),
        "states": 7,
        "outcomes": dict(outcomes),
        "operation_outcomes": {OK: len(found)},
        "path": {"alloc_refill": {"condition": "== 1", "measured": 1, "holds": True}},
        "seconds": 0.25,
    }


def _wrong(rows: Any, address: int, counts: Counter[str]) -> dict[str, Any]:
    """Invent an entry of what was wrong at an instruction."""
    name, row = next(
        (name, row) for name, made in code().items() for row in made if row["address"] == address
    )
    verdict = next(filter(is_verdict, counts))
    scenario = next(scenario for scenario, found in rows if found.get(address, {}).get(verdict))
    offset = address - code()[name][0]["address"]
    return {
        "scenario": scenario["name"],
        "index": offset,
        "address": address,
        "symbol": f"{name}+{offset:#x}",
        "source": f"{row['file']}:{row['line']}",
        "occurrence": 1,
        "count": counts[verdict],
        "verdict": verdict,
        "text": f"{verdict}: the handler waits for a lock that {name} holds"
        if verdict == "deadlock"
        else f"{verdict}: two owners of one object",
        "operation": "none",
        "handler": verdict,
        "replay": f"shmalloc replay {scenario['handler_design']} {scenario['name']}@{offset}",
        "stacks": {
            "operation": [f"{name}+{offset:#x} ({row['file']}:{row['line']})", "shm_design_alloc+0x40"],
            "handler": ["spin_lock+0x1b (lock.h:77)", "rmqueue+0x10", "shm_design_alloc+0x40", "on_nmi+0x9a"],
        },
        "before": ["cpu 0 kmalloc-64 freelist: 3 objects", "zone 0 lock: free"],
        "after": ["cpu 0 kmalloc-64 freelist: 2 objects", "zone 0 lock: CPU 0, level 0"],
        "changed": ["cpu 0 kmalloc-64 freelist: 3 objects -> 2 objects"],
    }


def _functions(total: Mapping[int, Counter[str]]) -> list[dict[str, Any]]:
    made = []
    for name, rows in code().items():
        executed = [row for row in rows if row["address"] in total]
        whole = [
            {**row, "points": total[row["address"]].total(), "outcomes": dict(total[row["address"]])}
            if row["address"] in total
            else {**row, "points": 0, "outcomes": {}}
            for row in rows
        ]
        if executed:
            start = rows[0]["address"]
            made.append(
                {
                    "name": name,
                    "file": rows[0]["file"],
                    "start": start,
                    "size": rows[-1]["address"] + 4 - start,
                    "instructions": whole,
                }
            )
    return made


def atlas(*cells: dict[str, Any]) -> dict[str, Any]:
    """Return atlas.json of some cells; of none given, of the designs that the talk is about."""
    both = {"try_kmalloc", "kmalloc_nolock"}
    made = cells or (
        cell("kmalloc"),
        *(cell(design, tasks=("kmalloc", design)) for design in sorted(both)),
        cell("kmalloc_nolock", "no_tid", tasks=("kmalloc", "kmalloc_nolock")),
        cell("objpool"),
    )
    build = {"flavour": "release", "id": "abc", "compiler": "gcc", "flags": "-O2"}
    return {"schema": "shmalloc-atlas/1", "build": build, "cells": list(made)}


def run(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result.json that goes with an atlas.json."""
    words, cells = vocabulary.load(), []
    for each in document["cells"]:
        outcomes = each["atlas"]["outcomes"]
        verdict = words.worst([name for name in outcomes if is_verdict(name)])
        params = {"design": each["design"]} | ({"broken": each["broken"]} if each["broken"] != "none" else {})
        slim = {
            **each["atlas"],
            **{
                key: [
                    {
                        name: value
                        for name, value in entry.items()
                        if name not in ("stacks", "before", "after", "changed")
                    }
                    for entry in each["atlas"][key]
                ]
                for key in ("red", "deadlocks", "unpromised")
            },
        }
        cells.append(
            {
                **blank_cell(words),
                "id": each["id"],
                "params": params,
                "design": each["design"],
                "broken": each["broken"],
                "verdict": verdict,
                "expected": verdict,
                "seconds": 2.5,
                "latency_sample": 0,
                "must_happen": [],
                "atlas": slim,
                "replay": f"shmalloc run atlas.toml --set design={each['design']}",
            }
        )
    return {
        "schema": "shmalloc-result/1",
        "name": "sample",
        "verdict": OK,
        "seed": 23,
        "build": document["build"],
        "machine": {"cores_allowed": 2, "cpu_model": "a processor", "architecture": "x86_64", "warnings": []},
        "config": {"engine": "atlas", "name": "sample"},
        "expectations": [],
        "cells": cells,
    }
