# SPDX-License-Identifier: MIT
"""The map of the machine code: each function that was interrupted, instruction by instruction."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.atlas.disassembly import Function, disassembly
from harness.atlas.inlining import inlines
from harness.atlas.levels import level_of
from harness.atlas.traces import Image

__all__ = ["annotated"]


def annotated(image: Image, counts: Mapping[int, Mapping[str, int]]) -> list[dict[str, Any]]:
    """Describe each function with an instruction that was interrupted, by address.

    Args: counts: of each instruction's address, relative to the load address, how often each outcome came.
    Returns: name, file, start, size and instructions of each function; of an instruction address, text, file,
        line, inlined (functions that it is inlined from, outermost first), level, points and outcomes. Those
        that were never executed are there with no points.
    """
    code = disassembly(image.path)
    touched = {code.function_at(address) for address in counts}
    return [
        _function(image, function, counts)
        for function in sorted((one for one in touched if one), key=lambda one: one.start)
    ]


def _function(image: Image, function: Function, counts: Mapping[int, Mapping[str, int]]) -> dict[str, Any]:
    table = inlines(Path(image.path))
    instructions = []
    for one in disassembly(image.path).body(function):
        frames = table.at(one.address)
        outcomes = dict(counts.get(one.address, {}))
        instructions.append(
            {
                "address": one.address,
                "text": one.text,
                "file": frames[0].file if frames else "",
                "line": frames[0].line if frames else 0,
                "inlined": [frame.function for frame in reversed(frames[:-1])],
                "level": level_of(image, one.address),
                "points": sum(outcomes.values()),
                "outcomes": outcomes,
            }
        )
    home = table.at(function.start)
    return {
        "name": function.stem,
        "file": home[-1].home if home else "",
        "start": function.start,
        "size": function.size,
        "instructions": instructions,
    }
