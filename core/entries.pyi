from collections.abc import Callable, Sequence

from trunkline.core.model import GrpcHealthCheck, Instance, RegisteredInstance

_Lease = tuple[int, bytes, int, int, int | None, int]
"""Id, hash of its secret, TTL in ms, keeper, and when it lapsed: revision and ns."""
_Override = tuple[int, str]
"""Status and reason."""
_Entry = tuple[Instance, int, int, int, _Lease, str | None, _Override | None]
"""Instance, revisions at which it was made and changed, ns of its registration, lease, probe failure, override."""

def write_entries(
    entries: Sequence[tuple[RegisteredInstance, _Lease, str | None, _Override | None]],
    health_check_bytes: Callable[[GrpcHealthCheck | None], bytes | None],
) -> bytes: ...
def read_entries(piece: bytes, health_check: Callable[[bytes], GrpcHealthCheck]) -> tuple[list[_Entry], bytes]: ...
