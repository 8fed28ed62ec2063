"""Calls are repeated at one layer: who serves a call that is itself a repeat does not repeat the calls it makes for it.

Else three layers of three attempts each are 27 calls at the lowest one. See 'Addressing Cascading Failures' in Google's
'Site Reliability Engineering'.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import grpc
import grpc.aio

from ._attempts import previous_attempts

_before: ContextVar[int] = ContextVar("trunkline_previous_attempts", default=0)


def attempts_before() -> int:
    """How many attempts came before the call that is being served here; 0 outside of `serving`."""
    return _before.get()


@contextmanager
def serving(metadata: Iterable[tuple[str, str | bytes]] | None) -> Iterator[None]:
    """A call with this metadata is served in this block: where it is a repeat, calls made here are not repeated.

    For servers on which no interceptor of this module can be set.
    """
    token = _before.set(previous_attempts(metadata))
    try:
        yield
    finally:
        _before.reset(token)


class AioRetryLayer(grpc.aio.ServerInterceptor):
    """`serving` around every handler of a grpc.aio.server."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """See grpc.aio.ServerInterceptor."""
        handler = await continuation(handler_call_details)
        before = previous_attempts(handler_call_details.invocation_metadata)
        return _with_behaviour(handler, _aio, before) if before else handler


class RetryLayer(grpc.ServerInterceptor):
    """`serving` around every handler of a grpc.server."""

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """See grpc.ServerInterceptor."""
        handler = continuation(handler_call_details)
        before = previous_attempts(handler_call_details.invocation_metadata)
        return _with_behaviour(handler, _threaded, before) if before else handler


def _with_behaviour(handler: Any, wrap: Callable[..., Any], before: int) -> Any:
    """The same handler, what it does wrapped. None, for an unknown method, stays None."""
    if handler is None:
        return None
    kind = f"{'stream' if handler.request_streaming else 'unary'}_{'stream' if handler.response_streaming else 'unary'}"
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    behaviour = wrap(getattr(handler, kind), before, streams_out=handler.response_streaming)
    return make(behaviour, handler.request_deserializer, handler.response_serializer)


def _threaded(behaviour: Callable[..., Any], before: int, *, streams_out: bool) -> Callable[..., Any]:
    def answer(request: Any, context: Any) -> Any:
        token = _before.set(before)
        try:
            return behaviour(request, context)
        finally:
            _before.reset(token)

    def answers(request: Any, context: Any) -> Iterator[Any]:
        # Each response may be asked for by another thread, so each step is given the variable anew.
        iterator = iter(answer(request, context))
        while True:
            token = _before.set(before)
            try:
                response = next(iterator)
            except StopIteration:
                return
            finally:
                _before.reset(token)
            yield response

    return answers if streams_out else answer


def _aio(behaviour: Callable[..., Any], before: int, *, streams_out: bool) -> Callable[..., Any]:
    """grpc.aio serves each call in a task of its own, so that the variable goes with the task.

    What is neither a coroutine function nor an async generator it runs in a thread, so that it stays neither.
    """

    async def answer(request: Any, context: Any) -> Any:
        _before.set(before)
        return await behaviour(request, context)

    async def answers(request: Any, context: Any) -> AsyncIterator[Any]:
        _before.set(before)
        async for response in behaviour(request, context):
            yield response

    if inspect.isasyncgenfunction(behaviour):
        return answers
    return answer if inspect.iscoroutinefunction(behaviour) else _threaded(behaviour, before, streams_out=streams_out)
