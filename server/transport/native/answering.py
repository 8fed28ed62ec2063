"""A stream whose requests are answered where they come in: no coroutine wakes for any of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .call import Call

Answer = Callable[[Any], Any]


class Answering:
    """Answers a call's requests until the client sends no more. `changed` when something has come."""

    __slots__ = ("_answer", "_call", "_is_over", "_over", "_waits_for_room")

    def __init__(self, call: Call, answer: Answer) -> None:
        self._call = call
        self._answer = answer
        self._over: asyncio.Future[None] = call.connection.loop.create_future()
        self._is_over = False
        self._waits_for_room = False

    async def run(self) -> None:
        """Return when every request is answered. Raises what `answer` raises."""
        self.changed()
        try:
            await self._over
        finally:
            self._is_over = True

    def changed(self) -> None:
        """Answer what is there, as long as the client takes the answers."""
        call, stream = self._call, self._call.stream
        if self._is_over or self._waits_for_room:
            return
        try:
            while (request := call.take()) is not None:
                if call.send(self._answer(request)) > call.connection.server.config.write_high_water_bytes:
                    self._waits_for_room = True
                    call.when_relieved(self._go_on, call.connection.server.config.write_high_water_bytes // 4)
                    break
        except asyncio.CancelledError:  # the call is over
            self._is_over = True
            self._over.cancel()
        except Exception as error:
            self._is_over = True
            self._over.set_exception(error)
        else:
            call.connection.want_flush()
            if stream.is_ended and not self._waits_for_room:
                self._is_over = True
                self._over.set_result(None)

    def _go_on(self) -> None:
        self._waits_for_room = False
        self.changed()
