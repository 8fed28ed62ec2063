"""Between messages of trunkline.api.v1 and values of trunkline.core.model; named for the direction.

`x_from(message)` makes a value, `x_to(value)` makes a message. Messages are taken as checked (trunkline.api.rules);
what the rules let pass, such as an absent field, is given its default here. Times are nanoseconds since the epoch.
"""

from __future__ import annotations

from functools import lru_cache

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from trunkline.core.instances import read_instance
from trunkline.core.model import (
    Declared,
    Endpoint,
    GrpcHealthCheck,
    Instance,
    Locality,
    RegisteredInstance,
    Status,
    Sync,
)
from trunkline.core.selector import Selector

from .v1 import common_pb2

HEALTH_INTERVAL_MS_DEFAULT = 10_000
HEALTH_TIMEOUT_MS_DEFAULT = 2_000
UNHEALTHY_THRESHOLD_DEFAULT = 3
HEALTHY_THRESHOLD_DEFAULT = 2

_NOWHERE = Locality()
_STATUSES = {int(status): status for status in Status}
_DECLARED = {int(declared): declared for declared in Declared}


# Durations and times.


def ms_from(message: Message, field: str, default_ms: int) -> int:
    """Whole milliseconds of the duration in `field`; the default when it is absent (which zero is not)."""
    if not message.HasField(field):
        return default_ms
    duration: Duration = getattr(message, field)
    return duration.seconds * 1_000 + duration.nanos // 1_000_000


def ms_to(ms: int) -> Duration:
    """A duration of so many milliseconds, not negative."""
    seconds, rest_ms = divmod(ms, 1_000)
    return Duration(seconds=seconds, nanos=rest_ms * 1_000_000)


def time_ns_from(timestamp: Timestamp) -> int:
    """Nanoseconds since the epoch."""
    return timestamp.seconds * 1_000_000_000 + timestamp.nanos


def time_ns_to(time_ns: int) -> Timestamp:
    """The timestamp of nanoseconds since the epoch."""
    seconds, nanos = divmod(time_ns, 1_000_000_000)
    return Timestamp(seconds=seconds, nanos=nanos)


# Enumerations. The model's values are the contract's; UNSPECIFIED is what differs.


def declared_from(declared: common_pb2.DeclaredStatus.ValueType) -> Declared:
    """UNSPECIFIED is taken as SERVING."""
    return _DECLARED.get(declared) or Declared(declared or Declared.SERVING)


def declared_to(declared: Declared) -> common_pb2.DeclaredStatus.ValueType:
    """The contract's value of a declaration."""
    return common_pb2.DeclaredStatus.ValueType(declared)


def status_from(status: common_pb2.InstanceStatus.ValueType) -> Status | None:
    """None for UNSPECIFIED."""
    return Status(status) if status else None


def status_to(status: Status | None) -> common_pb2.InstanceStatus.ValueType:
    """UNSPECIFIED for None."""
    return common_pb2.InstanceStatus.ValueType(status or 0)


def sync_from(sync: common_pb2.Sync.ValueType, default: Sync) -> Sync:
    """The default for UNSPECIFIED."""
    return Sync(sync or default)


def durability_to(sync: Sync, copies: int) -> common_pb2.Durability:
    """What an acknowledgement promises."""
    return common_pb2.Durability(sync=common_pb2.Sync.ValueType(sync), copies=copies)


# Instances.


def locality_from(locality: common_pb2.Locality) -> Locality:
    """Empty where nothing is said."""
    return _locality(locality.region, locality.zone, locality.sub_zone)


@lru_cache(maxsize=1_024)
def _locality(region: str, zone: str, sub_zone: str) -> Locality:
    """Instances are many, the places where they run are few: these share one value."""
    return Locality(region, zone, sub_zone) if region or zone or sub_zone else _NOWHERE


def locality_to(locality: Locality) -> common_pb2.Locality | None:
    """None, which leaves the field absent, when nothing is known."""
    if locality == _NOWHERE:
        return None
    return common_pb2.Locality(region=locality.region, zone=locality.zone, sub_zone=locality.sub_zone)


