"""Which records count. The journal orders, and every node draws the same conclusion from the order.

A record is skipped when its writer's epoch is fenced, or when the record of its key that it was decided against is not the
key's last. Nothing else is looked at: a rule that a newer program adds cannot change what an old journal means.
"""

from __future__ import annotations

from ..record import Record, Version

NODE_STARTED = "node.started"


class Admission:
    """Each key's last record and each writer's epoch."""

    def __init__(self) -> None:
        self.last: dict[str, Version] = {}
        self.epochs: dict[int, int] = {}

    def admit(self, record: Record) -> bool:
        """Decide on the next record of the journal and remember it if it counts."""
        writer, epoch, _ = record.version
        if record.topic == NODE_STARTED:
            if epoch <= self.epochs.get(writer, 0):
                return False
            self.epochs[writer] = epoch
            return True
        if epoch != self.epochs.get(writer, 0):
            return False
        if self.last.get(record.key) != record.expects:
            return False
        self.last[record.key] = record.version
        return True

    def forget(self, key: str) -> None:
        """The key's entity is gone. A later record of it expects nothing, and one that expected the old is skipped."""
        self.last.pop(key, None)
