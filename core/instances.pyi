from collections.abc import Callable

from trunkline.core.model import GrpcHealthCheck, Instance

def read_instance(data: bytes, health_check: Callable[[bytes], GrpcHealthCheck]) -> Instance: ...
def write_registration(
    instance: Instance, health_check: bytes | None, lease_id: int, secret_hash: bytes, ttl_ms: int, keeper: int
) -> bytes: ...
def read_registration(
    body: bytes, health_check: Callable[[bytes], GrpcHealthCheck]
) -> tuple[Instance, int, bytes, int, int]: ...
