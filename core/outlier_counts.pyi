from enum import IntEnum
from typing import NamedTuple, Self

from typing_extensions import disjoint_base

from trunkline.core.policy import OutlierDetection

class Detection(IntEnum):
    CONSECUTIVE_5XX = 0
    CONSECUTIVE_GATEWAY_FAILURE = 1
    SUCCESS_RATE = 2
    CONSECUTIVE_LOCAL_ORIGIN_FAILURE = 3
    SUCCESS_RATE_LOCAL_ORIGIN = 4
    FAILURE_PERCENTAGE = 5
    FAILURE_PERCENTAGE_LOCAL_ORIGIN = 6

class Volume(NamedTuple):
    total: int
    good: int

@disjoint_base
class OutlierCounts:
    def __new__(cls, policy: OutlierDetection, *_: object) -> Self: ...
    def renumber(self, were: list[int]) -> None: ...
    def record(self, index: int, code: int, local_origin: bool, now_ns: int) -> bool: ...
    def outlier(self, index: int, detection: int, now_ns: int) -> bool: ...
    def forgive(self, index: int, detection: int) -> None: ...
    def take_volumes(self) -> tuple[list[Volume], list[Volume]]: ...
