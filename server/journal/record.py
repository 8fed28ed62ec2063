"""One record of the journal, whole: what the folds read."""

from __future__ import annotations

from typing import NamedTuple


class Version(NamedTuple):
    """Names one control record: who wrote it, in which start of the writer, as which of its records."""

    writer: int
    """The node's id, 64 bits."""
    epoch: int
    """How often the node had started."""
    sequence: int
    """Counts the records of the epoch from 1."""


NO_VERSION = Version(0, 0, 0)
"""Of records that are no control records."""


class Record(NamedTuple):
    """A record with its head. `offset` is its position in its stream; `time_ns` counts from the epoch."""

    offset: int
    time_ns: int
    topic: str
    body: bytes
    key: str = ""
    id: str = ""
    namespace: str = ""
    schema: int = 0
    """Version of the body's schema."""
    version: Version = NO_VERSION
    expects: Version | None = None
    """The last record of the same key when this one was decided; None if there was none."""
    author: str = ""
    reason: str = ""
    traceparent: str = ""
