# SPDX-License-Identifier: MIT
"""The fast paths of the release flavour: what each executes, and that the atlas sweeps no other ones.

`python tests/golden.py` shows the table that they are held to, `--write` renews it.
"""

import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import capstone
import golden
import pytest
from elftools.elf.elffile import ELFFile
from golden import Count, problems

from harness import vocabulary
from harness.atlas import disassembly, inlining, scenario, sweeping, traces
from harness.atlas.call import Call
from harness.atlas.disassembly import REGISTERS, Memory
from harness.atlas.operations import all_operations
from harness.atlas.scenario import Selection
from shmalloc import _binding, designs
from shmalloc.program import ops as op_array

LISTED = golden.compiled_by(_binding.core())
TABLE = golden.load()


# --- the table ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", golden.PATHS)
def test_path_executes_what_the_table_says(path: str, record_property: Any) -> None:
    found = golden.measure(path)
    record_property("instructions", {name: count.instructions for name, count in found.items()})
    assert problems(path, TABLE.get(path), found, LISTED) == []


def test_table_has_the_paths_and_no_others() -> None:
    assert set(TABLE) == set(golden.PATHS)


def test_every_exported_call_with_a_fast_path_has_a_row() -> None:
    """An exported function lies in the section of fast paths if it has one, and then the table counts it."""
    with _binding.core().path.open("rb") as stream:
        elf = ELFFile(stream)
        fast = elf.get_section_index("shm_fast")
        exported = {
            symbol.name
            for symbol in elf.get_section_by_name(".dynsym").iter_symbols()
            if symbol["st_shndx"] == fast and symbol["st_info"]["type"] == "STT_FUNC"
        }
    assert exported <= {row["call"] for row in TABLE.values()}


def test_ceilings_are_of_two_compilers_at_least_and_of_all_paths() -> None:
    listed = [set(row[name]) - {"atomics"} for row in TABLE.values() for name in golden.ORACLE]
    assert all(each == listed[0] for each in listed)
    assert len(listed[0]) >= 2


def test_written_table_is_read_again() -> None:
    found = {
        path: {
            name: Count(row["call"], row[name].get("gcc 12.2", 1), row[name]["atomics"])
            for name in golden.ORACLE
        }
        for path, row in TABLE.items()
    }
    assert golden.load(golden.updated(TABLE, found, "gcc 12.2")) == TABLE
    more = golden.load(golden.updated(TABLE, found, "other 1.0"))
    assert {row["plain"]["other 1.0"] for row in more.values()}
    assert golden.load(golden.updated(TABLE, found, None)) == TABLE


# --- that it would be seen --------------------------------------------------------------------------------

PATH = "alloc_fastpath@kmalloc_nolock"


@pytest.fixture(scope="module")
def fresh() -> dict[str, Count]:
    return golden.measure(PATH)


def doctored(found: dict[str, Count], atomics: dict[str, int] | None = None, more: int = 0) -> dict[str, Any]:
    """A row that allows what was found, but for what is named."""
    return {
        "call": "shm_design_alloc",
        **{
            name: {
                "atomics": {**count.atomics, **(atomics or {})},
                "gcc 12.2": count.instructions + more,
            }
            for name, count in found.items()
        },
    }


def test_nothing_is_wrong_with_what_was_found(fresh: dict[str, Count]) -> None:
    assert problems(PATH, doctored(fresh), fresh, "gcc 12.2") == []


@pytest.mark.parametrize(
    ("atomics", "said"),
    [
        ({"cmpxchg_16": 2}, "1 cmpxchg_16, the table says 2"),
        ({"cmpxchg_16": 0}, "1 cmpxchg_16, the table says 0"),
        ({"locked_cmpxchg_16": 1}, "0 locked_cmpxchg_16, the table says 1"),
        ({"xchg": 1}, "0 xchg, the table says 1"),
    ],
)
def test_other_atomics_are_named_whatever_the_compiler(
    fresh: dict[str, Count], atomics: dict[str, int], said: str
) -> None:
    for by in ("gcc 12.2", "gcc 99.0", None):
        assert problems(PATH, doctored(fresh, atomics), fresh, by) == [
            f"{PATH} ({name}): {said}" for name in golden.ORACLE
        ]


