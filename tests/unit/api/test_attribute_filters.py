"""Filters on attributes: what they take, how they are compared, and what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import hypothesis.strategies as st
import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import given

from reference.attributes import text_of
from reference.events_world import BY, World, event, publish_request
from reference.registry_world import virtual
from trunkline.api.attribute_filters import DEPTH_MAX, FILTERS_MAX, AttributeFilters
from trunkline.api.v1 import events_pb2
from trunkline.core.errors import InvalidArgument
from trunkline.server.events.settings import SubscriptionSettings


def parsed(*filters: dict[str, Any]) -> list[events_pb2.AttributeFilter]:
    return [ParseDict(one, events_pb2.AttributeFilter()) for one in filters]


def exact(**texts: str) -> dict[str, Any]:
    return {"exact": {"attributes": texts}}


NAMES = st.sampled_from(["region", "tenant", "type"])
TEXTS = st.text("ab", min_size=1, max_size=3)
COMPARISONS = st.builds(
    lambda kind, texts: {kind: {"attributes": texts}},
    st.sampled_from(["exact", "prefix", "suffix"]),
    st.dictionaries(NAMES, TEXTS, min_size=1, max_size=2),
)
TREES = st.recursive(
    COMPARISONS,
    lambda inner: st.one_of(
        st.builds(lambda one: {"not": one}, inner),
        st.builds(
            lambda kind, some: {kind: {"filters": some}},
            st.sampled_from(["all", "any"]),
            st.lists(inner, min_size=1, max_size=3),
        ),
    ),
    max_leaves=6,
)


def holds(tree: dict[str, Any], made: events_pb2.CloudEvent) -> bool:
    [(kind, inner)] = tree.items()
    if kind == "not":
        return not holds(inner, made)
    if kind in ("all", "any"):
        return {"all": all, "any": any}[kind](holds(one, made) for one in inner["filters"])
    for name, wanted in inner["attributes"].items():
        text = text_of(made, name)
        if text is None:
            return False
        matches = {"exact": text == wanted, "prefix": text.startswith(wanted), "suffix": text.endswith(wanted)}
        if not matches[kind]:
            return False
    return True


@given(st.lists(TREES, min_size=1, max_size=3), st.dictionaries(st.sampled_from(["region", "tenant"]), TEXTS), TEXTS)
def test_filters_hold_where_the_plain_reading_of_them_does(
    trees: list[dict[str, Any]], attributes: dict[str, str], topic: str
) -> None:
    made = event("e", topic=topic)
    for name, text in attributes.items():
        made.attributes[name].ce_string = text
    try:
        filters = AttributeFilters.of(parsed(*trees), field="f")
    except InvalidArgument:
        return  # deeper than allowed
    texts = [text_of(made, name) for name in filters.names]
    assert filters.hold(texts) is all(holds(tree, made) for tree in trees)


def test_the_order_in_which_they_were_named_makes_no_difference() -> None:
    one, other = exact(a="1", b="2"), {"not": exact(c="3")}
    first = AttributeFilters.of(parsed(one, other), field="f")
    second = AttributeFilters.of(parsed(other, one, one), field="f")
    assert first == second
    assert hash(first) == hash(second)
    assert first != AttributeFilters.of(parsed(one), field="f")
    config = events_pb2.SubscriptionConfig(attribute_filters=parsed(one, other))
    settings = SubscriptionSettings.of(config)
    assert SubscriptionSettings.of(settings.message()) == settings


def nested(depth: int) -> dict[str, Any]:
    return exact(a="1") if depth == 1 else {"not": nested(depth - 1)}


@pytest.mark.parametrize(
    ("filters", "field"),
    [
        ([{}], "f[0]"),
        ([exact(a="1"), {**exact(a="1"), "not": exact(a="1")}], "f[1]"),
        ([exact()], "f[0].exact"),
        ([exact(Region="eu")], "f[0].exact.attributes[Region]"),
        ([exact(region="")], "f[0].exact.attributes[region]"),
        ([exact(region="x" * 1025)], "f[0].exact.attributes[region]"),
        ([{"any": {"filters": []}}], "f[0].any"),
        ([{"all": {"filters": [exact(a="1"), {}]}}], "f[0].all[1]"),
        ([nested(DEPTH_MAX + 1)], "f[0]" + ".not" * DEPTH_MAX),
        ([{"any": {"filters": [exact(a="1")] * FILTERS_MAX}}], f"f[0].any[{FILTERS_MAX - 1}]"),
    ],
)
def test_filters_that_say_nothing_or_too_much_are_refused(filters: list[dict[str, Any]], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        AttributeFilters.of(parsed(*filters), field="f")
    assert refused.value.violations[0].field == field


def test_the_limits_themselves_are_allowed() -> None:
    AttributeFilters.of(parsed(nested(DEPTH_MAX)), field="f")
    AttributeFilters.of(parsed({"any": {"filters": [exact(a="1")] * (FILTERS_MAX - 1)}}), field="f")


def test_a_subscription_gets_what_topic_and_attributes_take() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            config = events_pb2.SubscriptionConfig(
                filters=["shop.>"], attribute_filters=parsed({"prefix": {"attributes": {"region": "eu-"}}})
            )
            durable, tap, other = world.connect(), world.connect(), world.connect()
            await durable.open(name="billing", config=config)
            await tap.open(no_acknowledgement=True, config=config)
            config.ClearField("filters")
            await other.open(config=config)
            made = [event(str(n), topic=topic) for n, topic in enumerate(["shop.a", "shop.a", "else", "shop.b"])]
            for one, region in zip(made, ["eu-1", "us-1", "eu-1", "eu-2"], strict=True):
                one.attributes["region"].ce_string = region
            await world.publishing.publish(publish_request([*made, event("none", topic="shop.a")]), BY, lambda _: None)
            await durable.received(2)
            await tap.received(2)
            await other.received(3)
            await asyncio.sleep(1)
            assert (durable.offsets, tap.offsets, other.offsets) == ([0, 3], [0, 3], [0, 2, 3])
            await durable.ack(0, 3)
            [state] = world.bus.subscriptions.states("shop", "events")
            assert (state.floor, state.config.attribute_filters) == (5, config.attribute_filters)

    virtual(main)
