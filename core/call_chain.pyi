from collections.abc import Callable, Container, Sequence
from typing import Final, Self, final

from trunkline.core.clock import Rng
from trunkline.core.in_flight import InFlight, Ticket
from trunkline.core.policy import LoadBalancingPolicy

MAX_REQUESTS: Final[str]
MAX_REQUESTS_PER_ENDPOINT: Final[str]
CIRCUIT_BREAKER: Final[str]
ENDPOINT_CIRCUIT_BREAKER: Final[str]

@final
class LevelPicker:
    def __new__(
        cls,
        in_flight: InFlight,
        rng: Rng,
        load_balancing: LoadBalancingPolicy,
        load: int,
        slots: Sequence[int],
        weights: Sequence[int],
        hosts: Sequence[str] = (),
    ) -> Self: ...

@final
class CallChain:
    def __new__(
        cls,
        in_flight: InFlight,
        rng: Rng,
        levels: Sequence[LevelPicker],
        spare: Callable[[], CallChain | None] | None = None,
    ) -> Self: ...
    def begin(
        self,
        hash: int | None = None,
        avoid: Container[int] | None = None,
        other: Callable[[], CallChain | None] | None = None,
    ) -> Ticket | None: ...
    def pick(self, hash: int | None = None, avoid: Container[int] | None = None) -> int: ...
    @property
    def refusal(self) -> str: ...
    @property
    def entries(self) -> int: ...