def endpoint_to(endpoint: Endpoint) -> common_pb2.Endpoint:
    """Address and protocol."""
    return common_pb2.Endpoint(host=endpoint.host, port=endpoint.port, protocol=endpoint.protocol)


def health_check_from(check: common_pb2.HealthCheck) -> GrpcHealthCheck:
    """Absent and zero fields get their defaults."""
    return GrpcHealthCheck(
        service=check.grpc.service,
        interval_ms=ms_from(check, "interval", HEALTH_INTERVAL_MS_DEFAULT),
        timeout_ms=ms_from(check, "timeout", HEALTH_TIMEOUT_MS_DEFAULT),
        unhealthy_threshold=check.unhealthy_threshold or UNHEALTHY_THRESHOLD_DEFAULT,
        healthy_threshold=check.healthy_threshold or HEALTHY_THRESHOLD_DEFAULT,
        endpoint_index=check.endpoint_index,
    )


def health_check_of(data: bytes) -> GrpcHealthCheck:
    """The same, of its bytes."""
    return health_check_from(common_pb2.HealthCheck.FromString(data))


def health_check_to(check: GrpcHealthCheck) -> common_pb2.HealthCheck:
    """Every field written out, so that defaults may change later."""
    return common_pb2.HealthCheck(
        grpc=common_pb2.GrpcHealthCheck(service=check.service),
        interval=ms_to(check.interval_ms),
        timeout=ms_to(check.timeout_ms),
        unhealthy_threshold=check.unhealthy_threshold,
        healthy_threshold=check.healthy_threshold,
        endpoint_index=check.endpoint_index,
    )


def health_check_bytes(check: GrpcHealthCheck | None) -> bytes | None:
    """The same, as bytes; None for none."""
    return None if check is None else health_check_to(check).SerializeToString()


def instance_from(instance: common_pb2.Instance) -> Instance:
    """One running copy, defaults filled in.

    Serialized and read again: asking the message for one field after the other takes five times as long.
    """
    return read_instance(instance.SerializeToString(), health_check_of)


def instance_to(instance: Instance) -> common_pb2.Instance:
    """`instance_from` of the result is equal to `instance`."""
    check = instance.health_check
    return common_pb2.Instance(
        namespace=instance.namespace,
        service=instance.service,
        id=instance.id,
        version=instance.version,
        endpoints=[endpoint_to(endpoint) for endpoint in instance.endpoints],
        weight=instance.weight,
        locality=locality_to(instance.locality),
        labels=instance.labels,
        declared=declared_to(instance.declared),
        health_check=None if check is None else health_check_to(check),
    )


def registered_from(registered: common_pb2.RegisteredInstance) -> RegisteredInstance:
    """An instance as the registry told of it. A status that only newer servers know is taken as NOT_SERVING."""
    return RegisteredInstance(
        instance=instance_from(registered.instance),
        status=_STATUSES.get(registered.status, Status.NOT_SERVING),
        status_reason=registered.status_reason,
        created_revision=registered.created_revision,
        modified_revision=registered.modified_revision,
        registered_at_ns=time_ns_from(registered.registered_at),
    )


def registered_to(registered: RegisteredInstance) -> common_pb2.RegisteredInstance:
    """`registered_from` of the result is equal to `registered`."""
    return common_pb2.RegisteredInstance(
        instance=instance_to(registered.instance),
        status=status_to(registered.status),
        status_reason=registered.status_reason,
        created_revision=registered.created_revision,
        modified_revision=registered.modified_revision,
        registered_at=time_ns_to(registered.registered_at_ns),
    )


# Selectors.


def selector_from(selector: common_pb2.Selector) -> Selector:
    """Empty conditions take everything. InvalidArgument when the version range is none."""
    return Selector(
        version=selector.version,
        labels=dict(selector.labels),
        locality=locality_from(selector.locality),
        statuses=frozenset([Status(status) for status in selector.statuses]),
    )


def selector_to(selector: Selector) -> common_pb2.Selector:
    """`selector_from` of the result means the same as `selector`."""
    return common_pb2.Selector(
        version=selector.version,
        labels=selector.labels,
        locality=locality_to(selector.locality),
        statuses=[status_to(status) for status in sorted(selector.statuses)],
    )
