"""The server under test in a process of its own, and the judgement of one case against it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from interop.conformance import results
from interop.conformance.cases import TRAFFIC, Suite, Traffic
from interop.conformance.messages import untyped
from interop.conformance.programs import lacking
from interop.conformance.relay import Relay
from interop.conformance.service import COUNTS

from trunkline.server.transport.choice import native_lacks

TESTS = Path(__file__).parents[2]
QUIET_S = 10.0


def need_transport(transport: str) -> None:
    """Skip where the native transport is not built; in CI that is a failure."""
    if transport == "native" and native_lacks():
        lacking(f"the native transport ({native_lacks()})")


class Interop:
    """A running server of the test service on one transport."""

    def __init__(self, transport: str, *options: str) -> None:
        self.transport = transport
        self.is_stopping = False
        command = [sys.executable, "-m", "interop.interop_server", "--transport", transport, *options]
        self._process = subprocess.Popen(command, cwd=TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if not said:
            raise RuntimeError(f"the server on {transport} ended with {self.stop()} and no port")
        ports = [int(port) for port in said.split()]
        self.port = ports[0]
        self.tls_port = ports[-1]
        """The same unless it was asked for one."""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def counts(self) -> dict[str, int]:
        """Calls of the test service: open, cancelled."""
        with grpc.insecure_channel(self.address, options=(("grpc.use_local_subchannel_pool", 1),)) as channel:
            counts: dict[str, int] = json.loads(untyped(channel, COUNTS)(b"", timeout=10))
            return counts

    def grow_quiet(self) -> None:
        """Return when no call is open any more: what clients gave up, the server must have given up, too."""
        deadline = time.monotonic() + QUIET_S
        while counts := self.counts():
            if not counts["open"]:
                return
            assert time.monotonic() < deadline, f"calls that nobody waits for stay open: {counts}"
            time.sleep(0.02)

    def begin_stop(self) -> None:
        """Ask it to stop in an orderly way."""
        assert self._process.stdin is not None
        self.is_stopping = True
        self._process.stdin.close()

    def stop(self) -> int:
        """Ask it to stop, and kill it if it does not; its exit code."""
        assert self._process.stdout is not None
        self.begin_stop()
        try:
            return self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            self._process.stdout.close()


@contextmanager
def interop_server(transport: str, *options: str) -> Iterator[Interop]:
    """A running server; its end is part of the test."""
    server = Interop(transport, *options)
    try:
        yield server
    finally:
        code = server.stop()
    assert code == 0, f"the server on {transport} ended with {code}"


@contextmanager
def judged(suite: Suite, server: Interop, case: str) -> Iterator[str]:
    """Run the body as one case against the address that it is given, and note how it ended."""
    if reason := suite.excused.get((server.transport, case)):
        pytest.skip(reason)
    outcome = results.FAILED
    try:
        with Relay(server.tls_port if suite.is_secure else server.port) as relay:
            yield relay.address
            passed = relay.passed.copy()
        bounds = TRAFFIC.get(case, Traffic())
        assert bounds.up_min <= passed["up"] <= bounds.up_max, passed
        assert bounds.down_min <= passed["down"] <= bounds.down_max, passed
        if not server.is_stopping:
            server.grow_quiet()
        outcome = results.PASSED
    finally:
        results.record(suite.name, server.transport, case, outcome)
