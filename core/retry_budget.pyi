from typing import Final, Self, final

BUDGET_PERCENT_MAX: Final[int]
MIN_RETRIES_PER_SECOND_MAX: Final[int]
TTL_NS_MAX: Final[int]

@final
class RetryBudget:
    def __new__(
        cls, budget_percent: int = 20, min_retries_per_second: int = 3, ttl_ns: int = 10_000_000_000
    ) -> Self: ...
    def called(self, now_ns: int) -> None: ...
    def may(self, now_ns: int) -> bool: ...
    def take(self, now_ns: int) -> bool: ...
