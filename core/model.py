"""The values that registry, discovery and client speak of. Immutable; no I/O, no protobuf.

Names and forms are the contract's (trunkline.api.v1.common); conversion is trunkline.api.convert.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import NamedTuple

from trunkline.core.registered import RegisteredInstance as RegisteredInstance

WEIGHT_DEFAULT = 100
"""What a weight of 0 stands for."""

TTL_MS_DEFAULT = 10_000
TTL_MS_MIN = 1_000
TTL_MS_MAX = 300_000

NO_LABELS: Mapping[str, str] = MappingProxyType({})


class Status(IntEnum):
    """Derived, never stored. Values are the contract's InstanceStatus; smaller is picked first."""

    SERVING = 1
    DEGRADED = 2
    STALE = 3
    STARTING = 4
    NOT_SERVING = 5
    DRAINING = 6


ROUTABLE = frozenset({Status.SERVING, Status.DEGRADED, Status.STALE})
"""What may be called: SERVING before DEGRADED before STALE."""


class Declared(IntEnum):
    """What an instance says of itself. Values are the contract's DeclaredStatus."""

    STARTING = 1
    SERVING = 2
    DEGRADED = 3
    DRAINING = 4


class Sync(IntEnum):
    """How an append is kept before it is acknowledged. Values are the contract's Sync; larger is stronger."""

    MEMORY = 1
    WRITTEN = 2
    FSYNCED = 3


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Address and protocol."""

    host: str
    port: int
    protocol: str = "grpc"

    @property
    def address(self) -> str:
        """host:port, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Locality:
    """Where an instance runs, from coarse to fine. Empty means unknown."""

    region: str = ""
    zone: str = ""
    sub_zone: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcHealthCheck:
    """Probe with grpc.health.v1; thresholds count probes in a row."""

    service: str = ""
    interval_ms: int = 10_000
    timeout_ms: int = 2_000
    unhealthy_threshold: int = 3
    healthy_threshold: int = 2
    endpoint_index: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One running copy of a service, as it declares itself."""

    namespace: str
    service: str
    id: str
    endpoints: tuple[Endpoint, ...]
    version: str = ""
    weight: int = WEIGHT_DEFAULT
    locality: Locality = Locality()
    labels: Mapping[str, str] = field(default_factory=lambda: NO_LABELS, hash=False)
    declared: Declared = Declared.SERVING
    health_check: GrpcHealthCheck | None = None

    @property
    def key(self) -> str:
        """What names it in the control stream."""
        return f"instance/{self.namespace}/{self.service}/{self.id}"


class Override(NamedTuple):
    """An operator's word on an instance."""

    status: Status
    reason: str


class Registration(NamedTuple):
    """What a holder asks for."""

    instance: Instance
    secret: bytes
    """128 random bits of the holder's choice."""
    ttl_ms: int
    take_over: bool = False
