from collections.abc import Callable

from trunkline.core.model import GrpcHealthCheck, Instance

def read_instance(data: bytes, health_check: Callable[[bytes], GrpcHealthCheck]) -> Instance: ...
