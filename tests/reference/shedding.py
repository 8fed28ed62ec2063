"""The breaker that sheds, from lists of calls: what a window holds is counted anew each time, chances are fractions."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from reference.breaker import DURATION_MS_MAX, MS, SECOND, SIZE_MAX
from trunkline.core.breaker import Outcome, Snapshot, State, WindowType
from trunkline.core.clock import Clock, Rng
from trunkline.core.window import Counts


class Asked(NamedTuple):
    """A call that was asked for: refused, or ended."""

    second: int
    refused: bool
    failed: bool
    slow: bool


class SheddingBreaker:
    """See trunkline.core.shedding.SheddingBreaker."""

    def __init__(
        self,
        rng: Rng,
        *,
        multiplier_percent: int = 200,
        max_rejection_percent: int = 95,
        slow_call_rate_threshold: float = 100.0,
        slow_call_duration_ms: int = 60_000,
        sliding_window_type: WindowType = WindowType.COUNT_BASED,
        sliding_window_size: int = 100,
        minimum_number_of_calls: int = 100,
    ) -> None:
        if not 0 < slow_call_rate_threshold <= 100 or not 1 <= slow_call_duration_ms <= DURATION_MS_MAX:
            raise ValueError("slow")
        if not 100 <= multiplier_percent <= 10_000 or not 1 <= max_rejection_percent <= 100:
            raise ValueError("percent")
        for size in (sliding_window_size, minimum_number_of_calls):
            if not 1 <= size <= SIZE_MAX:
                raise ValueError("size")
        self._rng = rng
        self._k = Fraction(multiplier_percent, 100)
        self._chance_max = Fraction(max_rejection_percent, 100)
        self._slow_is_bad = slow_call_rate_threshold < 100
        self._slow_ns = slow_call_duration_ms * MS
        self._by_count = WindowType(sliding_window_type) is WindowType.COUNT_BASED
        self._size = sliding_window_size
        self._minimum = min(minimum_number_of_calls, sliding_window_size) if self._by_count else minimum_number_of_calls
        self._newest = 0
        self.state = State.CLOSED
        self.generation = 0
        self._since_ns = 0
        self._not_permitted = 0
        self._calls: list[Asked] = []

    def _within(self, calls: list[Asked]) -> list[Asked]:
        """What the window holds of them."""
        if self._by_count:
            return calls[-self._size :]
        return [call for call in calls if call.second > self._newest - self._size]

    def chance(self, now_ns: int) -> Fraction:
        """With which the next call is refused."""
        self._newest = max(self._newest, now_ns // SECOND)
        calls = self._within(self._calls)
        if len(calls) < self._minimum:
            return Fraction(0)
        well = sum(not (call.refused or call.failed or (call.slow and self._slow_is_bad)) for call in calls)
        return max(Fraction(0), min(self._chance_max, (len(calls) - self._k * well) / (len(calls) + 1)))

    def _refused(self, now_ns: int) -> bool:
        if self.state is not State.CLOSED:
            return self.state is State.FORCED_OPEN
        chance = self.chance(now_ns)
        of = 100 * (len(self._within(self._calls)) + 1)
        if chance == 0 or self._rng.below(of) >= chance * of:
            return False
        self._calls.append(Asked(self._newest, refused=True, failed=False, slow=False))
        return True

    def admit(self, now_ns: int) -> int:
        """A permit or -1."""
        if self._refused(now_ns):
            self._not_permitted += 1
            return -1
        return self.generation

    def record(self, permit: int, outcome: Outcome, duration_ns: int, now_ns: int) -> None:
        """What became of a permit."""
        if not 0 <= permit <= self.generation or duration_ns < 0:
            raise ValueError("permit or duration")
        if permit < self.generation or self.state is State.DISABLED or Outcome(outcome) is Outcome.CANCELLED:
            return
        self._newest = max(self._newest, now_ns // SECOND)
        failed, slow = outcome == Outcome.FAILURE, duration_ns > self._slow_ns
        self._calls.append(Asked(self._newest, refused=False, failed=failed, slow=slow))

    def begin(self, clock: Clock) -> tuple[int, int] | int:
        """A permit that knows when it was given, or -1."""
        now_ns = clock.now_ns()
        permit = self.admit(now_ns)
        return permit if permit < 0 else (permit, now_ns)

    def end(self, permit: tuple[int, int], outcome: Outcome, clock: Clock) -> None:
        """What became of it. Time is cut into ticks of 1,024 ns."""
        now_ns = clock.now_ns()
        self.record(permit[0], outcome, (now_ns // 1024 - permit[1] // 1024) * 1024, now_ns)

    def transition_to(self, state: State, now_ns: int) -> None:
        """By hand."""
        if State(state) in (State.OPEN, State.HALF_OPEN):
            raise ValueError("never")
        self.state = State(state)
        self.generation += 1
        self._since_ns = now_ns
        self._not_permitted = 0
        self._calls = []

    def snapshot(self, now_ns: int) -> Snapshot:
        """As it is."""
        chance = self.chance(now_ns)
        ended = self._within([call for call in self._calls if not call.refused])
        counts = Counts(
            total=len(ended),
            failed=sum(call.failed for call in ended),
            slow=sum(call.slow for call in ended),
            slow_failed=sum(call.failed and call.slow for call in ended),
        )
        enough = bool(ended) and len(self._within(self._calls)) >= self._minimum
        return Snapshot(
            state=self.state,
            generation=self.generation,
            since_ns=self._since_ns,
            retry_at_ns=None,
            failure_rate=100.0 * counts.failed / counts.total if enough else None,
            slow_call_rate=100.0 * counts.slow / counts.total if enough else None,
            counts=counts,
            not_permitted=self._not_permitted,
            rejection_rate=100.0 if self.state is State.FORCED_OPEN else float(100 * chance),
        )
