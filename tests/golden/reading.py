"""What a journal leads to: the digests that are recorded beside a golden one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reference.registry_world import LoopClock
from trunkline.core.clock import Rng
from trunkline.core.model import Sync
from trunkline.server.events.checkpoint import SUBSCRIPTIONS
from trunkline.server.events.fold import EventsFold
from trunkline.server.journal.control.fold import Fold, Folds
from trunkline.server.journal.control.node import Control, ControlConfig
from trunkline.server.journal.control.snapshot import frames
from trunkline.server.journal.files.real_disk import RealDisk
from trunkline.server.journal.files.segment_engine import SegmentEngine
from trunkline.server.journal.log import Log, LogConfig
from trunkline.server.registry.fold import RegistryFold, TombstoneConfig
from trunkline.server.schedules.fold import SchedulesFold
from trunkline.server.security.tokens_fold import TokensFold
from trunkline.server.traffic.fold import PoliciesFold

NOTHING = hashlib.sha256().hexdigest()
"""Of a fold that a journal is older than."""

COMPACTED = "shop/prices"
NUMBERED = "shop/numbered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """All that is compared."""

    facts: dict[str, Any]
    topics: list[str]
    """Of control's records, in order."""


async def read(folder: Path) -> Reading:
    """Open a journal with the shipped engine and fold it. Opening an unclean one writes to it: give a copy."""
    disk = RealDisk()
    engine = SegmentEngine(str(folder), disk, LoopClock(), Rng(99))
    await engine.open()
    registry = RegistryFold(TombstoneConfig())
    first: list[Fold] = [registry, EventsFold(), TokensFold()]
    schedules = SchedulesFold()
    policies = PoliciesFold()
    control = Control(engine, Folds([*first, schedules, policies]), LoopClock(), ControlConfig(), program_version="")
    await control.open()
    sequencer = control.sequencer
    # Of the folds that the first of these journals knew: a later one's state stands beside it.
    snapshot = frames(sequencer.revision, sequencer.time_ns, Folds(first), sequencer.admission, sequencer.requests)
    facts: dict[str, Any] = {
        "journal_id": engine.journal_id,
        "node_id": f"{engine.node_id:016x}",
        "revision": sequencer.revision,
        "skipped": sequencer.skipped,
        "registry": registry.digest(),
        "folds": hashlib.sha256(b"".join(snapshot)).hexdigest(),
        "schedules": hashlib.sha256(b"".join(schedules.dump())).hexdigest(),
        "policies": hashlib.sha256(b"".join(policies.dump())).hexdigest(),
        "statuses": {e.registered.instance.key: e.registered.status.name for e in registry.entries()},
    }
    topics: list[str] = []
    logs = {"trunkline.control": control.log}
    for name, sync in ((SUBSCRIPTIONS, Sync.FSYNCED), ("shop/events", Sync.FSYNCED), ("shop/audit", Sync.WRITTEN)):
        logs[name] = await engine.open_log(name, LogConfig(sync=sync))
    for name in {COMPACTED, NUMBERED}.intersection(await engine.list_logs()):  # others are from before there were such
        logs[name] = await engine.open_log(name, LogConfig())
    facts["streams"] = {}
    for name, log in logs.items():
        facts["streams"][name], found = await _read_log(log)
        if log is control.log:
            topics = found
    facts["logs"] = await engine.list_logs()
    if NUMBERED in logs:
        facts["numbered"] = await _read_numbered(logs[NUMBERED])
    await engine.close()
    return Reading(facts=facts, topics=topics)


async def _read_numbered(log: Log) -> list[list[Any]]:
    found: list[list[Any]] = []
    offset = log.first_offset
    while blocks := await log.read(offset, max_bytes=1 << 20):
        for block in blocks:
            found += [[run.producer, run.epoch, run.first_sequence, run.count] for run in block.numbered]
            offset = block.end_offset
    return found


async def _read_log(log: Log) -> tuple[dict[str, Any], list[str]]:
    """Every record with all that it says, as one hash."""
    digest, topics, offset = hashlib.sha256(), [], log.first_offset
    while blocks := await log.read(offset, max_bytes=1 << 20):
        for block in blocks:
            offset = block.end_offset
            for index in range(block.count):
                record = block.record(index)
                digest.update(
                    repr((record, block.key_hashes[index], list(block.id_hashes[2 * index : 2 * index + 2]))).encode()
                )
                topics.append(record.topic)
    return {
        "first": log.first_offset,
        "next": log.next_offset,
        "records": len(topics),
        "sha256": digest.hexdigest(),
    }, topics
