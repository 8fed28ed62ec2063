"""publish, streams: what has happened."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import click
from google.protobuf.field_mask_pb2 import FieldMask

from trunkline.api.v1 import events_pb2
from trunkline.client import Event, Trunkline
from trunkline.core.errors import InvalidArgument
from trunkline.core.model import Sync

from ._context import Settings, as_dict, settings

BATCH = 500
min_lag_option = click.option(
    "--min-lag", type=click.FloatRange(min=0), help="Seconds before an event may go; with --compact. 600 unless given."
)
tombstone_retention_option = click.option(
    "--tombstone-retention", type=click.FloatRange(min=0), help="Seconds that a tombstone stays; with --compact. A day."
)
STREAM_COLUMNS = (
    "namespace",
    "name",
    "sync",
    "first_offset",
    "next_offset",
    "bytes",
    "max_age",
    "compacted_away",
    "derived",
)


@click.command(short_help="Publish events.")
@click.argument("event_type", metavar="TYPE")
@click.argument("data", default="")
@click.option("--stream", default="events", show_default=True)
@click.option("--id", "event_id", default="", help="Publishing it again with the same source and id keeps it once.")
@click.option("--source", default="/trunkline/cli", show_default=True)
@click.option("--subject", default="")
@click.option("--key", default="", help="Events of one key belong together.")
@click.option("--topic", default="", help="Instead of the type.")
@click.option("--tombstone", is_flag=True, help="The key has ended: of a stream that is compacted, all of it goes.")
@click.option("--lines", is_flag=True, help="Read data from standard input, an event a line.")
@settings
def publish(
    setting: Settings,
    /,
    event_type: str,
    data: str,
    stream: str,
    event_id: str,
    tombstone: bool,
    lines: bool,
    **fields: str,
) -> None:
    """Publish an event of TYPE with DATA (text; JSON is marked as such).

    \b
    trunkline publish order.placed '{"id": 7}' --key 7
    seq 1000 | trunkline publish counted --lines
    """
    if lines and (data or event_id):
        raise InvalidArgument.of("--lines", "takes its data from standard input, and ids are random", data or event_id)
    if tombstone and (lines or data or not fields["key"]):
        raise InvalidArgument.of("--tombstone", "with --key, and without data", data or "--lines" * lines)
    events = iter([event_of(event_type, data, event_id, fields)])
    if tombstone:
        events = iter([Event(type=event_type, id=event_id, attributes={"tombstone": True}, **fields)])
    elif lines:
        events = _from_lines(event_type, fields)

    async def work(trunkline: Trunkline) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for batch in _batches(events):
            published = await trunkline.publish(batch, stream=stream)
            rows += [
                {
                    "offset": event.offset,
                    "id": event.id,
                    "duplicate": event.duplicate,
                    "durability": published.durability.sync.name,
                    "copies": published.durability.copies,
                }
                for event in published.events
            ]
        return rows

    setting.show(setting.run(work), ("offset", "id", "duplicate", "durability", "copies"), empty="nothing to publish")


def event_of(event_type: str, data: str, event_id: str, fields: dict[str, str]) -> Event:
    """An event with what options say; data that is JSON is marked as such."""
    try:
        json.loads(data)
        attributes = {"datacontenttype": "application/json"}
    except ValueError:
        attributes = {"datacontenttype": "text/plain"} if data else {}
    return Event(type=event_type, data=data or None, id=event_id, attributes=attributes, **fields)


def _from_lines(event_type: str, fields: dict[str, str]) -> Iterator[Event]:
    for line in sys.stdin:
        yield event_of(event_type, line.rstrip("\n"), "", fields)


def _batches(events: Iterator[Event]) -> Iterator[list[Event]]:
    batch: list[Event] = []
    for event in events:
        batch.append(event)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


@click.group(short_help="List, make and delete streams.")
def streams() -> None:
    """Streams of events. Every namespace has `events` and the derived, read-only `changes`.

    \b
    trunkline streams list
    trunkline streams create audit --max-age 2592000 --sync FSYNCED
    trunkline streams update audit --max-bytes 10000000000
    """


@streams.command("list")
@settings
def list_streams(setting: Settings) -> None:
    """List the namespace's streams."""

    async def work(trunkline: Trunkline) -> list[dict[str, Any]]:
        answer = await trunkline.call(
            lambda stubs: stubs.events.ListStreams,
            events_pb2.ListStreamsRequest(namespace=setting.namespace),
            events_pb2.ListStreamsResponse,
        )
        return [_stream_row(stream) for stream in answer.streams]

    setting.show(setting.run(work), STREAM_COLUMNS, empty="no streams")


