"""Topics and filters by example."""

from __future__ import annotations

import pytest

from trunkline.core.fanout import FilterSet, filter_is_valid, matches, topic_is_valid


@pytest.mark.parametrize("topic", ["a", "orders.created", "größe.Ω.😀", "a-b_c/d:e", "w" * 256, ".".join("w" * 16)])
def test_topics(topic: str) -> None:
    assert topic_is_valid(topic)
    assert filter_is_valid(topic)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "a b",
        "a\n",
        "\x7f",
        "\u2028",
        "\u202e",
        "w" * 257,
        "é" * 129,
        ".".join("w" * 17),
        "\ud800",
    ],
)
def test_neither_topics_nor_filters(text: str) -> None:
    assert not topic_is_valid(text)
    assert not filter_is_valid(text)


@pytest.mark.parametrize("filter", ["*", ">", "a.*", "*.a", "a.*.b.>", ".".join("*" * 16)])
def test_filters(filter: str) -> None:
    assert filter_is_valid(filter)
    assert not topic_is_valid(filter)


@pytest.mark.parametrize("text", ["a*", "*a", "**", "a.b*", ">.a", "a.>b", ">>", "a>", ".".join("*" * 17)])
def test_no_filters(text: str) -> None:
    assert not filter_is_valid(text)


@pytest.mark.parametrize(
    ("filter", "topic", "taken"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.b.c", False),
        ("a.b.c", "a.b", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("*.*", "a.b", True),
        (">", "a", True),
        (">", "a.b.c", True),
        ("a.>", "a", False),
        ("a.>", "a.b.c", True),
        ("*.b.>", "a.b.c", True),
        ("*.b.>", "a.c.c", False),
    ],
)
def test_matching(filter: str, topic: str, taken: bool) -> None:
    assert matches(filter, topic) is taken
    fan = FilterSet()
    fan.add(1, filter)
    assert fan.match(topic) == ((1,) if taken else ())


def test_an_id_with_several_matching_filters_stands_once_and_in_order() -> None:
    fan = FilterSet()
    for id in (9, 3, 7):
        fan.add(id, "a.>")
        fan.add(id, "*.b")
    assert fan.match("a.b") == (3, 7, 9)
    assert len(fan) == 3


def test_an_answer_is_kept_until_a_filter_changes() -> None:
    fan = FilterSet()
    fan.add(1, "a")
    first = fan.match("a")
    assert fan.match("a") is first
    fan.add(1, "a")  # no change
    assert fan.match("a") is first
    fan.add(2, "*")
    assert fan.match("a") == (1, 2)
    fan.remove(1)
    assert fan.match("a") == (2,)


def test_a_bad_cache_size_is_refused() -> None:
    with pytest.raises(ValueError, match="cached_topics"):
        FilterSet(cached_topics=0)
