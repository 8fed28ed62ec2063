"""Work that several calls may wait for: done once for all of them, a piece in each turn of the loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar, cast

from trunkline.core.work import Work

T = TypeVar("T")

Name = tuple[Hashable, Hashable]
"""What it is about, and what is made of that."""


class _Order(Generic[T]):
    """A piece of work, and how many wait for it."""

    def __init__(self, name: Name, make: Callable[[], Work[T]]) -> None:
        self.name = name
        self.waiting = 0
        self.ended = asyncio.Event()
        self._make = make
        self._work: Work[T] | None = None
        self._found: T | None = None
        self._error: Exception | None = None

    def step(self) -> bool:
        """Do a piece; whether that was the last."""
        try:
            self._work = self._work or self._make()
            next(self._work)
        except StopIteration as done:
            self._found = done.value
        except Exception as error:
            self._error = error
        else:
            return False
        self.ended.set()
        return True

    def result(self) -> T:
        """What was made."""
        if self._error is not None:
            raise self._error
        return cast("T", self._found)

    @property
    def has_begun(self) -> bool:
        """What it is made of has been looked at."""
        return self._work is not None

    def close(self) -> None:
        """It is done, or nobody waits for it any more."""
        if self._work is not None:
            self._work.close()


class SharedWork:
    """One work after the other, so that many that begin at once do not hold the loop together. `run` must run.

    Who asks for what is under way waits for that, unless what it is about has changed since it began: then it waits for
    another, which begins when the one before is over and serves all who ask until then. So everybody is answered by work
    that began no earlier than what they know of, and however often things change no more than two are under way of a name.

    Each order has somebody who waits for it, so there are no more than calls.
    """

    def __init__(self) -> None:
        self._orders: dict[Hashable, dict[Hashable, _Order[Any]]] = {}
        """Those that may be joined."""
        self._queue: deque[_Order[Any]] = deque()
        self._begun: set[Name] = set()
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._queue)

    async def do(self, about: Hashable, what: Hashable, make: Callable[[], Work[T]]) -> T:
        """What `make` makes, which raises what it raises. Work of one piece is done at once, and nobody waits."""
        name = (about, what)
        order: _Order[T] | None = self._orders.get(about, {}).get(what)
        if order is None:
            order = _Order(name, make)
            if name not in self._begun:
                if order.step():
                    return order.result()
                self._begun.add(name)
            self._orders.setdefault(about, {})[what] = order
            self._queue.append(order)
            self._wake.set()
        order.waiting += 1
        try:
            await order.ended.wait()
        finally:
            order.waiting -= 1
        return order.result()

    def outdate(self, about: Hashable) -> None:
        """It has changed: what has begun serves only those who wait for it already."""
        for order in tuple(self._orders.get(about, {}).values()):
            if order.has_begun:
                self._part(order)

    def _part(self, order: _Order[Any]) -> None:
        """Nobody joins it any more."""
        about, what = order.name
        orders = self._orders.get(about, {})
        if orders.get(what) is order:
            del orders[what]
            if not orders:
                del self._orders[about]

    async def run(self) -> None:
        """Do what is asked for, for ever."""
        while True:
            await self._wake.wait()
            while self._queue:
                order = self._queue[0]
                if order.waiting:
                    self._begun.add(order.name)
                if not order.waiting or order.step():
                    self._end(order)
                await asyncio.sleep(0)
            self._wake.clear()

    def _end(self, order: _Order[Any]) -> None:
        self._queue.popleft()
        if order.has_begun:
            self._begun.discard(order.name)
        order.close()
        self._part(order)
