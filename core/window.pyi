from typing import Final, NamedTuple, Self, final

from typing_extensions import disjoint_base

SLIDING_WINDOW_SIZE_MAX: Final[int]

class Counts(NamedTuple):
    total: int
    failed: int
    slow: int
    slow_failed: int

@disjoint_base
class Window:
    def record(self, failed: bool, slow: bool, now_ns: int) -> None: ...
    def counts(self, now_ns: int) -> Counts: ...

@final
class CountWindow(Window):
    def __new__(cls, size: int) -> Self: ...

@final
class TimeWindow(Window):
    def __new__(cls, size: int) -> Self: ...
