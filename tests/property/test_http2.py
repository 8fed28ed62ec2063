"""The session against hyper-h2's client, an implementation that shares nothing with it, over pipes cut at any place."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference.framing import Inbox as ReferenceInbox
from reference.framing import framed
from trunkline.core.http2 import BAD_PREFACE, Limits, Session
from trunkline.core.http2_stream import TIMEOUT_MALFORMED_NS, TIMEOUT_NONE_NS, Budget, Stream
from trunkline.core.http2_wire import Wire

S = 1_000_000_000
LIMITS: dict[str, Any] = {
    "streams_max": 100,
    "header_bytes_max": 4_096,
    "message_bytes_max": 100_000,
    "stream_window_bytes": 65_535,
    "connection_window_bytes": 1 << 20,
    "unread_bytes_max": 1 << 20,
    "resets_per_s_max": 100,
    "settings_per_s_max": 10,
    "empty_frames_per_s_max": 20,
    "ping_interval_ns_min": 5 * S,
}


def headers(path: str = "/test.Echo/Say", **more: str) -> list[tuple[str, str]]:
    named = {"content-type": "application/grpc", "te": "trailers", **{k.replace("_", "-"): v for k, v in more.items()}}
    return [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"), *named.items()]


def text_of(given: Any) -> dict[str, str]:
    """Headers as text, which the client was configured to give."""
    return dict(given)


class Pair:
    """A client and a session, and what each has heard of the other."""

    def __init__(self, budget_bytes: int = 1 << 30, client_window: int = 65_535, **limits: Any) -> None:
        self.budget = Budget(budget_bytes)
        self.session = Session(Limits(**{**LIMITS, **limits}), self.budget)
        self.client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.client.local_settings = h2.settings.Settings(
            client=True, initial_values={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: client_window}
        )
        self.client.initiate_connection()
        self.now_ns = S
        self.reads = True
        self.data: dict[int, bytes] = defaultdict(bytes)
        self.heads: dict[int, dict[str, str]] = {}
        self.trailers: dict[int, dict[str, str]] = {}
        self.resets: dict[int, int] = {}
        self.goaway: tuple[int, bytes] | None = None
        self.changed: list[Stream] = []

    def turn(self, cut: int = 0, send_bytes: int = 1 << 18) -> list[Stream]:
        """Exchange what both have to say, in pieces of `cut` bytes; the streams that changed."""
        news: list[Stream] = []
        while True:
            out = self.client.data_to_send()
            pieces = [out[i : i + cut] for i in range(0, len(out), cut)] if cut else [out]
            for piece in pieces:
                news += self.session.receive(piece, self.now_ns)
            back = b""
            while part := self.session.send(send_bytes):
                back += part
            for event in self.client.receive_data(back):
                self._hear(event)
            if not out and not back:
                self.changed += news
                return news

    def _hear(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.DataReceived):
            self.data[event.stream_id] += event.data
            if self.reads and event.flow_controlled_length:
                self.client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.ResponseReceived):
            self.heads[event.stream_id] = text_of(event.headers)
            if event.stream_ended is not None:
                self.trailers[event.stream_id] = text_of(event.headers)
        elif isinstance(event, h2.events.TrailersReceived):
            self.trailers[event.stream_id] = text_of(event.headers)
        elif isinstance(event, h2.events.StreamReset):
            self.resets[event.stream_id] = event.error_code
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = (int(event.error_code or 0), event.additional_data or b"")

    def call(self, body: bytes | None = None, end: bool = True, **more: str) -> Stream:
        """A request, with one message or none; its stream as the server sees it."""
        number = self.client.get_next_available_stream_id()
        self.client.send_headers(number, headers(**more), end_stream=end and body is None)
        if body is not None:
            data = framed(body)
            parts = [data[at : at + 16_384] for at in range(0, len(data), 16_384)]
            for part in parts:
                self.client.send_data(number, part, end_stream=end and part is parts[-1])
        self.turn()
        return self.session.streams[number]

    def messages(self, number: int) -> list[bytes]:
        """What came on a stream, whole."""
        inbox = ReferenceInbox(1 << 30)
        inbox.feed(self.data[number])
        messages, rest, fault = inbox.read()
        assert (rest, fault) == (b"", "")
        return [message for _, message in messages]


def test_a_call_with_everything() -> None:
    pair = Pair()
    stream = pair.call(b"hello", grpc_timeout="20m", grpc_encoding="gzip", x_a=" 1 ", grpc_accept_encoding="gzip")
    assert (stream.path, stream.is_grpc, stream.has_te, stream.method) == (b"/test.Echo/Say", True, True, None)
    assert (stream.timeout_ns, stream.encoding, stream.accept_encoding) == (20_000_000, b"gzip", b"gzip")
    assert (b"x-a", b"1") in stream.headers
    assert stream.is_requested
    assert stream.is_ended
    assert stream.take() == b"hello"
    assert stream.take() is None
    stream.respond([(b"x-b", b"2")])
    stream.write(b"world")
    stream.write(b"", True)
    stream.finish([(b"grpc-status", b"5"), (b"grpc-message", b"no")])
    pair.turn()
    assert pair.heads[stream.id][":status"] == "200"
    assert pair.heads[stream.id]["x-b"] == "2"
    assert pair.data[stream.id] == framed(b"world") + framed(b"", True)
    assert pair.trailers[stream.id] == {"grpc-status": "5", "grpc-message": "no"}
    assert stream.is_closed
    assert not pair.session.streams
    assert pair.budget.used_bytes == 0


@given(
    st.lists(st.lists(st.binary(max_size=30_000), max_size=4), min_size=1, max_size=6),
    st.integers(0, 50),
    st.integers(100, 100_000),
    st.integers(1, 90_000),
)
@settings(max_examples=60, deadline=None)
def test_messages_arrive_whole_and_in_order_both_ways(
    calls: list[list[bytes]], cut: int, send_bytes: int, window: int
) -> None:
    pair = Pair(client_window=window)
    numbers = []
    for _ in calls:
        numbers.append(number := pair.client.get_next_available_stream_id())
        pair.client.send_headers(number, headers())
    waiting = {number: b"".join(map(framed, sent)) for number, sent in zip(numbers, calls, strict=True)}
    taken: dict[int, list[bytes]] = defaultdict(list)
    streams: dict[int, Stream] = {}
    answered: set[int] = set()
    while len(answered) < len(calls):
        for number in list(waiting):
            size = min(pair.client.local_flow_control_window(number), pair.client.max_outbound_frame_size)
            part, waiting[number] = waiting[number][:size], waiting[number][size:]
            pair.client.send_data(number, part, end_stream=not waiting[number])
            if not waiting[number]:
                del waiting[number]
        for stream in pair.turn(cut, send_bytes):
            streams[stream.id] = stream
        for number, stream in streams.items():
            while (message := stream.take()) is not None:
                assert isinstance(message, bytes)
                taken[number].append(message)
                stream.write(message)
            if stream.is_ended and number not in answered:
                answered.add(number)
                stream.finish()
    pair.turn(cut, send_bytes)
    for number, sent in zip(numbers, calls, strict=True):
        assert taken[number] == sent
        assert pair.messages(number) == sent
        assert pair.trailers[number]["grpc-status"] == "0"
    assert pair.budget.used_bytes == 0
    assert not pair.session.cut_by


@given(st.text(alphabet="0123456789HMSmunx ", max_size=10))
def test_timeouts_are_1_to_8_digits_and_a_unit(text: str) -> None:
    units = {"H": 3600 * S, "M": 60 * S, "S": S, "m": 1_000_000, "u": 1_000, "n": 1}
    stream = Pair().call(b"", grpc_timeout=text)
    stripped = text.strip(" ")
    digits, unit = stripped[:-1], stripped[-1:]
    if 1 <= len(digits) <= 8 and digits.isdigit() and unit in units:
        assert stream.timeout_ns == int(digits) * units[unit]
    else:
        assert stream.timeout_ns == TIMEOUT_MALFORMED_NS


def test_without_a_timeout_there_is_none() -> None:
    assert Pair().call(b"").timeout_ns == TIMEOUT_NONE_NS


def test_a_peer_that_does_not_read_gets_its_window_and_no_more() -> None:
    pair = Pair(client_window=1_000)
    pair.reads = False
    stream = pair.call(b"")
    assert stream.write(bytes(5_000)) == 5_005
    stream.want_room(2_000)
    pair.turn()
    assert len(pair.data[stream.id]) == 1_000
    assert stream.pending_bytes == 4_005
    assert pair.session.relieved() == []
    pair.client.increment_flow_control_window(2_500, stream.id)
    pair.turn()
    assert pair.session.relieved() == [stream]
    assert pair.session.relieved() == []
    assert stream.sent_bytes == 3_500


def test_what_is_unread_fills_the_streams_window_and_reading_opens_it() -> None:
    pair = Pair(stream_window_bytes=10_000)
    stream = pair.call(bytes(995), end=False)
    window = pair.client.local_flow_control_window
    while window(stream.id) >= 1_000:
        pair.client.send_data(stream.id, framed(bytes(995)))
        pair.turn()
    assert stream.inbox.unread_bytes >= 8_000
    assert window(stream.id) < 1_000
    other = pair.call(bytes(995))
    assert other.take() == bytes(995)  # the connection's window is not used up
    while stream.take() is not None:
        pass
    pair.turn()
    assert window(stream.id) >= 9_000


def test_a_message_longer_than_the_window_comes_through() -> None:
    pair = Pair(stream_window_bytes=10_000)
    stream = pair.call(None, end=False)
    data = framed(bytes(90_000))
    while data:
        size = min(pair.client.local_flow_control_window(stream.id), 16_384)
        assert size > 0
        pair.client.send_data(stream.id, data[:size])
        data = data[size:]
        pair.turn()
    assert stream.take() == bytes(90_000)


def test_streams_take_turns() -> None:
    pair = Pair(client_window=1 << 20)
    streams = [pair.call(b"") for _ in range(4)]
    for stream in streams:
        stream.write(bytes(100_000))
    for event in pair.client.receive_data(pair.session.send(80_000)):
        pair._hear(event)
    assert {len(pair.data[stream.id]) > 0 for stream in streams} == {True}


def test_over_budget_the_call_is_told_and_its_bytes_are_let_go() -> None:
    pair = Pair(unread_bytes_max=50_000)
    stream = pair.call(bytes(40_000), end=False)
    other = pair.call(bytes(15_000), end=False)
    assert not stream.is_over_budget
    assert other.is_over_budget
    other.finish([(b"grpc-status", b"8")])
    pair.turn()
    assert pair.trailers[other.id]["grpc-status"] == "8"
    assert pair.resets[other.id] == 0  # NO_ERROR: it need not send the rest
    assert pair.budget.used_bytes == 40_000


@pytest.mark.parametrize("ends", ["rst", "goes"])
def test_a_call_that_is_broken_off_is_told_once(ends: str) -> None:
    pair = Pair()
    stream = pair.call(bytes(100), end=False)
    if ends == "rst":
        pair.client.reset_stream(stream.id, 8)
        assert pair.turn() == [stream]
    else:
        assert pair.session.close() == [stream]
    assert stream.is_closed
    assert stream.reset_code == 8
    assert pair.budget.used_bytes == 0
    assert stream.write(b"into nowhere") == 0
    stream.finish()


def test_a_refusal_is_one_block_and_the_rest_of_the_request_is_not_wanted() -> None:
    pair = Pair()
    stream = pair.call(bytes(10), end=False)
    stream.refuse([(b":status", b"415"), (b"grpc-status", b"13")])
    pair.turn()
    assert pair.heads[stream.id] == {":status": "415", "grpc-status": "13"}
    assert pair.resets[stream.id] == 0
    with pytest.raises(ValueError, match="sent"):
        stream.refuse([(b":status", b"200")])


def test_large_headers_are_told_and_enormous_ones_cut() -> None:
    pair = Pair()
    stream = pair.call(b"", x_large="y" * 5_000)
    assert stream.headers_too_large
    assert len(stream.headers) < 5
    pair = Pair()
    number = pair.client.get_next_available_stream_id()
    pair.client.send_headers(number, headers(x_large="y" * 17_000))
    assert pair.turn() == []
    assert pair.session.cut_by == "header_bytes_max"
    assert pair.goaway == (11, b"header_bytes_max")


def test_headers_that_cannot_be_sent_do_not_leave_the_peer_waiting() -> None:
    pair = Pair()
    stream = pair.call(b"")
    stream.finish([(b"grpc-status", b"2"), (b"grpc-message", b"m" * 70_000)])
    pair.turn()
    assert pair.resets == {stream.id: 2}
    other = pair.call(b"")
    other.respond([(b"x", b"y" * 70_000)])
    other.write(b"hello")
    pair.turn()
    assert pair.resets[other.id] == 2
    assert not pair.session.streams


def test_leaving_lets_open_calls_end_and_takes_no_more() -> None:
    pair = Pair()
    stream = pair.call(b"", end=True)
    pair.session.give_notice()
    pair.turn()
    assert pair.goaway == (0, b"")
    pair.session.leave()
    stream.write(b"still")
    stream.finish()
    assert framed(b"still") in pair.session.send(10_000)  # to hyper-h2 everything is over with the first GOAWAY
    assert stream.is_closed
    assert pair.session.is_over


def test_pings_are_for_silent_connections() -> None:
    pair = Pair()
    stream = pair.call(b"")
    for number in range(3):
        pair.now_ns += 6 * S
        pair.client.ping(b"%08d" % number)
        pair.turn()
    for number in range(20):  # between answers any number may come
        pair.client.ping(b"%08d" % number)
        stream.write(b"x")
        pair.turn()
    assert pair.goaway is None
    for number in range(4):
        pair.client.ping(b"%08d" % number)
        pair.turn()
    assert pair.session.cut_by == "too_many_pings"
    assert pair.goaway == (11, b"too_many_pings")


def test_our_pings_are_counted_when_answered() -> None:
    pair = Pair()
    pair.session.ping(b"are you?")
    pair.turn()
    assert pair.session.pings_answered == 1
    with pytest.raises(ValueError, match="8 bytes"):
        pair.session.ping(b"short")


def test_who_does_not_speak_http_2_is_noticed() -> None:
    session = Session(Limits(**LIMITS), Budget(1))
    assert session.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", S) == []
    assert session.error == BAD_PREFACE
    assert session.is_over


def test_a_session_begins_once_and_streams_are_its_own() -> None:
    pair = Pair()
    assert isinstance(pair.session, Wire)
    with pytest.raises(TypeError):
        pair.session.__init__(pair.session.limits, pair.budget)
    with pytest.raises(TypeError):
        Stream()
