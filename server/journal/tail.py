"""Who is told when a log has grown: listeners with each block, then once that it was all; waiters once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from trunkline.core.errors import TrunklineError

from .block import Block
from .log import Listener


class Tail:
    """Listeners and waiters of one log."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._told: list[Callable[[], None]] = []
        self._grown: asyncio.Future[None] | None = None

    def listen(self, listener: Listener, told: Callable[[], None] | None = None) -> Callable[[], None]:
        """Add a listener, and who is to hear when it has been told all there is; the returned function removes both."""
        self._listeners.append(listener)
        if told is not None:
            self._told.append(told)

        def end() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)
            if told in self._told:
                self._told.remove(told)

        return end

    def tell(self, block: Block) -> None:
        """Call the listeners. One that raises has a bug: it is reported, the others are told all the same."""
        for listener in tuple(self._listeners):
            try:
                listener(block)
            except Exception as error:
                _report(f"a listener failed on offsets {block.base_offset} on", error)

    def wake(self) -> None:
        """All there is has been told: let listeners go on with it, and the waiters look again."""
        for told in tuple(self._told):
            try:
                told()
            except Exception as error:
                _report("a listener failed on what it was told", error)
        if self._grown is not None and not self._grown.done():
            self._grown.set_result(None)
        self._grown = None

    def end(self, error: TrunklineError) -> None:
        """Raise in the waiters."""
        if self._grown is not None and not self._grown.done():
            self._grown.set_exception(error)
            self._grown.exception()  # whoever waits gets it; that nobody may wait is no mistake
        self._grown = None

    async def wait(self) -> None:
        """Return at the next `wake`."""
        if self._grown is None:
            self._grown = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._grown)


def _report(message: str, error: Exception) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})
