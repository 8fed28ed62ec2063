"""Bytes as a conversation with a session: what a peer sends, what is answered, and when. What must always hold is asserted
after each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fuzz import frames
from fuzz.answers import Answers

from trunkline.core.http2 import Limits, Session
from trunkline.core.http2_stream import Budget, Stream

LIMITS: Final = Limits(
    streams_max=8,
    header_bytes_max=512,
    message_bytes_max=300,
    stream_window_bytes=70_000,
    connection_window_bytes=100_000,
    unread_bytes_max=600,
    resets_per_s_max=4,
    settings_per_s_max=4,
    empty_frames_per_s_max=4,
    ping_interval_ns_min=1_000_000_000,
)
LIMITS_LARGE: Final = Limits(
    streams_max=100,
    header_bytes_max=16_384,
    message_bytes_max=1 << 20,
    stream_window_bytes=1 << 20,
    connection_window_bytes=1 << 24,
    unread_bytes_max=1 << 20,
    resets_per_s_max=1000,
    settings_per_s_max=1000,
    empty_frames_per_s_max=1000,
    ping_interval_ns_min=0,
)
BUDGET_BYTES: Final = 1_500
GREETED, LARGE, FRUGAL = 1, 2, 4
"""Bits of a script's first byte: the peer has said hello properly; large limits; a small budget for all."""
RAW, FRAME, CALL, AGAIN, DELIVER, WAIT, SEND, ACT, SESSION = range(9)
"""What a step is, by its first byte."""
RESPOND, WRITE, OFFER, FINISH, REFUSE, RESET, TAKE, DROP, WANT_ROOM, PATIENCE, REPLY = range(_ACTS := 11)
"""What may be done to a stream."""
PING, NOTICE, LEAVE, CUT, CLOSE = range(5)
"""What may be done to a session."""
_ALL_BYTES: Final = 256 * 1024
_SIZES: Final = (0, 1, 5, 100, 5_000, 20_000, 70_000)
_SENDS: Final = (1, 10, 1_000, 20_000, _ALL_BYTES)
_STEPS_MAX: Final = 200
_PENDING_MAX: Final = 1 << 16
_PIECES_MAX: Final = 100


class Reader:
    """A script's bytes, one value after another; zeros behind its end."""

    def __init__(self, script: bytes) -> None:
        self._script = script
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._script)

    def number(self) -> int:
        """One byte."""
        self._at += 1
        return self._script[self._at - 1] if self._at <= len(self._script) else 0

    def long(self) -> int:
        """Two bytes."""
        return self.number() << 8 | self.number()

    def text(self, length: int) -> bytes:
        """So many bytes, or as many as there are."""
        found = self._script[self._at : self._at + length]
        self._at += length
        return found


