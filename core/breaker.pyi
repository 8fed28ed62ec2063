from enum import IntEnum
from typing import Final, NamedTuple, Self, final

from trunkline.core.clock import Clock
from trunkline.core.window import SLIDING_WINDOW_SIZE_MAX as SLIDING_WINDOW_SIZE_MAX
from trunkline.core.window import Counts

DURATION_MS_MAX: Final[int]

class State(IntEnum):
    CLOSED = 1
    OPEN = 2
    HALF_OPEN = 3
    DISABLED = 4
    FORCED_OPEN = 5
    METRICS_ONLY = 6

class Outcome(IntEnum):
    SUCCESS = 1
    FAILURE = 2
    CANCELLED = 3

class WindowType(IntEnum):
    COUNT_BASED = 1
    TIME_BASED = 2

class Snapshot(NamedTuple):
    state: State
    generation: int
    since_ns: int
    retry_at_ns: int | None
    failure_rate: float | None
    slow_call_rate: float | None
    counts: Counts
    not_permitted: int
    rejection_rate: float | None = None

@final
class Breaker:
    def __new__(
        cls,
        *,
        failure_rate_threshold: float = 50.0,
        slow_call_rate_threshold: float = 100.0,
        slow_call_duration_ms: int = 60_000,
        sliding_window_type: WindowType = ...,
        sliding_window_size: int = 100,
        minimum_number_of_calls: int = 100,
        wait_duration_in_open_state_ms: int = 60_000,
        permitted_number_of_calls_in_half_open_state: int = 10,
        max_wait_duration_in_half_open_state_ms: int = 0,
    ) -> Self: ...
    def admit(self, now_ns: int) -> int: ...
    def record(self, permit: int, outcome: Outcome, duration_ns: int, now_ns: int) -> None: ...
    def begin(self, clock: Clock) -> int: ...
    def end(self, permit: int, outcome: Outcome, clock: Clock) -> None: ...
    def transition_to(self, state: State, now_ns: int) -> None: ...
    def snapshot(self, now_ns: int) -> Snapshot: ...
    @property
    def state(self) -> State: ...
    @property
    def generation(self) -> int: ...
