"""What names an instance."""

from __future__ import annotations

from typing import NamedTuple

from trunkline.core.model import Instance


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
