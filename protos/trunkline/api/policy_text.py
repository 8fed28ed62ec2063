"""Policies as people write them: YAML or JSON, and back.

Names are the contract's (camel case is taken, too), the values of enumerations short and in lower case (`ring_hash`),
durations such as `250ms`, `1.5s` or `1h30m`. Every field's own type decides what its text means: `version: 1.10` is a range,
whatever YAML makes of it, and `no` is a word. Unknown fields, fields that stand twice and texts that mean nothing are
InvalidArgument, each with its path and line, and so many of them as one refusal names.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from decimal import Decimal
from typing import Any, NoReturn

import yaml
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from trunkline.core.errors import InvalidArgument, Violation

from .rules import VIOLATIONS_MAX, checker
from .v1.policy_pb2 import TrafficPolicy

TEXT_BYTES_MAX = 1024 * 1024
"""Of a text with all its policies."""
NODES_MAX = 100_000
"""Values of a text, those that aliases stand for counted each time."""
POLICIES_MAX = 1_000
SHOWN_MAX = 80

_UNITS_NS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|ms|s|m|h)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_INTEGER = re.compile(r"[+-]?[0-9](?:_?[0-9])*")


def read_policies(text: str, *, namespace: str = "") -> list[TrafficPolicy]:
    """The policies of a text, of which each is a YAML document, or one JSON object. Those that name no namespace get this one.

    InvalidArgument says all that means nothing, and then of what does mean something what breaks trunkline.api.rules. When
    everything means something, these and `check_policy` are to be asked whether it makes sense.
    """
    if len(text.encode()) > TEXT_BYTES_MAX:
        raise InvalidArgument(Violation("text", f"must have at most {TEXT_BYTES_MAX} bytes", f"{len(text)} characters"))
    reader = _Reader()
    policies: list[TrafficPolicy] = []
    with suppress(_Enough), reader.noting():
        for node in _documents(text):
            if node is None or _is_empty(node):
                continue
            if len(policies) >= POLICIES_MAX:
                raise InvalidArgument(Violation("text", f"must have at most {POLICIES_MAX} policies", "more"))
            policies.append(reader.policy(node, namespace))
    if reader.unreadable:
        raise InvalidArgument(*reader.unreadable, *reader.wrong[: VIOLATIONS_MAX - len(reader.unreadable)])
    return policies


def policy_to_dict(policy: TrafficPolicy) -> dict[str, Any]:
    """What `read_policies` reads, as JSON's values; what is not said is left out."""
    return _message_to(policy)


def write_policies(*policies: TrafficPolicy) -> str:
    """YAML that `read_policies` makes the same policies of."""
    documents = (policy_to_dict(policy) for policy in policies)
    dumped: str = yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return dumped


# Reading.


