"""An attempt whose answer is the call's: what it has answered already, and how the rest is read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio

FALLBACK_KEY = "trunkline-fallback"
"""Trailing metadata of an answer that came from elsewhere: "answer" or "function"."""

_NOTHING = object()


class Committed:
    """Of a call with one response that response, else the first (or that there is none) and the others."""

    def __init__(self, call: Any, response: Any = None) -> None:
        self.call = call
        self.response = response
        self._first: Any = _NOTHING
        self._rest: AsyncIterator[Any] | None = None
        self._end: Any = _NOTHING

    @classmethod
    async def of(cls, call: Any, *, streams_out: bool) -> Committed:
        """Wait for the call's answer, or the first of many; raises what the call ended with before that."""
        if not streams_out:
            return cls(call, await call)
        committed = cls(call)
        committed._rest = aiter(call)
        committed._first = await anext(committed._rest, grpc.aio.EOF)
        return committed

    async def read(self) -> Any:
        """The next response, grpc.aio.EOF behind the last, or what the call failed with."""
        if self._first is not _NOTHING:
            first, self._first = self._first, _NOTHING
            if first is grpc.aio.EOF:
                self._end = first
            return first
        if isinstance(self._end, Exception):
            raise self._end
        if self._end is not _NOTHING:
            return self._end
        assert self._rest is not None
        try:
            response = await anext(self._rest, grpc.aio.EOF)
        except grpc.aio.AioRpcError as error:
            self._end = error
            raise
        if response is grpc.aio.EOF:
            self._end = response
        return response


class LocalCall:
    """What grpc.aio's calls say of themselves, of an answer that was made here: it is there, and well."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def cancelled(self) -> bool:
        return False

    def done(self) -> bool:
        return True

    def cancel(self) -> bool:
        return False

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        callback(self)

    async def initial_metadata(self) -> Any:
        return grpc.aio.Metadata()

    async def trailing_metadata(self) -> Any:
        return grpc.aio.Metadata((FALLBACK_KEY, self._kind))

    async def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.OK

    async def details(self) -> str:
        return ""

    async def wait_for_connection(self) -> None:
        """There is none to wait for."""


def made_here(kind: str, response: Any = None, *, responses: AsyncIterator[Any] | None = None) -> Committed:
    """An answer that no server gave: one response, or many."""
    committed = Committed(LocalCall(kind), response)
    committed._rest = responses
    return committed
