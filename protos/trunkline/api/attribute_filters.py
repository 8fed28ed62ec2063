"""Filters on events' attributes, as CloudEvents Subscriptions 1.0 (3.2.4.1) has them: exact, prefix, suffix, all, any, not."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from trunkline.core.attributes import attribute_texts
from trunkline.core.errors import InvalidArgument

from .v1 import events_pb2

ATTRIBUTE_NAME: Final = re.compile("[a-z0-9]{1,20}", re.ASCII)
"""CloudEvents 1.0.2, 3.1; that there are at most 20 characters is a SHOULD there and a must here."""
ATTRIBUTE_NAME_RULE: Final = "1 to 20 lower-case letters and digits"

FILTERS_MAX = 64
"""Of one subscription, those within others included."""
DEPTH_MAX = 8
TEXT_BYTES_MAX = 1_024

Texts = Sequence[str | None]
"""Of the attributes in `names`, None for one that the event lacks."""
Test = Callable[[Texts], bool]
Message = events_pb2.AttributeFilter


@dataclass(frozen=True, slots=True)
class AttributeFilters:
    """All of these hold. Two are equal when the same was asked for, in whatever order."""

    messages: tuple[bytes, ...] = ()
    """Serialized, sorted."""
    names: tuple[str, ...] = field(default=(), compare=False, repr=False)
    """The attributes that they look at."""
    hold: Test = field(default=lambda texts: True, compare=False, repr=False)

    def __bool__(self) -> bool:
        return bool(self.messages)

    @classmethod
    def of(cls, messages: Iterable[Message], *, field: str) -> AttributeFilters:
        """Check and compile. InvalidArgument naming the field (`field` is the list's) and its rule."""
        messages = list(messages)
        if not messages:
            return NO_ATTRIBUTE_FILTERS
        compiler = _Compiler()
        tests = [compiler.compile(one, f"{field}[{i}]", 1) for i, one in enumerate(messages)]
        # protobuf's deterministic form is stable within one version of the library, and compared within one process only.
        kept = sorted({one.SerializeToString(deterministic=True) for one in messages})
        return cls(tuple(kept), tuple(compiler.places), _all(tests))

    def take(self, event: events_pb2.CloudEvent) -> bool:
        """Whether they hold of an event."""
        if not self.names:
            return True
        frame = events_pb2.Delivery(event=event).SerializeToString()
        [texts] = attribute_texts(frame, array("I", [len(frame)]), (0,), self.names)
        return self.hold(texts)

    def message(self) -> list[Message]:
        """What asks for the same."""
        return [Message.FromString(one) for one in self.messages]


class _Compiler:
    """Makes functions of messages; `places` says at which index of the texts each attribute is."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {}
        self._count = 0

    def compile(self, message: Message, path: str, depth: int) -> Test:
        self._count += 1
        if self._count > FILTERS_MAX:
            raise InvalidArgument.of(path, f"at most {FILTERS_MAX} filters in all", "more")
        if depth > DEPTH_MAX:
            raise InvalidArgument.of(path, f"at most {DEPTH_MAX} deep", "deeper")
        kinds = [known.name for known, _ in message.ListFields()]
        if len(kinds) != 1:
            raise InvalidArgument.of(path, "exactly one of exact, prefix, suffix, all, any, not", " and ".join(kinds))
        [kind] = kinds
        inner = f"{path}.{kind}"
        if kind in _COMPARISONS:
            return self._compare(getattr(message, kind).attributes, inner, _COMPARISONS[kind])
        if kind == "not":
            negated = self.compile(getattr(message, kind), inner, depth + 1)
            return lambda texts: not negated(texts)
        filters = getattr(message, kind).filters
        if not filters:
            raise InvalidArgument.of(inner, "at least one filter", "none")
        tests = [self.compile(one, f"{inner}[{i}]", depth + 1) for i, one in enumerate(filters)]
        return _all(tests) if kind == "all" else _any(tests)

    def _compare(self, wanted: Mapping[str, str], path: str, comparison: Callable[[int, str], Test]) -> Test:
        if not wanted:
            raise InvalidArgument.of(path, "at least one attribute", "none")
        tests = []
        for name, text in sorted(wanted.items()):
            where = f"{path}.attributes[{name[:40]}]"
            if not ATTRIBUTE_NAME.fullmatch(name):
                raise InvalidArgument.of(where, ATTRIBUTE_NAME_RULE, name)
            if not text or len(text.encode()) > TEXT_BYTES_MAX:
                raise InvalidArgument.of(where, f"1 to {TEXT_BYTES_MAX} bytes", f"{len(text.encode())} bytes")
            tests.append(comparison(self.places.setdefault(name, len(self.places)), text))
        return _all(tests)


def _exact(place: int, wanted: str) -> Test:
    return lambda texts: texts[place] == wanted


def _prefix(place: int, wanted: str) -> Test:
    return lambda texts: (text := texts[place]) is not None and text.startswith(wanted)


def _suffix(place: int, wanted: str) -> Test:
    return lambda texts: (text := texts[place]) is not None and text.endswith(wanted)


def _all(tests: Sequence[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]
    return lambda texts: all(test(texts) for test in tests)


def _any(tests: Sequence[Test]) -> Test:
    return lambda texts: any(test(texts) for test in tests)


_COMPARISONS = {"exact": _exact, "prefix": _prefix, "suffix": _suffix}
NO_ATTRIBUTE_FILTERS = AttributeFilters()
