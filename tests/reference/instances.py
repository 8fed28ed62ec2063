"""The oracle of core/instances.pyx: protobuf's own parser, and one field after the other."""

from __future__ import annotations

from trunkline.api.v1 import common_pb2
from trunkline.core.model import Declared, Endpoint, GrpcHealthCheck, Instance, Locality


def read_instance(data: bytes) -> Instance:
    """What `trunkline.core.instances.read_instance` must give. ValueError for a declaration that is not known."""
    message = common_pb2.Instance.FromString(data)
    return Instance(
        namespace=message.namespace,
        service=message.service,
        id=message.id,
        endpoints=tuple(Endpoint(e.host, e.port, e.protocol or "grpc") for e in message.endpoints),
        version=message.version,
        weight=message.weight or 100,
        locality=Locality(message.locality.region, message.locality.zone, message.locality.sub_zone),
        labels=dict(message.labels),
        declared=Declared(message.declared or Declared.SERVING),
        health_check=health_check(message.health_check) if message.HasField("health_check") else None,
    )


def health_check(message: common_pb2.HealthCheck) -> GrpcHealthCheck:
    """Only what the tests look at: it is converted elsewhere."""
    return GrpcHealthCheck(unhealthy_threshold=message.unhealthy_threshold)


def health_check_of(data: bytes) -> GrpcHealthCheck:
    """The same, of its bytes."""
    return health_check(common_pb2.HealthCheck.FromString(data))
