"""One call as a servicer sees it: the transport's context, and what the chain found out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from types import CoroutineType
from typing import Any, cast

import grpc

from trunkline.core.clock import Clock

from ..security.principal import Principal

Decode = Callable[[bytes, Principal], Any]
"""From the bytes of a request to the checked and authorized message."""


class Call:
    """Wraps a ServicerContext and passes everything on to it.

    The principal is an attribute of it and not a context variable, so that nothing leaks between calls on a transport
    that runs several in one context.
    """

    __slots__ = ("_context", "_deadline_ns", "_decode", "clock", "principal")

    def __init__(self, context: Any, principal: Principal, decode: Decode, clock: Clock) -> None:
        self.principal = principal
        self.clock = clock
        self._context = context
        self._decode = decode
        self._deadline_ns: int | None = None

    def set_deadline(self, deadline_ns: int) -> None:
        """The chain's deadline for a call that came without one; monotonic."""
        self._deadline_ns = deadline_ns

    def write(self, message: Any, /) -> Awaitable[None]:
        """See grpc.aio.ServicerContext.write."""
        return cast("Awaitable[None]", self._context.write(message))

    async def read(self) -> Any:
        """The next request, checked; grpc.aio.EOF after the last. InvalidArgument, PermissionDenied."""
        data = await self._context.read()
        return data if data is grpc.aio.EOF else self._decode(data, self.principal)

    async def requests(self, raw: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        """The requests of a stream, each checked when it is taken."""
        decode, principal = self._decode, self.principal
        async for data in raw:
            yield decode(data, principal)

    async def answer_each(self, raw: AsyncIterator[Any], answer: Callable[[Any], Any]) -> None:
        """Take each request of a stream, checked, where it comes in, and do what `answer` says; see Answering.

        `raw` is what the servicer was given. A transport that can do it takes them without waking a coroutine.
        """
        at_once = getattr(self._context, "answer_each", None)
        if at_once is None:
            async for request in raw:
                response = answer(request)
                if isinstance(response, CoroutineType):
                    await response
                elif response is not None:
                    await self.write(response)
            return
        await at_once(_Checked(self._decode, self.principal, answer))

    def deadline_ns(self) -> int | None:
        """When the call is over; monotonic. None without a deadline."""
        if self._deadline_ns is None:
            seconds = self._context.time_remaining()
            if seconds is not None:
                self._deadline_ns = self.clock.now_ns() + int(seconds * 1e9)
        return self._deadline_ns

    def time_remaining(self) -> float | None:
        """Seconds until the client's or the chain's deadline; None without one."""
        if self._deadline_ns is not None:
            return max(0.0, (self._deadline_ns - self.clock.now_ns()) / 1e9)
        return cast("float | None", self._context.time_remaining())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


class _Checked:
    """Answers bytes: one object, where a closure is made of six, and there may be one for each of ten thousand streams."""

    __slots__ = ("_answer", "_decode", "_principal")

    def __init__(self, decode: Decode, principal: Principal, answer: Callable[[Any], Any]) -> None:
        self._decode = decode
        self._principal = principal
        self._answer = answer

    def __call__(self, data: bytes) -> Any:
        return self._answer(self._decode(data, self._principal))


def principal_of(context: Any) -> Principal:
    """Who makes the call that this servicer context belongs to."""
    principal: Principal = context.principal
    return principal


def deadline_ns_of(context: Any) -> int | None:
    """The call's deadline on the server's monotonic clock; None without one."""
    deadline_ns: int | None = context.deadline_ns()
    return deadline_ns
