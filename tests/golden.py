# SPDX-License-Identifier: MIT
"""The golden table of fast paths: what each executes, as the atlas's recorder sees it, and a file of what it may.

    python tests/golden.py            print what this build executes beside what the table allows
    python tests/golden.py --write    put this build's figures into the table

Compare-and-exchanges and locked operations are exact, whatever the compiler; the number of instructions has a
ceiling for each compiler that is listed. Another compiler's count is shown, and not judged.
"""

from __future__ import annotations

import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.atlas import scenario
from harness.atlas.call import Call
from harness.atlas.classes import classes
from harness.atlas.disassembly import Instruction
from harness.atlas.image import CoreImage
from harness.atlas.scenario import Built, Scenario
from harness.atlas.staging import geometry
from harness.atlas.sweeper import Sweeper, Trace
from harness.atlas.traces import Steps
from shmalloc import _binding, _buildid
from shmalloc.arena import Arena

ROOT = Path(__file__).resolve().parents[1]
TABLE = Path(__file__).resolve().parent / "shmalloc" / "golden_paths.toml"

#: Every fast path, as operations of the atlas; the handler is none of it.
PATHS = tuple(
    f"{operation}@{design}"
    for design, operations in {
        "kmalloc": (
            *("alloc_fastpath", "call_kmalloc", "call_kmalloc_node", "call_kmem_cache_alloc"),
            *("free_fastpath", "call_kfree", "call_kmem_cache_free"),
            *("call_malloc", "call_free", "call_cache_alloc", "call_cache_free"),
        ),
        "kmalloc_nolock": (
            *("alloc_fastpath", "call_kmalloc_nolock", "call_kmem_cache_alloc_nolock"),
            *("free_fastpath", "call_kfree_nolock"),
            *("call_malloc_nolock", "call_free_nolock", "call_cache_alloc_nolock", "call_cache_free_nolock"),
        ),
        "try_kmalloc": ("alloc_fastpath", "free_fastpath"),
        "sheaves": (
            *("sheaf_alloc", "sheaf_call_kmalloc", "sheaf_call_kmalloc_node", "sheaf_call_kmalloc_nolock"),
            *("sheaf_call_kmem_cache_alloc", "sheaf_call_kmem_cache_alloc_nolock"),
            *("sheaf_free", "sheaf_call_kfree", "sheaf_call_kfree_nolock", "sheaf_call_kmem_cache_free"),
            *("sheaf_call_malloc", "sheaf_call_free", "sheaf_call_malloc_nolock", "sheaf_call_free_nolock"),
            *("sheaf_call_cache_alloc", "sheaf_call_cache_alloc_nolock"),
            *("sheaf_call_cache_free", "sheaf_call_cache_free_nolock"),
        ),
        "bpf_mem_alloc": ("bpf_alloc", "bpf_free"),
        "prealloc": ("pool_pop", "pool_push"),
        "objpool": ("objpool_pop", "objpool_push"),
        "no_prealloc": ("atomic_alloc", "free_call_rcu"),
    }.items()
    for operation in operations
)
#: With the oracle off and on: what is measured, and what proves.
ORACLE = {"plain": False, "oracle": True}

_OUR_FIRST_FLAGS = "-O2 -g -fno-omit-frame-pointer"  # CORE_FLAGS of CMakeLists.txt begin so
_NAMES = {"GNU": "gcc", "Clang": "clang"}
_HEAD = """\
# What each fast path executes, from the exported call's first instruction to its return, uninterrupted.
#
# plain: with the oracle off; oracle: with it on, as the atlas proves it. Atomics are exact: cmpxchg by bytes, by
# itself or locked; other locked operations; xchg with memory. Numbers behind a compiler are the most instructions.
# `python tests/golden.py --write` puts this build's figures here: a longer path is then seen in the diff.
"""


def scenario_of(path: str) -> Scenario:
    """Return the atlas's scenario of an operation of a design, with the plainest handler."""
    design = path.partition("@")[2]
    return scenario.find(design, f"{path}/alloc_same")


@dataclass(frozen=True)
class Recorded:
    """What a path has executed.

    Attributes: call: the exported function.  image: of the core.  trace.  steps: the trace's instructions.
        built, sweeper: that it was recorded with, as long as they are open.
    """

    call: str
    image: CoreImage
    trace: Trace
    steps: Steps
    built: Built
    sweeper: Sweeper

    @classmethod
    def of(cls, call: Call, built: Built, sweeper: Sweeper) -> Recorded:
        """Record a call."""
        image, trace = CoreImage.of(built.arena.core), sweeper.record(call)
        return cls(call.function, image, trace, Steps.of(image, trace), built, sweeper)

    @property
    def addresses(self) -> list[int]:
        """Of each step, from the load address."""
        return [int(address) for address in self.steps.addresses]

    @property
    def count(self) -> Count:
        """What there is to compare."""
        return Count.of(self.call, [self.steps[step] for step in range(len(self.trace))])


@dataclass(frozen=True)
class Count:
    """What a path executes. Attributes: call.  instructions.  atomics: kind -> how many."""

    call: str
    instructions: int
    atomics: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, call: str, executed: Sequence[Instruction]) -> Count:
        kinds = Counter(kind for one in executed if (kind := atomic(one)))
        return cls(call, len(executed), dict(sorted(kinds.items())))


def atomic(one: Instruction) -> str | None:
    """Name the kind of a compare-and-exchange or locked operation; None: it is neither."""
    name = one.mnemonic
    if name.startswith("cmpxchg"):
        return f"{'locked_' * one.is_locked}cmpxchg_{one.memory[0].size}" if one.memory else None
    if name == "xchg":
        return "xchg" if one.memory else None
    return "locked" if one.is_locked else None


