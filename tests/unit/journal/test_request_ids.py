"""A request id stands for one request of one caller, whatever else bears the same id."""

from __future__ import annotations

from trunkline.api.v1 import registry_pb2
from trunkline.server.journal.control.requests import request_id_by

Ref = registry_pb2.RegistrationRef


def deregister(lease_id: int, request_id: str = "1") -> registry_pb2.DeregisterRequest:
    registration = Ref(namespace="shop", lease_id=lease_id)
    return registry_pb2.DeregisterRequest(registration=registration, request_id=request_id)


def test_only_the_same_request_of_the_same_caller_is_a_repetition() -> None:
    drain = registry_pb2.DrainRequest(registration=Ref(namespace="shop", lease_id=7), request_id="1")
    known = {
        request_id_by("token/a", deregister(7)),
        request_id_by("token/b", deregister(7)),
        request_id_by("token/a", deregister(8)),
        request_id_by("token/a", deregister(7, "2")),
        request_id_by("token/a", drain),
    }
    assert len(known) == 5
    again = registry_pb2.DeregisterRequest.FromString(deregister(7).SerializeToString())
    assert request_id_by("token/a", again) in known
    assert request_id_by("token/a", again).startswith("1:")


def test_a_request_without_an_id_has_none() -> None:
    assert request_id_by("token/a", deregister(7, "")) == ""
