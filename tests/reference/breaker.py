"""The breaker from lists of calls: what a window holds is counted anew each time."""

from __future__ import annotations

from typing import NamedTuple

from trunkline.core.breaker import Outcome, Snapshot, State, WindowType
from trunkline.core.clock import Clock
from trunkline.core.window import Counts

MS = 1_000_000
SECOND = 1_000_000_000
SIZE_MAX = 100_000
DURATION_MS_MAX = 86_400_000


class Call(NamedTuple):
    """A call that was recorded."""

    second: int
    failed: bool
    slow: bool


def _counts(calls: list[Call]) -> Counts:
    return Counts(
        total=len(calls),
        failed=sum(call.failed for call in calls),
        slow=sum(call.slow for call in calls),
        slow_failed=sum(call.failed and call.slow for call in calls),
    )


class CountWindow:
    """See trunkline.core.breaker.CountWindow."""

    def __init__(self, size: int) -> None:
        if not 1 <= size <= SIZE_MAX:
            raise ValueError(size)
        self._size = size
        self._calls: list[Call] = []

    def record(self, failed: bool, slow: bool, now_ns: int) -> None:
        """Add a call."""
        self._calls.append(Call(0, failed, slow))

    def counts(self, now_ns: int) -> Counts:
        """Of the last calls."""
        return _counts(self._calls[-self._size :])

    def clear(self) -> None:
        """Forget all calls."""
        self._calls = []


class TimeWindow:
    """See trunkline.core.breaker.TimeWindow."""

    def __init__(self, size: int) -> None:
        if not 1 <= size <= SIZE_MAX:
            raise ValueError(size)
        self._size = size
        self._calls: list[Call] = []
        self._newest = 0

    def record(self, failed: bool, slow: bool, now_ns: int) -> None:
        """Add a call."""
        self._newest = max(self._newest, now_ns // SECOND)
        self._calls.append(Call(self._newest, failed, slow))

    def counts(self, now_ns: int) -> Counts:
        """Of the last seconds."""
        self._newest = max(self._newest, now_ns // SECOND)
        return _counts([call for call in self._calls if call.second > self._newest - self._size])

    def clear(self) -> None:
        """Forget all calls."""
        self._calls = []


class Breaker:
    """See trunkline.core.breaker.Breaker."""

    def __init__(
        self,
        *,
        failure_rate_threshold: float = 50.0,
        slow_call_rate_threshold: float = 100.0,
        slow_call_duration_ms: int = 60_000,
        sliding_window_type: WindowType = WindowType.COUNT_BASED,
        sliding_window_size: int = 100,
        minimum_number_of_calls: int = 100,
        wait_duration_in_open_state_ms: int = 60_000,
        permitted_number_of_calls_in_half_open_state: int = 10,
        max_wait_duration_in_half_open_state_ms: int = 0,
    ) -> None:
        if not (0 < failure_rate_threshold <= 100 and 0 < slow_call_rate_threshold <= 100):
            raise ValueError("rate")
        for duration in (slow_call_duration_ms, wait_duration_in_open_state_ms):
            if not 1 <= duration <= DURATION_MS_MAX:
                raise ValueError("duration")
        if not 0 <= max_wait_duration_in_half_open_state_ms <= DURATION_MS_MAX:
            raise ValueError("duration")
        for size in (sliding_window_size, minimum_number_of_calls, permitted_number_of_calls_in_half_open_state):
            if not 1 <= size <= SIZE_MAX:
                raise ValueError("size")
        by_count = WindowType(sliding_window_type) is WindowType.COUNT_BASED
        self._thresholds = (failure_rate_threshold, slow_call_rate_threshold)
        self._slow_ns = slow_call_duration_ms * MS
        self._wait_ns = wait_duration_in_open_state_ms * MS
        self._half_open_wait_ns = max_wait_duration_in_half_open_state_ms * MS
        self._size = sliding_window_size
        self._permitted = permitted_number_of_calls_in_half_open_state
        self._minimum = min(minimum_number_of_calls, sliding_window_size) if by_count else minimum_number_of_calls
        self._new_window = CountWindow if by_count else TimeWindow
        self._newest = 0
        self.state = State.CLOSED
        self.generation = 0
        self._enter(State.CLOSED, 0)
        self.generation = 0

    def _enter(self, state: State, now_ns: int) -> None:
        self.state = state
        self.generation += 1
        self._since_ns = now_ns
        self._under_way = 0
        self._not_permitted = 0
        self._window: CountWindow | TimeWindow = (
            CountWindow(self._permitted) if state is State.HALF_OPEN else self._new_window(self._size)
        )
        self._window.counts(self._newest * SECOND)

    def _rates(self, now_ns: int) -> tuple[float, float] | None:
        counts = self._window.counts(now_ns)
        if counts.total < (self._permitted if self.state is State.HALF_OPEN else self._minimum):
            return None
        return 100.0 * counts.failed / counts.total, 100.0 * counts.slow / counts.total

    def admit(self, now_ns: int) -> int:
        """A permit or -1."""
        if self.state is State.OPEN and now_ns >= self._since_ns + self._wait_ns:
            self._enter(State.HALF_OPEN, now_ns)
        if self.state is State.HALF_OPEN:
            if 0 < self._half_open_wait_ns <= now_ns - self._since_ns:
                self._enter(State.OPEN, now_ns)
            elif self._under_way + self._window.counts(now_ns).total < self._permitted:
                self._under_way += 1
                return self.generation
        if self.state in (State.CLOSED, State.DISABLED, State.METRICS_ONLY):
            return self.generation
        self._not_permitted += 1
        return -1

    def record(self, permit: int, outcome: Outcome, duration_ns: int, now_ns: int) -> None:
        """What became of a permit."""
        if not 0 <= permit <= self.generation or duration_ns < 0:
            raise ValueError("permit or duration")
        outcome = Outcome(outcome)
        if permit < self.generation or self.state is State.DISABLED:
            return
        self._under_way -= 1
        if outcome is Outcome.CANCELLED:
            return
        self._window.record(outcome is Outcome.FAILURE, duration_ns > self._slow_ns, now_ns)
        rates = self._rates(now_ns)
        if rates is None or self.state is State.METRICS_ONLY:
            return
        if any(rate >= threshold for rate, threshold in zip(rates, self._thresholds, strict=True)):
            self._enter(State.OPEN, now_ns)
        elif self.state is State.HALF_OPEN:
            self._enter(State.CLOSED, now_ns)

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
        self._enter(State(state), now_ns)

    def snapshot(self, now_ns: int) -> Snapshot:
        """As it is."""
        rates = self._rates(now_ns) or (None, None)
        return Snapshot(
            state=self.state,
            generation=self.generation,
            since_ns=self._since_ns,
            retry_at_ns=self._since_ns + self._wait_ns if self.state is State.OPEN else None,
            failure_rate=rates[0],
            slow_call_rate=rates[1],
            counts=self._window.counts(now_ns),
            not_permitted=self._not_permitted,
        )
