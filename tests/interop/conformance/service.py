"""The test service: answers what each request asks for, and counts the calls that are open.

What is asked for and why: grpc/grpc, doc/interop-test-descriptions.md.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from interop.conformance.messages import (
    ORCA_SERVICE,
    TEST_SERVICE,
    Empty,
    OrcaLoadReport,
    Payload,
    SimpleResponse,
    StreamingInputCallResponse,
    StreamingOutputCallResponse,
    service_handler,
)

COUNTS = "/trunkline.testing.Calls/Counts"
ECHO_INITIAL = "x-grpc-test-echo-initial"
ECHO_TRAILING = "x-grpc-test-echo-trailing-bin"
RESPONSE_ENCODING = "x-response-encoding"
"""Our own: which compression `compressed` means, gzip unless it says deflate."""
LOAD_REPORT = "endpoint-load-metrics-bin"
STATUS_OF = {code.value[0]: code for code in grpc.StatusCode}
ENCODING_OF = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}


class InteropService:
    """One server's test service. Its methods have the names of the contract."""

    def __init__(self) -> None:
        self.open = 0
        self.cancelled = 0
        self._load = OrcaLoadReport()

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """What to register at a server."""
        methods = (
            "EmptyCall",
            "UnaryCall",
            "StreamingOutputCall",
            "StreamingInputCall",
            "FullDuplexCall",
            "HalfDuplexCall",
        )
        testing = {name: getattr(self, name) for name in methods} | {"CacheableUnaryCall": self.UnaryCall}
        counts: dict[str, Any] = {"Counts": grpc.unary_unary_rpc_method_handler(self.counts)}
        return (
            service_handler(TEST_SERVICE, testing),
            service_handler(ORCA_SERVICE, {"StreamCoreMetrics": self.StreamCoreMetrics}),
            grpc.method_handlers_generic_handler(COUNTS.split("/")[1], counts),
        )

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.open += 1
        try:
            yield
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.open -= 1

    async def counts(self, request: bytes, context: Any) -> bytes:
        """Calls of the test service that are open, and those that were cancelled, as JSON."""
        return json.dumps({"open": self.open, "cancelled": self.cancelled}).encode()

    async def EmptyCall(self, request: Any, context: Any) -> Any:
        with self._counted():
            return Empty()

    async def UnaryCall(self, request: Any, context: Any) -> Any:
        with self._counted():
            reports = [request.orca_per_query_report] if request.HasField("orca_per_query_report") else []
            trailing = [(LOAD_REPORT, _report(asked).SerializeToString()) for asked in reports]
            await _begin(context, *trailing, is_compressed=request.response_compressed.value)
            await _end_as_asked(request, context)
            server_id = str(os.getpid()) if request.fill_server_id else ""
            return SimpleResponse(payload=_zeros(request.response_size), server_id=server_id)

    async def StreamingOutputCall(self, request: Any, context: Any) -> AsyncIterator[Any]:
        with self._counted():
            is_compressed = any(asked.compressed.value for asked in request.response_parameters)
            await _begin(context, is_compressed=is_compressed)
            async for response in _responses(request, context, is_compressed=is_compressed):
                yield response
            await _end_as_asked(request, context)

    async def StreamingInputCall(self, requests: AsyncIterator[Any], context: Any) -> Any:
        with self._counted():
            await _begin(context)
            size = 0
            async for request in requests:
                size += len(request.payload.body)
            return StreamingInputCallResponse(aggregated_payload_size=size)

    async def FullDuplexCall(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        with self._counted():
            await _begin(context)
            async for request in requests:
                await _end_as_asked(request, context)
                if request.HasField("orca_oob_report"):
                    self._load = _report(request.orca_oob_report)
                async for response in _responses(request, context):
                    yield response

    async def HalfDuplexCall(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        with self._counted():
            await _begin(context)
            for request in [request async for request in requests]:
                async for response in _responses(request, context):
                    yield response

    async def StreamCoreMetrics(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """The load, now and then; ends with the client."""
        interval_s = max(request.report_interval.ToMilliseconds() / 1_000, 0.1)
        with self._counted():
            while True:
                yield self._load
                await asyncio.sleep(interval_s)


def _zeros(size: int) -> Any:
    return Payload(body=bytes(size))


def _values(context: Any, name: str) -> list[Any]:
    return [value for key, value in context.invocation_metadata() or () if key == name]


async def _begin(context: Any, *trailing: tuple[str, bytes], is_compressed: bool = False) -> None:
    """What came under the two names goes back, every value of it, in order."""
    echoed = tuple((ECHO_TRAILING, value) for value in _values(context, ECHO_TRAILING))
    if trailing or echoed:
        context.set_trailing_metadata((*trailing, *echoed))
    if is_compressed:
        context.set_compression(ENCODING_OF[next(iter(_values(context, RESPONSE_ENCODING)), "gzip")])
    initial = tuple((ECHO_INITIAL, value) for value in _values(context, ECHO_INITIAL))
    if (
        initial or is_compressed
    ):  # grpc.aio says how a single response is compressed with initial metadata sent by hand alone
        await context.send_initial_metadata(initial)


async def _end_as_asked(request: Any, context: Any) -> None:
    if request.response_status.code:
        await context.abort(STATUS_OF[request.response_status.code], request.response_status.message)


async def _responses(request: Any, context: Any, *, is_compressed: bool = False) -> AsyncIterator[Any]:
    for asked in request.response_parameters:
        if asked.interval_us:
            await asyncio.sleep(asked.interval_us / 1_000_000)
        if is_compressed and not asked.compressed.value:
            context.disable_next_message_compression()
        yield StreamingOutputCallResponse(payload=_zeros(asked.size))


def _report(asked: Any) -> Any:
    return OrcaLoadReport(
        cpu_utilization=asked.cpu_utilization,
        mem_utilization=asked.memory_utilization,
        request_cost=dict(asked.request_cost),
        utilization=dict(asked.utilization),
    )
