"""Policies of every kind from one seed, made from the contract's descriptors and rules."""

from __future__ import annotations

import random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from trunkline.api.rules import rules_of
from trunkline.api.v1 import rules_pb2
from trunkline.api.v1.policy_pb2 import TrafficPolicy

TEXTS = {
    rules_pb2.FORMAT_DNS_LABEL: ("blue", "green-2", "no", "1"),
    rules_pb2.FORMAT_METADATA_KEY: ("x-user", "a.b_c", "no", "1"),
    rules_pb2.FORMAT_VERSION_RANGE: ("^1.2", "1.10", ">=1.0.0 <2.0.0-rc.1", "*", "1.x || 3"),
}
CHARACTERS = "ab 0:#'\"-{}[],&*!|>%@`\\\n\t\r~.\x85\u2028\u00e9\u4e2d\U0001f600"
KEYS = ("team", "a.b/c", "no", "null", "1")


def policy_of_seed(seed: int) -> TrafficPolicy:
    """By the rules of fields; together they may make no sense."""
    policy = TrafficPolicy()
    _fill(random.Random(seed), policy)
    return policy


def _fill(rng: random.Random, message: Message) -> None:
    descriptor: Any = message.DESCRIPTOR
    chosen = {oneof.name: rng.choice(list(oneof.fields)).name for oneof in descriptor.oneofs}
    for field in descriptor.fields:
        oneof = field.containing_oneof
        if oneof is not None and len(oneof.fields) > 1:
            if chosen[oneof.name] != field.name:
                continue
        elif not rules_of(field).required and rng.random() < 0.4:
            continue
        _set(rng, message, field)


def _set(rng: random.Random, message: Message, field: FieldDescriptor) -> None:
    rules = rules_of(field)
    target = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        for key in rng.sample(KEYS, rng.randrange(3)):
            target[key] = _text(rng)
    elif field.is_repeated and field.message_type is not None:
        for _ in range(rng.randrange(int(rules.required), 4)):
            _fill(rng, target.add())
    elif field.is_repeated:
        target.extend({_scalar(rng, field) for _ in range(rng.randrange(4))})
    elif field.message_type is None:
        setattr(message, field.name, _scalar(rng, field))
    elif field.message_type.full_name == "google.protobuf.Duration":
        unit = rng.choice((1, 10**3, 10**6, 10**9, 60 * 10**9))
        ns = max(rules.min_ms * 10**6, rng.randrange(rules.max_ms * 10**6) // unit * unit)
        target.CopyFrom(Duration(seconds=ns // 10**9, nanos=ns % 10**9))
    else:
        target.SetInParent()
        _fill(rng, target)


def _scalar(rng: random.Random, field: FieldDescriptor) -> Any:
    rules = rules_of(field)
    if field.enum_type is not None:
        return rng.choice([value.number for value in field.enum_type.values if value.number])
    if field.type == FieldDescriptor.TYPE_BOOL:
        return bool(rules.required) or rng.random() < 0.5
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return rng.choice((0.0, 1.0, rng.uniform(rules.min, rules.max)))
    if field.type == FieldDescriptor.TYPE_BYTES:
        return rng.randbytes(rng.randrange(20))
    if field.type == FieldDescriptor.TYPE_STRING:
        return rng.choice(TEXTS[rules.format]) if rules.format in TEXTS else _text(rng)
    return rng.randint(int(rules.required), rules.max if rules.HasField("max") else 2**32 - 1)


def _text(rng: random.Random) -> str:
    return "".join(rng.choices(CHARACTERS, k=rng.randrange(1, 12)))
