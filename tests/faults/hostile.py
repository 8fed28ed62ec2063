"""Peers that mean harm, the server that they meet, and a neighbour who only wants its answers."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import uvloop
from fuzz import frames
from fuzz.frames import Frame
from integration.echo_server import SAY, Echo

from trunkline.server.transport.config import TransportConfig
from trunkline.server.transport.native.server import NativeServer

POUR = "/test.Hostile/Pour"
"""Answers a request with messages of 10,000 bytes without end."""
HELLO = frames.PREFACE + frames.settings()
SETTINGS_ACK = frames.frame(frames.SETTINGS, frames.ACK)
PROC_PAGE_KB = 4
_CALLS_MIN = 100


class State(NamedTuple):
    """What the server says of itself."""

    cut: dict[str, int]
    refused: int
    silent: int
    over_budget: int
    connections: int
    tasks: int
    unread_bytes: int
    rss_kb: int


class Pouring(Echo):
    """An echo, and a source that never dries."""

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        if details.method == POUR:
            return grpc.unary_stream_rpc_method_handler(self._pour)
        return super().service(details)

    async def _pour(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        while True:
            yield bytes(10_000)


class Victim:
    """A server in a process of its own."""

    def __init__(self, config: dict[str, int], certificate: tuple[Path, Path] | None = None) -> None:
        asked = json.dumps({"config": config, "tls": [str(path) for path in certificate or ()]})
        self._process = subprocess.Popen(
            [sys.executable, __file__, asked], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        )  # fmt: skip
        self.port, self.tls_port = (int(number) for number in self._said().split())

    def state(self) -> State:
        """What it says of itself now."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        return State(**json.loads(self._said()))

    def stop(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(10) == 0
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


class Peer:
    """One connection, blocking, that sends what it is told to."""

    def __init__(self, port: int, hello: bytes = HELLO, tls: ssl.SSLContext | None = None) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 5)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self._socket = tls.wrap_socket(self._socket, server_hostname="localhost")
        self._buffer = bytearray()
        self.raw = b""
        self.is_closed = False
        self.send(hello)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send, unless the server has gone."""
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            self.is_closed = True

    def received(self, within_s: float) -> list[Frame]:
        """The frames that come next; none when the time is over or the server has gone."""
        self._socket.settimeout(max(0.001, within_s))
        try:
            data = self._socket.recv(1 << 16)
        except TimeoutError:
            return []
        except ConnectionResetError:
            data = b""
        self.is_closed = not data
        self.raw += data
        self._buffer += data
        return list(frames.parsed(self._buffer)) if not self.raw.startswith(b"HTTP/1") else []

    def heard(self, within_s: float) -> list[Frame]:
        """Everything until the server closes; AssertionError when it has not by then."""
        found: list[Frame] = []
        deadline = time.monotonic() + within_s
        while not self.is_closed:
            found += self.received(deadline - time.monotonic())
            assert time.monotonic() < deadline, f"not cut within {within_s} s; told {found[-3:]}"
        return found

    def awaited(self, kind: int, within_s: float = 5, count: int = 1) -> list[Frame]:
        """So many frames of a kind."""
        found: list[Frame] = []
        deadline = time.monotonic() + within_s
        while len(found) < count:
            assert time.monotonic() < deadline, f"no frame of kind {kind} within {within_s} s"
            assert not self.is_closed, f"closed before a frame of kind {kind} came"
            found += [frame for frame in self.received(deadline - time.monotonic()) if frame.kind == kind]
        return found

    def status(self, within_s: float = 5) -> int:
        """The first call's grpc-status, whose one digit or two go as they are when they are new to the connection."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline and not self.is_closed:
            for frame in self.received(deadline - time.monotonic()):
                if frame.kind == frames.HEADERS and frame.flags & frames.END_STREAM:
                    number = frame.payload[frame.payload.index(_GRPC_STATUS) + len(_GRPC_STATUS) :]
                    return int(number[1 : 1 + number[0]])
        raise AssertionError(f"no status within {within_s} s")


_GRPC_STATUS = b"\x9a\xca\xc8\xb2\x12\x34\xda\x8f"
"""The name as it goes, in Huffman's code (RFC 7541, appendix B)."""


class Neighbour:
    """A well-behaved client on a thread and a connection of its own: one call after the other, each timed."""

    def __init__(self, port: int) -> None:
        self._peer = Peer(port, HELLO + frames.window_update(0, 1 << 30))
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.latencies_s: list[float] = []
        self.error: BaseException | None = None
        self._thread.start()

    def wait_for(self, calls: int) -> None:
        """Go on until so many are answered."""
        while len(self.latencies_s) < calls and self._thread.is_alive():
            time.sleep(0.001)

    def stop(self) -> float:
        """End it; the 99th percentile in ms. What went wrong is raised."""
        self._is_over.set()
        self._thread.join(10)
        self._peer.__exit__()
        if self.error is not None:
            raise self.error
        return sorted(self.latencies_s)[len(self.latencies_s) * 99 // 100] * 1_000

    def _run(self) -> None:
        stream_id = 1
        try:
            while not self._is_over.is_set():
                begun_s = time.perf_counter()
                self._peer.send(frames.call(stream_id, SAY.encode(), b"x"))
                self._wait(stream_id)
                self.latencies_s.append(time.perf_counter() - begun_s)
                stream_id += 2
        except BaseException as error:
            self.error = error

    def _wait(self, stream_id: int) -> None:
        while True:
            came = self._peer.received(10)
            assert came or not self._peer.is_closed, "the neighbour's call is not answered"
            for frame in came:
                assert frame.kind not in (frames.GOAWAY, frames.RST_STREAM), "the neighbour is refused"
                if frame.kind in (frames.PING, frames.SETTINGS) and not frame.flags & frames.ACK:
                    self._peer.send(frames.frame(frame.kind, frames.ACK, 0, frame.payload if frame.kind == 6 else b""))
                if frame.stream_id == stream_id and frame.flags & frames.END_STREAM and frame.kind == frames.HEADERS:
                    return


@contextmanager
def neighbour(victim: Victim, title: str, p99_ms_max: float) -> Iterator[None]:
    """Calls go on meanwhile, none fails, and they do not become slow."""
    calling = Neighbour(victim.port)
    try:
        yield
    finally:
        calling.wait_for(_CALLS_MIN)
        p99_ms = calling.stop()
        print(f"{title}: {len(calling.latencies_s)} calls, p99 {p99_ms:.2f} ms")  # noqa: T201
    assert p99_ms < p99_ms_max, f"a neighbour's p99 is {p99_ms:.0f} ms during {title}"


def rss_kb() -> int:
    """Of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PROC_PAGE_KB


async def serve(asked: dict[str, Any]) -> None:
    """Serve until the standard input ends; each line of it is answered with the state."""
    server = NativeServer(TransportConfig(**asked["config"]))
    server.add_generic_rpc_handlers((Pouring("a"),))
    port, tls_port = server.add_insecure_port("127.0.0.1:0"), 0
    if asked["tls"]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*asked["tls"])
        tls_port = server.add_secure_port("127.0.0.1:0", context)
    await server.start()
    print(port, tls_port, flush=True)  # noqa: T201
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        counts = server.counts
        state = State(
            dict(counts.cut), counts.refused, counts.silent, counts.over_budget, len(server.connections),
            len(server.tasks), server.budget.used_bytes, rss_kb(),
        )  # fmt: skip
        print(json.dumps(state._asdict()), flush=True)  # noqa: T201
    await server.stop(None)


if __name__ == "__main__":
    uvloop.run(serve(json.loads(sys.argv[1])))
