"""What a view tells its readers: a closed vocabulary, and a bounded queue that turns into one Reset when a reader is
slow."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from trunkline.core.model import RegisteredInstance
from trunkline.core.policy import Policy

NO_POLICIES: Mapping[str, Policy] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Reset:
    """The whole state: forget what was before."""

    revision: int
    instances: tuple[RegisteredInstance, ...]
    policies: Mapping[str, Policy] = field(default_factory=lambda: NO_POLICIES, hash=False)
    """By service; "" for what holds where nothing else is said, in a view of a whole namespace."""


@dataclass(frozen=True, slots=True)
class Updated:
    """What became different at `revision`. An instance stands in one of the three."""

    revision: int
    added: tuple[RegisteredInstance, ...] = ()
    changed: tuple[RegisteredInstance, ...] = ()
    removed: tuple[RegisteredInstance, ...] = ()
    """As they were last known."""
    policies: Mapping[str, Policy] = field(default_factory=lambda: NO_POLICIES, hash=False)
    """Those that are different."""


@dataclass(frozen=True, slots=True)
class Stale:
    """The control plane is not heard; the instances stand as they were last known."""

    revision: int
    reason: str


@dataclass(frozen=True, slots=True)
class Fresh:
    """The control plane is heard again, and everything up to `revision` is in the view."""

    revision: int


Change: TypeAlias = Reset | Updated | Stale | Fresh


class ChangeQueue:
    """The changes that one reader has not read yet. One reader; the writer never waits."""

    def __init__(self, limit: int, latest: Callable[[], Reset]) -> None:
        self._limit = limit
        self._latest = latest
        self._waiting: deque[Change] = deque()
        self._overrun = False
        self._ready = asyncio.Event()
        self._ended = False
        self._error: Exception | None = None

    def offer(self, change: Change) -> None:
        """Append it; beyond the limit everything becomes one Reset to what is latest when it is read."""
        if len(self._waiting) >= self._limit:
            self._waiting.clear()
            self._overrun = True
        if not self._overrun or isinstance(change, Stale | Fresh):
            self._waiting.append(change)
        self._ready.set()

    def end(self, error: Exception | None) -> None:
        """Nothing more comes."""
        self._ended = True
        self._error = error
        self._ready.set()

    async def read(self) -> AsyncIterator[Change]:
        """What comes, in order."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            if self._overrun:
                self._overrun = False
                yield self._latest()
            while self._waiting:
                yield self._waiting.popleft()
            if self._ended and not self._waiting:
                if self._error is not None:
                    raise self._error
                return
