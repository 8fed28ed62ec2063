"""What becomes of a publish: where its events are, and what is on its way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from trunkline.core.model import Sync

from .batch import Batch
from .log import Appended


@dataclass(slots=True)
class PublishedRange:
    """A run of events that lie behind one another; `duplicate` if they had been published before, at these offsets."""

    offset: int
    count: int
    duplicate: bool


class Published(NamedTuple):
    """Where the events of a request are, in its order, and what is promised of them."""

    ranges: Sequence[PublishedRange]
    sync: Sync
    incarnation: int


class PendingAppend(NamedTuple):
    """Events that were given their offsets and are not durable."""

    offset: int
    batch: Batch
    future: asyncio.Future[Appended]

    @property
    def end_offset(self) -> int:
        """Behind the last."""
        return self.offset + self.batch.count

    def is_of(self, producer: str) -> bool:
        """Whether the producer numbered events of it."""
        return any(run.producer == producer for run in self.batch.numbered)

    def holds(self, offset: int) -> bool:
        """Whether an event of it has this offset."""
        return self.offset <= offset < self.end_offset
