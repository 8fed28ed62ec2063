"""What the registry holds of one instance. Immutable values; how records change them is in `reduce`."""

from __future__ import annotations

from typing import NamedTuple

from trunkline.core.model import Instance, RegisteredInstance, Status


class Lease(NamedTuple):
    """What keeps an instance registered."""

    id: int
    secret_hash: bytes
    """SHA-256 of the holder's secret."""
    ttl_ms: int
    keeper: int
    """The node that times it."""
    lapsed_revision: int | None = None
    """Set while the lease has lapsed and the instance is kept."""
    lapsed_ns: int = 0
    """When that was; nanoseconds since the epoch, of the journal's time."""

    @property
    def lapsed(self) -> bool:
        """The lease ran out and the instance is kept."""
        return self.lapsed_revision is not None


class Override(NamedTuple):
    """An operator's word."""

    status: Status
    reason: str


class Entry(NamedTuple):
    """An instance with everything that its status rests on."""

    registered: RegisteredInstance
    lease: Lease
    probe_failure: str | None = None
    """What the probe said, while its verdict is 'failed'."""
    override: Override | None = None


class InstanceKey(NamedTuple):
    """Names an instance."""

    namespace: str
    service: str
    id: str

    @property
    def text(self) -> str:
        """Its key in the control stream."""
        return f"instance/{self.namespace}/{self.service}/{self.id}"

    @classmethod
    def of_text(cls, text: str) -> InstanceKey:
        """From its key in the control stream. An id may have slashes in it."""
        _, namespace, service, instance_id = text.split("/", 3)
        return cls(namespace, service, instance_id)

    @classmethod
    def of(cls, instance: Instance) -> InstanceKey:
        """What names an instance."""
        return cls(instance.namespace, instance.service, instance.id)
