"""The life of a unary call where sockets are too slow to hit the moment: who cancels first, and who waits for whom."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import async_solipsism
import grpc
import pytest

from trunkline.api.v1 import registry_pb2, registry_pb2_grpc
from trunkline.core.clock import Clock
from trunkline.server.chain.chain import Chain
from trunkline.server.chain.config import ChainConfig
from trunkline.server.chain.gate import House
from trunkline.server.chain.metrics import ChainMetrics
from trunkline.server.chain.readiness import Readiness
from trunkline.server.security.authenticate import Authenticator
from trunkline.server.security.config import SecurityConfig
from trunkline.server.security.tokens_fold import TokensFold

REQUEST = registry_pb2.KeepAliveOnceRequest(lease_ids=[1]).SerializeToString()


class LoopClock(Clock):
    """The loop's virtual time."""

    def now_ns(self) -> int:
        return round(asyncio.get_running_loop().time() * 1e9)


class Registry(registry_pb2_grpc.RegistryServiceServicer):
    """Hangs."""

    async def KeepAliveOnce(self, request: Any, context: Any) -> Any:
        await asyncio.sleep(1_000)


class Registered:
    """What reaches the transport."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Any) -> None: ...

    def add_registered_method_handlers(self, service_name: str, method_handlers: dict[str, Any]) -> None:
        self.handlers |= method_handlers


class Context:
    """A call without a deadline from this machine. `abort` hangs if the peer does not read."""

    def __init__(self, *, reads: bool = True) -> None:
        self._reads = reads
        self.aborted: grpc.StatusCode | None = None

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    def peer(self) -> str:
        return "unix:"

    def code(self) -> int:
        return 0

    def time_remaining(self) -> None:
        return None

    async def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: Any) -> None:
        if not self._reads:
            await asyncio.sleep(1_000)
        self.aborted = code
        raise grpc.aio.AbortError


def run(body: Callable[[Callable[[Any], Awaitable[Any]], ChainMetrics], Awaitable[None]]) -> None:
    """Give `body` the wrapped KeepAliveOnce of a server whose calls last 10 s at most."""

    async def go() -> None:
        readiness, clock, metrics, transport = Readiness(), LoopClock(), ChainMetrics(), Registered()
        readiness.open()
        house = House(
            authenticator=Authenticator(SecurityConfig(), TokensFold(), clock, loopback_is_open=True),
            readiness=readiness,
            clock=clock,
            config=ChainConfig(call_deadline_ms_default=10_000, refusal_timeout_ms=5_000),
        )
        chain = Chain(transport, house, metrics)
        registry_pb2_grpc.add_RegistryServiceServicer_to_server(Registry(), chain.server)  # type: ignore[abstract]
        handler = transport.handlers["KeepAliveOnce"].unary_unary
        await body(lambda context: handler(REQUEST, context), metrics)

    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        runner.run(go())


def handled(metrics: ChainMetrics) -> dict[str, int]:
    [stats] = [stats for stats in metrics._methods if stats.started]
    return stats.handled


def test_a_call_that_is_late_is_told_so() -> None:
    async def body(call: Callable[[Any], Awaitable[Any]], metrics: ChainMetrics) -> None:
        context = Context()
        with pytest.raises(grpc.aio.AbortError):
            await call(context)
        assert asyncio.get_running_loop().time() == 10
        assert context.aborted is grpc.StatusCode.DEADLINE_EXCEEDED
        assert handled(metrics) == {"DEADLINE_EXCEEDED": 1}

    run(body)


def test_a_client_that_goes_at_its_deadline_has_gone() -> None:
    async def body(call: Callable[[Any], Awaitable[Any]], metrics: ChainMetrics) -> None:
        context = Context()
        task: asyncio.Task[Any] = asyncio.ensure_future(call(context))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_at(10, task.cancel)
        await asyncio.wait([task])
        assert task.cancelled()
        assert context.aborted is None
        assert handled(metrics) == {"CANCELLED": 1}

    run(body)


def test_a_peer_that_takes_no_refusal_is_dropped() -> None:
    async def body(call: Callable[[Any], Awaitable[Any]], metrics: ChainMetrics) -> None:
        task: asyncio.Task[Any] = asyncio.ensure_future(call(Context(reads=False)))
        await asyncio.wait([task])
        assert task.cancelled()
        assert asyncio.get_running_loop().time() == 15
        assert handled(metrics) == {"DEADLINE_EXCEEDED": 1}

    run(body)
