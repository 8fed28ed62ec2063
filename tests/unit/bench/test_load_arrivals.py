"""The load client counts what arrives: whole, in pieces of any size, and no more than there is."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from bench.load.batches import MARK, NUMBER
from bench.load.client.build import program
from bench.load.client.fanout import Delivered, Fanout, deliver
from bench.load.client.hold import Held, Released, holding
from bench.load.client.program import message, messages

PATH = "/bench.Test/Watch"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS, PADDED = 1, 4, 8
OK = b"\x88"
"""The header block of `:status: 200`."""
STATUS_OK = b"\x40\x0bgrpc-status\x010"
"""Into the dynamic table."""
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


@asynccontextmanager
async def served_by(serve: Serve) -> AsyncIterator[str]:
    """Each connection is served until the client hangs up."""
    tasks = set()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await serve(reader, writer)
            await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"
    finally:
        server.close()
        for task in tasks:
            if task is not None:
                task.cancel()
        await asyncio.gather(*filter(None, tasks), return_exceptions=True)


async def in_pieces(writer: asyncio.StreamWriter, whole: bytes, size: int) -> None:
    """Each piece is a read of its own for the client, as far as loopback lets it."""
    for at in range(0, len(whole), size):
        writer.write(whole[at : at + size])
        await writer.drain()
        await asyncio.sleep(0.0002)


async def http2_call(reader: asyncio.StreamReader) -> None:
    """Read until the headers of the first call."""
    await reader.readexactly(len(PREFACE))
    while True:
        head = await reader.readexactly(9)
        await reader.readexactly(int.from_bytes(head[:3], "big"))
        if head[3] == HEADERS:
            return


async def held(address: str, numbers: int, *, each: int) -> Released:
    """One connection, until so many numbers have arrived."""

    def hold() -> Released:
        with holding(address, Held(connections=1, path=PATH, says=[message(b"hello")], each=each)) as watches:
            for number in range(numbers):
                watches.told_at(number, within_s=20)
            return watches.release()

    return await asyncio.to_thread(hold)


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
async def test_a_message_in_pieces_is_counted_once(size: int) -> None:
    bodies = [b"<bench<<bench-was-" + (MARK + b"%016x" % number + b"<") * 2 for number in range(3)]
    stream = b"".join(message(body) for body in bodies)
    cuts = [b"", stream[:3], stream[3:30], stream[30:41], stream[41:]]
    padded = bytes((9,)) + cuts[3] + bytes(9)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(SETTINGS, 0, 0))
        await http2_call(reader)
        answer = frame(HEADERS, END_HEADERS, 1, OK)
        answer += b"".join(frame(DATA, 0, 1, cut) for cut in cuts[:3])
        answer += frame(DATA, PADDED, 1, padded) + frame(0xFA, 0, 0, b"of a kind that nobody knows")
        await in_pieces(writer, answer + frame(DATA, 0, 1, cuts[4]), size)

    async with served_by(serve) as address:
        found = await held(address, 3, each=2)
    assert (found.messages, found.marks) == (3, 6)
    assert messages(found.last[0])[-1] == bodies[-1]


async def test_one_too_many_is_told() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(SETTINGS, 0, 0))
        await http2_call(reader)
        writer.write(frame(HEADERS, END_HEADERS, 1, OK) + frame(DATA, 0, 1, message(MARK + bytes(b"0" * 16)) * 2))

    async with served_by(serve) as address:
        with pytest.raises(RuntimeError, match="number 0 arrives too often"):
            await held(address, 2, each=1)


async def test_a_stream_that_ends_is_told_even_if_it_ends_well() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(SETTINGS, 0, 0))
        await http2_call(reader)
        trailers = frame(HEADERS, END_HEADERS | END_STREAM, 1, STATUS_OK)
        await in_pieces(writer, frame(HEADERS, END_HEADERS, 1, OK) + trailers, 5)

    async with served_by(serve) as address:
        with pytest.raises(RuntimeError, match="a stream has ended: HTTP 200, gRPC 0"):
            await held(address, 1, each=1)


class Broker:
    """As much of NATS as one subject needs; what it sends comes in pieces."""

    def __init__(self, size: int, *, loses: int = 0) -> None:
        self._size = size
        self._loses = loses
        self._subscribers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"test"}\r\n')
        while line := await reader.readline():
            word, *rest = line.split()
            if word == b"SUB":
                self._subscribers.append(writer)
            elif word == b"PING":
                writer.write(b"PONG\r\n")
            elif word == b"PUB":
                await self._told(await reader.readexactly(int(rest[-1]) + 2))

    async def _told(self, payload: bytes) -> None:
        if self._loses and NUMBER not in payload:
            self._loses -= 1
            return
        told = b"PING\r\nMSG some.subject 1 reply.to %d\r\n%s" % (len(payload) - 2, payload)
        for subscriber in self._subscribers:
            await in_pieces(subscriber, told, self._size)


def some_fanout(subscribers: int) -> Fanout:
    event = b"MSG <bench-" + MARK + NUMBER + b"\r\nPING\r\n"
    return Fanout(
        protocol="nats",
        opening=b"SUB some.subject 1\r\n",
        body=b"PUB some.subject %d\r\n%s\r\n" % (len(event), event) * 2,
        events=2,
        subscribers=subscribers,
    )


async def delivered(broker: Broker, *, within_s: float = 20, rate: float | None = None) -> list[Delivered]:
    async with served_by(broker.serve) as address:
        fanout = some_fanout(3)
        return await asyncio.to_thread(deliver, address, fanout, bodies=4, repetitions=2, rate=rate, within_s=within_s)


@pytest.mark.parametrize("size", [11, 1 << 20])
async def test_every_delivery_of_nats_is_counted_once(size: int) -> None:
    found = await delivered(Broker(size))
    assert len(found) == 2
    assert all(one.rate > 0 for one in found)


async def test_at_a_rate_the_last_subscriber_decides() -> None:
    first, second = await delivered(Broker(1 << 20), rate=100)
    for one in (first, second):
        assert 0 < one.p50_us <= one.p99_us
        assert one.rate < 3 * 2 * 4 / 0.03, "four bodies at 100 a second take 30 ms"


async def test_a_lost_delivery_is_no_result() -> None:
    with pytest.raises(RuntimeError, match="took too long"):
        await delivered(Broker(1 << 20, loses=1), within_s=1)


# RFC 7541, appendix C: header blocks of one connection, what they say, and the table behind each.
REQUESTS = [
    [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"],
    [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com", "cache-control: no-cache"],
    [":method: GET", ":scheme: https", ":path: /index.html", ":authority: www.example.com", "custom-key: custom-value"],
]
REQUEST_TABLES = [(1, 57), (2, 110), (3, 164)]
DATE, LATER, WHERE = "Mon, 21 Oct 2013 20:13:21 GMT", "Mon, 21 Oct 2013 20:13:22 GMT", "https://www.example.com"
COOKIE = "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"
RESPONSES = [
    [":status: 302", "cache-control: private", f"date: {DATE}", f"location: {WHERE}"],
    [":status: 307", "cache-control: private", f"date: {DATE}", f"location: {WHERE}"],
    [":status: 200", "cache-control: private", f"date: {LATER}", f"location: {WHERE}", "content-encoding: gzip",
     f"set-cookie: {COOKIE}"],
]  # fmt: skip
RESPONSE_TABLES = [(4, 222), (4, 222), (3, 215)]
TABLE_OF_256 = "3fe101"
"""Those examples have a table of 256 bytes: said as an encoder says it."""
EXAMPLES = {
    "C.2.1": (["400a637573746f6d2d6b65790d637573746f6d2d686561646572"], [["custom-key: custom-header"]], [(1, 55)]),
    "C.2.2": (["040c2f73616d706c652f70617468"], [[":path: /sample/path"]], [(0, 0)]),
    "C.2.3": (["100870617373776f726406736563726574"], [["password: secret"]], [(0, 0)]),
    "C.2.4": (["82"], [[":method: GET"]], [(0, 0)]),
    "C.3": (
        [
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        ],
        REQUESTS,
        REQUEST_TABLES,
    ),
    "C.4": (
        [
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ],
        REQUESTS,
        REQUEST_TABLES,
    ),
    "C.5": (
        [
            TABLE_OF_256 + "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54"
            "6e1768747470733a2f2f7777772e6578616d706c652e636f6d",
            "4803333037c1c0bf",
            "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a"
            "4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
        ],
        RESPONSES,
        RESPONSE_TABLES,
    ),
    "C.6": (
        [
            TABLE_OF_256 + "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f"
            "0b97c8e9ae82ae43d3",
            "4883640effc1c0bf",
            "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960"
            "d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
        ],
        RESPONSES,
        RESPONSE_TABLES,
    ),
}  # fmt: skip


def hpack(*blocks: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(program()), "hpack", *blocks], capture_output=True, text=True, check=False, timeout=10)


@pytest.mark.parametrize("example", EXAMPLES)
def test_header_blocks_of_the_rfc_are_understood(example: str) -> None:
    blocks, headers, tables = EXAMPLES[example]
    said = [
        [*lines, f"table: {count} entries, {size} bytes"] for lines, (count, size) in zip(headers, tables, strict=True)
    ]
    assert hpack(*blocks).stdout.splitlines() == [line for lines in said for line in lines]


@pytest.mark.parametrize(
    "block", ["80", "be", "7f", "ffffffffff7f", "410f77", "4183ff", "3fe21f", "0085ffffffffff", "00810000", "418cf1"]
)
def test_a_broken_header_block_is_refused(block: str) -> None:
    found = hpack(block)
    assert found.returncode == 1
    assert found.stderr.startswith("HPACK: ")
