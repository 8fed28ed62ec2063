"""What a user sets about a channel, and what it says of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import grpc
import grpc.aio

from trunkline.core.breaker import Snapshot
from trunkline.core.localities import NOWHERE
from trunkline.core.model import Locality, RegisteredInstance, Status
from trunkline.core.policy import Codes, Fallback, Policy

from ._balancer import LoadBalancing, plain_policy
from ._guards import CallCounts

FallbackFunction: TypeAlias = Callable[[str, Any, grpc.RpcError], Any]
"""Given a method ("/package.Service/Method"), the request (None where requests are streamed) and the error: the response,
an iterable of responses where they are streamed, or an awaitable of either; None when it has none either."""

FALLBACK_CODES = Fallback().on_codes


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelOptions:
    """How a channel picks, connects and calls. Times in seconds."""

    load_balancing: LoadBalancing | None = None
    """In place of the policy's, which is round robin where nobody has said anything."""
    hash_header: str = ""
    """With `load_balancing` ring_hash or maglev: the metadata key whose value is hashed; a call without it goes anywhere."""
    protocol: str = "grpc"
    """Of an instance's endpoints, the first that speaks this."""
    connect_timeout_s: float = 5.0
    """An endpoint that is not connected within this time is left out until it is."""
    first_instance_within_s: float = 10.0
    """A call without deadline waits so long for the first instance."""
    locality: Locality = NOWHERE
    """Where this process runs, for policies that prefer near instances."""
    caller: str = ""
    """This process's name, for policies that hash, split or limit by who calls."""
    policy: Policy | None = None
    """In place of what the control plane says of the service, which is taken if this is None."""
    fallback: FallbackFunction | None = None
    """In place of the policy's fallback."""
    fallback_on: Codes = FALLBACK_CODES
    """What `fallback` is asked for, besides calls that were not let through."""

    def __post_init__(self) -> None:
        if self.load_balancing is not None:
            plain_policy(self.load_balancing)

    def over(self, said: Policy) -> Policy:
        """What holds where the control plane says this."""
        policy = self.policy or said
        if self.load_balancing is None:
            return policy
        return replace(policy, load_balancing=plain_policy(self.load_balancing, self.hash_header).load_balancing)


@dataclass(frozen=True, slots=True)
class SentCall:
    """An attempt that was sent to an instance and has ended. A call that is tried twice is two of these."""

    instance: RegisteredInstance
    address: str
    code: grpc.StatusCode | None
    """None for a call that was cancelled here."""
    sent_ns: int
    """Monotonic."""
    ended_ns: int


@dataclass(frozen=True, slots=True)
class EndpointState:
    """What the channel makes of one endpoint, and why."""

    instance_id: str
    address: str
    status: Status
    picked: bool
    """Calls go there now."""
    why: str
    """When not: "connection refused", "connection lost", "ejected: ...", "behind better ones"; else empty."""
    calls_in_flight: int
    breaker: Snapshot | None = None
    """Of its circuit breaker; None without one."""


@dataclass(frozen=True, slots=True)
class ChannelPolicyState:
    """A channel's policy and what has come of it."""

    policy: Policy
    in_flight: int
    """Calls that were let in and have not ended. Only calls that the policy asks more of than a pick are counted."""
    breaker: Snapshot | None
    """Of the service's circuit breaker; None without one."""
    endpoint_breakers: Mapping[str, Snapshot]
    """By address."""
    ejected: Mapping[str, str]
    """By address, why outlier detection leaves it out."""
    counts: CallCounts
    """A copy."""
