"""What the sequencer asks of a fold, and the one fold that is made of all of them.

A fold is plain state that the control stream's records lead to. It has no clock, no chance and no I/O: the same records
give the same state on every node and in every version that can read them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from trunkline.core.records import Change, Record


class Fold(Protocol):
    """State made from the records whose topics begin with one of `topics`."""

    name: str
    """Names its section of a snapshot."""
    version: int
    """Of the snapshot section's form; `load` takes this one and those it knows of before."""
    topics: Sequence[str]
    """First words of the topics it takes."""

    def get(self, key: str) -> Any | None:
        """The entity of a key: an immutable value, or None."""

    def reduce(self, entity: Any | None, change: Change, *, revision: int, time_ns: int) -> Any | None:
        """What a change makes of an entity. Pure; `revision` is provisional when the change is still pending."""

    def apply(self, record: Record) -> None:
        """Take in a record that is durable and admitted. Never refuses."""

    def dump(self) -> Iterator[bytes]:
        """Encode the state as of this call, in pieces of at most about 1 ms of work each.

        The state may change while the iterator is used, so the call takes a shallow copy. Equal states give equal bytes.
        """

    def load(self, version: int, pieces: Iterable[bytes]) -> None:
        """Become the state that `dump` encoded. ValueError when the version is not known."""


class Folds:
    """Every fold of a node: records are dealt out by the first word of their topic."""

    def __init__(self, folds: Sequence[Fold]) -> None:
        self.folds = tuple(folds)
        self._by_topic = {topic: fold for fold in folds for topic in fold.topics}
        assert len(self._by_topic) == sum(len(fold.topics) for fold in folds), "two folds take one topic"

    def of_topic(self, topic: str) -> Fold | None:
        """The fold of a topic; None for topics of a newer program, which are kept and not folded."""
        return self._by_topic.get(topic.partition(".")[0])

    def of_key(self, key: str) -> Fold | None:
        """The fold that holds a key: the key's first part is one of the fold's topics."""
        return self._by_topic.get(key.partition("/")[0])

    def get(self, key: str) -> Any | None:
        """The entity of a key in whichever fold holds it."""
        fold = self.of_key(key)
        return None if fold is None else fold.get(key)

    def reduce(self, entity: Any | None, change: Change, *, revision: int, time_ns: int) -> Any | None:
        """Overlay step: what a pending change will make of an entity."""
        fold = self.of_topic(change.topic)
        return entity if fold is None else fold.reduce(entity, change, revision=revision, time_ns=time_ns)

    def apply(self, record: Record) -> None:
        """Give a record to its fold."""
        fold = self.of_topic(record.topic)
        if fold is not None:
            fold.apply(record)


Decide = Callable[["View"], Sequence[Change]]
"""A decision: reads entities, returns changes (none when nothing is to be written) or raises a refusal.

Pure, and run again when what it read has changed: whatever it needs of chance or time it has been given before.
"""


class View(Protocol):
    """What a decision may read: the durable state with the node's own pending records on top."""

    revision: int

    def get(self, key: str) -> Any | None: ...

    def pending(self, prefix: str) -> Sequence[str]:
        """Keys that begin with this and of which a record is on its way; what is decided rests on them."""
