"""nats-server from its wheel, driven by its own protocol over plain sockets, pipelined."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from bench.environment import program
from bench.load.process import Process, running
from bench.say import say

READY = re.compile(r"Listening for client connections on (\S+)")
ANSWER = b'"seq":'
"""Once in each acknowledgement of JetStream."""
CONNECT = b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true}\r\n'


@contextmanager
def nats(folder: Path, *, core: int, sync_interval: str | None = None) -> Iterator[str | None]:
    """Its address; None when it is not installed. With `sync_interval` ("2m" is the default) it has JetStream."""
    path = program("nats-server")
    if path is None:
        say("nats-server is not installed: skipped")
        yield None
        return
    lines = ["listen: 127.0.0.1:-1"]
    if sync_interval is not None:
        lines += ["jetstream {", f'store_dir: "{folder / "jetstream"}"', f"sync_interval: {sync_interval}", "}"]
        say(f"nats-server with JetStream, file storage, sync_interval: {sync_interval}")
    config = folder / "nats.conf"
    config.write_text("\n".join(lines) + "\n")
    process = Process([path, "-c", str(config)], folder / "nats.log", core=core, GOMAXPROCS="1")
    with running(process):
        yield process.wait_for(READY)[1]


class Client:
    """One connection that waits for what it asks."""

    def __init__(self, address: str) -> None:
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(CONNECT + b"PING\r\n")
        self._until(b"PONG\r\n")

    def _until(self, wanted: bytes) -> bytes:
        received = b""
        while wanted not in received:
            received += self._receive()
        return received

    def _receive(self) -> bytes:
        received = self.socket.recv(1 << 20)
        if not received:
            raise ConnectionError("nats-server has hung up")
        return received

    def create_stream(self, name: str, subject: str) -> None:
        """On files, one copy, nothing thrown away."""
        config = {"name": name, "subjects": [subject], "storage": "file", "num_replicas": 1}
        self._made(f"STREAM.CREATE.{name}", config)

    def create_consumer(self, stream: str, name: str, deliver_subject: str) -> None:
        """Durable, pushed to a subject from now on, each message acknowledged by itself."""
        config = {"durable_name": name, "deliver_subject": deliver_subject, "ack_policy": "explicit"}
        config["deliver_policy"] = "new"
        self._made(f"CONSUMER.DURABLE.CREATE.{stream}.{name}", {"stream_name": stream, "config": config})

    def _made(self, what: str, config: dict[str, Any]) -> None:
        """Ask JetStream's API. RuntimeError with its answer when it refuses."""
        said = json.dumps(config).encode()
        self.socket.sendall(
            b"SUB made 1\r\nUNSUB 1 1\r\nPUB $JS.API.%s made %d\r\n%s\r\n" % (what.encode(), len(said), said)
        )
        answer = self._until(b"}\r\n")
        if b'"error"' in answer:
            raise RuntimeError(f"JetStream makes nothing of {what}: {answer!r}")

    def published_a_second(
        self, subjects: Sequence[str], batch: int, batches: int, *, size: int, in_flight: int
    ) -> float:
        """Publish so many batches with at most `in_flight` of them not acknowledged; acknowledged messages a second.

        A batch has the subjects in turn.
        """
        body = b" acks %d\r\n%s\r\n" % (size, bytes(size))
        many = b"".join(b"PUB " + subject.encode() + body for subject in islice(cycle(subjects), batch))
        self.socket.sendall(b"SUB acks 2\r\n")
        answered, sent, tail = 0, 0, b""
        began = time.perf_counter()
        while answered < batch * batches:
            while sent < batches and sent * batch - answered < in_flight * batch:
                self.socket.sendall(many)
                sent += 1
            received = tail + self._receive()
            if b'"error"' in received or b" 503" in received:
                raise RuntimeError(f"JetStream refuses: {received[:300]!r}")
            answered += received.count(ANSWER)
            tail = received[-len(ANSWER) + 1 :]
        seconds = time.perf_counter() - began
        self.socket.sendall(b"UNSUB 2\r\n")
        return answered / seconds

    def close(self) -> None:
        """Hang up."""
        self.socket.close()
