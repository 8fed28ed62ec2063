"""The table of methods against the contract."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from trunkline.api.v1 import (
    admin_pb2,
    discovery_pb2,
    events_pb2,
    registry_pb2,
    releases_pb2,
    schedules_pb2,
    traffic_pb2,
)
from trunkline.core.errors import PermissionDenied
from trunkline.server.chain.methods import METHODS
from trunkline.server.security.principal import EVERYTHING, Principal, Resource, Role, Verb, Via, authorize

CONTRACT: dict[str, MethodDescriptor] = {
    f"/{service.full_name}/{method.name}": method
    for file in (registry_pb2, discovery_pb2, events_pb2, schedules_pb2, traffic_pb2, releases_pb2, admin_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


def test_the_table_has_every_method_and_no_other() -> None:
    ours = {name for name in METHODS if name.startswith("/trunkline.")}
    assert ours == CONTRACT.keys()
    assert len(ours) == 51


def test_only_those_methods_are_raw_that_scan_or_share_bytes() -> None:
    prefix = "/trunkline.api.v1."
    raw = {name.removeprefix(prefix): (m.raw_request, m.raw_response) for name, m in METHODS.items() if m.raw_response}
    assert raw == {
        "RegistryService/Register": (False, True),
        "RegistryService/KeepAlive": (False, True),
        "RegistryService/KeepAliveOnce": (False, True),
        "DiscoveryService/Resolve": (False, True),
        "DiscoveryService/Watch": (False, True),
        "EventService/Publish": (True, True),
        "EventService/PublishStream": (True, True),
        "EventService/Subscribe": (False, True),
        "EventService/Fetch": (False, True),
    }


def test_only_health_and_reflection_are_answered_before_the_server_is_ready() -> None:
    early = {name.split("/")[1] for name, method in METHODS.items() if method.before_ready}
    assert early == {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    open_to_all = {name.split("/")[1] for name, method in METHODS.items() if method.verb is Verb.PROBE}
    assert open_to_all == {"grpc.health.v1.Health"}


SERVICER_DECIDES = {
    *("EventService/Publish", "EventService/PublishStream", "EventService/Subscribe", "DiscoveryService/Watch"),
    *(f"AdminService/{name}" for name in ("CreateToken", "ListTokens", "RevokeToken")),
}


def filled(name: str, namespace: str) -> Any:
    """A request of a method, its namespace set wherever it has one."""
    request: Any = GetMessageClass(CONTRACT[name].input_type)()
    if "namespace" in request.DESCRIPTOR.fields_by_name:
        request.namespace = namespace
    for field in ("instance", "registration", "open", "stream", "schedule", "policy", "release"):
        found = request.DESCRIPTOR.fields_by_name.get(field)
        if found is not None and found.message_type is not None:
            getattr(request, field).namespace = namespace
    return request


@pytest.mark.parametrize("name", CONTRACT)
def test_a_method_looks_at_the_namespace_that_its_request_has(name: str) -> None:
    method = METHODS[name]
    if method.demands is None:
        assert name.removeprefix("/trunkline.api.v1.") in SERVICER_DECIDES
        return
    demand = method.demands(filled(name, "shop"))
    assert demand is not None
    verb, resource = demand
    if name.endswith(("/KeepAlive", "/KeepAliveOnce")):
        assert resource == Resource()
    elif name.endswith("/Status"):
        assert resource == EVERYTHING
    else:
        assert resource.namespace == "shop"
    assert verb is not Verb.PROBE


@pytest.mark.parametrize("name", CONTRACT)
def test_a_methods_verb_is_no_stronger_than_what_its_requests_demand(name: str) -> None:
    """The verb is checked first: it must not refuse what the demand would allow."""
    method = METHODS[name]
    if method.demands is None:
        return
    demand = method.demands(filled(name, "shop"))
    assert demand is not None
    for role in Role:
        who = Principal(name="x", role=role, via=Via.TOKEN)
        if may(who, *demand):
            assert may(who, method.verb, Resource())


def may(who: Principal, verb: Verb, resource: Resource) -> bool:
    try:
        authorize(who, verb, resource)
    except PermissionDenied:
        return False
    return True


def demand_of(name: str, request: Any) -> Any:
    method = METHODS[f"/trunkline.api.v1.{name}"]
    assert method.demands is not None
    return method.demands(request)


def test_a_registration_by_name_is_an_operators() -> None:
    request = registry_pb2.DrainRequest()
    assert demand_of("RegistryService/Drain", request)[0] is Verb.ADMINISTER
    request.registration.lease_id = 1
    assert demand_of("RegistryService/Drain", request)[0] is Verb.REGISTER


def test_an_empty_namespace_leaves_it_to_what_the_caller_may_see() -> None:
    for name, request in (
        ("DiscoveryService/ListServices", discovery_pb2.ListServicesRequest()),
        ("EventService/ListStreams", events_pb2.ListStreamsRequest()),
        ("EventService/ListSubscriptions", events_pb2.ListSubscriptionsRequest()),
        ("ScheduleService/ListSchedules", schedules_pb2.ListSchedulesRequest()),
    ):
        assert demand_of(name, request) == (Verb.READ, Resource(None))


def test_every_error_has_a_grpc_status() -> None:
    from trunkline.core.errors import leaf_errors

    for error in leaf_errors().values():
        assert grpc.StatusCode[error.status]
