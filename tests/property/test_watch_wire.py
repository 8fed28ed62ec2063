"""What is encoded by hand is what protobuf would make of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trunkline.api.v1 import common_pb2, discovery_pb2
from trunkline.api.v1.policy_pb2 import EffectivePolicy, Limits, TrafficPolicy
from trunkline.server.discovery import wire

u32 = st.integers(1, 2**32 - 1)
u64 = st.integers(1, 2**64 - 1)
names = st.text(max_size=200)
registered = st.builds(
    lambda service, id, revision: common_pb2.RegisteredInstance(
        instance=common_pb2.Instance(service=service, id=id), modified_revision=revision
    ),
    names,
    names,
    u64,
)
policies = st.builds(
    lambda service, revision, most: EffectivePolicy(
        service=service, revision=revision, policy=TrafficPolicy(service=service, limits=Limits(max_requests=most))
    ),
    names,
    u64,
    u32,
)
refs = st.builds(lambda service, id: common_pb2.InstanceRef(service=service, id=id), names, names)


@given(
    watch_id=u32,
    kind=st.sampled_from((wire.SNAPSHOT, wire.CHANGES, wire.BOOKMARK)),
    revision=u64,
    token=st.binary(max_size=300),
    complete=st.booleans(),
    upserted=st.lists(registered, max_size=4),
    removed=st.lists(refs, max_size=4),
    held=st.lists(policies, max_size=4),
)
def test_events(
    watch_id: int,
    kind: discovery_pb2.WatchEvent.Kind.ValueType,
    revision: int,
    token: bytes,
    complete: bool,
    upserted: list[common_pb2.RegisteredInstance],
    removed: list[common_pb2.InstanceRef],
    held: list[EffectivePolicy],
) -> None:
    body = wire.event_body(
        kind,
        revision,
        token=token,
        complete=complete,
        upserted=[wire.framed(message.SerializeToString()) for message in upserted],
        removed=[wire.instance_ref(message.service, message.id) for message in removed],
        policies=[message.SerializeToString() for message in held],
    )
    expected = discovery_pb2.WatchEvent(
        watch_id=watch_id,
        kind=kind,
        revision=revision,
        resume_token=token,
        complete=complete,
        upserted=upserted,
        removed=removed,
        policies=held,
    )
    assert wire.event(watch_id, body) == discovery_pb2.WatchResponse(events=[expected]).SerializeToString()


@given(journal_id=names, incarnation=u64, revision=u64, instances=st.lists(registered, max_size=4))
def test_resolve_answers(
    journal_id: str, incarnation: int, revision: int, instances: list[common_pb2.RegisteredInstance]
) -> None:
    expected = discovery_pb2.ResolveResponse(
        header=common_pb2.ResponseHeader(journal_id=journal_id, incarnation=incarnation, revision=revision),
        instances=instances,
    )
    body = wire.resolved(wire.framed(message.SerializeToString()) for message in instances)
    assert wire.header(journal_id, incarnation, revision) + body == expected.SerializeToString()


@given(value=st.integers(0, 2**64 - 1))
def test_varints(value: int) -> None:
    encoded = common_pb2.ResponseHeader(revision=value).SerializeToString()
    assert encoded == (b"\x18" + wire.varint(value) if value else b"")
