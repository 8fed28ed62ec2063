"""What was true: the journal read back from the disk after the end, and folded afresh, slowly and plainly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from guarantees import Truth
from simulation.chance import rng_of
from simulation.clients import NAMESPACE
from simulation.node import FOLDER
from simulation.sim_disk import SimDisk
from simulation.virtual import LoopClock

from trunkline.api.v1.events_pb2 import CloudEvent
from trunkline.core.model import Sync
from trunkline.core.records import Record, Version
from trunkline.core.registered import Entry
from trunkline.core.selector import Selector
from trunkline.server.journal.block import Block
from trunkline.server.journal.files.segment_engine import SegmentEngine
from trunkline.server.journal.log import Log, LogConfig
from trunkline.server.registry.reduce import TOPICS, reduce

NODE_STARTED = "node.started"
EVENTS = "events"
READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Group:
    """Records that were decided and appended together, and the registry after them."""

    end: int
    records: Sequence[Record]
    entries: dict[str, Entry]


@dataclass(slots=True)
class Journal:
    """Everything that is kept."""

    groups: list[Group] = field(default_factory=list)
    records: dict[int, Record] = field(default_factory=dict)
    before: dict[int, Entry | None] = field(default_factory=dict)
    """By revision, what the record's instance was before it."""
    skipped: list[int] = field(default_factory=list)
    streams: dict[str, dict[int, CloudEvent]] = field(default_factory=lambda: {EVENTS: {}})
    """By name and offset, what the streams of the namespace hold."""
    times_ns: dict[str, dict[int, int]] = field(default_factory=dict)
    """When that was appended, by the server's clock."""

    @property
    def events(self) -> dict[int, CloudEvent]:
        """By offset, of the stream `events`."""
        return self.streams[EVENTS]

    def watch_truth(self, namespace: str, service: str, selector: Selector) -> Truth:
        """What a watch should show at the end of each group."""
        views = {0: dict[tuple[str, str], int]()}
        for group in self.groups:
            views[group.end] = {
                (entry.registered.instance.service, entry.registered.instance.id): entry.registered.modified_revision
                for entry in group.entries.values()
                if entry.registered.instance.namespace == namespace
                and service in ("", entry.registered.instance.service)
                and selector.matches(entry.registered)
            }
        return Truth(views)

    def of_registry(self) -> Iterator[Record]:
        """Records about instances."""
        return (record for record in self.records.values() if kind_of(record) in TOPICS)


class Order:
    """The rule by which a record counts: its epoch is not fenced, none of its writer's later ones came before it, and its
    key's last record is the one it expects."""

    def __init__(self) -> None:
        self.epochs: dict[int, int] = {}
        self.sequences: dict[int, int] = {}
        self.last: dict[str, Version] = {}

    def counts(self, record: Record) -> bool:
        version = record.version
        writer, epoch, sequence = version.writer, version.epoch, version.sequence
        if record.topic == NODE_STARTED:
            if epoch <= self.epochs.get(writer, 0):
                return False
            self.epochs[writer], self.sequences[writer] = epoch, sequence
            return True
        if epoch != self.epochs.get(writer) or sequence <= self.sequences[writer]:
            return False
        self.sequences[writer] = sequence
        if self.last.get(record.key) != record.expects:
            return False
        self.last[record.key] = record.version
        if record.topic.endswith((".removed", ".deleted")):
            del self.last[record.key]
        return True


async def read_back(disk: SimDisk) -> Journal:
    """Open the journal as a server would, read all of it, and close it."""
    clock: Any = LoopClock()
    engine = SegmentEngine(FOLDER, disk, clock, rng_of(0, "judge"))
    await engine.open()
    journal = Journal()
    _fold(journal, await _blocks(await engine.open_log("trunkline.control", LogConfig(sync=Sync.FSYNCED))))
    for name in await engine.list_logs():
        namespace, _, stream = name.partition("/")
        if stream and namespace == NAMESPACE:
            await _read_stream(journal, stream, await engine.open_log(name, LogConfig(sync=Sync.FSYNCED)))
    await engine.close()
    return journal


async def _read_stream(journal: Journal, name: str, log: Log) -> None:
    events, times_ns = journal.streams.setdefault(name, {}), journal.times_ns.setdefault(name, {})
    for block in await _blocks(log):
        for index in range(block.count):
            events[block.base_offset + index] = CloudEvent.FromString(bytes(block.body(index)))
            times_ns[block.base_offset + index] = block.time_ns


async def _blocks(log: Log) -> list[Block]:
    blocks: list[Block] = []
    position = log.first_offset
    while found := await log.read(position, max_bytes=READ_BYTES):
        blocks.extend(found)
        position = found[-1].end_offset
    return blocks


def _fold(journal: Journal, blocks: Sequence[Block]) -> None:
    order, entries = Order(), dict[str, Entry]()
    for block in blocks:
        records = [block.record(index) for index in range(block.count)]
        for record in records:
            journal.records[record.offset] = record
            if not order.counts(record):
                journal.skipped.append(record.offset)
                continue
            if kind_of(record) in TOPICS:
                journal.before[record.offset] = entries.get(record.key)
                _reduce(entries, record)
        journal.groups.append(Group(block.end_offset - 1, records, dict(entries)))


def kind_of(record: Record) -> str:
    """The first word of its topic, which says whose record it is."""
    return record.topic.partition(".")[0]


def _reduce(entries: dict[str, Entry], record: Record) -> None:
    after = reduce(
        entries.get(record.key),
        record.topic,
        record.body,
        revision=record.offset,
        time_ns=record.time_ns,
        reason=record.reason,
    )
    if after is None:
        entries.pop(record.key, None)
    else:
        entries[record.key] = after