class Conversation:
    """One session, a peer that may send anything, and an owner that may answer anything."""

    def __init__(self, script: bytes) -> None:
        self._script = Reader(script)
        bits = self._script.number()
        self._budget = Budget(BUDGET_BYTES if bits & FRUGAL else 1 << 20)
        self._session = Session(LIMITS_LARGE if bits & LARGE else LIMITS, self._budget)
        self._answers = Answers()
        self._seen: dict[int, Stream] = {}
        self._over: set[int] = set()
        self._pending = bytearray(frames.PREFACE + frames.settings() if bits & GREETED else b"")
        self._last = b""
        self._now_ns = 1_000_000_000
        self._next_id = 1
        self._is_closed = False

    def run(self) -> None:
        """Play the script to its end, then close."""
        steps = 0
        while self._script and steps < _STEPS_MAX:
            self._step(self._script.number() % 9)
            self._check()
            steps += 1
        self._deliver(0)
        self._drain()
        self._check()
        self._close()
        self._act_on_all()
        assert self._budget.used_bytes == 0, self._budget.used_bytes

    def _step(self, kind: int) -> None:
        script = self._script
        if kind == RAW:
            self._queue(script.text(script.long()))
        elif kind == FRAME:
            head = script.number(), script.number(), script.number()
            self._queue(frames.frame(*head, script.text(script.number())))
        elif kind == CALL:
            self._call(script.number(), script.text(script.number()))
        elif kind == AGAIN:
            self._queue(self._last * (1 + script.number()))
        elif kind == DELIVER:
            self._deliver(script.number())
        elif kind == WAIT:
            self._now_ns += script.long() * 1_000_000
        elif kind == SEND:
            self._send(_SENDS[script.number() % len(_SENDS)])
        elif kind == ACT:
            self._act(script.number(), script.number() % _ACTS, script.number())
        else:
            self._act_on_session(script.number() % 5)

    # The peer.

    def _queue(self, data: bytes) -> None:
        self._last = data[:4_096]
        if len(self._pending) < _PENDING_MAX:
            self._pending += data

    def _call(self, bits: int, more: bytes) -> None:
        """A call with one more header: ends with it, or has a continuation, or a message."""
        name, _, value = more.partition(b":")
        fields = frames.block(frames.call_headers(b"/a/b", [(name, value)] if more else []))
        stream_id, self._next_id = self._next_id, self._next_id + 2
        ends = frames.END_STREAM if bits & 1 else 0
        if bits & 2:
            half = frames.frame(frames.HEADERS, ends, stream_id, fields[:20])
            self._queue(half + frames.frame(frames.CONTINUATION, frames.END_HEADERS, stream_id, fields[20:]))
        else:
            self._queue(frames.frame(frames.HEADERS, ends | frames.END_HEADERS, stream_id, fields))
        if bits & 4:
            self._queue(frames.frame(0, frames.END_STREAM if bits & 8 else 0, stream_id, frames.message(bytes(bits))))

    def _deliver(self, piece: int) -> None:
        """Give the session what the peer sent: at once, or in pieces."""
        data, self._pending = bytes(self._pending), bytearray()
        step = piece or max(1, len(data))
        step = max(step, len(data) // _PIECES_MAX)
        for at in range(0, max(1, len(data)), step):
            self._receive(data[at : at + step])

    def _receive(self, data: bytes) -> None:
        session = self._session
        was_cut, held = session.cut_by, self._budget.used_bytes
        changed = session.receive(data, self._now_ns)
        identities = [stream.id for stream in changed]
        assert len(set(identities)) == len(identities), "a stream is reported twice"
        for stream in changed:
            assert self._seen.setdefault(stream.id, stream) is stream or was_cut, "a stream's number is used again"
            assert stream.id not in self._over, "a stream is reported after its end"
            assert stream.is_requested, "a stream is reported before its headers"
            if stream.is_closed:
                self._over.add(stream.id)
        if was_cut or self._is_closed:
            assert session.cut_by == was_cut
            assert self._budget.used_bytes <= held, "something is taken in after the cut"
            assert all(stream.is_closed for stream in changed), "something new is reported after the cut"

    # The owner.

    def _send(self, limit: int) -> bytes:
        data = self._session.send(limit)
        assert len(data) <= limit + 2 * 16_384 + 9 or limit < 20_000, "more is given than was asked for"
        self._answers.take(data)
        relieved = self._session.relieved()
        assert len(set(map(id, relieved))) == len(relieved)
        return data

    def _drain(self) -> None:
        """Everything that can go, goes."""
        for _ in range(1_000):
            if not self._send(_ALL_BYTES):
                break
        else:
            raise AssertionError("sending never ends")
        assert not self._send(_ALL_BYTES)

    def _act(self, which: int, what: int, size: int) -> None:
        streams = list(self._seen.values())
        if streams:
            self._act_on(streams[which % len(streams)], what, _SIZES[size % len(_SIZES)])

    def _act_on(self, stream: Stream, what: int, size: int) -> None:
        simple: dict[int, Callable[[], object]] = {
            WRITE: lambda: stream.write(bytes(size)),
            REPLY: lambda: stream.reply(bytes(size)),
            OFFER: lambda: stream.offer([b"x" * size, b"y" * (size // 2)]),
            FINISH: lambda: stream.finish([(b"grpc-status", b"%d" % (size % 17))] if size else None),
            RESET: lambda: stream.reset(size % 14),
            TAKE: stream.take,
            DROP: stream.drop_pending,
            WANT_ROOM: lambda: stream.want_room(size),
        }
        if what in simple:
            simple[what]()
        elif what == PATIENCE:
            stream.piece_message_bytes_max = max(1, size)
        else:
            had, waits = stream.has_responded, stream.pending_bytes
            try:
                stream.respond() if what == RESPOND else stream.refuse([(b":status", b"415")])
            except ValueError:
                assert had
            else:
                assert not had
                assert stream.pending_bytes == waits

    def _act_on_session(self, what: int) -> None:
        session = self._session
        if what == CLOSE:
            self._close()
        elif what == PING:
            session.ping(b"12345678")
        elif what == NOTICE:
            session.give_notice()
        elif what == LEAVE:
            session.leave()
        else:
            session.cut("by script")

    def _close(self) -> None:
        self._is_closed = True
        left = self._session.close()
        assert all(stream.is_closed for stream in left)

    def _act_on_all(self) -> None:
        """Streams outlive their session, and whatever is done to them does nothing."""
        for stream in self._seen.values():
            assert stream.is_closed
            for what in range(_ACTS):
                self._act_on(stream, what, 100)
        self._drain()

    def _check(self) -> None:
        session = self._session
        held = sum(s.inbox.unread_bytes + s.inbox.partial_bytes for s in session.streams.values())
        assert self._budget.used_bytes == held, (self._budget.used_bytes, held)
        for stream_id, stream in session.streams.items():
            assert stream.id == stream_id
            assert not stream.is_closed
        assert len(session.streams) <= session.limits.streams_max
        if not session.wants_write and not session.error:
            assert not self._send(_ALL_BYTES)


def converse(script: bytes) -> None:
    """Play one script. AssertionError when something does not hold."""
    Conversation(script).run()
