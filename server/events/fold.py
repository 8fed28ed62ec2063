"""Which streams and durable subscriptions there are, as the control stream's records leave it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from trunkline.api.journal.v1 import control_pb2, events_pb2
from trunkline.core.records import Change, Record

from .settings import StreamSettings, SubscriptionSettings

STREAM_CREATED = "stream.created"
STREAM_UPDATED = "stream.updated"
STREAM_DELETED = "stream.deleted"
SUBSCRIPTION_CREATED = "subscription.created"
SUBSCRIPTION_UPDATED = "subscription.updated"
SUBSCRIPTION_DELETED = "subscription.deleted"
FOLD_VERSION = 1
PER_PIECE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEntity:
    """A stream that was made."""

    namespace: str
    name: str
    settings: StreamSettings
    created_revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionEntity:
    """A durable subscription; it begins at `offset` of `incarnation`, and takes the latest of each key up to `latest_below`."""

    namespace: str
    stream: str
    name: str
    settings: SubscriptionSettings
    incarnation: int
    offset: int
    created_revision: int
    latest_below: int = 0

    @property
    def key(self) -> str:
        return subscription_key(self.namespace, self.stream, self.name)


Entity = StreamEntity | SubscriptionEntity


def stream_key(namespace: str, stream: str) -> str:
    """What names a stream in the control stream."""
    return f"stream/{namespace}/{stream}"


def subscription_key(namespace: str, stream: str, name: str) -> str:
    """What names a subscription in the control stream. Only its name may have a '/'."""
    return f"subscription/{namespace}/{stream}/{name}"


class EventsFold:
    """Folds stream.* and subscription.*. A stream that is deleted takes its subscriptions along."""

    name = "events"
    version = FOLD_VERSION
    topics: Sequence[str] = ("stream", "subscription")

    def __init__(self) -> None:
        self._streams: dict[str, StreamEntity] = {}
        self._subscriptions: dict[str, SubscriptionEntity] = {}
        self._by_stream: dict[tuple[str, str], dict[str, SubscriptionEntity]] = {}

    # Reading.

    def get(self, key: str) -> Entity | None:
        """The stream or subscription of a key."""
        return self._streams.get(key) or self._subscriptions.get(key)

    def stream(self, namespace: str, stream: str) -> StreamEntity | None:
        """A stream by name."""
        return self._streams.get(stream_key(namespace, stream))

    def streams(self) -> Iterable[StreamEntity]:
        """Every stream that was made."""
        return self._streams.values()

    def subscription(self, namespace: str, stream: str, name: str) -> SubscriptionEntity | None:
        """A durable subscription by name."""
        return self._by_stream.get((namespace, stream), {}).get(name)

    def subscriptions(self) -> Iterable[SubscriptionEntity]:
        """Every durable subscription."""
        return self._subscriptions.values()

    def subscriptions_of(self, namespace: str, stream: str) -> Iterable[SubscriptionEntity]:
        """Those of one stream."""
        return self._by_stream.get((namespace, stream), {}).values()

    # Folding.

    def reduce(self, entity: Entity | None, change: Change, *, revision: int, time_ns: int) -> Entity | None:
        """What a change makes of an entity."""
        return _reduce(entity, change.topic, change.key, change.body, revision)

    def apply(self, record: Record) -> None:
        """Take in a record."""
        entity = _reduce(self.get(record.key), record.topic, record.key, record.body, record.offset)
        if isinstance(entity, StreamEntity):
            self._streams[record.key] = entity
        elif isinstance(entity, SubscriptionEntity):
            self._add(entity)
        elif record.topic == STREAM_DELETED:
            self._remove_stream(record.key)
        else:
            self._remove_subscription(record.key)

    def _add(self, entity: SubscriptionEntity) -> None:
        self._subscriptions[entity.key] = entity
        self._by_stream.setdefault((entity.namespace, entity.stream), {})[entity.name] = entity

    def _remove_stream(self, key: str) -> None:
        stream = self._streams.pop(key, None)
        if stream is not None:
            for entity in self._by_stream.pop((stream.namespace, stream.name), {}).values():
                del self._subscriptions[entity.key]

    def _remove_subscription(self, key: str) -> None:
        entity = self._subscriptions.pop(key, None)
        if entity is not None:
            of_stream = self._by_stream[entity.namespace, entity.stream]
            del of_stream[entity.name]
            if not of_stream:
                del self._by_stream[entity.namespace, entity.stream]

    # Snapshots.

    def dump(self) -> Iterator[bytes]:
        """Encode the state as of this call."""
        streams = [self._streams[key] for key in sorted(self._streams)]
        subscriptions = [self._subscriptions[key] for key in sorted(self._subscriptions)]
        return _pieces(streams, subscriptions)

    def load(self, version: int, pieces: Iterable[bytes]) -> None:
        """Become the state that `dump` encoded. ValueError when the version is not known."""
        if version != FOLD_VERSION:
            raise ValueError(f"the event bus's section has version {version}; this program knows {FOLD_VERSION}")
        self._streams.clear()
        self._subscriptions.clear()
        self._by_stream.clear()
        for data in pieces:
            piece = events_pb2.EventsPiece.FromString(data)
            for kept in piece.streams:
                entity = StreamEntity(
                    namespace=kept.config.namespace,
                    name=kept.config.name,
                    settings=StreamSettings.of(kept.config),
                    created_revision=kept.created_revision,
                )
                self._streams[stream_key(entity.namespace, entity.name)] = entity
            for sub in piece.subscriptions:
                self._add(
                    SubscriptionEntity(
                        namespace=sub.namespace,
                        stream=sub.stream,
                        name=sub.name,
                        settings=SubscriptionSettings.of(sub.config),
                        incarnation=sub.incarnation,
                        offset=sub.offset,
                        created_revision=sub.created_revision,
                        latest_below=sub.latest_below,
                    )
                )


def _pieces(streams: Sequence[StreamEntity], subscriptions: Sequence[SubscriptionEntity]) -> Iterator[bytes]:
    for at in range(0, len(streams), PER_PIECE):
        piece = events_pb2.EventsPiece()
        for stream in streams[at : at + PER_PIECE]:
            config = stream.settings.message(stream.namespace, stream.name)
            piece.streams.add(config=config, created_revision=stream.created_revision)
        yield piece.SerializeToString(deterministic=True)
    for at in range(0, len(subscriptions), PER_PIECE):
        piece = events_pb2.EventsPiece()
        for entity in subscriptions[at : at + PER_PIECE]:
            piece.subscriptions.add(
                namespace=entity.namespace,
                stream=entity.stream,
                name=entity.name,
                config=entity.settings.message(),
                incarnation=entity.incarnation,
                offset=entity.offset,
                created_revision=entity.created_revision,
                latest_below=entity.latest_below,
            )
        yield piece.SerializeToString(deterministic=True)


def _reduce(entity: Entity | None, topic: str, key: str, body: bytes, revision: int) -> Entity | None:
    if topic == STREAM_CREATED:
        config = control_pb2.StreamCreated.FromString(body).config
        return StreamEntity(
            namespace=config.namespace,
            name=config.name,
            settings=StreamSettings.of(config),
            created_revision=revision,
        )
    if topic == SUBSCRIPTION_CREATED:
        created = control_pb2.SubscriptionCreated.FromString(body)
        _, namespace, stream, name = key.split("/", 3)
        return SubscriptionEntity(
            namespace=namespace,
            stream=stream,
            name=name,
            settings=SubscriptionSettings.of(created.config),
            incarnation=created.incarnation,
            offset=created.offset,
            created_revision=revision,
            latest_below=created.latest_below,
        )
    if topic == STREAM_UPDATED and isinstance(entity, StreamEntity):
        return replace(entity, settings=StreamSettings.of(control_pb2.StreamUpdated.FromString(body).config))
    if topic == SUBSCRIPTION_UPDATED and isinstance(entity, SubscriptionEntity):
        updated = control_pb2.SubscriptionUpdated.FromString(body)
        return replace(entity, settings=SubscriptionSettings.of(updated.config))
    return None
