# SPDX-License-Identifier: MIT
"""What the models say about a key: which tables there are, and which values are lists by nature.

A list where a single value belongs makes a matrix; a list where lists belong is a value.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel


def members(annotation: Any) -> Iterator[Any]:
    """Yield the alternatives of a type, without Annotated and Union around them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from members(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for argument in get_args(annotation):
            yield from members(argument)
    else:
        yield annotation


def tables(annotation: Any) -> list[type[BaseModel]]:
    """List the tables that a value may be."""
    return [kind for kind in members(annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]


def is_list(annotation: Any) -> bool:
    """Whether a value may be a list."""
    return any((get_origin(kind) or kind) in (list, tuple, set) for kind in members(annotation))


def is_free(annotation: Any) -> bool:
    """Whether a value is a table whose keys are not declared."""
    return any(get_origin(kind) is dict for kind in members(annotation))


def element(annotation: Any) -> Any:
    """Return the type of a list's elements; of what is no list, the type itself."""
    for kind in members(annotation):
        if get_origin(kind) is list:
            return get_args(kind)[0]
    return annotation


def type_of(models: list[type[BaseModel]], key: str) -> Any:
    """Return the type of a key that some of the tables have, or None."""
    resolved = [model.model_fields[key].annotation for model in models if key in model.model_fields]
    if not resolved:
        return None
    return Union[tuple(resolved)]  # noqa: UP007


def keys(models: list[type[BaseModel]]) -> list[str]:
    """List the keys that any of the tables has."""
    return list(dict.fromkeys(key for model in models for key in model.model_fields))


def axes(
    models: list[type[BaseModel]], data: Mapping[str, Any]
) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    """Yield the path and the values of each key that has a list where a single value belongs."""
    for key, value in data.items():
        annotation = type_of(models, key)
        if annotation is None:
            continue
        if isinstance(value, list) and not is_list(annotation):
            yield (key,), value
        elif isinstance(value, Mapping) and is_free(annotation):
            yield from (((key, name), each) for name, each in value.items() if isinstance(each, list))
        elif isinstance(value, Mapping):
            for path, values in axes(tables(annotation), value):
                yield (key, *path), values
