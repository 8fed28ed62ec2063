"""trunkline.core.settlements: a plain SubscribeRequest is read as protobuf reads it, any other is left to it."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from trunkline.api.rules import checker
from trunkline.api.v1 import events_pb2
from trunkline.core.errors import InvalidArgument
from trunkline.core.settlements import Settlement, read_settlement

Ack = events_pb2.Acknowledgement
check = checker(events_pb2.SubscribeRequest.DESCRIPTOR)

ids = st.sampled_from([0, 1, 127, 128, 2**32 - 1])
offsets = st.lists(st.integers(0, 2**64 - 1), max_size=5)
outcomes = st.sampled_from([*Ack.Outcome.values(), Ack.OUTCOME_ACK, Ack.OUTCOME_ACK, 9])
acks = st.builds(
    lambda subscription_id, outcome, offsets, reason: Ack(
        subscription_id=subscription_id, outcome=outcome, offsets=offsets, reason=reason
    ),
    ids,
    outcomes,
    offsets,
    st.sampled_from(["", "", "", "broken"]),
)
credits_given = st.builds(
    lambda subscription_id, credit: events_pb2.AddCredit(subscription_id=subscription_id, credit=credit),
    ids,
    st.sampled_from([0, 1, 300, 1_000_000, 1_000_001]),
)
requests = st.builds(
    lambda acknowledgements, credits_, close: events_pb2.SubscribeRequest(
        acknowledgements=acknowledgements,
        credits=credits_,
        close=events_pb2.CloseSubscription(subscription_id=1) if close else None,
    ),
    st.lists(acks, max_size=3),
    st.lists(credits_given, max_size=3),
    st.sampled_from([False, False, False, True]),
)


def message_of(settlement: Settlement) -> events_pb2.SubscribeRequest:
    return events_pb2.SubscribeRequest(
        acknowledgements=[
            Ack(subscription_id=subscription_id, outcome=Ack.OUTCOME_ACK, offsets=done)
            for subscription_id, done in settlement.done
        ],
        credits=[
            events_pb2.AddCredit(subscription_id=subscription_id, credit=credit)
            for subscription_id, credit in settlement.credits
        ],
    )


def is_good(request: events_pb2.SubscribeRequest) -> bool:
    try:
        check(request)
    except InvalidArgument:
        return False
    return True


@given(requests)
def test_what_is_plain_and_good_is_read_and_nothing_else(request: events_pb2.SubscribeRequest) -> None:
    found = read_settlement(request.SerializeToString())
    is_plain = not request.HasField("close") and all(
        one.outcome == Ack.OUTCOME_ACK and not one.reason for one in request.acknowledgements
    )
    assert (found is not None) == (is_plain and is_good(request))
    if found is not None:
        assert message_of(found) == request


@given(requests, st.integers(0, 60), st.integers(0, 60), st.integers(0, 255), st.booleans())
def test_bytes_that_were_changed_are_read_as_protobuf_reads_them_or_left_to_it(
    request: events_pb2.SubscribeRequest, cut: int, place: int, byte: int, insert: bool
) -> None:
    data = bytearray(request.SerializeToString()[:cut])
    if insert:
        data.insert(min(place, len(data)), byte)
    elif place < len(data):
        data[place] = byte
    found = read_settlement(bytes(data))
    if found is None:
        return
    try:
        parsed = events_pb2.SubscribeRequest.FromString(bytes(data))
    except DecodeError:
        raise AssertionError(f"protobuf refuses {bytes(data)!r}") from None
    assert is_good(parsed)
    assert message_of(found) == parsed


def test_no_more_is_taken_than_the_rules_allow() -> None:
    full = events_pb2.SubscribeRequest(
        acknowledgements=[Ack(outcome=Ack.OUTCOME_ACK, offsets=range(10_000))] * 2,
        credits=[events_pb2.AddCredit(subscription_id=1)] * 1_000,
    )
    assert is_good(full)
    assert read_settlement(full.SerializeToString()) is not None
    for more in (
        events_pb2.SubscribeRequest(acknowledgements=[Ack(outcome=Ack.OUTCOME_ACK, offsets=range(10_001))]),
        events_pb2.SubscribeRequest(acknowledgements=[Ack(outcome=Ack.OUTCOME_ACK, offsets=[1])] * 10_001),
        events_pb2.SubscribeRequest(credits=[events_pb2.AddCredit(subscription_id=1)] * 1_001),
    ):
        assert not is_good(more)
        assert read_settlement(more.SerializeToString()) is None


def test_a_message_that_says_nothing_is_plain() -> None:
    found = read_settlement(b"")
    assert found is not None
    assert (found.done, found.credits) == ([], [])
