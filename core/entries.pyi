from collections.abc import Callable, Sequence

from trunkline.core.model import GrpcHealthCheck, Instance
from trunkline.core.registered import Entry, Lease

_Entry = tuple[Instance, int, int, int, Lease, str | None, tuple[int, str] | None]
"""Instance, revisions at which it was made and changed, ns of its registration, lease, probe failure; override: status and
reason."""

def write_entries(
    entries: Sequence[Entry], health_check_bytes: Callable[[GrpcHealthCheck | None], bytes | None]
) -> bytes: ...
def read_entries(piece: bytes, health_check: Callable[[bytes], GrpcHealthCheck]) -> tuple[list[_Entry], bytes]: ...
