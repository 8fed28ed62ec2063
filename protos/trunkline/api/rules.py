"""The rules of fields (trunkline/api/v1/rules.proto), compiled to one plain function per message type.

Python source is written for each type and compiled once, at start-up: a check stands before every call, and straight
code without a loop over fields or a call per rule takes two thirds of what closures take. A good message costs its
tests and nothing else; paths and violations are made only for what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, OneofDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from trunkline.core.errors import InvalidArgument, Violation

from .formats import FORMS
from .v1 import rules_pb2

VIOLATIONS_MAX = 16
"""Violations that one refusal names; what is wrong beyond them is not looked for."""

SHOWN_CHARACTERS_MAX = 80
"""Length of a value, and of a map's key in a path, as a refusal shows them."""

OPAQUE = frozenset(
    {
        "google.protobuf.Any",
        "trunkline.api.v1.AttributeFilter",
        "trunkline.api.v1.CloudEvent.CloudEventAttributeValue",
    }
)
"""Messages that are a user's data, and trees that their reader checks: they are not looked into, and what holds them
bounds their size."""

Check = Callable[[Message], None]
"""Takes a message of its type; raises InvalidArgument with every violation."""
Violations = list[Violation]
_Find = Callable[[Message], Violations | None]

_DURATION = "google.protobuf.Duration"
_TIMESTAMP = "google.protobuf.Timestamp"
_DURATION_SECONDS_MAX = 315_576_000_000
_TIMESTAMP_SECONDS_MIN = -62_135_596_800
_TIMESTAMP_SECONDS_MAX = 253_402_300_799


@cache
def checker(descriptor: Descriptor) -> Check:
    """The check of a message type. Compiles at the first call for a type; call it when the server starts."""
    find = _finder(descriptor)
    if find is None:
        return _accept

    def check(message: Message) -> None:
        found = find(message)
        if found:
            raise InvalidArgument(*found[:VIOLATIONS_MAX])

    return check


def rules_of(field: FieldDescriptor) -> rules_pb2.FieldRules:
    """What the contract says of a field; empty if nothing."""
    return field.GetOptions().Extensions[rules_pb2.rules]


def _accept(message: Message) -> None:
    """For message types that hold nothing to check."""


# What the generated code calls when something is wrong.


def _violation(found: Violations | None, field: str, rule: str, value: object) -> Violations:
    """Add one violation to those found so far, if any."""
    found = [] if found is None else found
    found.append(Violation(field, rule, _shown(value)))
    return found


def _within(found: Violations | None, prefix: str, inner: Violations) -> Violations:
    """Add the violations of a nested message."""
    found = [] if found is None else found
    found.extend([Violation(prefix + field, rule, value) for field, rule, value in inner])
    return found


