# SPDX-License-Identifier: MIT
"""What the models of workloads and of programs have in common: types of keys, and how a kind is picked.

A mistake is reported at the key's own path; a key of another kind is named with those that its kind has.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from shmalloc import gfp as gfp_flags

__all__ = [
    "MAX_SIZE_BYTES",
    "MAX_SLOTS",
    "Every",
    "GfpNames",
    "Node",
    "Share",
    "Size",
    "Strict",
    "WorkloadError",
    "by_kind",
    "pick",
]

#: kmalloc's limit in the kernel: the largest block of pages.
MAX_SIZE_BYTES = 4 << 20
MAX_SLOTS = 1 << 20


class WorkloadError(ValueError):
    """A workload that cannot be built; the text says which key or file, what is wrong and what is allowed."""


def _check_size(value: object) -> object:
    if value == "kernel" or (type(value) is int and 1 <= value <= MAX_SIZE_BYTES):
        return value
    raise PydanticCustomError(
        "size",
        'must be bytes, 1..{limit}, or "kernel" (sizes as a kernel asks for)',
        {"limit": MAX_SIZE_BYTES},
    )


def _check_gfp(value: object) -> object:
    if not isinstance(value, str):
        raise PydanticCustomError("gfp", 'must be names of flags, such as "GFP_KERNEL|__GFP_ZERO"', {})
    try:
        gfp_flags.parse(value)
    except ValueError as error:
        raise PydanticCustomError("gfp", "{why}", {"why": str(error)}) from error
    return value


Size = Annotated[int | Literal["kernel"], PlainValidator(_check_size)]
GfpNames = Annotated[str, BeforeValidator(_check_gfp)]
Node = Annotated[int, Field(ge=-1, le=7)]
Share = Annotated[float, Field(ge=0, le=1)]
Every = Annotated[int, Field(ge=0, le=1 << 22)]


class Strict(BaseModel):
    """Unknown keys and wrong types are mistakes; a spec does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


_Model = TypeVar("_Model", bound=Strict)


def by_kind(models: tuple[type[_Model], ...]) -> dict[str, type[_Model]]:
    """Map each model's only value of `kind` to it."""
    return {str(get_args(model.model_fields["kind"].annotation)[0]): model for model in models}


def _mistake(key: str, value: object, text: str) -> InitErrorDetails:
    """Describe one mistake; braces in *text* are no placeholders."""
    kind = PydanticCustomError("workload", "{text}", {"text": text})
    return InitErrorDetails(type=kind, loc=(key,), input=value)


def pick(models: Mapping[str, type[_Model]], data: object, title: str) -> _Model:
    """Validate *data* by the model of its kind and report every mistake at once."""
    if not isinstance(data, Mapping):
        raise PydanticCustomError("workload", "must be a table with the key kind", {})
    kind = data.get("kind")
    allowed = ", ".join(sorted(models))
    if not isinstance(kind, str) or kind not in models:
        what = "is missing" if kind is None else "is unknown"
        raise ValidationError.from_exception_data(
            title, [_mistake("kind", kind, f"kind {what}; it may be: {allowed}")]
        )
    model = models[kind]
    keys = ", ".join(model.model_fields)
    mistakes = [
        _mistake(str(key), value, f'no key of kind "{kind}"; its keys are: {keys}')
        for key, value in data.items()
        if key not in model.model_fields
    ]
    try:
        spec = model.model_validate({k: v for k, v in data.items() if k in model.model_fields})
    except ValidationError as error:
        mistakes += [
            InitErrorDetails(
                type=PydanticCustomError(line["type"], "{text}", {"text": line["msg"]}),
                loc=line["loc"],
                input=line["input"],
            )
            for line in error.errors(include_url=False)
        ]
    if mistakes:
        raise ValidationError.from_exception_data(title, mistakes)
    return spec
