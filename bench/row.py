"""A row of results: one number of ours, beside at most one peer's, and what is asked of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from statistics import median, quantiles
from typing import Any, TypedDict, cast

CONDITION = re.compile(r"(?P<what>ratio|value) (?P<how><=|>=) (?P<limit>[0-9.]+)(?: (?P<unit>\S.*))?")
SPREAD_OF_MANY = 4
"""From so many repetitions on the spread is the interquartile range; of fewer it is the whole range."""


class Row(TypedDict):
    """What is written to the JSON file, with exactly these keys."""

    benchmark: str
    metric: str
    value: float
    """Median over the repetitions, in `unit`; the worst where the metric says so."""
    unit: str
    repetitions: int
    spread: float
    """Of `value`, in `unit`."""
    peer: str | None
    peer_value: float | None
    """The peer's median, in `unit`; None when the peer is not there or was not asked."""
    ratio: float | None
    """`value` by `peer_value`."""
    gate: str | None
    """What must hold: `ratio >= 15`, `value <= 5 s`."""
    goal: str | None
    """What should hold, in the same words. It decides nothing."""
    met: bool | None
    """Whether the gate holds; None where there is no gate."""


def spread_of(values: Sequence[float]) -> float:
    """How far the repetitions lie apart."""
    if len(values) < SPREAD_OF_MANY:
        return max(values) - min(values)
    lower, _, upper = quantiles(values, n=4)
    return upper - lower


def row(
    benchmark: str,
    metric: str,
    values: Sequence[float],
    unit: str,
    *,
    peer: str | None = None,
    peer_values: Sequence[float] = (),
    gate: str | None = None,
    goal: str | None = None,
    worst: Callable[[Sequence[float]], float] | None = None,
) -> Row:
    """A row of what was measured. A gate on a ratio needs the peer: without it the row has none, as nothing was compared.

    `worst` (max or min) takes the place of the median where every single repetition has to hold; the metric then says so.
    """
    value = median(values) if worst is None else worst(values)
    peer_value = median(peer_values) if peer_values else None
    ratio = value / peer_value if peer_value else None
    made = Row(
        benchmark=benchmark,
        metric=metric if worst is None else f"{metric}, worst of {len(values)}",
        value=_rounded(value),
        unit=unit,
        repetitions=len(values),
        spread=_rounded(spread_of(values)),
        peer=peer,
        peer_value=None if peer_value is None else _rounded(peer_value),
        ratio=None if ratio is None else _rounded(ratio),
        gate=gate,
        goal=goal,
        met=None,
    )
    return judged(made)


def judged(given: Any) -> Row:
    """The row with `met` by its gate. ValueError when keys are missing or unknown, or a gate or goal is not understood."""
    if set(given) != set(Row.__annotations__):
        raise ValueError(f"a row has the keys {sorted(Row.__annotations__)}, not {sorted(given)}")
    made = cast(Row, dict(given))
    if made["gate"] is not None and made["gate"].startswith("ratio") and made["ratio"] is None:
        made["gate"] = None
    made["met"] = None if made["gate"] is None else holds(made["gate"], made)
    if made["goal"] is not None:
        holds(made["goal"], made)
    return made


def holds(condition: str, given: Row) -> bool | None:
    """Whether `ratio >= 15` or `value <= 5 s` is true of a row; None when it is about a ratio and there is none.

    ValueError when it is not such a condition, or in another unit than the row.
    """
    found = CONDITION.fullmatch(condition)
    if found is None:
        raise ValueError(f"not a condition such as 'ratio >= 15' or 'value <= 5 s': {condition!r}")
    of_ratio = found["what"] == "ratio"
    if found["unit"] is not None and (of_ratio or found["unit"] != given["unit"]):
        raise ValueError(f"{condition!r} is asked of a value in {given['unit']}")
    measured = given["ratio"] if of_ratio else given["value"]
    if measured is None:
        return None
    limit = float(found["limit"])
    return measured <= limit if found["how"] == "<=" else measured >= limit


def missed(rows: Sequence[Row]) -> list[Row]:
    """The rows whose gate does not hold."""
    return [one for one in rows if one["met"] is False]


def _rounded(value: float) -> float:
    """Four digits are more than a benchmark knows; big numbers keep their integer part."""
    return float(f"{value:.4g}") if abs(value) < 1_000 else round(value)