def test_one_instruction_above_the_ceiling_is_too_many(fresh: dict[str, Count]) -> None:
    wrong = problems(PATH, doctored(fresh, more=-1), fresh, "gcc 12.2")
    assert [line.partition(",")[0] for line in wrong] == [
        f"{PATH} ({name}): {count.instructions} instructions" for name, count in fresh.items()
    ]
    assert all("tests/golden.py --write" in line for line in wrong)
    assert problems(PATH, doctored(fresh, more=+1), fresh, "gcc 12.2") == []


@pytest.mark.parametrize("by", ["gcc 99.0", None])
def test_a_compiler_that_is_not_listed_is_not_judged(fresh: dict[str, Count], by: str | None) -> None:
    assert problems(PATH, doctored(fresh, more=-1), fresh, by) == []


def test_another_call_or_no_row_is_named(fresh: dict[str, Count]) -> None:
    assert problems(PATH, None, fresh, None) == [f"{PATH}: no row in the table"]
    row = {**doctored(fresh), "call": "shm_kmalloc"}
    assert (
        problems(PATH, row, fresh, None)[0] == f"{PATH}: calls shm_design_alloc, the table says shm_kmalloc"
    )


@pytest.mark.parametrize(
    ("flags", "by"),
    [
        ("GNU 12.2.0  -O2 -g -fno-omit-frame-pointer -mcx16", "gcc 12.2"),
        ("Clang 16.0.6  -O2 -g -fno-omit-frame-pointer -mcx16", "clang 16.0"),
        ("GNU 12.2.0 -march=native -O2 -g -fno-omit-frame-pointer -mcx16", None),
        ("GNU 12.2.0 -O2 -g -O2 -g -fno-omit-frame-pointer -mcx16", None),
    ],
)
def test_compiler_is_told_from_the_flags(flags: str, by: str | None) -> None:
    assert golden.compiler(flags) == by


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("480fc70e", "cmpxchg_16"),  # cmpxchg16b [rsi]
        ("f0480fc70e", "locked_cmpxchg_16"),
        ("480fb10e", "cmpxchg_8"),  # cmpxchg [rsi], rcx
        ("f0480fb10e", "locked_cmpxchg_8"),
        ("f00fb10e", "locked_cmpxchg_4"),
        ("f00fc70e", "locked_cmpxchg_8"),  # cmpxchg8b [rsi]
        ("480fb1ce", None),  # between registers
        ("f0480fc10e", "locked"),  # lock xadd [rsi], rcx
        ("480fc10e", None),
        ("f0830e01", "locked"),  # lock or dword [rsi], 1
        ("f048ff06", "locked"),  # lock inc [rsi]
        ("48ff06", None),
        ("48870e", "xchg"),  # xchg [rsi], rcx: locked by itself
        ("4887ce", None),
        ("488b0e", None),
    ],
)
def test_kinds_of_atomics(code: str, kind: str | None) -> None:
    machine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    machine.detail = True
    (raw,) = machine.disasm(bytes.fromhex(code), 0)
    assert golden.atomic(disassembly._instruction(raw)) == kind


@pytest.mark.parametrize("path", ["alloc_fastpath@kmalloc_nolock", "free_fastpath@kmalloc_nolock"])
def test_checked_flavour_is_not_what_the_table_allows(path: str) -> None:
    """Its probes and its switches for broken variants are what a release build must not have."""
    release, checked = golden.measure(path), golden.measure(path, flavour="checked")
    assert checked["plain"].instructions > release["plain"].instructions
    assert problems(path, doctored(release), checked, "gcc 12.2")


_NO_TID = """
import sys
from shmalloc import _binding, designs
from shmalloc.program import ops as op_array
_binding.core("release", "no_tid")  # first: a process has one object of the release flavour
sys.path.insert(0, {tests!r})
import golden
path = "alloc_fastpath@kmalloc_nolock"
print(*golden.problems(path, golden.load()[path], golden.measure(path, broken="no_tid"), None), sep="\\n")
"""


@pytest.mark.skipif(
    not any(_binding._objects().glob("no_tid.*")), reason="the objects of broken variants were not built"
)
def test_object_that_compares_no_tid_is_not_what_the_table_allows() -> None:
    code = _NO_TID.format(tests=str(Path(golden.__file__).parent))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in golden.ORACLE:
        assert f"{PATH} ({name}): 0 cmpxchg_16, the table says 1" in result.stdout
        assert f"{PATH} ({name}): 1 cmpxchg_8, the table says 0" in result.stdout


# --- the atlas sweeps them ----------------------------------------------------------------------------------


