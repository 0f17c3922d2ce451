# SPDX-License-Identifier: MIT
"""What a config may say about workloads and programs, and what it is told when it is wrong."""

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from harness.workload import parse_program, parse_workload, sharing_problems
from harness.workload.spec import ProgramSpec, WorkloadSpec

KINDS = ("pair", "batch", "mix", "burst", "producer_consumer", "trace")
PROGRAMS = ("alloc_free", "alloc", "free", "same", "aba", "pages", "burst", "mix")


class Whole(BaseModel):
    """A config with both in it."""

    model_config = ConfigDict(extra="forbid", strict=True)
    workload: WorkloadSpec
    program: ProgramSpec | None = None


def mistakes(workload: Any, program: Any = None) -> dict[str, str]:
    """Map the path of each mistake to its text."""
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate({"workload": workload, "program": program})
    return {".".join(map(str, line["loc"])): line["msg"] for line in caught.value.errors()}


def table(kind: str) -> dict[str, Any]:
    return {"kind": kind, "file": "a.npz"} if kind == "trace" else {"kind": kind}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_defaults(kind: str) -> None:
    assert parse_workload(table(kind)).kind == kind


@pytest.mark.parametrize("kind", KINDS)
def test_spec_survives_a_result_file(kind: str) -> None:
    whole = Whole.model_validate({"workload": table(kind), "program": "burst"})
    assert Whole.model_validate_json(whole.model_dump_json()) == whole


@pytest.mark.parametrize("kind", PROGRAMS)
def test_program_by_name_is_the_table_with_its_kind(kind: str) -> None:
    assert parse_program(kind) == parse_program({"kind": kind})


def test_key_of_another_kind_is_named_with_the_keys_that_there_are() -> None:
    text = mistakes({"kind": "pair", "slots": 3})["workload.slots"]
    assert 'kind "pair"' in text
    assert "array_ops" in text
    assert "size" in text


def test_every_mistake_is_reported_at_once_with_its_path() -> None:
    workload = {"kind": "mix", "slots": 0, "sloths": 1, "gfp": "GFP_FOO", "irq_off": {"every": 1, "z": 2}}
    found = mistakes(workload, {"kind": "pages", "order": 11, "size": 3})
    assert set(found) == {
        "workload.slots",
        "workload.sloths",
        "workload.gfp",
        "workload.irq_off.every",
        "workload.irq_off.length",
        "workload.irq_off.z",
        "program.order",
        "program.size",
    }
    assert "GFP_KERNEL" in found["workload.gfp"]


@pytest.mark.parametrize("value", ["5", True, 1.5, [], 0])
def test_wrong_type_or_size_is_a_mistake(value: object) -> None:
    assert "workload.size" in mistakes({"kind": "pair", "size": value})
    assert "workload.count" in mistakes({"kind": "batch", "count": value})


@pytest.mark.parametrize(
    ("workload", "path"),
    [
        ({}, "workload.kind"),
        ({"kind": "nope"}, "workload.kind"),
        ({"kind": 3}, "workload.kind"),
        ("pair", "workload"),
        ({"kind": "trace"}, "workload.file"),
        ({"kind": "mix", "cache_share": 0.8, "pages_share": 0.3}, "workload"),
        ({"kind": "pair", "irq_off": {"every": 7, "length": 7}}, "workload.irq_off"),
        ({"kind": "producer_consumer", "remote": 0.5}, "workload.remote"),
        ({"kind": "trace", "file": "a", "gfp": "GFP_KERNEL"}, "workload.gfp"),
    ],
)
def test_impossible_workload_is_a_mistake_at_its_path(workload: Any, path: str) -> None:
    assert list(mistakes(workload)) == [path]


def test_unknown_kind_names_those_that_exist() -> None:
    text = mistakes({"kind": "nope"})["workload.kind"]
    assert all(kind in text for kind in KINDS)
    text = mistakes({"kind": "pair"}, "nope")["program"]
    assert all(kind in text for kind in PROGRAMS)


def test_spec_does_not_change() -> None:
    spec = parse_workload({"kind": "pair"})
    with pytest.raises(ValidationError):
        spec.nmi_every = 3  # type: ignore[misc]


def test_programs_that_share_slots_need_a_workload_that_does() -> None:
    programs = {f"interrupts.nmi.{kind}": parse_program(kind) for kind in PROGRAMS} | {"none": None}
    alone = sharing_problems(parse_workload({"kind": "mix"}), programs)
    assert [text.split(":")[0] for text in alone] == ["interrupts.nmi.alloc", "interrupts.nmi.free"]
    assert all("workload.shared_with_handlers" in text for text in alone)
    assert sharing_problems(parse_workload({"kind": "mix", "shared_with_handlers": 1}), programs) == []
