"""Changes of a stream's or a subscription's configuration: decided against what it is, and kept as one record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from google.protobuf.message import Message

from trunkline.api.journal.v1 import control_pb2
from trunkline.api.v1 import events_pb2
from trunkline.core.errors import InvalidArgument, NotSupported
from trunkline.core.records import Change
from trunkline.server.journal.control.fold import View
from trunkline.server.journal.control.sequencer import Origin

from .feed import Feed
from .fold import STREAM_UPDATED, SUBSCRIPTION_UPDATED, EventsFold, stream_key
from .settings import CHANGES, DEFAULT_STREAM, StreamSettings, SubscriptionSettings, merged
from .stream import EventStream
from .streams import Streams, Writer, not_found
from .subscriptions import Subscriptions, subscription_not_found

STREAM_STAYS: Final = ("sync", "dedupe_window", "dedupe_ids")
"""What a stream was made with: its acknowledgements, and the memory it took, rest on them."""
SUBSCRIPTION_STAYS: Final = ("ordering", "key_attribute")
"""What is parked and held is so by these."""


class Updates:
    """Writes them. Raises InvalidArgument when a mask names no field, or a field that stays is given another value."""

    def __init__(self, fold: EventsFold, streams: Streams, subscriptions: Subscriptions, writer: Writer) -> None:
        self._fold = fold
        self._streams = streams
        self._subscriptions = subscriptions
        self._writer = writer

    async def stream(
        self, request: events_pb2.UpdateStreamRequest, origin: Origin, *, deadline_ns: int | None = None
    ) -> EventStream:
        """StreamNotFound, NotSupported for a derived one."""
        namespace, name = request.stream.namespace, request.stream.name
        if name == CHANGES:
            raise NotSupported(f"stream {CHANGES} is derived from control and keeps nothing of its own")
        stream = await self._streams.get(namespace, name, origin)
        key = stream_key(namespace, name)

        def decide(view: View) -> Sequence[Change]:
            found = view.get(key)
            if found is None:
                raise not_found(namespace, name)
            old = found.settings.message(namespace, name)
            settings = StreamSettings.of(merged(old, request.stream, request.update_mask))
            new = settings.message(namespace, name)
            _refuse_changed(old, new, STREAM_STAYS, "stream")
            if settings.compaction is not None and self._takes_dead_letters(namespace, name):
                raise InvalidArgument.of(
                    "stream.compaction", "not where dead letters go: one could make another go", name
                )
            body = control_pb2.StreamUpdated(config=new).SerializeToString()
            return [] if settings == found.settings else [_change(STREAM_UPDATED, key, body, namespace)]

        await self._writer.write(decide, origin, deadline_ns=deadline_ns)
        return stream

    def _takes_dead_letters(self, namespace: str, name: str) -> bool:
        of_namespace = (one for one in self._fold.subscriptions() if one.namespace == namespace)
        return any(one.settings.dead_letter_stream == name for one in of_namespace)

    async def subscription(
        self, request: events_pb2.UpdateSubscriptionRequest, origin: Origin, *, deadline_ns: int | None = None
    ) -> Feed:
        """StreamNotFound, SubscriptionNotFound."""
        stream = await self._streams.get(request.namespace, request.stream or DEFAULT_STREAM, origin)
        feed = self._subscriptions.feed(stream, request.name)
        if request.config.HasField("start") or "start" in request.update_mask.paths:
            raise InvalidArgument.of("config.start", "not in an update: seek moves a subscription", "a start")
        await self._subscriptions.check(stream, updated(feed.settings, request), origin)

        def decide(view: View) -> Sequence[Change]:
            found = view.get(feed.key)
            if found is None:
                raise subscription_not_found(stream.namespace, stream.name, request.name)
            settings = updated(found.settings, request)
            body = control_pb2.SubscriptionUpdated(config=settings.message()).SerializeToString()
            changed = settings != found.settings
            return [_change(SUBSCRIPTION_UPDATED, feed.key, body, stream.namespace)] if changed else []

        await self._writer.write(decide, origin, deadline_ns=deadline_ns)
        return feed


def updated(settings: SubscriptionSettings, request: events_pb2.UpdateSubscriptionRequest) -> SubscriptionSettings:
    """What a request makes of a subscription's configuration."""
    old = settings.message()
    found = SubscriptionSettings.of(merged(old, request.config, request.update_mask))
    _refuse_changed(old, found.message(), SUBSCRIPTION_STAYS, "config")
    return found


def _refuse_changed(old: Message, new: Message, names: Sequence[str], where: str) -> None:
    for name in names:
        if getattr(old, name) != getattr(new, name):
            raise InvalidArgument.of(f"{where}.{name}", "as it was when it was made", getattr(new, name))


def _change(topic: str, key: str, body: bytes, namespace: str) -> Change:
    return Change(topic=topic, key=key, body=body, namespace=namespace)
