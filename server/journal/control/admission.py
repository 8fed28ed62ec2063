"""Which records count. The journal orders, and every node draws the same conclusion from the order.

A record is skipped when its writer's epoch is fenced, when a later record of its writer came before it (an append that was
repeated on its way, or overtaken), or when the record of its key that it was decided against is not the key's last.
Nothing else is looked at: a rule that a newer program adds cannot change what an old journal means.
"""

from __future__ import annotations

from trunkline.core.records import Record, Version

NODE_STARTED = "node.started"


class Admission:
    """Each key's last record, each writer's epoch and how far its sequence has come."""

    def __init__(self) -> None:
        self.last: dict[str, Version] = {}
        self.epochs: dict[int, int] = {}
        self.sequences: dict[int, int] = {}
        """By writer, in its present epoch; records that were skipped count."""

    def admit(self, record: Record) -> bool:
        """Decide on the next record of the journal and remember it if it counts."""
        version = record.version
        writer, epoch, sequence = version.writer, version.epoch, version.sequence
        if record.topic == NODE_STARTED:
            if epoch <= self.epochs.get(writer, 0):
                return False
            self.epochs[writer] = epoch
            self.sequences[writer] = sequence
            return True
        if epoch != self.epochs.get(writer, 0):
            return False
        # Without this, a repeated append that comes behind the removal of its key would bring the entity back: both
        # expect nothing.
        if sequence <= self.sequences.get(writer, 0):
            return False
        self.sequences[writer] = sequence
        if self.last.get(record.key) != record.expects:
            return False
        self.last[record.key] = version
        return True

    def forget(self, key: str) -> None:
        """The key's entity is gone. A later record of it expects nothing, and one that expected the old is skipped."""
        self.last.pop(key, None)
