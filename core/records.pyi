from typing import final

from typing_extensions import disjoint_base

@final
class Version:
    writer: int
    """The node's id, 64 bits."""
    epoch: int
    """How often the node had started."""
    sequence: int
    """Counts the records of the epoch from 1."""

    def __init__(self, writer: int, epoch: int, sequence: int) -> None: ...
    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self) -> int: ...

NO_VERSION: Version
"""Of records that are no control records."""

@final
class Change:
    topic: str
    key: str
    body: bytes
    namespace: str
    schema: int

    def __init__(self, topic: str, key: str, body: bytes, namespace: str = "", schema: int = 1) -> None: ...
    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def draft(
        self, id: str, version: Version, expects: Version | None, author: str, reason: str, traceparent: str
    ) -> Draft: ...

@disjoint_base
class Draft:
    topic: str
    body: bytes
    key: str
    id: str
    namespace: str
    schema: int
    """Version of the body's schema."""
    version: Version
    expects: Version | None
    """The last record of the same key when this one was decided; None if there was none."""
    author: str
    reason: str
    traceparent: str

    def __init__(
        self,
        topic: str,
        body: bytes,
        key: str = "",
        id: str = "",
        namespace: str = "",
        schema: int = 0,
        version: Version = ...,
        expects: Version | None = None,
        author: str = "",
        reason: str = "",
        traceparent: str = "",
    ) -> None: ...
    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    _names: tuple[str, ...]
    def _fields(self) -> tuple[object, ...]: ...
    def record(self, offset: int, time_ns: int) -> Record: ...

@final
class Record(Draft):
    offset: int
    time_ns: int

    def __init__(
        self,
        offset: int,
        time_ns: int,
        topic: str,
        body: bytes,
        key: str = "",
        id: str = "",
        namespace: str = "",
        schema: int = 0,
        version: Version = ...,
        expects: Version | None = None,
        author: str = "",
        reason: str = "",
        traceparent: str = "",
    ) -> None: ...
