"""What `connect` refuses, what forgotten connections say, and what a forked child hears."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trunkline.client import ClientOptions, Tls, connect, connect_sync
from trunkline.client.testing import FakeControlPlane
from trunkline.core.errors import InvalidArgument


@pytest.mark.parametrize(
    "target", ["", "host", "host:", "host:0", "host:99999", ":7400", "::1:7400", "host:http", "unix:"]
)
def test_a_target_is_host_and_port(target: str) -> None:
    with pytest.raises(InvalidArgument, match="target"):
        connect(target)


@pytest.mark.parametrize(
    "target", ["localhost:7400", "10.0.0.5:1", "[::1]:7400", "dns:///plane.example:7400", "unix:/run/t.sock"]
)
def test_usable_targets(target: str) -> None:
    assert connect(target).target == target


def test_a_token_is_not_sent_in_the_clear_to_another_machine() -> None:
    with pytest.raises(InvalidArgument, match="token"):
        connect("10.0.0.5:7400", token="secret")
    connect("10.0.0.5:7400", token="secret", insecure=True)
    connect("10.0.0.5:7400", token="secret", tls=Tls())
    connect("127.0.0.1:7400", token="secret")


def test_tls_needs_both_halves_of_a_client_certificate(tmp_path: Path) -> None:
    (tmp_path / "client.pem").write_bytes(b"certificate")
    with pytest.raises(InvalidArgument, match="tls"):
        Tls.from_files(certificate=tmp_path / "client.pem")
    assert b"secret" not in repr(Tls(certificate=b"c", key=b"secret")).encode()


@pytest.mark.parametrize(
    "wrong", [{"timeout_s": 0}, {"watch_credit": 0}, {"drain_limit_s": -1}, {"max_message_bytes": 0}]
)
def test_options_are_checked_at_birth(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(wrong))):
        ClientOptions(**wrong)  # type: ignore[arg-type]


async def test_a_connection_is_entered_once() -> None:
    trunkline = FakeControlPlane().connect()
    async with trunkline:
        with pytest.raises(RuntimeError, match="once"):
            await trunkline.__aenter__()


async def test_a_dropped_connection_warns() -> None:
    trunkline = FakeControlPlane().connect()
    await trunkline.__aenter__()
    with pytest.warns(ResourceWarning, match="unclosed connection to memory:1"):
        trunkline.__del__()
    await trunkline.close()


def test_a_dropped_blocking_connection_warns() -> None:
    trunkline = FakeControlPlane().connect_sync()
    trunkline.__enter__()
    portal, connection = trunkline._portal, trunkline._async
    with pytest.warns(ResourceWarning, match="unclosed connection"):
        trunkline.__del__()
    trunkline._entered = False
    portal.call(connection.close)
    portal.close()


FORKING = """
import asyncio, os, sys
from trunkline.client import Event, ForkedProcess
from trunkline.client.testing import FakeControlPlane

async def refused(work):
    try:
        await work
    except ForkedProcess as error:
        assert "os.fork" in str(error)
        return True
    return False

async def main():
    plane = FakeControlPlane()
    async with plane.connect() as trunkline:
        view = await trunkline.watch("orders")
        channel = await trunkline.channel("orders")
        registration = await trunkline.register("orders", port=1)
        subscription = trunkline.subscribe("billing", start="earliest")
        await trunkline.publish(Event(type="a"))
        delivery = await subscription.next()
        publisher = await trunkline.publisher().__aenter__()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                checks = [
                    await refused(trunkline.publish(Event(type="a"))),
                    await refused(trunkline.watch("orders")),
                    await refused(trunkline.register("orders", port=2)),
                    await refused(registration.declare("serving")),
                    await refused(registration.drain()),
                    await refused(subscription.next()),
                    await refused(publisher.publish(Event(type="a"))),
                ]
                for call in (lambda: channel.unary_unary("/a/b")(b""), delivery.ack, view.close):
                    try:
                        call()
                    except ForkedProcess:
                        checks.append(True)
                    else:
                        checks.append(False)
                code = 0 if all(checks) else 3
                if code:
                    print(checks, flush=True)
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0, os.waitstatus_to_exitcode(status)
        await trunkline.publish(Event(type="still fine here"))

asyncio.run(main())
"""

FORKING_WITH_THREADS = """
import os
from trunkline.client import Event, ForkedProcess
from trunkline.client.testing import FakeControlPlane

with FakeControlPlane().connect_sync() as trunkline:
    child = os.fork()
    if child == 0:
        try:
            trunkline.publish(Event(type="a"))
        except ForkedProcess:
            os._exit(0)
        os._exit(3)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    trunkline.publish(Event(type="still fine here"))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork has nothing to refuse")
@pytest.mark.parametrize("program", [FORKING, FORKING_WITH_THREADS], ids=["async", "blocking"])
def test_a_forked_child_is_refused_clearly(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_blocking_face_refuses_its_own_loop() -> None:
    plane = FakeControlPlane()
    with plane.connect_sync() as trunkline, pytest.raises(RuntimeError, match="own event loop"):
        trunkline._portal.run(lambda: trunkline.resolve("orders"))


def test_connect_sync_says_when_it_is_not_open() -> None:
    with pytest.raises(RuntimeError, match="with connect_sync"):
        connect_sync("127.0.0.1:7400").resolve("orders")