@contextmanager
def recorded(
    path: str, *, oracle: bool = True, flavour: str = "release", broken: str = "none"
) -> Iterator[Recorded]:
    """Record a path, which must be the one that its operation names, in an arena of its own."""
    found = scenario_of(path)
    operation = replace(found.operation, geometry={**found.operation.geometry, "oracle": oracle})
    with recorded_scenario(replace(found, operation=operation), flavour, broken) as one:
        before = one.built.counters()
        one.sweeper.run_and_keep(one.built.call)
        one.built.check_path(before, one.built.counters())
        one.sweeper.restore()
        yield one


@contextmanager
def recorded_scenario(found: Scenario, flavour: str = "release", broken: str = "none") -> Iterator[Recorded]:
    """Record what a scenario's operation executes when nobody interrupts it."""
    keys = {**found.handler.geometry, **found.operation.geometry}
    arena = Arena.create(geometry(keys), flavour=flavour, broken=broken)
    try:
        built = Built(found, arena, "nmi", 1)
    except BaseException:
        arena.__exit__(None, None, None)
        raise
    with built:
        arena.unlink()
        image = CoreImage.of(arena.core)
        with Sweeper(arena, image, classes=classes(built), watched=built.watched) as sweeper:
            sweeper.snapshot()
            yield Recorded.of(built.call, built, sweeper)


def measure(path: str, **how: Any) -> dict[str, Count]:
    """Count what a path executes, with the oracle off and on."""
    found = {}
    for name, oracle in ORACLE.items():
        with recorded(path, oracle=oracle, **how) as one:
            found[name] = one.count
    return found


# --- the table ----------------------------------------------------------------------------------------


def compiler(flags: str) -> str | None:
    """Name the compiler that a core was made by, as the table does; None: other flags than ours were given, too."""
    name, version, rest = flags.split(" ", 2)
    if not rest.strip().startswith(_OUR_FIRST_FLAGS):
        return None
    return f"{_NAMES.get(name, name.lower())} {'.'.join(version.split('.')[:2])}"


def compiled_by(core: _binding.Core) -> str | None:
    """Say it of a core."""
    return compiler(core.text(core.lib.shm_build_flags()) or "")


def load(text: str | None = None) -> dict[str, Any]:
    """Read the table."""
    return tomllib.loads(TABLE.read_text() if text is None else text)


def problems(
    path: str, row: Mapping[str, Any] | None, found: Mapping[str, Count], by: str | None
) -> list[str]:
    """Compare what a path executes with its row.

    Args: row: of the table; None = it has none.  by: the compiler; None = not to be judged by it.
    Returns: one line for each thing that is wrong.
    """
    if row is None:
        return [f"{path}: no row in the table"]
    wrong = []
    for name, count in found.items():
        if row["call"] != count.call:
            wrong.append(f"{path}: calls {count.call}, the table says {row['call']}")
        allowed = row[name]["atomics"]
        for kind in sorted({*allowed, *count.atomics}):
            is_, should = count.atomics.get(kind, 0), allowed.get(kind, 0)
            if is_ != should:
                wrong.append(f"{path} ({name}): {is_} {kind}, the table says {should}")
        ceiling = row[name].get(by) if by else None
        if ceiling is not None and count.instructions > ceiling:
            wrong.append(
                f"{path} ({name}): {count.instructions} instructions, at most {ceiling} with {by}; "
                "if that has to be: python tests/golden.py --write"
            )
    return wrong


def updated(table: Mapping[str, Any], found: Mapping[str, Mapping[str, Count]], by: str | None) -> str:
    """Return the table with these figures; ceilings of other compilers stay."""
    lines = [_HEAD]
    for path, counts in found.items():
        lines.append(f'["{path}"]\ncall = "{counts["plain"].call}"')
        for name, count in counts.items():
            ceilings = {
                key: most for key, most in table.get(path, {}).get(name, {}).items() if key != "atomics"
            }
            if by:
                ceilings[by] = count.instructions
            atomics = ", ".join(f"{kind} = {number}" for kind, number in count.atomics.items())
            fields = [f"atomics = {{ {atomics} }}" if atomics else "atomics = {}"]
            fields += [f'"{key}" = {most}' for key, most in sorted(ceilings.items())]
            lines.append(f"{name} = {{ {', '.join(fields)} }}")
        lines.append("")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Run the command line given in the module's docstring."""
    if arguments not in ([], ["--write"]):
        sys.exit(__doc__)
    core = _binding.core()
    made_of = core.text(core.lib.shm_build_flags()) or ""
    if _buildid.source_id(ROOT / "shmalloc" / "core", made_of) != core.build_id:
        sys.exit(f"{core.path} was built from other sources than those in {ROOT}: pip install .")
    by = compiler(made_of)
    table = load() if TABLE.exists() else {}
    found = {path: measure(path) for path in PATHS}
    wrong = [line for path in PATHS for line in problems(path, table.get(path), found[path], by)]
    for path, counts in found.items():
        for name, count in counts.items():
            ceiling = table.get(path, {}).get(name, {}).get(by)
            judged = f"of {ceiling}" if ceiling is not None else "not judged"
            atomics = ", ".join(f"{number} {kind}" for kind, number in count.atomics.items())
            print(
                f"{path:48} {name:7}{count.instructions:5} instructions, {judged:12} {atomics or 'no atomics'}"
            )
    print(*wrong, sep="\n")
    if arguments:
        TABLE.write_text(updated(table, found, by))
        print(f"{TABLE.relative_to(ROOT)}: {by or 'flags other than ours: no ceilings'}")
        return 0
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
