from collections.abc import Sequence
from typing import Final, Self, final

from trunkline.core.clock import Rng

CHOICE_COUNT_MAX: Final[int]
ACTIVE_REQUEST_BIAS_MAX: Final[float]

@final
class RoundRobin:
    def __new__(cls, weights: Sequence[int], *, start: int = 0) -> Self: ...
    def pick(self) -> int: ...

@final
class Random:
    def __new__(cls, n: int, rng: Rng) -> Self: ...
    def pick(self) -> int: ...

@final
class WeightedRandom:
    def __new__(cls, weights: Sequence[int], rng: Rng) -> Self: ...
    def pick(self) -> int: ...

@final
class LeastRequest:
    def __new__(
        cls,
        weights: Sequence[int],
        rng: Rng,
        *,
        choice_count: int = 2,
        active_request_bias: float = 1.0,
        active: Sequence[int] = (),
    ) -> Self: ...
    def pick(self) -> int: ...
    def started(self, index: int) -> None: ...
    def finished(self, index: int) -> None: ...
    def active(self, index: int) -> int: ...