@pytest.fixture(params=golden.PATHS)
def both(request: pytest.FixtureRequest) -> Iterator[tuple[golden.Recorded, golden.Recorded]]:
    """A path with the oracle off and on."""
    with golden.recorded(request.param, oracle=False) as plain:
        pass
    with golden.recorded(request.param, oracle=True) as proved:
        yield plain, proved


def test_recording_is_a_whole_exported_call(both: tuple[golden.Recorded, golden.Recorded]) -> None:
    for one in both:
        assert int(one.trace.rips[0]) == one.image.address(one.call)
        assert one.steps[len(one.trace) - 1].kind == "ret"
        assert one.trace.regs[-1, traces.RSP] == one.trace.regs[0, traces.RSP]  # the call's own return
        assert _binding.core().ffi.typeof(getattr(_binding.core().lib, one.call)).kind == "function"


def of_others(operand: Memory) -> bool:
    """Whether it may be seen by others than the function itself: not a register that it has put on its stack."""
    frame = (REGISTERS.index("rbp"), REGISTERS.index("rsp"))
    return not (operand.base in frame and operand.index is None)


def test_what_runs_without_the_oracle_is_what_the_atlas_runs(
    both: tuple[golden.Recorded, golden.Recorded],
) -> None:
    """There is no variant of a path for arenas without an oracle: all that touches memory is swept with it."""
    plain, proved = both
    more = set(plain.addresses) - set(proved.addresses)
    touching = [
        one.text
        for one in plain.steps.instructions
        if one.address in more
        and (any(map(of_others, one.memory)) or one.kind in ("call", "syscall") or golden.atomic(one))
    ]
    assert touching == []


@pytest.mark.parametrize("path", golden.PATHS)
def test_the_engine_sweeps_these_very_instructions(path: str) -> None:
    """What the engine injects into is what was counted: the same call, the same instructions, one after the other."""
    with golden.recorded(path) as one:
        counted, call = one.addresses, one.call
    with sweeping.prepared(golden.scenario_of(path), "none", vocabulary.load()) as task:
        assert task.built.call.function == call
        assert task.relative(task.trace).tolist() == counted


#: What takes an object off a cpu slab or main sheaf, or puts it back; inlined, so that there are many copies.
FAST = {
    *("cpu_slab_pop", "cpu_slab_push", "cpu_slab_cmpxchg", "sheaf_pop", "sheaf_push"),
    *("unit_pop", "unit_push", "prealloc_alloc_fast", "prealloc_push_fast"),
    *("objpool_alloc_fast", "objpool_push_fast"),
}
NOT_SWEPT = {
    ("free_detached", "cpu_slab_cmpxchg"): "a bulk free, which is none of the atlas's operations",
    ("retry_next_bucket", "cpu_slab_pop"): "in NMI only, and NMIs do not nest",
    ("retry_next_bucket", "cpu_slab_cmpxchg"): "the same",
}


def copies(path: Path, addresses: Iterable[int]) -> set[tuple[str, str]]:
    """Which copies of the fast path these instructions are of: the function that each is inlined in, and its name."""
    code, table, found = disassembly.disassembly(path), inlining.inlines(path), set()
    for address in addresses:
        for name in FAST & {frame.function for frame in table.at(address)}:
            function = code.function_at(address)
            assert function is not None
            found.add((function.stem, name))
    return found


def test_every_copy_of_the_fast_path_is_swept_by_some_operation() -> None:
    path = _binding.core().path
    code = disassembly.disassembly(path)
    there = copies(path, (one.address for function in code.functions for one in code.body(function)))
    assert len(there) > 20
    executed: set[int] = set()
    tasks = {(name, task) for name, each in all_operations().items() for task in each.designs}
    for name, task in sorted(tasks):
        cell = next(cell for cell in designs.names() if task in scenario.tasks(cell))
        chosen = scenario.scenarios(cell, Selection(operations=(name,), task=(task,), kinds=("nmi", "irq")))
        with golden.recorded_scenario(chosen[0]) as one:
            executed.update(one.addresses)
    assert there - copies(path, executed) == NOT_SWEPT.keys()


def fast_functions(one: golden.Recorded) -> set[str]:
    """Functions in the section of fast paths that a recording ran through."""
    with one.image.path.open("rb") as stream:
        section = ELFFile(stream).get_section_by_name("shm_fast")
        begin, end = section["sh_addr"], section["sh_addr"] + section["sh_size"]
    code = disassembly.disassembly(one.image.path)
    functions = {code.function_at(address) for address in one.addresses if begin <= address < end}
    return {function.name for function in functions if function is not None}