def _documents(text: str) -> Iterator[yaml.Node | None]:
    if text.lstrip()[:1] in ("{", "["):
        yield _json_node(text)
        return
    try:
        yield from yaml.compose_all(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark is not None else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise InvalidArgument(Violation("text", f"must be YAML or JSON ({line}{problem})", _shown(text))) from None
    except RecursionError:
        raise InvalidArgument(Violation("text", "must not be nested so deeply", _shown(text))) from None


def _json_node(text: str) -> yaml.Node:
    """JSON as YAML's parser would give it. That itself takes most of JSON, but not all."""

    def of(value: Any) -> yaml.Node:
        if isinstance(value, _Pairs):
            pairs = [(of(key), of(inner)) for key, inner in value]
            return yaml.MappingNode("", pairs, _NOWHERE, _NOWHERE)
        if isinstance(value, list):
            return yaml.SequenceNode("", list(map(of, value)), _NOWHERE, _NOWHERE)
        if isinstance(value, str):
            return yaml.ScalarNode("", value, _NOWHERE, _NOWHERE, style='"')
        return yaml.ScalarNode("", value if isinstance(value, _Number) else json.dumps(value), _NOWHERE, _NOWHERE)

    try:
        return of(json.loads(text, object_pairs_hook=_Pairs, parse_int=_Number, parse_float=_Number))
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(Violation("text", f"must be YAML or JSON ({error})", _shown(text))) from None


class _Pairs(list[tuple[str, Any]]):
    """A JSON object, of which nothing is lost."""


class _Number(str):
    """A JSON number as it is written."""


_NOWHERE = yaml.Mark("", 0, -1, 0, None, 0)


def _is_empty(node: yaml.Node) -> bool:
    """A document in which nothing stands, as behind a last `---`."""
    return isinstance(node, yaml.ScalarNode) and not node.value and node.style is None


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.style is None and node.value in ("", "null", "~")


def _shown(text: str) -> str:
    shown = repr(text[:SHOWN_MAX])
    return shown if len(shown) <= SHOWN_MAX else shown[: SHOWN_MAX - 3] + "..."


_KINDS: dict[type[yaml.Node], str] = {yaml.SequenceNode: "a list", yaml.MappingNode: "a mapping"}


def _refuse(path: str, rule: str, node: yaml.Node) -> NoReturn:
    value = (
        "nothing" if _is_null(node) else _shown(node.value) if isinstance(node, yaml.ScalarNode) else _KINDS[type(node)]
    )
    line = node.start_mark.line + 1
    raise InvalidArgument(Violation(path or "text", f"{rule} (line {line})" if line else rule, value))


def names_of(enum: EnumDescriptor) -> dict[str, int]:
    """The short names of an enumeration's values. The one that says nothing has none: it is left out."""
    prefix = len(enum.values[0].name) - len("UNSPECIFIED")
    return {value.name[prefix:].lower(): value.number for value in enum.values if value.number}


class _Enough(Exception):
    """More need not, or may not, be read."""


class _Reader:
    """Makes messages of nodes, counts those, and goes on behind what it cannot read."""

    def __init__(self) -> None:
        self.unreadable: list[Violation] = []
        self.wrong: list[Violation] = []
        """What the rules say of what was read of policies that were not read as a whole."""
        self._nodes = 0
        self._written: set[str] = set()

    def policy(self, node: yaml.Node, namespace: str) -> TrafficPolicy:
        """Of one document."""
        policy, before = TrafficPolicy(), len(self.unreadable)
        self._written = set()
        with self.noting():
            self._fill(policy, node, "")
        policy.namespace = policy.namespace or namespace
        if before < len(self.unreadable):
            self._check(policy, self.unreadable[before:])
        return policy

    def _check(self, policy: TrafficPolicy, unreadable: Iterable[Violation]) -> None:
        """By the rules, in what was written and read."""
        lost = [one.field for one in unreadable]
        try:
            checker(TrafficPolicy.DESCRIPTOR)(policy)
        except InvalidArgument as refused:
            self.wrong += [
                one
                for one in refused.violations
                if one.field in self._written and not any(_within(path, one.field) for path in lost)
            ]

    @contextmanager
    def noting(self) -> Iterator[None]:
        """What cannot be read inside is remembered, and not read to its end."""
        try:
            yield
        except InvalidArgument as refused:
            self.unreadable += refused.violations
            if len(self.unreadable) >= VIOLATIONS_MAX:
                raise _Enough from None

    def _fill(self, message: Message, node: yaml.Node, path: str) -> None:
        """Put what a mapping says into a message."""
        names, said = _fields_of(message.DESCRIPTOR), set[str]()
        for key, value in self._pairs(node, path):
            inner = f"{path}.{key.value}" if path else key.value
            with self.noting():
                field = names.get(key.value)
                if field is None:
                    known = ", ".join(one.name for one in message.DESCRIPTOR.fields)
                    _refuse(inner, f"is no field here; there are {known}", key)
                if field.name in said:
                    _refuse(inner, f"must not stand beside {field.name}, which is the same", key)
                said.add(field.name)
                if _is_null(value):
                    _refuse(inner, "must have a value, or be left out", value)
                oneof = field.containing_oneof
                if oneof is not None and len(oneof.fields) > 1 and message.WhichOneof(oneof.name) is not None:
                    _refuse(inner, f"must not stand beside {message.WhichOneof(oneof.name)}", key)
                self._written.add(f"{path}.{field.name}" if path else field.name)
                self._set(message, field, value, inner)

    def _pairs(self, node: yaml.Node, path: str) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode):
            _refuse(path, "must be a mapping of fields", node)
        seen: set[str] = set()
        for key, value in node.value:
            self._count(value)
            with self.noting():
                if not isinstance(key, yaml.ScalarNode):
                    _refuse(path, "must have names for keys", key)
                if key.value in seen:
                    _refuse(f"{path}.{key.value}" if path else key.value, "must not stand twice", key)
                seen.add(key.value)
                yield key, value

    def _count(self, node: yaml.Node) -> None:
        self._nodes += 1
        if self._nodes > NODES_MAX:
            with self.noting():
                _refuse("text", f"must have at most {NODES_MAX} values", node)
            raise _Enough

    def _set(self, message: Message, field: FieldDescriptor, node: yaml.Node, path: str) -> None:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            entries = getattr(message, field.name)
            for key, value in self._pairs(node, path):
                with self.noting():
                    entries[key.value] = _text(value, f"{path}.{key.value}")
        elif field.is_repeated:
            self._add_all(message, field, node, path)
        elif field.message_type is None:
            setattr(message, field.name, _scalar(field, node, path))
        elif field.message_type.full_name == "google.protobuf.Duration":
            seconds, nanos = divmod(_duration_ns(node, path), 10**9)
            duration = getattr(message, field.name)
            duration.SetInParent()
            duration.seconds, duration.nanos = seconds, nanos
        else:
            inner = getattr(message, field.name)
            inner.SetInParent()
            self._fill(inner, node, path)

    def _add_all(self, message: Message, field: FieldDescriptor, node: yaml.Node, path: str) -> None:
        if not isinstance(node, yaml.SequenceNode):
            _refuse(path, "must be a list", node)
        items = getattr(message, field.name)
        for index, item in enumerate(node.value):
            self._count(item)
            where = f"{path}[{index}]"
            with self.noting():
                if field.message_type is not None:
                    self._fill(items.add(), item, where)
                else:
                    items.append(_scalar(field, item, where))


