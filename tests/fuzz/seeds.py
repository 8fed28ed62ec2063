"""Make the committed corpus: PYTHONPATH=tests .venv/bin/python -m fuzz.seeds. Needs h2, whose client holds the real
conversations; the corpus itself needs nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from fuzz import frames
from fuzz.script import (
    ACT,
    AGAIN,
    CALL,
    CLOSE,
    CUT,
    DELIVER,
    DROP,
    FINISH,
    FRAME,
    FRUGAL,
    GREETED,
    LARGE,
    LEAVE,
    NOTICE,
    OFFER,
    PATIENCE,
    PING,
    RAW,
    REFUSE,
    REPLY,
    RESET,
    RESPOND,
    SEND,
    SESSION,
    TAKE,
    WAIT,
    WANT_ROOM,
    WRITE,
)

CORPUS = Path(__file__).parent / "corpus"
_ALL_AT_ONCE, _SEND_ALL, _SEND_LITTLE = bytes((DELIVER, 0)), bytes((SEND, 4)), bytes((SEND, 0))


def raw(data: bytes) -> bytes:
    """A step: these bytes, whatever they are."""
    return bytes((RAW,)) + len(data).to_bytes(2) + data


def framed(kind: int, flags: int = 0, stream_id: int = 0, payload: bytes = b"") -> bytes:
    """A step: a frame with this head."""
    return bytes((FRAME, kind, flags, stream_id, len(payload))) + payload


def again(count: int) -> bytes:
    """A step: the last bytes, so many times more."""
    return bytes((AGAIN, count - 1))


def call(bits: int = 0, more: bytes = b"") -> bytes:
    """A step: a call; bits: 1 ends, 2 continues, 4 has a message, 8 which ends it."""
    return bytes((CALL, bits, len(more))) + more


def act(which: int, what: int, size: int = 0) -> bytes:
    """A step: something done to a stream; sizes are places in _SIZES."""
    return bytes((ACT, which, what, size))


def wait(ms: int) -> bytes:
    """A step: time passes."""
    return bytes((WAIT,)) + ms.to_bytes(2)


def conversations() -> Iterator[tuple[str, bytes]]:
    """Scripts of calls that go well, and of owners who do all they can."""
    asked = call(12) + _ALL_AT_ONCE
    room = framed(frames.WINDOW_UPDATE, 0, 0, b"\0\x0f\0\0") + framed(frames.SETTINGS, 0, 0, b"\0\x04\0\x0f\0\0")
    begun = room + asked + _SEND_ALL
    yield "unary", asked + act(0, TAKE) + act(0, WRITE, 2) + act(0, FINISH) + _SEND_ALL
    yield "reply", asked + act(0, TAKE) + act(0, REPLY, 3) + _SEND_ALL
    yield "status", asked + act(0, FINISH, 3) + _SEND_ALL
    yield "refused", call(0) + _ALL_AT_ONCE + act(0, REFUSE) + _SEND_ALL + framed(0, 1, 1, b"late") + _ALL_AT_ONCE
    yield "stream", begun + act(0, RESPOND) + (act(0, OFFER, 3) + act(0, WANT_ROOM, 2) + _SEND_ALL) * 3 + act(0, FINISH)
    yield "dropped", begun + act(0, WRITE, 6) * 2 + _SEND_LITTLE * 6 + act(0, DROP) + act(0, FINISH, 1) + _SEND_ALL
    yield (
        "dropped_small",
        begun + act(0, WRITE, 4) * 9 + _SEND_LITTLE * 6 + act(0, DROP) + act(0, FINISH, 1) + _SEND_ALL,
    )
    yield "patient", begun + act(0, PATIENCE, 3) + act(0, OFFER, 4) * 4 + _SEND_ALL + act(0, FINISH) + _SEND_ALL
    half_sent = begun + act(0, WRITE, 6) + _SEND_LITTLE * 6
    yield "reset_half_sent", half_sent + act(0, RESET, 2) + _SEND_ALL
    yield "peer_resets", half_sent + framed(3, 0, 1, b"\0\0\0\x08") + _ALL_AT_ONCE + act(0, DROP) + _SEND_ALL
    yield "bytewise", call(14) + bytes((DELIVER, 1)) + act(0, TAKE) + act(0, FINISH) + _SEND_ALL
    yield (
        "leaves",
        asked + bytes((SESSION, NOTICE, SESSION, PING)) + _SEND_ALL + bytes((SESSION, LEAVE)) + call(1) + _ALL_AT_ONCE,
    )
    yield "cut", asked + bytes((SESSION, CUT)) + call(12) + _ALL_AT_ONCE + act(0, FINISH) + _SEND_ALL
    yield "closed", asked + bytes((SESSION, CLOSE)) + act(0, WRITE, 3) + _SEND_ALL
    yield (
        "many_messages",
        call(4) + framed(0, 0, 1, frames.message(b"x" * 50)) + again(9) + _ALL_AT_ONCE + act(0, TAKE) * 9,
    )
    yield "late_call", bytes((SESSION, LEAVE)) + _SEND_ALL + call(1) + _ALL_AT_ONCE + wait(20_000) + _SEND_ALL


def attacks() -> Iterator[tuple[str, bytes]]:
    """Scripts of floods and malformed frames."""
    opened = call(0) + _ALL_AT_ONCE
    yield "rapid_reset", (call(1) + framed(frames.RST_STREAM, 0, 1, b"\0\0\0\x08")) * 3 + _ALL_AT_ONCE + _SEND_ALL
    yield "made_to_reset", opened + framed(frames.WINDOW_UPDATE, 0, 1, bytes(4)) + again(12) + _ALL_AT_ONCE + _SEND_ALL
    yield "pings", framed(frames.PING, 0, 0, bytes(8)) + again(200) + _ALL_AT_ONCE + wait(5_000) + _SEND_ALL
    yield "settings", framed(frames.SETTINGS) + again(20) + _ALL_AT_ONCE + _SEND_ALL
    yield "empty_data", opened + framed(frames.DATA, 0, 1) + again(20) + _ALL_AT_ONCE + _SEND_ALL
    yield "padding_alone", opened + framed(frames.DATA, frames.PADDED, 1, b"\0") + again(20) + _ALL_AT_ONCE
    yield "unknown", framed(0x55, 0xFF, 3, b"what") + again(20) + _ALL_AT_ONCE + _SEND_ALL
    yield "priorities", framed(frames.PRIORITY, 0, 3, bytes(5)) + again(20) + _ALL_AT_ONCE
    yield "continuations", framed(frames.HEADERS, 0, 1) + framed(frames.CONTINUATION, 0, 1) + again(20) + _ALL_AT_ONCE
    yield "header_bomb", call(1, b"x:" + b"y" * 200) + again(3) + _ALL_AT_ONCE + _SEND_ALL
    yield (
        "window_0",
        framed(4, 0, 0, b"\0\x04\0\0\0\0") + call(12) * 5 + _ALL_AT_ONCE + act(0, WRITE, 5) + act(1, WRITE, 5),
    )
    yield (
        "window_overflow",
        opened + framed(8, 0, 1, b"\x7f\xff\xff\xff") * 2 + framed(8, 0, 0, b"\x7f\xff\xff\xff") + _ALL_AT_ONCE,
    )
    yield "too_many_streams", call(0) * 10 + _ALL_AT_ONCE + _SEND_ALL
    yield "half_messages", (call(0) + framed(0, 0, 1, b"\0\0\0\1\0" + b"x" * 200)) * 8 + _ALL_AT_ONCE + _SEND_ALL
    yield "claimed", opened + framed(0, 0, 1, b"\0\xff\xff\xff\xff") + _ALL_AT_ONCE + _SEND_ALL
    yield "bad_flag", opened + framed(0, 0, 1, b"\x02\0\0\0\1x") + _ALL_AT_ONCE + act(0, TAKE) + _SEND_ALL
    yield "bad_header", call(1, b"Upper:case") + call(1, b":path:/c") + _ALL_AT_ONCE + _SEND_ALL
    yield "push", framed(frames.PUSH_PROMISE, 4, 1, bytes(4)) + _ALL_AT_ONCE + _SEND_ALL
    yield "goaway", framed(frames.GOAWAY, 0, 0, bytes(8)) + call(1) + _ALL_AT_ONCE + _SEND_ALL
    yield "http_1", raw(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n") + _ALL_AT_ONCE + _SEND_ALL


def spoken_by_h2() -> Iterator[tuple[str, bytes]]:
    """What another implementation's client sends: a call; many at once; one that it breaks off."""
    from h2.config import H2Configuration
    from h2.connection import H2Connection

    names = {"h2_unary": (1, False), "h2_many": (5, False), "h2_broken_off": (3, True)}
    for name, (calls, is_broken_off) in names.items():
        client = H2Connection(H2Configuration(client_side=True))
        client.initiate_connection()
        for number in range(calls):
            stream_id = 1 + 2 * number
            client.send_headers(
                stream_id, [*frames.call_headers(b"/a/b", [(b"grpc-timeout", b"5S"), (b"k-bin", b"AAE")])]
            )
            client.send_data(stream_id, frames.message(b"x" * 40), end_stream=not is_broken_off)
            if is_broken_off:
                client.reset_stream(stream_id, 8)
        client.ping(b"12345678")
        answered = b"".join(act(n, TAKE) + act(n, WRITE, 2) + act(n, FINISH) for n in range(calls))
        yield name, raw(client.data_to_send()) + _ALL_AT_ONCE + answered + _SEND_ALL