def _stream_row(stream: events_pb2.StreamState) -> dict[str, Any]:
    row = as_dict(stream)
    config = row.pop("config")
    row["compacted"] = row.pop("compaction", None)
    row["compacted_away"] = stream.compaction.removed_events if stream.HasField("compaction") else None
    return {**config, **row, "sync": Sync(stream.durability.sync).name if stream.durability.sync else ""}


@streams.command("create")
@click.argument("stream")
@click.option("--sync", type=click.Choice([sync.name for sync in Sync], case_sensitive=False), default="FSYNCED")
@click.option("--max-age", type=click.IntRange(min=1), help="Seconds.")
@click.option("--max-bytes", type=click.IntRange(min=1), default=None)
@click.option("--max-records", type=click.IntRange(min=1), default=None)
@click.option("--compact", is_flag=True, help="Keep of each key the latest event.")
@min_lag_option
@tombstone_retention_option
@settings
def create_stream(
    setting: Settings,
    stream: str,
    sync: str,
    max_age: int | None,
    max_bytes: int | None,
    max_records: int | None,
    compact: bool,
    min_lag: float | None,
    tombstone_retention: float | None,
) -> None:
    """Make STREAM, or say that it is there."""
    config = events_pb2.StreamConfig(
        namespace=setting.namespace,
        name=stream,
        sync=Sync[sync.upper()].value,  # type: ignore[arg-type]
        max_bytes=max_bytes or 0,
        max_records=max_records or 0,
    )
    if max_age:
        config.max_age.FromSeconds(max_age)
    _set_compaction(config, compact, min_lag, tombstone_retention)

    async def work(trunkline: Trunkline) -> dict[str, Any]:
        answer = await trunkline.call(
            lambda stubs: stubs.events.CreateStream,
            events_pb2.CreateStreamRequest(stream=config),
            events_pb2.CreateStreamResponse,
        )
        return {**_stream_row(answer.stream), "created": answer.created}

    setting.show_one(setting.run(work))


def _set_compaction(
    config: events_pb2.StreamConfig, compact: bool, min_lag: float | None, tombstone_retention: float | None
) -> None:
    if not compact and (min_lag is not None or tombstone_retention is not None):
        raise InvalidArgument.of("--min-lag, --tombstone-retention", "only with --compact", "without")
    if compact:
        config.compaction.SetInParent()
    if min_lag is not None:
        config.compaction.min_lag.FromMilliseconds(int(min_lag * 1_000))
    if tombstone_retention is not None:
        config.compaction.tombstone_retention.FromMilliseconds(int(tombstone_retention * 1_000))


@streams.command("update")
@click.argument("stream")
@click.option("--max-age", type=click.IntRange(min=0), help="Seconds; 0 keeps events however old they are.")
@click.option("--max-bytes", type=click.IntRange(min=0), help="0 for no bound.")
@click.option("--max-records", type=click.IntRange(min=0), help="0 for no bound.")
@click.option("--compact/--no-compact", default=None, help="Keep of each key the latest event, or all of them.")
@min_lag_option
@tombstone_retention_option
@settings
def update_stream(
    setting: Settings,
    /,
    stream: str,
    compact: bool | None,
    min_lag: float | None,
    tombstone_retention: float | None,
    **options: int | None,
) -> None:
    """Change what STREAM keeps; what is over goes. What is not given stays; compaction is given as a whole."""
    said = {name: value for name, value in options.items() if value is not None}
    paths = [*said, *(() if compact is None else ("compaction",))]
    if not paths and min_lag is None and tombstone_retention is None:
        raise click.UsageError("nothing to change: give --max-age, --max-bytes, --max-records or --compact")
    config = events_pb2.StreamConfig(
        namespace=setting.namespace,
        name=stream,
        max_bytes=said.get("max_bytes", 0),
        max_records=said.get("max_records", 0),
    )
    if said.get("max_age"):
        config.max_age.FromSeconds(said["max_age"])
    _set_compaction(config, bool(compact), min_lag, tombstone_retention)
    request = events_pb2.UpdateStreamRequest(stream=config, update_mask=FieldMask(paths=paths))

    async def work(trunkline: Trunkline) -> dict[str, Any]:
        answer = await trunkline.call(lambda stubs: stubs.events.UpdateStream, request, events_pb2.UpdateStreamResponse)
        return _stream_row(answer.stream)

    setting.show_one(setting.run(work))


@streams.command("delete")
@click.argument("stream")
@click.confirmation_option(prompt="Delete the stream and all its events?")
@settings
def delete_stream(setting: Settings, stream: str) -> None:
    """Delete STREAM with everything in it."""

    async def work(trunkline: Trunkline) -> None:
        await trunkline.call(
            lambda stubs: stubs.events.DeleteStream,
            events_pb2.DeleteStreamRequest(namespace=setting.namespace, stream=stream),
            events_pb2.DeleteStreamResponse,
        )

    setting.run(work)
    setting.show_one({"deleted": stream})
