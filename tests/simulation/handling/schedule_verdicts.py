"""What is demanded of schedules, as functions of plain values: each line that they give is a broken promise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

EARLY_S = 0.05
"""What is due while a schedule is being made may count as before it."""


class Rule(NamedTuple):
    """A schedule's times, in milliseconds of the server's clock."""

    first_ms: int
    interval_ms: int
    """0: there is only the first."""
    max_count: int
    """0: no end."""
    skips: bool
    """What was missed is not made good for."""

    def is_time(self, due_ms: int) -> bool:
        """Whether it is one of the times."""
        passed_ms = due_ms - self.first_ms
        return passed_ms == 0 if not self.interval_ms else passed_ms >= 0 and passed_ms % self.interval_ms == 0

    def between(self, after_ms: int, until_ms: int) -> Iterator[int]:
        """The times in (after_ms, until_ms]."""
        if not self.interval_ms:
            yield from (self.first_ms,) if self.first_ms <= until_ms else ()
            return
        passed = max(0, (after_ms - self.first_ms) // self.interval_ms + 1)
        yield from range(self.first_ms + passed * self.interval_ms, until_ms + 1, self.interval_ms)


class Fired(NamedTuple):
    """An event that a schedule has published."""

    due_ms: int
    by_s: float
    """It was there by then."""


class Clock:
    """The server's clock on the wall: by how much it is ahead from when on, in seconds and nanoseconds."""

    def __init__(self, steps: Sequence[tuple[float, int]], epoch_ns: int) -> None:
        self._steps = [(at_s, (epoch_ns + ahead_ns) / 1e9) for at_s, ahead_ns in steps]

    def wall_ms(self, at_s: float) -> int:
        """What it shows."""
        ahead_s = [ahead_s for began_s, ahead_s in self._steps if began_s <= at_s][-1]
        return int((at_s + ahead_s) * 1_000)

    def shows_s(self, due_ms: int, since_s: float) -> float | None:
        """When it shows a time or a later one, first since then; None if it never does."""
        for (began_s, ahead_s), (ended_s, _) in pairwise([*self._steps, (float("inf"), 0.0)]):
            at_s = max(began_s, since_s, due_ms / 1_000 - ahead_s)
            if at_s < ended_s:
                return at_s
        return None


def broke_fired_once(rule: Rule, fired: Sequence[Fired]) -> Iterator[str]:
    """Each event is of one of the times, each time has one at most, they come in order, and no more of them than wanted."""
    for earlier, later in pairwise(fired):
        if later.due_ms <= earlier.due_ms:
            yield f"{later.due_ms} came behind {earlier.due_ms}"
    yield from (f"{one.due_ms} is no time of it" for one in fired if not rule.is_time(one.due_ms))
    if 0 < rule.max_count < len(fired):
        yield f"{len(fired)} events came of {rule.max_count}"


def broke_fired_in_time(
    rule: Rule, fired: Sequence[Fired], clock: Clock, *, made_s: float, until_s: float,
    limit_s: Callable[[float], float], had_trouble: Callable[[float, float], bool],
) -> Iterator[str]:  # fmt: skip
    """By the limit of when it is due a time has its event, or a later one that stands for it: those are missed that went by
    in trouble alone. A schedule that skips what it missed owes nothing of that. Looks at times up to `until_s`."""
    came = {one.due_ms for one in fired}
    is_over = rule.max_count and len(fired) >= rule.max_count
    for due_ms in () if is_over else rule.between(clock.wall_ms(made_s + EARLY_S), clock.wall_ms(until_s)):
        due_s = clock.shows_s(due_ms, made_s)
        if due_s is None or limit_s(due_s) > until_s:
            continue
        in_trouble = had_trouble(due_s - EARLY_S, due_s + max(rule.interval_ms / 1_000, 1.0))
        if in_trouble and rule.skips:
            continue
        if due_ms not in came and not (in_trouble and rule.interval_ms):
            yield f"{due_ms} never came, due at {due_s:.3f} s"
        elif not any(one.due_ms >= due_ms and one.by_s <= limit_s(due_s) for one in fired):
            yield f"{due_ms} was due at {due_s:.3f} s, and nothing came for it by {limit_s(due_s):.3f} s"
