from typing import Final, Self, final

from trunkline.core.breaker import DURATION_MS_MAX as DURATION_MS_MAX
from trunkline.core.breaker import Outcome, Snapshot, State, WindowType
from trunkline.core.clock import Clock, Rng
from trunkline.core.window import SLIDING_WINDOW_SIZE_MAX as SLIDING_WINDOW_SIZE_MAX

MULTIPLIER_PERCENT_MAX: Final[int]

@final
class SheddingBreaker:
    def __new__(
        cls,
        rng: Rng,
        *,
        multiplier_percent: int = 200,
        max_rejection_percent: int = 95,
        slow_call_rate_threshold: float = 100.0,
        slow_call_duration_ms: int = 60_000,
        sliding_window_type: WindowType = ...,
        sliding_window_size: int = 100,
        minimum_number_of_calls: int = 100,
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