def bodies() -> Iterator[tuple[str, bytes]]:
    """Messages in pieces."""
    whole = frames.message(b"one") + frames.message(b"") + frames.message(b"x" * 300, 1)
    yield "whole", b"\xff\0" + whole
    yield "bytewise", b"\0\x03" + whole
    yield "too_long", b"\x10\0" + frames.message(b"one") + frames.message(b"x" * 301)
    yield "bad_flag", b"\x10\x01" + frames.message(b"one") + frames.message(b"one", 2)
    yield "many", b"\x07\x05" + frames.message(b"z") * 150


def fields() -> Iterator[tuple[str, bytes]]:
    """Lines of headers."""
    yield "timeouts", b"grpc-timeout:5S"
    yield "longest_timeout", b"grpc-timeout: 99999999H "
    yield "bad_timeout", b"grpc-timeout:123456789S\ngrpc-timeout:5"
    yield "binary", b"a-bin:AAEC\nb-bin:AAE,AAEC=\nc-bin:!"
    yield "types", b"content-type:application/grpc+proto\nte:trailers, deflate\ngrpc-encoding:gzip"
    yield "http_1", b"GET / HTTP/1.1\r\nhost:a"


def main() -> None:
    """Write the corpus anew."""
    shutil.rmtree(CORPUS, ignore_errors=True)
    scripts = [*conversations(), *attacks()]
    made = {
        "session": [(name, bytes((GREETED,)) + steps) for name, steps in scripts]
        + [(f"{name}_large", bytes((GREETED | LARGE,)) + steps) for name, steps in conversations()]
        + [(f"{name}_frugal", bytes((GREETED | FRUGAL,)) + steps) for name, steps in attacks() if "half" in name]
        + [(name, bytes((LARGE,)) + steps) for name, steps in spoken_by_h2()],
        "inbox": list(bodies()),
        "headers": list(fields()),
    }
    for target, inputs in made.items():
        (CORPUS / target).mkdir(parents=True)
        for name, data in inputs:
            (CORPUS / target / name).write_bytes(data)


if __name__ == "__main__":
    main()
