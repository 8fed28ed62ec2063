"""A stream whose requests are taken where they come in: no coroutine wakes for any of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import CoroutineType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .call import Call

Answer = Callable[[Any], Any]
"""From a request to the response; None when there is nothing to say. A coroutine is awaited before the next is taken."""


class Answering:
    """Takes a call's requests until the client sends no more. `changed` when something has come."""

    __slots__ = ("_answer", "_call", "_is_over", "_waits", "_wanted", "_work")

    def __init__(self, call: Call, answer: Answer) -> None:
        self._call = call
        self._answer = answer
        self._work: Coroutine[Any, Any, Any] | None = None
        """What the next request waits for."""
        self._wanted: asyncio.Future[None] = call.connection.loop.create_future()
        """Done when there is work, or no more is to come."""
        self._is_over = False
        self._waits = False

    async def run(self) -> None:
        """Return when every request was taken. Raises what `answer` raises, and what is awaited for it."""
        try:
            while not self._is_over:
                self.changed()
                await self._wanted
                if self._work is not None:
                    await self._work
                    self._wanted = self._call.connection.loop.create_future()
                    self._work, self._waits = None, False
        finally:
            self._is_over = True
            if self._work is not None:
                self._work.close()

    def changed(self) -> None:
        """Take what is there, as long as the client takes the answers."""
        call, stream = self._call, self._call.stream
        # Done though it waits for nothing: the handler was cancelled, and has not woken yet.
        if self._is_over or self._waits or self._wanted.done():
            return
        try:
            while (request := call.take()) is not None:
                answer = self._answer(request)
                if answer is None:
                    continue
                if isinstance(answer, CoroutineType):
                    self._work, self._waits = answer, True
                    self._wanted.set_result(None)
                    break
                if call.send(answer) > call.connection.server.config.write_high_water_bytes:
                    self._waits = True
                    call.when_relieved(self._go_on, call.connection.server.config.write_high_water_bytes // 4)
                    break
        except asyncio.CancelledError:  # the call is over
            self._is_over = True
            self._wanted.cancel()
        except Exception as error:
            self._is_over = True
            self._wanted.set_exception(error)
        else:
            call.connection.want_flush()
            if stream.is_ended and not self._waits:
                self._is_over = True
                self._wanted.set_result(None)

    def _go_on(self) -> None:
        self._waits = False
        self.changed()
