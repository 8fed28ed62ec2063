"""The chain: takes what generated code registers, wraps each method once, passes it on to the transport.

The wrapped handlers take and, where the method says so, give bytes; what stands before and after the servicer is
straight code in one coroutine, because awaiting a list of interceptors costs more than most calls.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

import grpc
from google.protobuf import descriptor_pool

from trunkline.core.errors import DeadlineExceeded, NotReady, TrunklineError

from ..eager import Resumed
from .call import Call
from .deadlines import Deadlines
from .gate import CANCELLED, OK, Gate, House
from .methods import METHODS, Method
from .metrics import ChainMetrics

Handler = Any
"""grpc.RpcMethodHandler; its stubs have no attributes."""
Behaviour = Callable[..., Any]


class Registrar(Protocol):
    """What generated code registers with, as grpc.aio.Server."""

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None: ...
    def add_registered_method_handlers(self, service_name: str, method_handlers: dict[str, Any]) -> None: ...


class Chain:
    """A registrar in front of the transport's. Every servicer is registered through it and through nothing else."""

    def __init__(self, registrar: Registrar, house: House, metrics: ChainMetrics) -> None:
        self._registrar = registrar
        self._house = house
        self._metrics = metrics
        self._composed: dict[str, Handler] = {}
        self._streams: set[asyncio.Task[Any]] = set()
        self._why_ended = ""

    @property
    def server(self) -> grpc.aio.Server:
        """The chain under the type that generated code's `add_XServicer_to_server` is declared with."""
        return cast("grpc.aio.Server", self)

    @property
    def services(self) -> list[str]:
        """Names of the services that are registered, for reflection and health."""
        return sorted({name.split("/")[1] for name in self._composed})

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Any]) -> None:
        """Wrap a service's methods and register them. KeyError for one that the table of methods does not have.

        A plain function is what generated code has for a method that the servicer lacks: it is left out, and the
        transport answers UNIMPLEMENTED.
        """
        wrapped = {
            name: self._compose(service_name, name, handler)
            for name, handler in method_handlers.items()
            if _is_async(_behaviour(handler))
        }
        self._registrar.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service_name, wrapped),))
        self._registrar.add_registered_method_handlers(service_name, wrapped)

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Nothing: generated code names the same methods in add_registered_method_handlers, and what is not named there
        would be served without a check."""

    def end_streams(self, why: str) -> None:
        """End every open stream with UNAVAILABLE, so that clients go elsewhere or come back later."""
        self._why_ended = why
        for task in self._streams:
            task.cancel()

    def _compose(self, service: str, name: str, handler: Handler) -> Handler:
        full_name = f"/{service}/{name}"
        assert full_name not in self._composed, f"{full_name} is registered twice"
        wrapped = self._wrap(METHODS[full_name], service, name, handler)
        self._composed[full_name] = wrapped
        return wrapped

    def _wrap(self, method: Method, service: str, name: str, handler: Handler) -> Handler:
        config = self._house.config
        streaming = handler.request_streaming or handler.response_streaming
        limit = config.streams_in_flight_max if streaming else config.calls_in_flight_max
        stats = self._metrics.of_method(service, name, limit)
        descriptor = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
        gate = Gate(self._house, descriptor, method, stats)
        serialize = None if method.raw_response else handler.response_serializer
        if not streaming:
            limit_ns = (config.call_deadline_ms_default + method.waits_ms) * 1_000_000
            deadlines = Deadlines(self._house.clock, limit_ns)
            call = _unary(gate, handler.unary_unary, deadlines, keeps_deadline=method.keeps_deadline)
            return grpc.unary_unary_rpc_method_handler(call, response_serializer=serialize)
        if handler.request_streaming and handler.response_streaming:
            stream = self._stream(gate, _writing(handler.stream_stream))
            return grpc.stream_stream_rpc_method_handler(stream, response_serializer=serialize)
        if handler.response_streaming:
            stream = self._stream(gate, _taking_one(gate, _writing(handler.unary_stream)))
            return grpc.unary_stream_rpc_method_handler(stream, response_serializer=serialize)
        stream = self._stream(gate, handler.stream_unary)
        return grpc.stream_unary_rpc_method_handler(stream, response_serializer=serialize)

    def _stream(self, gate: Gate, behaviour: Behaviour) -> Behaviour:
        """The life of one stream."""
        stats, now_ns = gate.stats, gate.clock.now_ns

        async def stream(requests: Any, context: Any) -> Any:
            begun_ns, code = now_ns(), CANCELLED
            peer, task = context.peer(), asyncio.current_task()
            assert task is not None
            stats.started += 1
            stats.in_flight += 1
            try:
                gate.enter_stream(peer)
                self._streams.add(task)
                call = gate.enter(context)
                given = requests if isinstance(requests, bytes) else call.requests(requests)
                answer = await behaviour(given, call)
                code = OK
                return answer
            except grpc.aio.AbortError:
                code = _code_name(context)
                raise
            except asyncio.CancelledError:
                if not self._why_ended:
                    code = _ended_code(context)
                    raise
                task.uncancel()
                refusal: TrunklineError = NotReady(self._why_ended)
                code = refusal.status
            except (Exception, BaseExceptionGroup) as error:
                refusal = gate.refusal_of(error)
                code = refusal.status
            finally:
                self._streams.discard(task)
                gate.leave_stream(peer)
                stats.finish(code, now_ns() - begun_ns)
            return await gate.refuse(context, refusal)

        return stream


def _behaviour(handler: Handler) -> Behaviour:
    """The one of its four that a handler has."""
    found: Behaviour = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    return found


def _is_async(behaviour: Behaviour) -> bool:
    return inspect.iscoroutinefunction(behaviour) or inspect.isasyncgenfunction(behaviour)


def _unary(gate: Gate, behaviour: Behaviour, deadlines: Deadlines, *, keeps_deadline: bool) -> Behaviour:
    """The life of one unary call."""
    stats, now_ns, enter, decode = gate.stats, gate.clock.now_ns, gate.enter, gate.decode

    async def call(data: bytes, context: Any) -> Any:
        begun_ns, code = now_ns(), CANCELLED
        stats.started += 1
        stats.in_flight += 1
        try:
            call = enter(context)
            coroutine = behaviour(decode(data, call.principal), call)
            is_without = context.time_remaining() is None
            if is_without:
                call.set_deadline(begun_ns + deadlines.limit_ns)
            if is_without and not keeps_deadline:
                try:  # a behaviour that does not wait needs nothing that minds its deadline
                    awaited = coroutine.send(None)
                except StopIteration as done:
                    answer = done.value
                else:
                    answer = await _within(deadlines, gate, Resumed(coroutine, awaited))
            else:
                answer = await coroutine
            code = OK
            return answer
        except grpc.aio.AbortError:
            code = _code_name(context)
            raise
        except asyncio.CancelledError:
            code = _ended_code(context)
            raise
        except (Exception, BaseExceptionGroup) as error:
            refusal = gate.refusal_of(error)
            code = refusal.status
        finally:
            stats.finish(code, now_ns() - begun_ns)
        return await gate.refuse(context, refusal)

    return call


async def _within(deadlines: Deadlines, gate: Gate, waiting: Resumed) -> Any:
    """Await a behaviour whose client set no deadline. DeadlineExceeded."""
    task = asyncio.current_task()
    assert task is not None
    deadlines.begin(task)
    try:
        return await waiting
    except asyncio.CancelledError:
        if not deadlines.is_due(task) or task.uncancel():
            raise  # the client has gone, whatever the time
    finally:
        deadlines.end(task)
    limit_ms = deadlines.limit_ns // 1_000_000
    raise DeadlineExceeded(f"{gate.name} was not done within {limit_ms} ms, the limit for calls without a deadline")


def _writing(behaviour: Behaviour) -> Behaviour:
    """A behaviour that writes its responses, of one that writes or yields them."""
    if not inspect.isasyncgenfunction(behaviour):
        return behaviour

    async def write_all(requests: Any, call: Call) -> None:
        async for response in behaviour(requests, call):
            await call.write(response)

    return write_all


def _taking_one(gate: Gate, behaviour: Behaviour) -> Behaviour:
    """A behaviour that takes the bytes of its one request."""

    async def take(data: bytes, call: Call) -> Any:
        return await behaviour(gate.decode(data, call.principal), call)

    return take


def _ended_code(context: Any) -> str:
    """The status with which the transport ended a call, if it knows one: a deadline that has passed, a message too long."""
    code = context.code()
    return code.name if isinstance(code, grpc.StatusCode) and code is not grpc.StatusCode.OK else CANCELLED


def _code_name(context: Any) -> str:
    """The status that a servicer set by itself."""
    code = context.code()
    return code.name if isinstance(code, grpc.StatusCode) else "UNKNOWN"
