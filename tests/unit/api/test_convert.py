"""Between messages and values: there and back, and every default."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.api import convert
from trunkline.api.v1 import common_pb2, registry_pb2
from trunkline.core.errors import InvalidArgument
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

text = st.text("abc", max_size=3)
instances = st.builds(
    Instance,
    namespace=text,
    service=text,
    id=text,
    endpoints=st.tuples(st.builds(Endpoint, text, st.integers(1, 65_535), st.text("abc", min_size=1))),
    version=text,
    weight=st.integers(1, 10_000),
    locality=st.builds(Locality, text, text, text),
    labels=st.dictionaries(text, text),
    declared=st.sampled_from(Declared),
    health_check=st.none()
    | st.builds(
        GrpcHealthCheck,
        service=text,
        interval_ms=st.integers(1_000, 3_600_000),
        timeout_ms=st.integers(10, 60_000),
        unhealthy_threshold=st.integers(1, 100),
        healthy_threshold=st.integers(1, 100),
        endpoint_index=st.integers(0, 15),
    ),
)


@given(instances)
def test_an_instance_comes_back(instance: Instance) -> None:
    wire = convert.instance_to(instance).SerializeToString()
    assert convert.instance_from(common_pb2.Instance.FromString(wire)) == instance


@given(
    st.builds(
        RegisteredInstance,
        instance=instances,
        status=st.sampled_from(Status),
        status_reason=text,
        created_revision=st.integers(0, 2**64 - 1),
        modified_revision=st.integers(0, 2**64 - 1),
        registered_at_ns=st.integers(0, 2**63 - 1),
    )
)
def test_a_registered_instance_comes_back(registered: RegisteredInstance) -> None:
    wire = convert.registered_to(registered).SerializeToString()
    assert convert.registered_from(common_pb2.RegisteredInstance.FromString(wire)) == registered


@given(
    st.builds(
        Selector,
        version=st.sampled_from(["", "^1.2", ">=1.0 <3"]),
        labels=st.dictionaries(text, text),
        locality=st.builds(Locality, text, text, text),
        statuses=st.frozensets(st.sampled_from(Status)),
    )
)
def test_a_selector_comes_back(selector: Selector) -> None:
    wire = convert.selector_to(selector).SerializeToString()
    back = convert.selector_from(common_pb2.Selector.FromString(wire))
    assert back == selector
    assert back.canonical() == selector.canonical()


def test_a_selector_with_a_bad_range_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"selector\.version"):
        convert.selector_from(common_pb2.Selector(version="latest"))


def test_absent_fields_get_their_defaults() -> None:
    wire = common_pb2.Instance(
        namespace="n",
        service="s",
        id="i",
        endpoints=[common_pb2.Endpoint(host="h", port=1)],
        health_check=common_pb2.HealthCheck(grpc=common_pb2.GrpcHealthCheck()),
    )
    instance = convert.instance_from(wire)
    assert instance.weight == 100
    assert instance.declared is Declared.SERVING
    assert instance.endpoints == (Endpoint("h", 1, "grpc"),)
    assert instance.locality == Locality()
    assert instance.labels == {}
    assert instance.health_check == GrpcHealthCheck()


@pytest.mark.parametrize(("ms", "seconds", "nanos"), [(0, 0, 0), (1, 0, 1_000_000), (1_500, 1, 500_000_000)])
def test_durations(ms: int, seconds: int, nanos: int) -> None:
    duration = convert.ms_to(ms)
    assert (duration.seconds, duration.nanos) == (seconds, nanos)
    request = registry_pb2.DrainRequest(limit=duration)
    assert convert.ms_from(request, "limit", 30_000) == ms


def test_an_absent_duration_is_not_zero() -> None:
    assert convert.ms_from(registry_pb2.DrainRequest(), "limit", 30_000) == 30_000


@given(st.integers(-(10**18), 10**18))
def test_times_come_back(time_ns: int) -> None:
    timestamp = convert.time_ns_to(time_ns)
    assert 0 <= timestamp.nanos < 10**9
    assert convert.time_ns_from(timestamp) == time_ns


def test_enumerations_agree_with_the_contract() -> None:
    for status in Status:
        assert common_pb2.InstanceStatus.Name(convert.status_to(status)) == f"INSTANCE_STATUS_{status.name}"
        assert convert.status_from(convert.status_to(status)) is status
    for declared in Declared:
        assert common_pb2.DeclaredStatus.Name(convert.declared_to(declared)) == f"DECLARED_STATUS_{declared.name}"
        assert convert.declared_from(convert.declared_to(declared)) is declared
    for sync in Sync:
        durability = convert.durability_to(sync, 2)
        assert common_pb2.Sync.Name(durability.sync) == f"SYNC_{sync.name}"
        assert convert.sync_from(durability.sync, Sync.FSYNCED) is sync
        assert durability.copies == 2
    assert len(common_pb2.InstanceStatus.keys()) == len(Status) + 1
    assert len(common_pb2.DeclaredStatus.keys()) == len(Declared) + 1
    assert len(common_pb2.Sync.keys()) == len(Sync) + 1
    assert convert.status_from(common_pb2.INSTANCE_STATUS_UNSPECIFIED) is None
    assert convert.status_to(None) == common_pb2.INSTANCE_STATUS_UNSPECIFIED
    assert convert.sync_from(common_pb2.SYNC_UNSPECIFIED, Sync.WRITTEN) is Sync.WRITTEN


def test_a_status_of_a_newer_server_is_not_routed_to() -> None:
    told = common_pb2.RegisteredInstance()
    told.MergeFromString(b"\x10\x63")  # status = 99
    assert convert.registered_from(told).status is Status.NOT_SERVING
