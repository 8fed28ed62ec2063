"""What is read at once of a RegisterRequest is what parsing, the rules and conversion make of it; all else is left to them."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from trunkline.api import convert
from trunkline.api.rules import checker
from trunkline.api.v1 import common_pb2, registry_pb2
from trunkline.core.errors import InvalidArgument
from trunkline.core.model import TTL_MS_DEFAULT, Registration
from trunkline.core.registrations import read_registration_request, write_registered

check = checker(registry_pb2.RegisterRequest.DESCRIPTOR)
labels = st.sampled_from(["a", "shop", "a-b", "0", "a" * 63, "", "-a", "a-", "A", "a_b", "a" * 64, "ä", "a.b", "a\n"])
ids = st.sampled_from(["a", "A.b_c:d@e/f-9", "x" * 128, "", "x" * 129, "a b", "é", "a\n"])
versions = st.sampled_from(
    ["", "1.2.3", "0.0.0", "10.20.30", "1.2", "1.2.3-rc.1", "01.2.3", "1.2.3\n", "v1.2.3", "1.2.3.4", "1..3"]
)
hosts = st.sampled_from(
    ["10.0.0.1", "127.0.0.1", "0.0.0.0", "0.0.0.1", "1.2.3", "1.2.3.256", "1.2.3.04", "a.b", "cart", "cart-1.shop.svc", "a.1",
     "a.0x1", "a..b", "-a", "a.", "::1", "::", "A.b", "a_b", "", "é", "a." * 126 + "a", "a" * 64, "1.2.3.4.", ".1.2.3"]
)  # fmt: skip
keys = st.sampled_from(["team", "a/b.c_d-e", "A9", "", "-a", "é", "a" * 63, "a" * 64, "a b"])
text = st.sampled_from(["", "a", "é", "x" * 63, "x" * 64, "é" * 32, "x" * 256, "é" * 128, "é" * 129])
endpoints = st.builds(
    common_pb2.Endpoint, host=hosts, port=st.sampled_from([0, 1, 8_080, 65_535, 65_536, 2**32 - 1]), protocol=labels
)
instances = st.builds(
    common_pb2.Instance,
    namespace=labels,
    service=labels,
    id=ids,
    version=versions,
    endpoints=st.lists(endpoints, max_size=2),
    weight=st.sampled_from([0, 1, 10_000, 10_001, 2**32 - 1]),
    locality=st.none() | st.builds(common_pb2.Locality, region=text, zone=text, sub_zone=text),
    labels=st.dictionaries(keys, text, max_size=3),
    declared=st.sampled_from([0, 1, 2, 3, 4, 5, -1]),
    health_check=st.none() | st.builds(common_pb2.HealthCheck),
)
ttls = st.none() | st.builds(
    Duration,
    seconds=st.sampled_from([0, 1, 10, 299, 300, 301, -1, 2**40]),
    nanos=st.sampled_from([0, 1, 999_999_999, 1_000_000_000, -1]),
)
requests = st.builds(
    registry_pb2.RegisterRequest,
    instance=st.none() | instances,
    lease_secret=st.sampled_from([b"", b"x" * 15, b"x" * 16, b"\xff" * 64, b"x" * 65]),
    ttl=ttls,
    take_over=st.booleans(),
)


def plain() -> registry_pb2.RegisterRequest:
    """What nothing is wrong with, and nothing unusual."""
    made = registry_pb2.RegisterRequest(lease_secret=b"x" * 16, ttl=Duration(seconds=10, nanos=500_000_000))
    made.instance.MergeFrom(
        common_pb2.Instance(
            namespace="shop",
            service="cart",
            id="cart-1",
            version="1.4.2",
            endpoints=[common_pb2.Endpoint(host="10.0.0.3", port=8_080, protocol="grpc")],
            weight=50,
            locality=common_pb2.Locality(region="eu-west", zone="eu-west-1"),
            labels={"team": "blue", "tier": "bäckend"},
            declared=common_pb2.DECLARED_STATUS_STARTING,
        )
    )
    return made


def as_others(data: bytes) -> Registration:
    """InvalidArgument and DecodeError."""
    request = registry_pb2.RegisterRequest.FromString(data)
    check(request)
    ttl_ms = convert.ms_from(request, "ttl", TTL_MS_DEFAULT)
    return Registration(convert.instance_from(request.instance), request.lease_secret, ttl_ms, request.take_over)


def agree(data: bytes) -> None:
    found = read_registration_request(data)
    if found is not None:
        assert found == as_others(data)


@given(requests)
def test_any_request(request: registry_pb2.RegisterRequest) -> None:
    agree(request.SerializeToString())


@given(st.data())
def test_one_field_of_a_good_request_is_anything(data: st.DataObject) -> None:
    request: Any
    other: Any
    request, other = plain(), data.draw(requests)
    other.instance.SetInParent()
    part, source = (request.instance, other.instance) if data.draw(st.booleans()) else (request, other)
    name = data.draw(st.sampled_from([field.name for field in part.DESCRIPTOR.fields if field.name != "instance"]))
    part.ClearField(name)
    only = type(part)()
    only.CopyFrom(source)
    for field in part.DESCRIPTOR.fields:
        if field.name != name:
            only.ClearField(field.name)
    part.MergeFrom(only)
    agree(request.SerializeToString())


@given(st.lists(requests, min_size=1, max_size=2), st.binary(max_size=8))
def test_what_stands_twice_or_is_not_known(parts: list[registry_pb2.RegisterRequest], more: bytes) -> None:
    data = b"".join(part.SerializeToString() for part in parts) + more
    found = read_registration_request(data)
    if found is not None:
        assert found == as_others(data)


@given(st.data())
def test_damaged_bytes(data: st.DataObject) -> None:
    damaged = bytearray(plain().SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    found = read_registration_request(bytes(damaged))
    if found is not None:
        assert found == as_others(bytes(damaged))


@given(st.binary(max_size=60))
@example(b"\x0a\x00")
def test_other_bytes_are_left_alone(data: bytes) -> None:
    assert read_registration_request(data) is None


def test_the_plain_is_taken() -> None:
    data = plain().SerializeToString()
    assert read_registration_request(data) == as_others(data)
    request: Any = plain()
    for field in ("ttl", "take_over"):
        request.ClearField(field)
    for field in ("version", "weight", "locality", "labels", "declared"):
        request.instance.ClearField(field)
    request.instance.endpoints[0].protocol = ""
    for host in ("cart", "cart-1.shop.svc", "255.255.255.255"):
        request.instance.endpoints[0].host = host
        data = request.SerializeToString()
        assert read_registration_request(data) == as_others(data)


@pytest.mark.parametrize(("seconds", "nanos"), [(0, 999_999_999), (300, 1), (1, -1)])
def test_a_ttl_out_of_bounds_is_left_to_the_rules(seconds: int, nanos: int) -> None:
    request = plain()
    request.ttl.seconds, request.ttl.nanos = seconds, nanos
    data = request.SerializeToString()
    assert read_registration_request(data) is None
    with pytest.raises((InvalidArgument, DecodeError)):
        as_others(data)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.booleans())
def test_the_answer_is_what_protobuf_writes(lease_id: int, revision: int, changed: bool) -> None:
    answer = registry_pb2.RegisterResponse(lease_id=lease_id, modified_revision=revision, changed=changed)
    assert write_registered(lease_id, revision, changed) == answer.SerializeToString()
