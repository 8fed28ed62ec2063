"""What every part of a connection stands on: who it is, its link to the control plane, and what it owns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ._backoff import Backoff
from ._channel import BalancedChannel
from ._edge import Edge
from ._fork import ForkGuard
from ._link import Calling, Link, Stubs
from ._options import ClientOptions
from ._publisher import Publisher
from ._tasks import Tasks

Answer = TypeVar("Answer")


class Connected:
    """See the module."""

    def __init__(
        self, edge: Edge, options: ClientOptions, *, namespace: str, name: str, token: str | None, target: str
    ) -> None:
        self._edge = edge
        self._options = options
        self._namespace = namespace
        self._name = name
        self._target = target
        self._guard = ForkGuard()
        self._tasks = Tasks()
        self._link = Link(edge, options, self._tasks, token=token)
        self._closers: set[Publisher | BalancedChannel] = set()
        self._open = False
        self._closed = False

    @property
    def namespace(self) -> str:
        """Of every call that names no other."""
        return self._namespace

    @property
    def name(self) -> str:
        """Who this client says it is."""
        return self._name

    @property
    def guard(self) -> ForkGuard:
        """Which process it belongs to."""
        return self._guard

    @property
    def target(self) -> str:
        """Where the control plane is."""
        return self._target

    async def call(
        self, method: Callable[[Stubs], Calling], request: Any, answer: type[Answer], *, timeout_s: float | None = None
    ) -> Answer:
        """Any unary call of the contract, repeated until `timeout_s` while the control plane is away, errors as our
        classes.

        `await trunkline.call(lambda stubs: stubs.admin.Status, StatusRequest(), StatusResponse)`
        """
        self._check_open()
        return await self._link.call(method, request, answer, timeout_s=timeout_s)

    def _check_open(self) -> None:
        self._guard.check()
        if not self._open or self._closed:
            raise RuntimeError("the connection is not open: use it inside `async with connect(...) as trunkline`")

    def _owned(self, closer: Publisher | BalancedChannel) -> None:
        self._closers = {one for one in self._closers if not one.closed} | {closer}

    def _new_backoff(self) -> Backoff:
        return Backoff(self._options.backoff, self._edge.rng)
