"""What producers numbered of a block's events, as its common head says it: one message for the block, nothing per event."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from google.protobuf.message import DecodeError

from trunkline.api.journal.v1.record_pb2 import NumberedRun as NumberedRunMessage
from trunkline.api.journal.v1.record_pb2 import RecordHead
from trunkline.core.sequences import NumberedRun


def write_numbered(runs: Sequence[NumberedRun]) -> bytes:
    """The common head of a block of events."""
    return RecordHead(
        numbered=[
            NumberedRunMessage(
                first_record=run.first_record,
                count=run.count,
                producer=run.producer,
                epoch=run.epoch,
                first_sequence=run.first_sequence,
            )
            for run in runs
        ]
    ).SerializeToString()


def read_numbered(common: bytes, records: int) -> tuple[NumberedRun, ...]:
    """The runs in the common head of a block of so many records. ValueError when no writer of ours made it."""
    try:
        head = RecordHead.FromString(common)
    except DecodeError as error:
        raise ValueError(str(error)) from error
    runs = tuple(
        [NumberedRun(run.first_record, run.count, run.producer, run.epoch, run.first_sequence) for run in head.numbered]
    )
    end = 0
    for run in runs:
        if run.first_record < end or run.count == 0 or run.end_record > records:
            raise ValueError(f"records {run.first_record} to {run.end_record - 1} are numbered, of {records}")
        end = run.end_record
    return runs


def not_numbered(runs: Sequence[NumberedRun], count: int) -> Iterator[tuple[int, int]]:
    """The records of `count` that no producer numbered, as half-open ranges."""
    end = 0
    for run in runs:
        if end < run.first_record:
            yield end, run.first_record
        end = run.end_record
    if end < count:
        yield end, count
