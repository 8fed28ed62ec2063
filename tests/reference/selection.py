"""Pickers by turns, chance and load, in lists and loops."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import inf

from reference.weights import check_weights
from trunkline.core.clock import Rng


class Schedule:
    """Earliest deadline first; among equals, who has waited longest."""

    def __init__(self, weights: Sequence[int]) -> None:
        self.steps = [1.0 / weight if weight else inf for weight in weights]
        self.deadlines = list(self.steps)
        self.since = list(range(len(weights)))
        self.picks = len(weights)

    def due(self) -> int:
        """Whose turn it is."""
        return min(range(len(self.steps)), key=lambda index: (self.deadlines[index], self.since[index]))

    def put_off(self, index: int, step: float) -> None:
        """Set its next deadline."""
        self.deadlines[index] += step
        self.since[index] = self.picks
        self.picks += 1


class RoundRobin:
    """See trunkline.core.selection.RoundRobin."""

    def __init__(self, weights: Sequence[int], *, start: int = 0) -> None:
        check_weights(weights)
        if not 0 <= start < 2**64:
            raise OverflowError(start)
        self._plain = len(set(weights)) == 1
        self._next = start % len(weights)
        self._schedule = Schedule(weights)
        if not self._plain:
            start %= sum(weights)
            had = [start * weight // sum(weights) for weight in weights]
            self._schedule.deadlines = [(n + 1) * step for n, step in zip(had, self._schedule.steps, strict=True)]
            for _ in range(start - sum(had)):
                self.pick()

    def pick(self) -> int:
        """Whose turn it is."""
        if self._plain:
            picked = self._next
            self._next = (picked + 1) % len(self._schedule.steps)
            return picked
        picked = self._schedule.due()
        self._schedule.put_off(picked, self._schedule.steps[picked])
        return picked


class WeightedRandom:
    """See trunkline.core.selection.WeightedRandom. `share` is what the table makes of an index, exactly."""

    def __init__(self, weights: Sequence[int], rng: Rng) -> None:
        check_weights(weights)
        count, total = len(weights), sum(weights)
        left = [weight * count for weight in weights]
        poor = [index for index in range(count) if left[index] < total]
        rich = [index for index in range(count) if left[index] >= total]
        self.own = [Fraction(1)] * count
        self.other = list(range(count))
        while poor:
            index = poor.pop()
            donor = rich[-1]
            self.own[index] = Fraction(left[index], total)
            self.other[index] = donor
            left[donor] -= total - left[index]
            if left[donor] < total:
                poor.append(rich.pop())
        self._rng = rng

    def share(self, index: int) -> Fraction:
        """The chance that `index` is picked."""
        lent = sum(1 - own for own, other in zip(self.own, self.other, strict=True) if other == index)
        return (self.own[index] + lent) / len(self.own)

    def pick(self) -> int:
        """A random index."""
        cell, within = divmod(self._rng.u64() * len(self.own), 2**64)
        return cell if within < self.own[cell] * 2**64 // 1 else self.other[cell]


class LeastRequest:
    """See trunkline.core.selection.LeastRequest."""

    def __init__(
        self,
        weights: Sequence[int],
        rng: Rng,
        *,
        choice_count: int = 2,
        active_request_bias: float = 1.0,
        active: Sequence[int] = (),
    ) -> None:
        check_weights(weights)
        if not 2 <= choice_count <= 100 or not 0.0 <= active_request_bias <= 10.0:
            raise ValueError("choices or bias")
        if (active and len(active) != len(weights)) or any(not 0 <= requests < 2**32 for requests in active):
            raise ValueError("active")
        self._rng = rng
        self._choices = choice_count
        self._bias = active_request_bias
        self._plain = len(set(weights)) == 1
        self._active = list(active) or [0] * len(weights)
        self._schedule = Schedule(weights)
        self._schedule.deadlines = [self._step(index) for index in range(len(weights))]

    def _step(self, index: int) -> float:
        load: float = (self._active[index] + 1.0) ** self._bias
        return self._schedule.steps[index] * load

    def pick(self) -> int:
        """The first of the least loaded among a few random ones, or whose turn it is."""
        if self._plain:
            candidates = [self._rng.below(len(self._active)) for _ in range(self._choices)]
            return min(candidates, key=self._active.__getitem__)
        picked = self._schedule.due()
        self._schedule.put_off(picked, self._step(picked))
        return picked

    def started(self, index: int) -> None:
        """One more."""
        self.active(index)
        self._active[index] += 1

    def finished(self, index: int) -> None:
        """One less."""
        if not self.active(index):
            raise ValueError("none")
        self._active[index] -= 1

    def active(self, index: int) -> int:
        """How many."""
        if not 0 <= index < len(self._active):
            raise IndexError(index)
        return self._active[index]
