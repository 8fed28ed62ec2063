"""What each method is and needs: one table. A method that does not stand here cannot be registered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from trunkline.api.v1 import admin_pb2, events_pb2, registry_pb2, releases_pb2, schedules_pb2, traffic_pb2
from trunkline.core.leases import read_lease_ids
from trunkline.core.model import Registration
from trunkline.core.registrations import read_registration_request
from trunkline.core.settlements import read_settlement

from ..security.principal import ANY, EVERY_TOPIC, EVERYTHING, Resource, Verb

Demand = tuple[Verb, Resource]
Demands = Callable[[Any], Demand | None]
"""From a checked request to what it wants to do; None when it wants nothing beyond the method's own verb."""

WAIT_MS_MAX = 600_000
"""Drain and WaitUntilApplied: the longest `limit`."""
FETCH_WAIT_MS_MAX = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How the chain treats one method."""

    verb: Verb
    """Checked before the request is looked at."""
    demands: Demands | None = None
    """Checked for the request, and for each request of a stream. None: the servicer authorizes what it finds."""
    raw_request: bool = False
    """The servicer gets the request's bytes: it scans them, which is their validation."""
    plain: Callable[[bytes], Any] | None = None
    """Reads the bytes of a request that is surely good, or gives None: then it is parsed and checked as any other. What is
    read is given to `demands` and to the servicer in place of the message."""
    raw_response: bool = False
    """The servicer gives encoded responses."""
    is_repeated: bool = False
    """Many callers ask the same, byte for byte: short requests are parsed and checked once and kept. No servicer may change
    what it is given."""
    keeps_deadline: bool = False
    """The servicer ends in time by itself, also by the deadline that the chain gives a call without one."""
    waits_ms: int = 0
    """How long it may wait by design; the default deadline is that much later."""
    before_ready: bool = False
    """Answered although the server has not caught up."""


# What requests demand.


def _in_namespace(verb: Verb) -> Demands:
    """Do `verb` in the request's namespace; an empty one means those that the caller may see."""

    def demands(request: Any) -> Demand:
        return verb, Resource(request.namespace or None)

    return demands


def _register(request: registry_pb2.RegisterRequest | Registration) -> Demand:
    return Verb.REGISTER, Resource(request.instance.namespace)


def _by_registration(request: registry_pb2.DeregisterRequest | registry_pb2.DrainRequest) -> Demand:
    """By its lease a registration is the holder's; by its name it is an operator's business."""
    registration = request.registration
    return Verb.REGISTER if registration.lease_id else Verb.ADMINISTER, Resource(registration.namespace)


def _create_subscription(request: events_pb2.CreateSubscriptionRequest) -> Demand:
    """A copy has the filters of what it copies: the servicer authorizes those."""
    filters = request.config.filters
    return Verb.CONSUME, Resource(request.namespace, filters if request.copy_of else filters or EVERY_TOPIC)


def _create_stream(request: events_pb2.CreateStreamRequest | events_pb2.UpdateStreamRequest) -> Demand:
    return Verb.ADMINISTER, Resource(request.stream.namespace)


def _create_schedule(request: schedules_pb2.CreateScheduleRequest) -> Demand:
    return Verb.PUBLISH, Resource(request.schedule.namespace)


def _apply_policy(request: traffic_pb2.ApplyPolicyRequest) -> Demand:
    return Verb.ADMINISTER, Resource(request.policy.namespace)


def _start_release(request: releases_pb2.StartReleaseRequest) -> Demand:
    return Verb.ADMINISTER, Resource(request.release.namespace)


def _everything(_request: admin_pb2.StatusRequest) -> Demand:
    return Verb.ADMINISTER, EVERYTHING


def _nothing(_request: Any) -> Demand:
    """KeepAlive: who knows a lease id holds the lease."""
    return Verb.REGISTER, ANY


def _plain(verb: Verb, **options: Any) -> Method:
    return Method(verb=verb, demands=_in_namespace(verb), **options)


