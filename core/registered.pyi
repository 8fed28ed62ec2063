from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from trunkline.core.model import Instance, Override, Status

@final
class RegisteredInstance:
    instance: Instance
    status: Status
    status_reason: str
    created_revision: int
    modified_revision: int
    registered_at_ns: int
    """Nanoseconds since the epoch."""

    def __init__(
        self,
        instance: Instance,
        status: Status,
        status_reason: str,
        created_revision: int,
        modified_revision: int,
        registered_at_ns: int,
    ) -> None: ...
    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def replace(
        self,
        *,
        instance: Instance | None = None,
        status: Status | None = None,
        status_reason: str | None = None,
        modified_revision: int | None = None,
    ) -> RegisteredInstance: ...

@final
class Lease:
    id: int
    ttl_ms: int
    keeper: int
    """The node that times it."""
    lapsed_ns: int
    """When it lapsed; nanoseconds since the epoch, of the journal's time."""

    def __init__(
        self,
        id: int,
        secret_hash: bytes,
        ttl_ms: int,
        keeper: int,
        lapsed_revision: int | None = None,
        lapsed_ns: int = 0,
    ) -> None: ...
    @property
    def secret_hash(self) -> bytes: ...
    @property
    def lapsed_revision(self) -> int | None: ...
    @property
    def lapsed(self) -> bool: ...
    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def at(self, *, keeper: int | None = None, lapsed_revision: int | None = None, lapsed_ns: int = 0) -> Lease: ...

@final
class Entry:
    registered: RegisteredInstance
    lease: Lease
    probe_failure: str | None
    """What the probe said, while its verdict is 'failed'."""
    override: Override | None
    """An operator's word."""

    def __init__(
        self,
        registered: RegisteredInstance,
        lease: Lease,
        probe_failure: str | None = None,
        override: Override | None = None,
    ) -> None: ...
    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self) -> int: ...
