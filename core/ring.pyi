from collections.abc import Sequence
from typing import Final, Self, final

RING_SIZE_MAX: Final[int]

@final
class Ring:
    def __new__(
        cls,
        hosts: Sequence[str],
        weights: Sequence[int],
        *,
        minimum_ring_size: int = 1024,
        maximum_ring_size: int = 8_388_608,
    ) -> Self: ...
    def locate(self, hash: int) -> int: ...
    def locate_key(self, key: bytes) -> int: ...
    def points(self) -> list[tuple[int, int]]: ...
    @property
    def size(self) -> int: ...