_SERVICES: Final[Mapping[str, Mapping[str, Method]]] = {
    "trunkline.api.v1.RegistryService": {
        "Register": Method(
            verb=Verb.REGISTER,
            demands=_register,
            plain=read_registration_request,
            raw_response=True,
            keeps_deadline=True,
        ),
        "KeepAlive": Method(verb=Verb.REGISTER, demands=_nothing, plain=read_lease_ids, raw_response=True),
        "KeepAliveOnce": Method(verb=Verb.REGISTER, demands=_nothing, raw_response=True),
        "Deregister": Method(verb=Verb.REGISTER, demands=_by_registration),
        "Drain": Method(verb=Verb.REGISTER, demands=_by_registration, waits_ms=WAIT_MS_MAX),
        "SetOverride": _plain(Verb.ADMINISTER),
    },
    "trunkline.api.v1.DiscoveryService": {
        "Resolve": _plain(Verb.READ, raw_response=True, is_repeated=True),
        "Pick": _plain(Verb.READ),
        # A watch that is not allowed ends alone, the others on the stream go on: the servicer sees to that.
        "Watch": Method(verb=Verb.READ, raw_response=True),
        "ListServices": _plain(Verb.READ),
        "ReportOutcomes": _plain(Verb.REPORT),
        "WaitUntilApplied": _plain(Verb.READ, waits_ms=WAIT_MS_MAX),
    },
    "trunkline.api.v1.EventService": {
        # The scan finds namespace and topics, and the servicer authorizes them.
        "Publish": Method(verb=Verb.PUBLISH, raw_request=True, raw_response=True),
        "PublishStream": Method(verb=Verb.PUBLISH, raw_request=True, raw_response=True),
        # A subscription that is not allowed ends alone, as with Watch.
        "Subscribe": Method(verb=Verb.READ, plain=read_settlement, raw_response=True),
        "Fetch": _plain(Verb.CONSUME, waits_ms=FETCH_WAIT_MS_MAX, raw_response=True),
        "Acknowledge": _plain(Verb.CONSUME),
        "CreateStream": Method(verb=Verb.ADMINISTER, demands=_create_stream),
        "UpdateStream": Method(verb=Verb.ADMINISTER, demands=_create_stream),
        "ListStreams": _plain(Verb.READ),
        "DeleteStream": _plain(Verb.ADMINISTER),
        "CreateSubscription": Method(verb=Verb.CONSUME, demands=_create_subscription),
        "UpdateSubscription": _plain(Verb.ADMINISTER),
        "ListSubscriptions": _plain(Verb.READ),
        "DeleteSubscription": _plain(Verb.ADMINISTER),
        "ListSetAside": _plain(Verb.CONSUME),
        "ReleaseSetAside": _plain(Verb.ADMINISTER),
        "RedeliverEvents": _plain(Verb.ADMINISTER),
        "SeekSubscription": _plain(Verb.ADMINISTER),
        "ExplainSubscription": _plain(Verb.CONSUME),
    },
    "trunkline.api.v1.ScheduleService": {
        # The topic is the event's, which the servicer checks, or the stored one's: it authorizes what it finds.
        "CreateSchedule": Method(verb=Verb.PUBLISH, demands=_create_schedule),
        "ListSchedules": _plain(Verb.READ),
        "DeleteSchedule": _plain(Verb.PUBLISH),
    },
    "trunkline.api.v1.TrafficService": {
        "ApplyPolicy": Method(verb=Verb.ADMINISTER, demands=_apply_policy),
        "GetPolicy": _plain(Verb.READ),
        "ListPolicies": _plain(Verb.READ),
        "DeletePolicy": _plain(Verb.ADMINISTER),
        "ListPolicyChanges": _plain(Verb.READ),
        "RollBackPolicy": _plain(Verb.ADMINISTER),
        "ExplainPick": _plain(Verb.READ),
        "GetCalls": _plain(Verb.READ),
    },
    "trunkline.api.v1.ReleaseService": {
        "StartRelease": Method(verb=Verb.ADMINISTER, demands=_start_release),
        "GetRelease": _plain(Verb.READ),
        "ListReleases": _plain(Verb.READ),
        "SteerRelease": _plain(Verb.ADMINISTER),
    },
    "trunkline.api.v1.AdminService": {
        "Status": Method(verb=Verb.ADMINISTER, demands=_everything),
        "History": _plain(Verb.ADMINISTER),
        "EndExpiryPause": _plain(Verb.ADMINISTER),
        # What a token would allow is what its maker must be allowed: trunkline.server.security.tokens.
        "CreateToken": Method(verb=Verb.ADMINISTER),
        "ListTokens": Method(verb=Verb.ADMINISTER),
        "RevokeToken": Method(verb=Verb.ADMINISTER),
    },
    "grpc.health.v1.Health": {
        "Check": Method(verb=Verb.PROBE, before_ready=True),
        "List": Method(verb=Verb.PROBE, before_ready=True),
        "Watch": Method(verb=Verb.PROBE, before_ready=True),
    },
    "grpc.reflection.v1alpha.ServerReflection": {
        "ServerReflectionInfo": Method(verb=Verb.READ, before_ready=True),
    },
}

METHODS: Final[Mapping[str, Method]] = {
    f"/{service}/{name}": method for service, methods in _SERVICES.items() for name, method in methods.items()
}
"""By full name, as it stands in the request's path."""
