"""What streams and subscriptions are configured with: values with the contract's defaults filled in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from trunkline.api import convert
from trunkline.api.attribute_filters import (
    ATTRIBUTE_NAME,
    ATTRIBUTE_NAME_RULE,
    NO_ATTRIBUTE_FILTERS,
    AttributeFilters,
)
from trunkline.api.v1 import common_pb2, events_pb2
from trunkline.core.errors import InvalidArgument
from trunkline.core.model import Sync
from trunkline.server.journal.log import Retention

from .bounds import DEFAULT, LookAhead
from .delivery import Limits
from .order import Ordering
from .webhook_settings import WebhookSettings

DEFAULT_STREAM = "events"
"""In every namespace; made with defaults when it is first used."""
CHANGES = "changes"
"""In every namespace; derived from control, not stored."""
DEDUPE_WINDOW_NS = 120_000_000_000
DEDUPE_IDS = 1_000_000
MIN_LAG_NS = 600_000_000_000
TOMBSTONE_RETENTION_NS = 86_400_000_000_000
ACK_DEADLINE_MS = 30_000
MAX_DELIVERIES = 20
MAX_IN_FLIGHT = 1_000
KEY_ATTRIBUTE = "partitionkey"
"""Whose hash the journal keeps of every event."""
BACKOFF_MS_MAX = 86_400_000
MASK_PATHS_MAX = 64
_MS = 1_000_000
Config = TypeVar("Config", events_pb2.StreamConfig, events_pb2.SubscriptionConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactionSettings:
    """How long events stay in whose place later ones stand, and tombstones."""

    min_lag_ns: int = MIN_LAG_NS
    tombstone_retention_ns: int = TOMBSTONE_RETENTION_NS

    @classmethod
    def of(cls, config: events_pb2.StreamConfig.Compaction) -> CompactionSettings:
        """What a message asks for."""
        return cls(
            min_lag_ns=convert.ms_from(config, "min_lag", MIN_LAG_NS // _MS) * _MS,
            tombstone_retention_ns=convert.ms_from(config, "tombstone_retention", TOMBSTONE_RETENTION_NS // _MS) * _MS,
        )

    def message(self) -> events_pb2.StreamConfig.Compaction:
        """The message that asks for all of this."""
        return events_pb2.StreamConfig.Compaction(
            min_lag=convert.ms_to(self.min_lag_ns // _MS),
            tombstone_retention=convert.ms_to(self.tombstone_retention_ns // _MS),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """A stream's configuration."""

    sync: Sync = Sync.FSYNCED
    max_age_ns: int | None = None
    max_bytes: int | None = None
    max_records: int | None = None
    dedupe_window_ns: int = DEDUPE_WINDOW_NS
    dedupe_ids: int = DEDUPE_IDS
    compaction: CompactionSettings | None = None

    @property
    def min_lag_ns(self) -> int:
        """No event is compacted away that is younger: repeats of it would be taken for new ones after a restart."""
        return max(self.dedupe_window_ns, 0 if self.compaction is None else self.compaction.min_lag_ns)

    @property
    def retention(self) -> Retention:
        """What may go."""
        return Retention(max_age_ns=self.max_age_ns, max_bytes=self.max_bytes, max_records=self.max_records)

    @classmethod
    def of(cls, config: events_pb2.StreamConfig) -> StreamSettings:
        """What a message asks for."""
        return cls(
            sync=convert.sync_from(config.sync, Sync.FSYNCED),
            max_age_ns=convert.ms_from(config, "max_age", 0) * _MS or None,
            max_bytes=config.max_bytes or None,
            max_records=config.max_records or None,
            dedupe_window_ns=convert.ms_from(config, "dedupe_window", DEDUPE_WINDOW_NS // _MS) * _MS,
            dedupe_ids=config.dedupe_ids or DEDUPE_IDS,
            compaction=CompactionSettings.of(config.compaction) if config.HasField("compaction") else None,
        )

    def message(self, namespace: str, name: str) -> events_pb2.StreamConfig:
        """The message that asks for all of this."""
        return events_pb2.StreamConfig(
            namespace=namespace,
            name=name,
            sync=common_pb2.Sync.ValueType(self.sync),
            max_age=None if self.max_age_ns is None else convert.ms_to(self.max_age_ns // _MS),
            max_bytes=self.max_bytes or 0,
            max_records=self.max_records or 0,
            dedupe_window=convert.ms_to(self.dedupe_window_ns // _MS),
            dedupe_ids=self.dedupe_ids,
            compaction=None if self.compaction is None else self.compaction.message(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionSettings:
    """A subscription's configuration, but for where it begins."""

    filters: tuple[str, ...] = ()
    """Sorted; empty takes every topic."""
    ack_deadline_ms: int = ACK_DEADLINE_MS
    max_deliveries: int = MAX_DELIVERIES
    max_in_flight: int = MAX_IN_FLIGHT
    ordering: Ordering = Ordering.PARALLEL
    key_attribute: str = ""
    """Of KEYED: the attribute that is the key."""
    attribute_filters: AttributeFilters = NO_ATTRIBUTE_FILTERS
    backoff_ms: tuple[int, ...] = ()
    """How long an event waits before its second, third, ... delivery."""
    dead_letter_stream: str = ""
    """Takes what would be set aside; empty if nothing does."""

    webhook: WebhookSettings | None = None

    @property
    def narrows(self) -> bool:
        """Whether there are events that it does not take."""
        return bool(self.filters or self.attribute_filters)

    @classmethod
    def of(cls, config: events_pb2.SubscriptionConfig) -> SubscriptionSettings:
        """What a message asks for. InvalidArgument for what its fields' rules cannot say."""
        ordering = Ordering(config.ordering or Ordering.PARALLEL)
        key = config.key_attribute
        if key and ordering is not Ordering.KEYED:
            raise InvalidArgument.of("config.key_attribute", "only with ORDERING_KEYED", key)
        if key and not ATTRIBUTE_NAME.fullmatch(key):
            raise InvalidArgument.of("config.key_attribute", ATTRIBUTE_NAME_RULE, key)
        if config.dead_letter_stream == CHANGES:
            raise InvalidArgument.of("config.dead_letter_stream", "a stream that takes events", CHANGES)
        return cls(
            filters=tuple(sorted(config.filters)),
            ack_deadline_ms=convert.ms_from(config, "ack_deadline", ACK_DEADLINE_MS),
            max_deliveries=config.max_deliveries or MAX_DELIVERIES,
            max_in_flight=config.max_in_flight or MAX_IN_FLIGHT,
            ordering=ordering,
            key_attribute=key or (KEY_ATTRIBUTE if ordering is Ordering.KEYED else ""),
            attribute_filters=AttributeFilters.of(config.attribute_filters, field="config.attribute_filters"),
            backoff_ms=tuple(_backoff_ms(delay, i) for i, delay in enumerate(config.backoff)),
            dead_letter_stream=config.dead_letter_stream,
            webhook=WebhookSettings.of(config.webhook) if config.HasField("webhook") else None,
        )

    def agrees_with(self, config: events_pb2.SubscriptionConfig) -> bool:
        """Whether nothing that a message says is otherwise here; where it would begin is another matter."""
        said = FieldMask(paths=[field.name for field, _ in config.ListFields() if field.name != "start"])
        return not said.paths or SubscriptionSettings.of(merged(self.message(), config, said)) == self

    def shown(self) -> events_pb2.SubscriptionConfig:
        """The message for everybody but the journal: without secrets."""
        message = self.message()
        if self.webhook is not None:
            message.webhook.CopyFrom(self.webhook.shown())
        return message

    def message(self) -> events_pb2.SubscriptionConfig:
        """The message that asks for all of this, for the journal: secrets stand in it."""
        return events_pb2.SubscriptionConfig(
            filters=self.filters,
            ack_deadline=convert.ms_to(self.ack_deadline_ms),
            max_deliveries=self.max_deliveries,
            max_in_flight=self.max_in_flight,
            ordering=self._ordering(),
            key_attribute=self.key_attribute,
            attribute_filters=self.attribute_filters.message(),
            backoff=[convert.ms_to(delay) for delay in self.backoff_ms],
            dead_letter_stream=self.dead_letter_stream,
            webhook=None if self.webhook is None else self.webhook.message(),
        )

    def _ordering(self) -> events_pb2.SubscriptionConfig.Ordering.ValueType:
        """Unspecified for the default, as earlier programs wrote it."""
        value = 0 if self.ordering is Ordering.PARALLEL else int(self.ordering)
        return events_pb2.SubscriptionConfig.Ordering.ValueType(value)

    def limits(self, *, durable: bool, look_ahead: LookAhead = DEFAULT) -> Limits:
        """For the state machine."""
        deadline_ms = self.ack_deadline_ms if self.webhook is None else self.webhook.deadline_ms
        return Limits(
            ack_deadline_ns=max(self.ack_deadline_ms, deadline_ms) * _MS,
            max_deliveries=self.max_deliveries,
            max_in_flight=self.max_in_flight,
            ordering=self.ordering,
            backoff_ns=tuple(delay * _MS for delay in self.backoff_ms),
            durable=durable,
            look_ahead=look_ahead,
        )


def _backoff_ms(delay: Duration, index: int) -> int:
    found = delay.ToMilliseconds()
    if not 0 <= found <= BACKOFF_MS_MAX:
        raise InvalidArgument.of(f"config.backoff[{index}]", f"between 0 and {BACKOFF_MS_MAX} ms", f"{found} ms")
    return found


def merged(old: Config, asked: Config, mask: FieldMask) -> Config:
    """`old` with the fields that the mask names, or all, as `asked` has them. InvalidArgument when it names no field."""
    if len(mask.paths) > MASK_PATHS_MAX:
        raise InvalidArgument.of("update_mask", f"at most {MASK_PATHS_MAX} paths", len(mask.paths))
    if not mask.IsValidForDescriptor(asked.DESCRIPTOR):
        raise InvalidArgument.of("update_mask", f"names of fields of {asked.DESCRIPTOR.name}", ", ".join(mask.paths))
    if not mask.paths:
        mask = FieldMask()
        mask.AllFieldsFromDescriptor(asked.DESCRIPTOR)
    found = type(asked)()
    found.CopyFrom(old)
    mask.MergeMessage(asked, found, replace_message_field=True, replace_repeated_field=True)
    return found
