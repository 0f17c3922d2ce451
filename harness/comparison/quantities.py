# SPDX-License-Identifier: MIT
"""What is compared: the numbers of a window, or of a whole run, which are written alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.latency import PERCENTILES
from harness.vocabulary import CONTEXTS, KINDS

__all__ = ["CORES", "Quantity", "named", "value"]

Span = Mapping[str, Any]
Better = Literal["higher", "lower", ""]


@dataclass(frozen=True)
class Quantity:
    """One number.

    Attributes: name: for people.  unit: 1/s, ns, share or bytes.  better: which direction is; "" = neither.
        path: what it is made of.  load: whether what else the machine does moves it.  marked: whether it may
        get a mark; conditions may not.  start: whether that of a run's first moments counts, too.
    """

    name: str
    unit: Literal["1/s", "ns", "share", "bytes"]
    better: Better
    path: tuple[str, ...]
    load: bool = True
    marked: bool = True
    start: bool = False


CORES = Quantity("share of the cores", "share", "", ("cores",), marked=False)
_WHOLE = (
    Quantity("ops/s", "1/s", "higher", ("throughput_ops_s",)),
    Quantity("ops per processor second", "1/s", "higher", ("per_processor",)),
    CORES,
)
_MEMORY = Quantity("most memory in use", "bytes", "lower", ("used_bytes",), load=False)


def named(spans: Sequence[Span]) -> Iterator[Quantity]:
    """Yield what there is to say of some spans: contexts in which something was asked for, reasons met."""
    yield from _WHOLE
    used = [context for context in CONTEXTS if any(requests(span, context) for span in spans)]
    for context in used:
        yield Quantity(f"{context}: failed", "share", "lower", ("failed", context), load=False, start=True)
        for name in PERCENTILES:
            shown = name.replace("p999", "p99.9")
            yield Quantity(f"{context}: {shown}", "ns", "lower", ("latency", context, name))
    reasons = {reason: None for span in spans for context in used for reason in failures(span, context)}
    for reason in reasons:
        yield Quantity(f"failed: {reason}", "share", "lower", ("reason", reason), load=False, start=True)
    for kind in KINDS:
        if any(_number(_table(span, "interrupts").get(kind)) for span in spans):
            yield Quantity(f"{kind.upper()}s handled", "1/s", "", ("handled", kind))
    yield _MEMORY


def value(quantity: Quantity, span: Span, cores: float) -> float | None:
    """Return a quantity of a span; None if the span does not say. Args: cores: that the CPUs could have."""
    kind, *rest = quantity.path
    if kind in ("throughput_ops_s", "used_bytes"):
        return _number(span.get(kind))
    if kind == "per_processor":
        return _ratio(_number(span.get("ops")), _number(span.get("processor_s")))
    if kind == "cores":
        seconds = _number(span.get("seconds"))
        return _ratio(_number(span.get("processor_s")), seconds and seconds * cores)
    if kind == "failed":
        return _ratio(_failed(span, rest[0]), requests(span, rest[0]))
    if kind == "reason":
        asked = sum(requests(span, context) for context in CONTEXTS)
        return _ratio(sum(failures(span, context).get(rest[0], 0.0) for context in CONTEXTS), asked)
    if kind == "handled":
        return _ratio(_number(_table(span, "interrupts").get(rest[0])), _number(span.get("seconds")))
    return _number(_table(_table(_table(span, "contexts"), rest[0]), "latency_ns").get(rest[1]))


def failures(span: Span, context: str) -> dict[str, float]:
    """Return the failures of a context by reason, without those that there were none of."""
    counts = _table(_table(_table(span, "contexts"), context), "failures")
    known = {reason: _number(count) for reason, count in counts.items()}
    return {reason: count for reason, count in known.items() if count}


def _failed(span: Span, context: str) -> float:
    return sum(failures(span, context).values())


def requests(span: Span, context: str) -> float:
    """Return the requests of a context, those that failed included."""
    allocs = _number(_table(_table(span, "contexts"), context).get("allocs"))
    return (allocs or 0.0) + _failed(span, context)


def _table(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = data.get(key)
    return found if isinstance(found, Mapping) else {}


def _number(found: Any) -> float | None:
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def _ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None
