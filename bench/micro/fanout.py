"""Who takes a topic, of many subscriptions: from memory, asked anew, and after a change."""

from __future__ import annotations

from typing import Any

from bench.micro.timing import FULL, QUICK, Plan, each, each_of, row
from trunkline.core.fanout import FilterSet, matches

SUBSCRIPTIONS = 1_000
TOPICS = [f"shop.orders.{number % 10}.{number}" for number in range(1_000)]

Row = dict[str, Any]


def filters() -> list[tuple[int, str]]:
    """One in ten takes a tenth of the topics, the rest one topic each."""
    return [
        (number, f"shop.*.{number // 10 % 10}.>" if number % 10 == 0 else f"*.orders.{number % 10}.{number}")
        for number in range(SUBSCRIPTIONS)
    ]


def filter_set(*, cached_topics: int = 4096) -> FilterSet:
    """The filters, compiled."""
    made = FilterSet(cached_topics=cached_topics)
    for number, filter in filters():
        made.add(number, filter)
    return made


def change_and_match(plan: Plan) -> Row:
    """A subscription comes and goes, and each time a topic is asked for."""
    subject = filter_set()

    def call() -> None:
        subject.add(SUBSCRIPTIONS, "shop.>")
        subject.match(TOPICS[0])
        subject.remove(SUBSCRIPTIONS)
        subject.match(TOPICS[0])

    return row("fanout", f"add, match, remove, match at {SUBSCRIPTIONS:,} subscriptions", plan, each(call))


def rows(quick: bool) -> list[Row]:
    """All results, in nanoseconds a topic."""
    plan = QUICK if quick else FULL
    pairs = filters()

    def one_by_one(topic: str) -> tuple[int, ...]:
        return tuple(number for number, filter in pairs if matches(filter, topic))

    remembered, forgetful = filter_set(), filter_set(cached_topics=1)
    assert remembered.match(TOPICS[7]) == one_by_one(TOPICS[7])
    peer = "asking each filter"
    what = f"of {SUBSCRIPTIONS:,} subscriptions"
    return [
        row("fanout", f"topic asked before {what}", plan, each_of(remembered.match, TOPICS)),
        row(
            "fanout",
            f"topic asked anew {what}",
            plan,
            each_of(forgetful.match, TOPICS),
            peer,
            each_of(one_by_one, TOPICS),
        ),
        change_and_match(plan),
    ]
