"""How a subscription is configured, as users write it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias, TypedDict

from google.protobuf.field_mask_pb2 import FieldMask

from trunkline.api import convert
from trunkline.api.v1.events_pb2 import (
    AttributeFilter,
    SeekSubscriptionRequest,
    StartPosition,
    SubscriptionConfig,
    UpdateSubscriptionRequest,
)
from trunkline.core.errors import InvalidArgument

Start: TypeAlias = Literal["earliest", "latest", "last_per_key"] | int | datetime
"""The first event that is kept, only what comes from now on, of what is kept the latest event of each key, an offset, or a time
(with its zone)."""


def start_position(start: Start) -> StartPosition:
    """The message. InvalidArgument for anything else."""
    match start:
        case "earliest":
            return StartPosition(earliest=True)
        case "latest":
            return StartPosition(latest=True)
        case "last_per_key":
            return StartPosition(last_per_key=True)
        case int() if start >= 0 and not isinstance(start, bool):
            return StartPosition(offset=start)
        case datetime() if start.tzinfo is not None:
            position = StartPosition()
            position.time.FromDatetime(start)
            return position
    rule = "'earliest', 'latest', 'last_per_key', an offset, or a time with its zone"
    raise InvalidArgument.of("start", rule, start)


Ordering = Literal["parallel", "keyed", "sequential"]
"""How much order a subscription keeps: none, one event at a time of each key, one event at a time."""
_ORDERINGS: Final = {
    "parallel": SubscriptionConfig.ORDERING_PARALLEL,
    "keyed": SubscriptionConfig.ORDERING_KEYED,
    "sequential": SubscriptionConfig.ORDERING_SEQUENTIAL,
}


class SubscriptionOptions(TypedDict, total=False):
    """How a subscription is configured, beyond its stream and name. What is left out is the server's default, or, of a
    durable subscription that is there, as it is."""

    filters: Iterable[str]
    """Topics, with `*` for one word and a final `>` for the rest; any of them. All topics unless given."""
    attribute_filters: Iterable[Mapping[str, Any]]
    """All of them hold of an event's attributes, in CloudEvents Subscriptions' words: `{"exact": {"region": "eu"}}`,
    `"prefix"`, `"suffix"`, `{"any": [...]}`, `{"all": [...]}`, `{"not": {...}}`."""
    start: Start
    """Where a new one begins: "latest" unless given."""
    ack_deadline_s: float
    """How long a delivery may stand unacknowledged."""
    max_deliveries: int
    """After so many an event is set aside."""
    max_in_flight: int
    """Deliveries that may stand open over all consumers."""
    ordering: Ordering
    """"parallel" unless given."""
    key_attribute: str
    """With "keyed": the attribute that is the key; "partitionkey" unless given."""
    backoff_s: Iterable[float]
    """How long an event waits before its second, third, ... delivery; the last stands for all further ones."""
    dead_letter_stream: str
    """Takes the events that would be set aside."""


def subscription_config(options: SubscriptionOptions) -> SubscriptionConfig:
    """The message. InvalidArgument for what it cannot say."""
    filters, ordering = options.get("filters", ()), options.get("ordering")
    if ordering is not None and ordering not in _ORDERINGS:
        raise InvalidArgument.of("ordering", f"one of {', '.join(_ORDERINGS)}", ordering)
    if isinstance(filters, str):
        raise InvalidArgument.of("filters", "a list of filters, not one text", filters)
    deadline_s = options.get("ack_deadline_s")
    return SubscriptionConfig(
        filters=list(filters),
        attribute_filters=[attribute_filter(one) for one in options.get("attribute_filters", ())],
        ack_deadline=None if deadline_s is None else convert.ms_to(int(deadline_s * 1_000)),
        max_deliveries=options.get("max_deliveries", 0),
        start=start_position(options.get("start", "latest")),
        max_in_flight=options.get("max_in_flight", 0),
        ordering=SubscriptionConfig.ORDERING_UNSPECIFIED if ordering is None else _ORDERINGS[ordering],
        key_attribute=options.get("key_attribute", ""),
        backoff=[convert.ms_to(int(delay_s * 1_000)) for delay_s in options.get("backoff_s", ())],
        dead_letter_stream=options.get("dead_letter_stream", ""),
    )


def update_request(namespace: str, stream: str, name: str, options: SubscriptionOptions) -> UpdateSubscriptionRequest:
    """What gives a subscription these options, and leaves the others. InvalidArgument when there are none."""
    if not options:
        raise InvalidArgument.of("options", "at least one", "none")
    paths = [option.removesuffix("_s") for option in options]
    config = subscription_config(options)
    if "start" not in options:
        config.ClearField("start")
    return UpdateSubscriptionRequest(
        namespace=namespace, stream=stream, name=name, config=config, update_mask=FieldMask(paths=paths)
    )


def seek_request(namespace: str, stream: str, name: str, to: Start) -> SeekSubscriptionRequest:
    """What moves a subscription."""
    return SeekSubscriptionRequest(namespace=namespace, stream=stream, subscription=name, to=start_position(to))


def attribute_filter(said: Mapping[str, Any]) -> AttributeFilter:
    """The message of a filter in CloudEvents Subscriptions' JSON form. InvalidArgument for anything else."""
    if len(said) != 1:
        raise InvalidArgument.of("attribute_filters", "one of exact, prefix, suffix, any, all, not in each", dict(said))
    [(kind, inner)] = said.items()
    made = AttributeFilter()
    try:
        if kind in ("exact", "prefix", "suffix"):
            getattr(made, kind).attributes.update(inner)
        elif kind in ("any", "all"):
            getattr(made, kind).filters.extend([attribute_filter(one) for one in inner])
        elif kind == "not":
            getattr(made, kind).CopyFrom(attribute_filter(inner))
        else:
            raise InvalidArgument.of("attribute_filters", "exact, prefix, suffix, any, all or not", kind)
    except (TypeError, ValueError, AttributeError) as error:
        raise InvalidArgument.of(f"attribute_filters.{kind}", "what such a filter holds", inner) from error
    return made
