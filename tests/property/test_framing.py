"""Messages come together from any pieces, and go out in any, as the oracle has it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reference import framing as reference
from trunkline.core.framing import PREFIX_BYTES, Compressed, Inbox, Outbox

MESSAGE_MAX = 200


def cut(data: bytes, at: list[int]) -> list[bytes]:
    places = sorted({min(place, len(data)) for place in at} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(places)]


messages = st.lists(st.tuples(st.booleans(), st.binary(max_size=MESSAGE_MAX)), max_size=8)
places = st.lists(st.integers(0, 900), max_size=12)


@given(messages, places, st.integers(0, 10))
def test_messages_come_as_they_were_sent(sent: list[tuple[bool, bytes]], at: list[int], take_every: int) -> None:
    inbox, oracle = Inbox(MESSAGE_MAX), reference.Inbox(MESSAGE_MAX)
    taken: list[tuple[bool, bytes]] = []
    data = b"".join(reference.framed(message, flag) for flag, message in sent)
    for index, piece in enumerate(cut(data, at)):
        before = len(oracle.read()[0])
        oracle.feed(piece)
        whole, rest, _ = oracle.read()
        assert inbox.feed(piece) == len(whole) - before
        assert len(inbox) == len(whole) - len(taken)
        assert inbox.unread_bytes == sum(len(message) for _, message in whole[len(taken) :])
        assert inbox.partial_bytes == max(0, len(rest) - PREFIX_BYTES)
        assert inbox.is_between == (not rest)
        if take_every and index % take_every == 0:
            taken += taken_of(inbox)
    taken += taken_of(inbox)
    assert taken == sent
    assert inbox.take() is None
    assert inbox.unread_bytes == 0


def taken_of(inbox: Inbox) -> list[tuple[bool, bytes]]:
    found = []
    while (message := inbox.take()) is not None:
        found.append((True, message.data) if isinstance(message, Compressed) else (False, message))
    return found


@given(st.binary(max_size=600), places)
@example(b"\x00\x00\x00\x00\xc9" + bytes(201), [5])
@example(b"\x02\x00\x00\x00\x01x", [1])
def test_any_bytes_give_the_messages_before_the_first_fault(data: bytes, at: list[int]) -> None:
    inbox, oracle = Inbox(MESSAGE_MAX), reference.Inbox(MESSAGE_MAX)
    for piece in cut(data, at):
        inbox.feed(piece)
        oracle.feed(piece)
    whole, rest, fault = oracle.read()
    assert taken_of(inbox) == whole
    assert inbox.fault == {"": 0, "flag": 1, "long": 2}[fault]
    assert inbox.too_long_bytes == (int.from_bytes(rest[1:5]) if fault == "long" else 0)


def test_room_grows_with_what_has_come_and_a_long_message_is_whole() -> None:
    inbox = Inbox(1 << 24)
    message = bytes(range(256)) * 12_000
    data = reference.framed(message)
    for start in range(0, len(data), 16_384):
        inbox.feed(data[start : start + 16_384])
    assert inbox.take() == message


steps = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.binary(max_size=40), st.booleans()),
        st.tuples(st.just("offer"), st.binary(max_size=40)),
        st.tuples(st.just("pull"), st.integers(0, 120)),
    ),
    max_size=60,
)


@given(steps)
def test_what_goes_out_is_what_went_in(script: list[tuple[object, ...]]) -> None:
    outbox, oracle = Outbox(), reference.Outbox()
    for name, *values in script:
        if name == "pull":
            assert outbox.pull(*values, 50) == oracle.pull(*values, 50)  # type: ignore[arg-type, call-arg]
        else:
            getattr(outbox, str(name))(*values)
            getattr(oracle, str(name))(*values)
        assert outbox.framed_bytes == len(oracle._framed)
        assert outbox.piece_bytes == sum(map(len, oracle._pieces))


@given(steps, st.integers(0, 200))
def test_what_is_dropped_leaves_the_rest_of_a_message_that_has_begun(
    script: list[tuple[object, ...]], more: int
) -> None:
    outbox, sent = Outbox(), b""
    for name, *values in script:
        result = outbox.pull(*values, 50) if name == "pull" else getattr(outbox, str(name))(*values)  # type: ignore[arg-type, call-arg]
        sent += result or b""
    outbox.drop()
    assert outbox.piece_bytes == 0
    while rest := outbox.pull(more or 7, 50):
        sent += rest
    oracle = reference.Inbox(1 << 20)
    oracle.feed(sent)
    assert oracle.read()[1:] == (b"", "")
    outbox.push(b"later")
    assert outbox.pull(100, 50) == reference.framed(b"later")


def test_a_body_is_kept_by_reference() -> None:
    import sys

    body = bytes(100_000)
    before = sys.getrefcount(body)
    boxes = [Outbox() for _ in range(10)]
    for outbox in boxes:
        outbox.offer(body)
    assert sys.getrefcount(body) == before + 10
    for outbox in boxes:
        outbox.clear()
    assert sys.getrefcount(body) == before


@pytest.mark.parametrize("bad", [None, "text", 3])
def test_only_bytes_go_in(bad: object) -> None:
    with pytest.raises(TypeError):
        Outbox().push(bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Inbox(10).feed(bad)  # type: ignore[arg-type]
