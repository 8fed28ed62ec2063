"""etcd from Debian, one member, driven by its gRPC API."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from bench.environment import program
from bench.load.process import Process, free_port, running
from bench.say import say

PUT = "/etcdserverpb.KV/Put"
RANGE = "/etcdserverpb.KV/Range"


def field(number: int, value: bytes) -> bytes:
    """A length-delimited protobuf field; etcd's protos are not ours to copy."""
    size = len(value)
    length = bytes((size,)) if size < 128 else bytes((size & 0x7F | 0x80, size >> 7))
    assert size < 1 << 14
    return bytes((number << 3 | 2,)) + length + value


def put_request(key: bytes, value: bytes) -> bytes:
    """A PutRequest."""
    return field(1, key) + field(2, value)


def range_request(key: bytes, *, serializable: bool) -> bytes:
    """A RangeRequest for one key."""
    return field(1, key) + (b"\x38\x01" if serializable else b"")


@contextmanager
def etcd(folder: Path, *, core: int) -> Iterator[str | None]:
    """A member's address once a put succeeds; None when etcd is not installed. One core, so GOMAXPROCS=1."""
    path = program("etcd")
    if path is None:
        say("etcd is not installed: skipped")
        yield None
        return
    client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    words = [
        path, "--data-dir", str(folder / "etcd"), "--log-level", "error",
        "--listen-client-urls", client, "--advertise-client-urls", client,
        "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}",
    ]  # fmt: skip
    address = client.removeprefix("http://")
    with running(Process(words, folder / "etcd.log", core=core, GOMAXPROCS="1")) as process:
        wait_for_put(address, process)
        yield address


def wait_for_put(address: str, process: Process, *, within_s: float = 30) -> None:
    """Ready is when it answers, not when it listens."""
    deadline = time.monotonic() + within_s
    with grpc.insecure_channel(address) as channel:
        put: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PUT)
        while True:
            try:
                put(put_request(b"ready", b"yes"), timeout=5, wait_for_ready=True)
                return
            except grpc.RpcError as error:
                if process.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"etcd takes no put: {error}") from error
