"""A server hands its listening socket to the next one: nobody who connects meanwhile is refused, nothing is lost."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from integration.chain_server import register_request
from integration.processes import READY, TRUNKLINE, Server

from trunkline.api.v1 import admin_pb2, admin_pb2_grpc, discovery_pb2, discovery_pb2_grpc, registry_pb2_grpc

SUCCESSOR = re.compile(r"handing over to process (\d+)")


class Callers(threading.Thread):
    """Connects anew for each call, again and again; keeps what went wrong, and how long the slowest took."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.calls = 0
        self.slowest_s = 0.0
        self.errors: list[BaseException] = []
        self.over = threading.Event()
        self._address = address

    def run(self) -> None:
        host, port = self._address.rsplit(":", 1)
        while not self.over.is_set():
            began = time.monotonic()
            try:
                socket.create_connection((host, int(port)), timeout=20).close()
                with grpc.insecure_channel(
                    self._address, options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
                ) as channel:
                    stub = discovery_pb2_grpc.DiscoveryServiceStub(channel)
                    answer = stub.Resolve(discovery_pb2.ResolveRequest(namespace="shop", service="cart"), timeout=20)
                assert len(answer.instances) == 1, "the registration was lost"
            except grpc.RpcError as error:
                # One whose connection the old server had already taken is told so; none is refused.
                if "refused" in str(error) or error.code() is not grpc.StatusCode.UNAVAILABLE:
                    self.errors.append(error)
            except (OSError, AssertionError) as error:
                self.errors.append(error)
            self.calls += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)


def alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def ended(process_id: int) -> Iterator[None]:
    """SIGTERM at the end, and wait: it is no child of ours."""
    try:
        yield
    finally:
        os.kill(process_id, signal.SIGTERM)
        deadline = time.monotonic() + 20
        while alive(process_id) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not alive(process_id)


@pytest.mark.parametrize("grace", ["0.2"])
def test_a_successor_takes_over_and_no_connection_is_refused(tmp_path: Path, grace: str) -> None:
    os.environ["TRUNKLINE_STOP_GRACE_S"] = grace
    try:
        server = Server(tmp_path)
        server.start()
    finally:
        del os.environ["TRUNKLINE_STOP_GRACE_S"]
    assert server.process is not None
    with grpc.insecure_channel(server.address) as channel:
        registry_pb2_grpc.RegistryServiceStub(channel).Register(register_request(), timeout=5)
        before = admin_pb2_grpc.AdminServiceStub(channel).Status(admin_pb2.StatusRequest(), timeout=5)
    callers = Callers(server.address)
    callers.start()
    server.process.send_signal(signal.SIGUSR2)
    assert server.process.wait(30) == 0
    said = server.output.read_text()
    found = SUCCESSOR.search(said)
    assert found is not None, said
    with ended(int(found[1])):
        deadline = time.monotonic() + 30
        while len(READY.findall(server.output.read_text())) < 2:
            assert time.monotonic() < deadline, server.output.read_text()
            time.sleep(0.02)
        time.sleep(0.3)
        callers.over.set()
        callers.join(30)
        assert callers.errors == []
        assert callers.calls > 10
        assert callers.slowest_s < 15
        with grpc.insecure_channel(server.address) as channel:
            after = admin_pb2_grpc.AdminServiceStub(channel).Status(admin_pb2.StatusRequest(), timeout=5)
        assert after.header.journal_id == before.header.journal_id
        assert after.header.revision > before.header.revision


def test_a_service_managers_socket_is_served(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as made:
        port = made.getsockname()[1]
        early = socket.create_connection(("127.0.0.1", port))  # before anybody accepts
        program = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()));"
            " os.execv(sys.argv[2], sys.argv[2:])"
        )
        words = [str(TRUNKLINE), "serve", "--memory", "--http-listen", ""]
        log = (tmp_path / "log").open("wb")
        with (
            log,
            early,
            subprocess.Popen(
                [str(TRUNKLINE.parent / "python"), "-c", program, str(made.fileno()), *words],
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[made.fileno()],
            ) as process,
        ):
            try:
                with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                    stub = admin_pb2_grpc.AdminServiceStub(channel)
                    answer = stub.Status(admin_pb2.StatusRequest(), timeout=20, wait_for_ready=True)
                assert answer.transport == "native"
                assert f"gRPC on 127.0.0.1:{port} (native)" in (tmp_path / "log").read_text()
            finally:
                process.terminate()
                assert process.wait(20) == 0


def test_grpcio_cannot_take_a_socket(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as made:
        program = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.execv(sys.argv[2], sys.argv[2:])"
        words = [str(TRUNKLINE), "serve", "--memory", "--http-listen", "", "--transport", "grpcio"]
        done = subprocess.run(
            [str(TRUNKLINE.parent / "python"), "-c", program, str(made.fileno()), *words],
            capture_output=True, text=True, timeout=30, pass_fds=[made.fileno()], env={**os.environ, "LISTEN_FDS": "1"},
        )  # fmt: skip
    assert done.returncode == 2
    assert "transport.kind" in done.stderr
    assert "inherited socket" in done.stderr
