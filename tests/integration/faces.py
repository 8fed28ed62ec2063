"""The blocking face in the async one's clothes, so that one body of tests runs on both."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

from trunkline.client._sync_base import SyncFace

_END = object()


def threaded(value: Any) -> Any:
    """The value, dressed if it is a blocking face."""
    if isinstance(value, SyncFace):
        return Threaded(value)
    if isinstance(value, concurrent.futures.Future):
        return asyncio.wrap_future(value)
    return value


class Threaded:
    """What is awaited on the async face runs in a thread here; what is not is called straight away."""

    def __init__(self, face: SyncFace[Any]) -> None:
        self._face = face

    def __getattr__(self, name: str) -> Any:
        original = inspect.getattr_static(type(self._face._async), name, None)
        value = getattr(self._face, name)
        if inspect.isasyncgenfunction(original):
            return lambda *args, **kwargs: _items(value(*args, **kwargs))
        if inspect.iscoroutinefunction(original):
            return _awaited(value)
        if callable(value):
            return lambda *args, **kwargs: threaded(value(*args, **kwargs))
        return threaded(value)

    async def __aenter__(self) -> Threaded:
        await asyncio.to_thread(self._face.__enter__)  # type: ignore[attr-defined]
        return self

    async def __aexit__(self, *raised: Any) -> None:
        await asyncio.to_thread(self._face.__exit__, *raised)  # type: ignore[attr-defined]

    def __aiter__(self) -> AsyncIterator[Any]:
        return _items(iter(self._face))  # type: ignore[call-overload]


def _awaited(method: Any) -> Any:
    async def call(*args: Any, **kwargs: Any) -> Any:
        if args and inspect.iscoroutinefunction(args[0]):  # a handler: a blocking one on this face
            handler, loop = args[0], asyncio.get_running_loop()
            args = (lambda item: asyncio.run_coroutine_threadsafe(handler(threaded(item)), loop).result(), *args[1:])
        return threaded(await asyncio.to_thread(method, *args, **kwargs))

    return call


async def _items(iterator: Iterator[Any]) -> AsyncIterator[Any]:
    try:
        while (item := await asyncio.to_thread(next, iterator, _END)) is not _END:
            yield threaded(item)
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            await asyncio.to_thread(close)