def _shown(value: object) -> str:
    """What a refusal shows of a value: of bytes, which may be a secret, their number only."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return _shortened(repr(value[:SHOWN_CHARACTERS_MAX]))
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, Message):
        return _shortened(" ".join(str(value).split())) or "an empty message"
    return f"{len(value)} items" if isinstance(value, Sized) else str(value)


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS_MAX else text[: SHOWN_CHARACTERS_MAX - 3] + "..."


def _is_duration(value: Duration) -> bool:
    """Valid by the comment in google/protobuf/duration.proto."""
    seconds, nanos = value.seconds, value.nanos
    return (
        -_DURATION_SECONDS_MAX <= seconds <= _DURATION_SECONDS_MAX
        and -1_000_000_000 < nanos < 1_000_000_000
        and not (seconds > 0 > nanos or seconds < 0 < nanos)
    )


def _is_timestamp(value: Timestamp) -> bool:
    """Valid by the comment in google/protobuf/timestamp.proto."""
    return _TIMESTAMP_SECONDS_MIN <= value.seconds <= _TIMESTAMP_SECONDS_MAX and 0 <= value.nanos < 1_000_000_000


def _first_repeated(items: Iterable[Any]) -> Any | None:
    """The first item that stood before; None when all differ."""
    seen = set()
    for item in items:
        key = item.SerializeToString(deterministic=True) if isinstance(item, Message) else item
        if key in seen:
            return item
        seen.add(key)
    return None


# Writing the source. Every function returns lines that are indented relative to each other.


class _Names:
    """What the generated code of one type uses, by name."""

    def __init__(self) -> None:
        self.values: dict[str, object] = {
            "violation": _violation,
            "within": _within,
            "shortened": _shortened,
            "is_duration": _is_duration,
            "is_timestamp": _is_timestamp,
            "first_repeated": _first_repeated,
            "VIOLATIONS_MAX": VIOLATIONS_MAX,
        }

    def of(self, value: object) -> str:
        """A name by which the generated code reaches `value`."""
        name = f"_{len(self.values)}"
        self.values[name] = value
        return name


_Test = tuple[str, str]
"""A condition that is wrong, as source over the variable `v`, and the rule that it breaks."""


@cache
def _finder(descriptor: Descriptor) -> _Find | None:
    """The function that lists what is wrong with a message of this type; None when nothing can be."""
    names = _Names()
    lines = [line for oneof in descriptor.oneofs for line in _oneof_lines(oneof)]
    lines += [line for field in descriptor.fields for line in _field_lines(names, field)]
    if not lines:
        return None
    text = "\n".join(["def find(m):", *_indented(["found = None", *lines, "return found"])])
    exec(compile(text, f"<rules of {descriptor.full_name}>", "exec"), names.values)
    find: _Find = names.values["find"]  # type: ignore[assignment]
    return find


def _indented(lines: Iterable[str]) -> list[str]:
    return ["    " + line for line in lines]


def _refuse(tests: Iterable[_Test], where: str) -> list[str]:
    """An if-elif that names the first rule `v` breaks; `where` is the source of its path."""
    lines: list[str] = []
    for condition, rule in tests:
        lines += [f"{'elif' if lines else 'if'} {condition}:", f"    found = violation(found, {where}, {rule!r}, v)"]
    return lines


def _nested(find: str, prefix: str) -> list[str]:
    """Take over what is wrong within the message `v`; `prefix` is the source of its path."""
    return [f"inner = {find}(v)", "if inner:", f"    found = within(found, {prefix}, inner)"]


def _oneof_lines(oneof: OneofDescriptor) -> list[str]:
    if not oneof.GetOptions().Extensions[rules_pb2.oneof_required]:
        return []
    rule = f"must be one of {', '.join(field.name for field in oneof.fields)}"
    return [f"v = m.WhichOneof({oneof.name!r})", *_refuse([("v is None", rule)], repr(oneof.name))]


def _field_lines(names: _Names, field: FieldDescriptor) -> list[str]:
    rules = rules_of(field)
    if field.is_repeated:
        return _repeated_lines(names, field, rules)
    if field.message_type is not None:
        return _message_lines(names, field, rules)
    lines = _refuse(_scalar_tests(names, field, rules), repr(field.name))
    if not lines:
        return []
    lines = [f"v = m.{field.name}", *lines]
    return [f"if m.HasField({field.name!r}):", *_indented(lines)] if field.has_presence else lines


def _scalar_tests(names: _Names, field: FieldDescriptor, rules: rules_pb2.FieldRules) -> list[_Test]:
    if field.enum_type is not None:
        return _enum_tests(names, field.enum_type, rules)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return _text_tests(names, rules, text=field.type == FieldDescriptor.TYPE_STRING)
    tests = [("not v", "must not be 0")] if rules.required else []
    if rules.HasField("min"):
        tests.append((f"not v >= {rules.min}", f"must be at least {rules.min}"))  # so that it refuses NaN, too
    if rules.HasField("max"):
        tests.append((f"not v <= {rules.max}", f"must be at most {rules.max}"))
    return tests


def _enum_tests(names: _Names, enum: EnumDescriptor, rules: rules_pb2.FieldRules) -> list[_Test]:
    declared = {value.number: value.name for value in enum.values if value.number or not rules.required}
    return [(f"v not in {names.of(frozenset(declared))}", f"must be one of {', '.join(declared.values())}")]


def _text_tests(names: _Names, rules: rules_pb2.FieldRules, *, text: bool) -> list[_Test]:
    """Length and form of a string (`text`) or bytes. Forms and lower bounds take what is empty."""
    tests = [("not v", "must not be empty")] if rules.required else []
    if rules.min_bytes:
        size = "len(v.encode())" if text else "len(v)"
        tests.append((f"0 < {size} < {rules.min_bytes}", f"must have at least {rules.min_bytes} bytes"))
    if rules.max_bytes:
        # A character has at most four bytes: short strings need no encoding.
        limit = rules.max_bytes
        longer = f"len(v) > {limit // 4} and len(v.encode()) > {limit}" if text else f"len(v) > {limit}"
        tests.append((longer, f"must have at most {limit} bytes"))
    if rules.format:
        form = FORMS[rules.format]
        tests.append((f"v and not {names.of(form.accepts)}(v)", form.rule))
    return tests


def _message_lines(names: _Names, field: FieldDescriptor, rules: rules_pb2.FieldRules) -> list[str]:
    inner = _value_lines(names, field, rules, where=repr(field.name), prefix=repr(field.name + "."))
    lines: list[str] = []
    if inner:
        lines += [f"if m.HasField({field.name!r}):", *_indented([f"v = m.{field.name}", *inner])]
    if rules.required:
        lines += [
            "else:" if lines else f"if not m.HasField({field.name!r}):",
            f"    found = violation(found, {field.name!r}, 'must be set', None)",
        ]
    return lines


def _value_lines(
    names: _Names, field: FieldDescriptor, rules: rules_pb2.FieldRules, *, where: str, prefix: str
) -> list[str]:
    """Checks of the one value `v` of a field; empty when it needs none."""
    if field.message_type is None:
        return _refuse(_scalar_tests(names, field, rules), where)
    kind = field.message_type.full_name
    if kind in (_DURATION, _TIMESTAMP):
        return _refuse(_time_tests(kind, rules), where)
    find = None if kind in OPAQUE else _finder(field.message_type)
    return [] if find is None else _nested(names.of(find), prefix)


def _time_tests(kind: str, rules: rules_pb2.FieldRules) -> list[_Test]:
    if kind == _TIMESTAMP:
        return [("not is_timestamp(v)", "must be a time between the years 1 and 9999")]
    tests = [("not is_duration(v)", "must be a duration of at most 10,000 years, both parts of one sign")]
    ns = "v.seconds * 1000000000 + v.nanos"
    if rules.HasField("min_ms"):
        tests.append((f"{ns} < {rules.min_ms * 1_000_000}", f"must be at least {rules.min_ms} ms"))
    if rules.HasField("max_ms"):
        tests.append((f"{ns} > {rules.max_ms * 1_000_000}", f"must be at most {rules.max_ms} ms"))
    return tests


def _repeated_lines(names: _Names, field: FieldDescriptor, rules: rules_pb2.FieldRules) -> list[str]:
    """Checks of a list or a map, then, if they pass, of its items."""
    tests = [("not v", "must not be empty")] if rules.required else []
    if rules.max_items:
        tests.append((f"len(v) > {rules.max_items}", f"must have at most {rules.max_items} items"))
    is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
    items = _entry_lines(names, field, rules) if is_map else _item_lines(names, field, rules)
    if rules.unique:
        items += [
            "if len(items) > 1 and (again := first_repeated(items)) is not None:",
            f"    found = violation(found, {field.name!r}, 'must not have two equal items', again)",
        ]
    lines = _refuse(tests, repr(field.name))
    if items:
        lines += ["elif v:" if lines else "if v:", *_indented(["items = v", *items])]
    return [f"v = m.{field.name}", *lines] if lines else []


_STOP = ["if found is not None and len(found) >= VIOLATIONS_MAX:", "    break"]


def _item_lines(names: _Names, field: FieldDescriptor, rules: rules_pb2.FieldRules) -> list[str]:
    name = field.name
    item_rules = rules_pb2.FieldRules(
        required=bool(rules.item_format), format=rules.item_format, max_bytes=rules.item_max_bytes
    )
    lines = _value_lines(names, field, item_rules, where=f'f"{name}[{{i}}]"', prefix=f'f"{name}[{{i}}]."')
    return ["for i, v in enumerate(items):", *_indented([*lines, *_STOP])] if lines else []


def _entry_lines(names: _Names, field: FieldDescriptor, rules: rules_pb2.FieldRules) -> list[str]:
    assert field.message_type is not None
    entry = field.message_type.fields_by_name
    key_rules = rules_pb2.FieldRules(required=bool(rules.item_format), format=rules.item_format)
    value_rules = rules_pb2.FieldRules(max_bytes=rules.item_max_bytes)
    path = f'f"{field.name}[{{shortened(k)}}]'
    keys = _value_lines(names, entry["key"], key_rules, where=f'{path}"', prefix="")
    values = _value_lines(names, entry["value"], value_rules, where=f'{path}"', prefix=f'{path}."')
    lines = [*(["v = k", *keys] if keys else []), *(["v = items[k]", *values] if values else [])]
    return ["for k in items:", *_indented([*lines, *_STOP])] if lines else []