def _within(path: str, other: str) -> bool:
    """Whether one lies in the other, or is the same."""
    shorter, longer = sorted((path, other), key=len)
    return longer.startswith(shorter) and longer[len(shorter) : len(shorter) + 1] in ("", ".", "[")


def _fields_of(descriptor: Any) -> Mapping[str, FieldDescriptor]:
    by_name = {field.name: field for field in descriptor.fields}
    return {**{field.json_name: field for field in descriptor.fields}, **by_name}


def _text(node: yaml.Node, path: str) -> str:
    if not isinstance(node, yaml.ScalarNode):
        _refuse(path, "must be one value", node)
    value: str = node.value
    return value


def _scalar(field: FieldDescriptor, node: yaml.Node, path: str) -> Any:
    text = _text(node, path)
    if field.enum_type is not None:
        return _enum(field.enum_type, text, node, path)
    if field.type == FieldDescriptor.TYPE_STRING:
        return text
    if field.type == FieldDescriptor.TYPE_BYTES:
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            _refuse(path, "must be base64", node)
    if field.type == FieldDescriptor.TYPE_BOOL:
        if text not in ("true", "false"):
            _refuse(path, "must be true or false", node)
        return text == "true"
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return _float(text, node, path)
    largest = 2**32 - 1 if field.type == FieldDescriptor.TYPE_UINT32 else 2**64 - 1
    if not _INTEGER.fullmatch(text) or not 0 <= int(text) <= largest:
        _refuse(path, f"must be a whole number from 0 to {largest}", node)
    return int(text)


def _float(text: str, node: yaml.Node, path: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        _refuse(path, "must be a number", node)
    return value


def _enum(enum: EnumDescriptor, text: str, node: yaml.Node, path: str) -> int:
    names = names_of(enum)
    value = enum.values_by_name.get(text)
    number = names.get(text, value.number if value is not None else 0)
    if not number:
        _refuse(path, f"must be one of {', '.join(names)}", node)
    return number


def _duration_ns(node: yaml.Node, path: str) -> int:
    text = _text(node, path)
    if not _DURATION.fullmatch(text):
        _refuse(path, "must be a duration such as 250ms, 1.5s, 5m or 1h30m", node)
    ns = sum(Decimal(number) * _UNITS_NS[unit] for number, unit in _PART.findall(text))
    if ns != int(ns) or ns >= 315_576_000_000 * 10**9:
        _refuse(path, "must be a whole number of nanoseconds, and less than 10,000 years", node)
    return int(ns)


# Writing.


class _Dumper(yaml.SafeDumper):
    """Quotes texts with line breaks: some of them would be read as spaces."""


def _represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if len((text + ".").splitlines()) > 1 else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent)


def _message_to(message: Message) -> dict[str, Any]:
    return {field.name: _value_to(field, value) for field, value in message.ListFields()}


def _value_to(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {key: value[key] for key in sorted(value)}
    if field.is_repeated:
        return [_item_to(field, item) for item in value]
    return _item_to(field, value)


def _item_to(field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type is not None:
        short = {number: name for name, number in names_of(field.enum_type).items()}
        return short.get(value, value)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return base64.b64encode(value).decode()
    if field.message_type is None:
        return value
    if field.message_type.full_name == "google.protobuf.Duration":
        return duration_to(value.seconds * 10**9 + value.nanos)
    return _message_to(value)


def duration_to(ns: int) -> str:
    """As people write it, exactly: 250ms, 1.5s, 5m."""
    for unit in ("h", "m", "s"):
        if ns and ns % _UNITS_NS[unit] == 0:
            return f"{ns // _UNITS_NS[unit]}{unit}"
    unit = "s" if ns >= 10**9 or not ns else "ms"
    return f"{(Decimal(ns) / _UNITS_NS[unit]).normalize():f}{unit}"
