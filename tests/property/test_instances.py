"""Instances read from their bytes are those that protobuf reads, field by field."""

from __future__ import annotations

import contextlib

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from reference import instances as reference
from trunkline.api import convert
from trunkline.api.journal.v1 import control_pb2
from trunkline.api.v1 import common_pb2
from trunkline.core.instances import read_instance, read_registration, write_registration
from trunkline.core.model import Endpoint, Instance

text = st.text(max_size=5)
"""Any, of one to four bytes a character."""
messages = st.builds(
    common_pb2.Instance,
    namespace=text,
    service=text,
    id=text,
    version=text,
    endpoints=st.lists(
        st.builds(common_pb2.Endpoint, host=text, port=st.integers(0, 2**32 - 1), protocol=text), max_size=3
    ),
    weight=st.integers(0, 2**32 - 1),
    locality=st.none() | st.builds(common_pb2.Locality, region=text, zone=text, sub_zone=text),
    labels=st.dictionaries(text, text, max_size=4),
    declared=st.integers(0, 4),
    health_check=st.none() | st.builds(common_pb2.HealthCheck, unhealthy_threshold=st.integers(0, 9)),
)
unknown = st.sampled_from(
    [b"", b"\xa0\x06\x01", b"\xa2\x06\x02hi", b"\xa5\x06abcd", b"\xa1\x06abcdefgh", b"\xa3\x06\xa4\x06"]
)
"""Fields 100 of a newer program: each wire type there is."""


@given(messages, unknown)
def test_any_instance(message: common_pb2.Instance, more: bytes) -> None:
    message.MergeFromString(more)
    if message.endpoints:
        message.endpoints[0].MergeFromString(more)
    if message.HasField("locality"):
        message.locality.MergeFromString(more)
    check(message)


@given(st.lists(messages, min_size=2, max_size=3))
def test_merged_instances(some: list[common_pb2.Instance]) -> None:
    check(common_pb2.Instance.FromString(b"".join(message.SerializeToString() for message in some)))


@given(st.binary(max_size=40))
@example(b"\x48\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")  # declared: -1
@example(b"\x48\x63")  # declared: what only a newer program knows
@example(b"\x42\x00\x42\x02\x0a\x00")  # labels: entries without key, without value
def test_any_bytes_that_are_an_instance(data: bytes) -> None:
    try:
        message = common_pb2.Instance.FromString(data)
    except DecodeError:
        return
    check(message)


@given(st.binary(max_size=40))
def test_other_bytes_are_refused_or_read_within_their_bounds(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        read(data)


@given(messages, st.binary(max_size=3), st.sampled_from([0, 1, 2**64 - 1]), st.integers(0, 2**63 - 1), unknown)
def test_any_registration_there_and_back(
    message: common_pb2.Instance, secret_hash: bytes, word: int, ttl_ms: int, more: bytes
) -> None:
    instance = reference.read_instance(message.SerializeToString())
    fact = control_pb2.InstanceRegistered(
        instance=convert.instance_to(instance),
        lease_id=word,
        secret_hash=secret_hash,
        ttl_ms=ttl_ms,
        keeper=word,
    )
    health_check = fact.instance.health_check.SerializeToString() if instance.health_check is not None else None
    written = write_registration(instance, health_check, word, secret_hash, ttl_ms, word)
    assert control_pb2.InstanceRegistered.FromString(written) == fact
    assert len(written) == fact.ByteSize(), "nothing is there twice"
    if len(instance.labels) < 2:  # protobuf has an order of its own for what begins alike
        assert written == fact.SerializeToString(deterministic=True)
    found = read_registration(written + more, reference.health_check_of)
    assert found == (instance, word, secret_hash, ttl_ms, word)


def test_an_instance_that_needs_more_room() -> None:
    labels = {f"{name:04}" * 8: "é" * 200 for name in range(300)}
    endpoints = tuple(Endpoint(f"host-{port}", port) for port in range(1, 300))
    instance = Instance(namespace="shop", service="cart", id="a" * 5_000, endpoints=endpoints, labels=labels)
    assert written_alone(instance).instance == convert.instance_to(instance)


def test_equal_instances_are_the_same_bytes() -> None:
    one, other = (
        Instance(namespace="shop", service="cart", id="a", endpoints=(), labels=labels)
        for labels in ({"a": "1", "ab": "2", "é": "3"}, {"é": "3", "ab": "2", "a": "1"})
    )
    assert write_registration(one, None, 1, b"", 1, 1) == write_registration(other, None, 1, b"", 1, 1)


def written_alone(instance: Instance) -> control_pb2.InstanceRegistered:
    return control_pb2.InstanceRegistered.FromString(write_registration(instance, None, 1, b"", 1, 1))


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        written_alone(Instance(namespace="shop", service="cart", id="\ud800", endpoints=()))


def check(message: common_pb2.Instance) -> None:
    data = message.SerializeToString()
    try:
        expected = reference.read_instance(data)
    except ValueError:
        with pytest.raises(ValueError, match="not a valid Declared"):
            read(data)
        return
    found = read(data)
    assert found == expected
    assert hash(found) == hash(expected)
    assert found.labels is read(data).labels, "equal labels are kept once"
    assert found.locality is read(data).locality


def read(data: bytes) -> Instance:
    return read_instance(data, reference.health_check_of)


def test_what_is_shared_is_bounded() -> None:
    some = [common_pb2.Instance(labels={"pod": str(number)}).SerializeToString() for number in range(10_000)]
    kept = [read(data).labels for data in some]
    assert [labels["pod"] for labels in kept] == [str(number) for number in range(10_000)]
    assert read(some[0]).labels is not kept[0], "forgotten meanwhile"
