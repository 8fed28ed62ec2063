"""Plain topic rules and a fan-out that asks every filter."""

from __future__ import annotations

import re

INVISIBLE = re.compile(
    "[\x00-\x20\x7f-\xa0\xad\u061c\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def topic_is_valid(topic: str) -> bool:
    """Whether `topic` is one."""
    return _is_valid(topic) and "*" not in topic and ">" not in topic


def filter_is_valid(filter: str) -> bool:
    """Whether `filter` is one."""
    words = filter.split(".")
    return _is_valid(filter) and all(
        word == "*" or (word == ">" and i == len(words) - 1) or not set("*>") & set(word)
        for i, word in enumerate(words)
    )


def matches(filter: str, topic: str) -> bool:
    """Whether the filter takes the topic; ValueError when one of them is not valid."""
    if not filter_is_valid(filter) or not topic_is_valid(topic):
        raise ValueError
    parts = [".+" if word == ">" else "[^.]+" if word == "*" else re.escape(word) for word in filter.split(".")]
    pattern = r"\.".join(parts)
    return re.fullmatch(pattern, topic, re.DOTALL) is not None


class FilterSet:
    """A list of pairs."""

    def __init__(self) -> None:
        self.pairs: set[tuple[int, str]] = set()

    def __len__(self) -> int:
        return len({id for id, _ in self.pairs})

    def add(self, id: int, filter: str) -> None:
        if not filter_is_valid(filter):
            raise ValueError
        self.pairs.add((id, filter))

    def remove(self, id: int) -> None:
        if all(own != id for own, _ in self.pairs):
            raise KeyError(id)
        self.pairs = {pair for pair in self.pairs if pair[0] != id}

    def match(self, topic: str) -> tuple[int, ...]:
        if not topic_is_valid(topic):
            raise ValueError
        return tuple(sorted({id for id, filter in self.pairs if matches(filter, topic)}))


def _is_valid(text: str) -> bool:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return False
    words = text.split(".")
    return size <= 256 and len(words) <= 16 and all(words) and INVISIBLE.search(text) is None