@cache
def fast_functions_of(design: str) -> frozenset[str]:
    """Those of what the atlas sweeps of a design: its calls in task context."""
    found: set[str] = set()
    for path in golden.PATHS:
        if path.endswith(f"@{design}"):
            with golden.recorded(path) as one:
                found |= fast_functions(one)
    return frozenset(found)


IN_IRQ = [path for path in golden.PATHS if f"{path.partition('@')[0]}_irq" in all_operations()]


@pytest.mark.parametrize("path", IN_IRQ)
def test_a_handler_has_no_fast_path_of_its_own(path: str) -> None:
    operation, _, design = path.partition("@")
    with golden.recorded(f"{operation}_irq@{design}") as one:
        used = fast_functions(one)
    assert used and used <= fast_functions_of(design)


@pytest.mark.parametrize("design", sorted({path.partition("@")[2] for path in IN_IRQ}))
def test_replay_has_no_fast_path_of_its_own(design: str) -> None:
    path = next(path for path in IN_IRQ if path.endswith(f"@{design}"))
    with golden.recorded(path) as one:
        core = one.built.arena.core
        lines = op_array(("alloc", {"size": one.built.staging.size}), ("free", {}))
        array = core.ffi.from_buffer("struct shm_op[]", lines)
        slots = core.ffi.new("uint64_t[1]")
        replay = core.ffi.new(
            "struct shm_replay *",
            {
                "ops": array,
                "nr_ops": len(array),
                "max_ops": len(array),
                "design": designs.index(design),
                "slots": slots,
                "nr_slots": 1,
            },
        )
        call = Call("shm_replay", (int(core.ffi.cast("uintptr_t", replay)),))
        replayed = golden.Recorded.of(call, one.built, one.sweeper)
        used = fast_functions(replayed)
    assert used and used <= fast_functions_of(design)


# --- no probe in release --------------------------------------------------------------------------------------


def symbols_of_probes(path: Path) -> set[str]:
    """Functions and variables of the machinery of probes; the exported calls, which refuse, are none of it."""
    with path.open("rb") as stream:
        table = ELFFile(stream).get_section_by_name(".symtab")
        names = {
            symbol.name.partition(".")[0]
            for symbol in table.iter_symbols()
            if symbol["st_info"]["type"] in ("STT_FUNC", "STT_OBJECT")
        }
    return {name for name in names if "probe" in name and not name.startswith(("shm_probe_", "_cffi"))}


def fields_of_probes(path: Path) -> set[str]:
    """What the variables of a process have for probes, by the debug information."""
    with path.open("rb") as stream:
        for unit in ELFFile(stream).get_dwarf_info().iter_CUs():
            for entry in unit.get_top_DIE().iter_children():
                name = entry.attributes.get("DW_AT_name")
                if entry.tag == "DW_TAG_structure_type" and name and name.value == b"shm_env":
                    members = {
                        child.attributes["DW_AT_name"].value.decode() for child in entry.iter_children()
                    }
                    assert "cpu" in members
                    return {member for member in members if "probe" in member}
    raise AssertionError(f"{path} has no struct shm_env")


def sources_of_probes(path: Path) -> set[str]:
    """Functions that call what a probe site calls."""
    code = disassembly.disassembly(path)
    hit = {function.start for function in code.functions if function.name.startswith("probe_hit")}
    return {
        function.name
        for function in code.functions
        for one in code.body(function)
        if one.kind in ("call", "jump", "branch") and one.target in hit and function.start not in hit
    }


def of_release() -> list[Path]:
    """What is built of the release flavour: the module, the library for C, the objects of broken variants."""
    module = _binding.core().path
    made = [module, *module.parent.glob("lib/*.so"), *module.parent.glob("broken/*.so")]
    assert len(made) > 1
    return made


def test_no_probe_in_what_is_built_of_release() -> None:
    for path in of_release():
        assert symbols_of_probes(path) <= {"probe_names"}, path
        assert sources_of_probes(path) == set(), path
    assert fields_of_probes(_binding.core().path) == set()


def test_probes_would_be_found() -> None:
    checked = _binding.core("checked").path
    assert {"probe_hit", "probes", "probes_fired", "probe_names"} <= symbols_of_probes(checked)
    assert fields_of_probes(checked) == {"probes_armed", "probe_program"}
    assert len(sources_of_probes(checked)) > 10
