"""Which events of a block a subscription takes. Subscriptions with the same filters are one group."""

from __future__ import annotations

from collections.abc import Sequence

from trunkline.api.attribute_filters import NO_ATTRIBUTE_FILTERS, AttributeFilters
from trunkline.core.fanout import FilterSet

from .event_block import EventBlock

EVERYTHING = 0
"""The group without filters."""
_Filters = tuple[tuple[str, ...], AttributeFilters]


class Matcher:
    """One per stream. Each topic of a block is matched once against all filters."""

    def __init__(self) -> None:
        self._filters = FilterSet()
        self._groups: dict[_Filters, int] = {}
        self._members: dict[int, int] = {}
        self._by_group: dict[int, _Filters] = {}
        self._last_id = EVERYTHING

    def join(self, filters: Sequence[str], attributes: AttributeFilters = NO_ATTRIBUTE_FILTERS) -> int:
        """The group of these filters; `leave` it when it is needed no more."""
        topics = tuple(sorted(set(filters)))
        if not topics or ">" in topics:
            topics = (">",)
            if not attributes:
                return EVERYTHING
        key = (topics, attributes)
        group = self._groups.get(key)
        if group is None:
            self._last_id += 1
            group = self._groups[key] = self._last_id
            self._by_group[group] = key
            for one in topics:
                self._filters.add(group, one)
        self._members[group] = self._members.get(group, 0) + 1
        return group

    def leave(self, group: int) -> None:
        """One member less."""
        if group == EVERYTHING:
            return
        self._members[group] -= 1
        if not self._members[group]:
            del self._members[group]
            del self._groups[self._by_group.pop(group)]
            self._filters.remove(group)

    def indexes(self, block: EventBlock, group: int) -> Sequence[int]:
        """The indexes of the events that a group takes, ascending; worked out once per block and group."""
        found = block.matched.get(group)
        if found is None:
            found = block.matched[group] = self._match(block, group)
        return found

    def _match(self, block: EventBlock, group: int) -> Sequence[int]:
        if group == EVERYTHING:
            return range(block.count)
        attributes = self._by_group[group][1]
        taken = {i for i, topic in enumerate(block.topics) if group in self._filters.match(topic)}
        if not taken:
            return ()
        indexes: Sequence[int] = range(block.count)
        if len(taken) < len(block.topics):
            indexes = [index for index, topic_id in enumerate(block.topic_ids) if topic_id in taken]
        if not attributes:
            return indexes
        texts = block.texts(indexes, attributes.names)
        return [index for index, one in zip(indexes, texts, strict=True) if attributes.hold(one)]
