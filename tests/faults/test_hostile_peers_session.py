"""What a peer may do to one session, byte by byte and without a network: it is told, and what it costs is bounded."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from fuzz import frames
from fuzz.frames import Frame
from integration.echo_server import SAY, Echo
from leaks import live_counts

from trunkline.core.http2 import Limits, Session
from trunkline.core.http2_stream import Budget, Stream
from trunkline.core.nghttp2_memory import blocks
from trunkline.server.transport.config import TransportConfig
from trunkline.server.transport.native.connection import Connection
from trunkline.server.transport.native.deadlines import Deadlines
from trunkline.server.transport.native.server import NativeServer

S = 1_000_000_000
HELLO = frames.PREFACE + frames.settings((frames.INITIAL_WINDOW_SIZE, 1 << 20)) + frames.window_update(0, 1 << 24)


def new_session(**more: Any) -> Session:
    bounds: dict[str, Any] = {
        "streams_max": 100,
        "header_bytes_max": 16_384,
        "message_bytes_max": 1 << 20,
        "stream_window_bytes": 1 << 20,
        "connection_window_bytes": 1 << 24,
        "unread_bytes_max": 1 << 20,
        "resets_per_s_max": 1_000,
        "settings_per_s_max": 50,
        "empty_frames_per_s_max": 1_000,
        "ping_interval_ns_min": 0,
    }
    session = Session(Limits(**bounds | more), Budget(1 << 24))
    assert session.receive(HELLO, S) == []
    sent(session)
    return session


def sent(session: Session) -> list[Frame]:
    """All that goes out now."""
    buffer = bytearray()
    while data := session.send(1 << 20):
        buffer += data
    return list(frames.parsed(buffer))


def kinds(found: list[Frame]) -> list[int]:
    return [frame.kind for frame in found]


def called(session: Session, stream_id: int = 1) -> Stream:
    (stream,) = session.receive(frames.call(stream_id, b"/a/b"), S)
    return stream


def with_a_frame_begun(session: Session, body: bytes, times: int) -> Stream:
    """A stream whose next frame of data has its length already, but whose bytes have not gone."""
    stream = called(session)
    for _ in range(times):
        stream.write(body)
    while (data := session.send(1))[3:4] != b"\0":
        assert data
    return stream


def test_a_stream_that_is_reset_within_a_frame_ends() -> None:
    session = new_session()
    with_a_frame_begun(session, bytes(60_000), 2).reset(8)
    assert frames.RST_STREAM in kinds(sent(session))
    assert session.streams == {}


def test_what_is_dropped_within_a_frame_ends_with_a_whole_message() -> None:
    session = new_session()
    stream = with_a_frame_begun(session, bytes(3_000), 40)
    stream.drop_pending()
    stream.finish([(b"grpc-status", b"8")])
    rest = sent(session)
    assert rest[-2].flags & frames.END_STREAM
    assert (stream.sent_bytes % 3_005, stream.pending_bytes) == (0, 0)


def test_headers_that_nobody_waits_for_leave_no_clock_running() -> None:
    leaving = new_session()
    called(leaving)
    leaving.leave()
    sent(leaving)
    assert leaving.receive(frames.call(3, b"/a/b"), 2 * S) == []  # on its way when it was told to go
    assert leaving.headers_since_ns == 0

    refusing = Session(new_session(streams_max=1).limits, Budget(1))
    refusing.receive(HELLO + frames.call(1, b"/a/b") + frames.call(3, b"/a/b"), 2 * S)  # the limit is not yet known
    assert refusing.headers_since_ns == 0

    malformed = new_session()
    malformed.receive(frames.call(1, b"/a/b", more=[(b"Upper", b"")]), 2 * S)
    assert malformed.headers_since_ns == 0


def test_headers_that_come_slowly_have_a_clock() -> None:
    half = frames.headers(1, frames.call_headers(b"/a/b"))[:30]
    session = new_session()
    session.receive(half, 2 * S)
    assert session.headers_since_ns == 2 * S
    in_two = new_session()
    in_two.receive(frames.headers(1, frames.call_headers(b"/a/b"), is_whole=False), 2 * S)
    assert in_two.headers_since_ns == 2 * S
    in_two.receive(frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1), 3 * S)
    assert in_two.headers_since_ns == 0
    trailers = new_session()
    called(trailers)
    trailers.receive(frames.headers(1, [(b"x", b"y")], ends=True, is_whole=False), 2 * S)
    assert trailers.headers_since_ns == 2 * S
    trailers.streams[1].reset(8)
    sent(trailers)
    assert trailers.headers_since_ns == 0


def test_a_peer_that_makes_answers_and_takes_none_is_cut() -> None:
    """As slowly as the limits allow: calls above the limit, of which it does not say that it has heard, are refused."""
    session = Session(new_session(streams_max=1, resets_per_s_max=100).limits, Budget(1))
    session.receive(HELLO + frames.call(1, b"/a/b"), S)
    refused = 0
    while not session.cut_by and refused < 20_000:
        opened = b"".join(frames.call(3 + 2 * (refused + more), b"/a/b") for more in range(90))
        session.receive(opened, (2 + refused // 90) * S)
        refused += 90
    assert session.cut_by == "unsent_frames_max"
    assert sent(session)[-1].kind == frames.GOAWAY


def test_data_that_is_padding_alone_is_empty() -> None:
    session = new_session(empty_frames_per_s_max=10)
    called(session)
    padding = frames.frame(frames.DATA, frames.PADDED, 1, b"\x03\0\0\0")
    cut_by = []
    for _ in range(21):
        session.receive(padding, S)
        cut_by.append(session.cut_by)
    assert cut_by == [""] * 20 + ["empty_frames_per_s_max"]


@pytest.mark.parametrize(
    ("flood", "limit"),
    [
        (frames.frame(frames.PING, payload=bytes(8)) * 15_000, "too_many_pings"),
        (frames.settings() * 15_000, "settings_per_s_max"),
        (
            frames.headers(1, frames.call_headers(b"/a/b"), is_whole=False)
            + frames.frame(frames.CONTINUATION, 0, 1, frames.block([(b"a", b"b")])) * 1_000,
            "continuations_max",
        ),
    ],
    ids=["pings", "settings", "continuations"],
)
def test_a_flood_in_one_piece_is_told_why(flood: bytes, limit: str) -> None:
    """The library gives up in the middle of it; what it had to say before still goes out."""
    session = new_session(ping_interval_ns_min=5 * S)
    session.receive(flood, 2 * S)
    assert session.cut_by == limit
    told = [frame for frame in sent(session) if frame.kind == frames.GOAWAY]
    assert [(frame.number, frame.payload[8:]) for frame in told][:1] == [(frames.ENHANCE_YOUR_CALM, limit.encode())]


def test_a_session_lives_as_long_as_its_streams() -> None:
    """Whoever forgets to close it must not write where it was."""
    stream = called(new_session())
    assert live_counts()["Session"] == 1
    stream.write(b"x")
    stream.reset(8)
    del stream
    assert live_counts()["Session"] == 0


@dataclass
class Wire:
    """A transport whose peer reads nothing."""

    connection: Connection
    written: list[bytes] = field(default_factory=list)
    is_closed: bool = False

    def get_extra_info(self, name: str) -> Any:
        return ("192.0.2.1", 1) if name == "peername" else None

    def set_write_buffer_limits(self, high: int) -> None: ...

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.is_closed = True

    abort = close


async def connected(**config: Any) -> tuple[NativeServer, Connection, Wire]:
    server = NativeServer(TransportConfig(**config))
    server.add_generic_rpc_handlers((Echo("a"),))
    await server.start()
    connection = Connection(server, 1)
    wire = Wire(connection)
    connection.connection_made(cast("asyncio.Transport", wire))
    connection.data_received(HELLO)
    return server, connection, wire


async def disconnected(server: NativeServer, connection: Connection) -> None:
    connection.connection_lost(None)
    await server.stop(None)


async def test_a_refused_call_is_not_begun_again_by_what_follows() -> None:
    server, connection, _ = await connected()
    connection.pause_writing()
    connection.data_received(frames.headers(1, frames.call_headers(SAY.encode())[:-1]))  # without its content-type
    connection.data_received(frames.data(1, frames.message(b"x"), ends=True))
    connection.resume_writing()
    await disconnected(server, connection)


async def test_a_connection_that_is_cut_counts_once() -> None:
    server, connection, wire = await connected(settings_per_s_max=1)
    connection.data_received(frames.settings() * 10)
    assert wire.is_closed
    for _ in range(3):
        connection.want_flush()
        await asyncio.sleep(0)
    assert server.counts.cut == {"settings_per_s_max": 1}
    await disconnected(server, connection)


async def test_metadata_that_is_no_base64_is_the_peers_fault(caplog: pytest.LogCaptureFixture) -> None:
    server, connection, wire = await connected()
    connection.data_received(frames.call(1, SAY.encode(), b"x", [(b"a-bin", b"!")]))
    assert b"\x0213" in b"".join(wire.written), "not INTERNAL"
    assert caplog.records == []
    await disconnected(server, connection)


@dataclass(eq=False)
class Due:
    """A call with a deadline."""

    tick: int = 0

    def expire(self) -> None: ...


async def test_deadlines_of_calls_that_are_over_cost_nothing() -> None:
    """A peer names far deadlines, each another, and breaks its calls off."""
    deadlines = Deadlines(asyncio.get_running_loop())
    kept = [Due() for _ in range(100)]
    for number in range(100_000):
        call: Any = kept[number // 1_000] if number % 1_000 == 0 else Due()
        deadlines.begin(call, 1_000_000.0 + number)
        if number % 1_000:
            deadlines.end(call)
    assert len(deadlines._ticks) == len(deadlines._calls) < 4_000
    assert all(cast("Any", call) in deadlines._calls[call.tick] for call in kept)
    deadlines.close()


@pytest.mark.parametrize("is_closed", [True, False])
def test_nothing_of_a_session_stays_in_the_library(is_closed: bool) -> None:
    gc.collect()
    before = blocks()
    session = new_session()
    streams = [called(session, 1 + 2 * number) for number in range(20)]
    for stream in streams[:10]:
        stream.write(bytes(100_000))
    for stream in streams[5:15]:
        stream.finish([(b"grpc-status", b"5")])
    sent(session)
    assert blocks() > before + 20
    if is_closed:
        session.close()
    del session, streams, stream
    gc.collect()
    assert blocks() == before


def test_a_priority_of_no_stream_is_an_error_of_the_connection() -> None:
    session = new_session()
    stream = called(session)
    session.receive(frames.frame(frames.PRIORITY, 0, 0, b"\0\0\0\3\0"), S)
    assert [frame.number for frame in sent(session) if frame.kind == frames.GOAWAY] == [frames.PROTOCOL_ERROR]
    assert session.is_over
    assert not stream.is_finished
