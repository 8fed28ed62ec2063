"""Who is told when a log has grown: listeners with each block, waiters once."""

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
        self._grown: asyncio.Future[None] | None = None

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Add a listener; the returned function removes it."""
        self._listeners.append(listener)

        def end() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return end

    def tell(self, block: Block) -> None:
        """Call the listeners. One that raises has a bug: it is reported, the others are told all the same."""
        for listener in tuple(self._listeners):
            try:
                listener(block)
            except Exception as error:
                asyncio.get_running_loop().call_exception_handler(
                    {"message": f"a listener failed on offsets {block.base_offset} on", "exception": error}
                )

    def wake(self) -> None:
        """Let the waiters look again."""
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
