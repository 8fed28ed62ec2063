"""Each rule of rules.proto at both sides of each bound, on message types made for it and on the contract's own."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, timestamp_pb2
from google.protobuf.message_factory import GetMessageClass

from trunkline.api.rules import SHOWN_CHARACTERS_MAX, VIOLATIONS_MAX, checker
from trunkline.api.v1 import common_pb2, discovery_pb2, events_pb2, registry_pb2, rules_pb2
from trunkline.core.errors import InvalidArgument, Violation

Field = descriptor_pb2.FieldDescriptorProto
_names = itertools.count()


def message_type(kind: int, rules: rules_pb2.FieldRules, *, repeated: bool = False, type_name: str = "") -> Any:
    """A message type with one field `value`."""
    name = f"rules_under_test_{next(_names)}"
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package=name, syntax="proto3")
    file.dependency.extend(
        [
            "google/protobuf/duration.proto",
            "google/protobuf/timestamp.proto",
            "trunkline/api/v1/common.proto",
            "trunkline/api/v1/rules.proto",
        ]
    )
    message = file.message_type.add(name="Tested")
    field = message.field.add(name="value", number=1, type=kind, type_name=type_name or None)
    field.label = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
    field.options.Extensions[rules_pb2.rules].CopyFrom(rules)
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return GetMessageClass(pool.FindMessageTypeByName(f"{name}.Tested"))


def violations(message: Any) -> list[Violation]:
    """What is wrong with a message."""
    try:
        checker(message.DESCRIPTOR)(message)
    except InvalidArgument as error:
        return list(error.violations)
    return []


STRING, BYTES, UINT32, INT64 = Field.TYPE_STRING, Field.TYPE_BYTES, Field.TYPE_UINT32, Field.TYPE_INT64
LABEL, ID, VERSION, RANGE = (
    rules_pb2.FORMAT_DNS_LABEL,
    rules_pb2.FORMAT_ID,
    rules_pb2.FORMAT_VERSION,
    rules_pb2.FORMAT_VERSION_RANGE,
)
HOST, KEY, STREAM = rules_pb2.FORMAT_HOST, rules_pb2.FORMAT_LABEL_KEY, rules_pb2.FORMAT_STREAM
TOPIC, FILTER = rules_pb2.FORMAT_TOPIC, rules_pb2.FORMAT_TOPIC_FILTER
METADATA = rules_pb2.FORMAT_METADATA_KEY

BAD_HOSTS = [
    *("0.0.0.0", "::", "0:0::0", "::ffff:0.0.0.0", "0", "0x0", "1.0x0", "1.2.3", "256.1.1.1"),
    *("-a", "a..b", "*", "a b", "a\n", "\u00e9", "[::1]", "a:80", "fe80::1%eth0", "http://a"),
    "a" * 64,
    ".".join(["a" * 61] * 5),
]

SCALARS: list[tuple[int, dict[str, Any], list[Any], list[Any]]] = [
    (STRING, {"required": True}, ["a", " "], [""]),
    (STRING, {"min_bytes": 3}, ["", "abc", "\u00e9a"], ["ab", "a", "\u00e9"]),
    (
        STRING,
        {"max_bytes": 8},
        ["", "a" * 8, "\u00e9" * 4, "\U0001f600" * 2],
        ["a" * 9, "\u00e9" * 5, "\U0001f600" * 3],
    ),
    (BYTES, {"required": True, "min_bytes": 16, "max_bytes": 64}, [b"x" * 16, b"x" * 64], [b"", b"x" * 15, b"x" * 65]),
    (UINT32, {"required": True}, [1], [0]),
    (UINT32, {"min": 1, "max": 65_535}, [1, 65_535], [0, 65_536]),
    (INT64, {"min": -5, "max": 0}, [-5, 0], [-6, 1]),
    (
        STRING,
        {"format": LABEL},
        ["", "a", "0", "a-b", "a" * 63],
        ["A", "-a", "a-", "a.b", "a_b", "a" * 64, "a\n", "\u00e9"],
    ),
    (STRING, {"format": ID}, ["a", "A._:@/-9", "x" * 128], ["a b", "x" * 129, "a\n", "\u00e9", "a\x00", "*"]),
    (
        STRING,
        {"format": VERSION},
        ["1.2.3", "0.0.0", "1.2.3-rc.1+build.5", "1.0.0-" + "a" * 122],
        ["1", "1.2", "v1.2.3", "01.2.3", "1.2.3-01", "1.2.3\n", "1.2.\u0663", "1.0.0-" + "a" * 123],
    ),
    (
        STRING,
        {"format": RANGE},
        ["^1.2", ">=1.0 <3", "1.x", "*", "1.2 || 2.0", "1.2.3 - 2.3.4", "~1.2.3"],
        ["latest", ">>1", "1.2.3.4", "^", "1.x\x00", "1.0.0 || " * 15 + "1"],
    ),
    (
        STRING,
        {"format": HOST},
        ["a", "a.b-c.example", "A.example.", "10.0.0.1", "::1", "2001:db8::1", "x_y", "1a.b", "127.0.0.1"],
        BAD_HOSTS,
    ),
    (STRING, {"format": KEY}, ["a", "9a", "a.b/c_d-e", "a" * 63], ["-a", ".a", "a b", "a" * 64, "a\n", "\u00e9"]),
    (
        STRING,
        {"format": STREAM},
        ["a", "a.b.c-d", "a." * 63 + "bb"],
        ["A", "a..b", ".a", "a.", "a_b", "a." * 63 + "bbb"],
    ),
    (
        STRING,
        {"format": METADATA},
        ["", "a", "x-user.id_9", "bin", "a" * 128],
        ["A", "a b", "x-bin", "-bin", "a" * 129, "a\n", "\u00e9", "a/b"],
    ),
    (STRING, {"format": TOPIC}, ["a", "orders.placed", "\u00e9.b"], ["a.*", ">", "a..b", "a b", ".".join("a" * 17)]),
    (STRING, {"format": FILTER}, ["a.*", ">", "a.>", "*.b"], ["a.>.b", "a*", "a..b", "a.b>", ".".join("a" * 17)]),
]


def cases(good: bool) -> list[Any]:
    return [
        pytest.param(kind, rules, value, id=f"{'-'.join(map(str, rules))}-{value!r:.30}")
        for kind, rules, right, wrong in SCALARS
        for value in (right if good else wrong)
    ]


@pytest.mark.parametrize(("kind", "rules", "value"), cases(good=True))
def test_good_values_pass(kind: int, rules: dict[str, Any], value: Any) -> None:
    assert violations(message_type(kind, rules_pb2.FieldRules(**rules))(value=value)) == []


@pytest.mark.parametrize(("kind", "rules", "value"), cases(good=False))
def test_bad_values_are_named(kind: int, rules: dict[str, Any], value: Any) -> None:
    [violation] = violations(message_type(kind, rules_pb2.FieldRules(**rules))(value=value))
    assert violation.field == "value"
    assert violation.rule.startswith("must ")


def test_every_format_is_tested() -> None:
    tested = {rules["format"] for _, rules, _, _ in SCALARS if "format" in rules}
    assert tested == set(rules_pb2.Format.values()) - {rules_pb2.FORMAT_UNSPECIFIED}


def test_required_forms_are_not_empty() -> None:
    kind = message_type(STRING, rules_pb2.FieldRules(required=True, format=LABEL))
    assert violations(kind()) == [Violation("value", "must not be empty", "''")]


@pytest.mark.parametrize(
    ("ms", "nanos", "good"), [(1_000, 0, True), (300_000, 0, True), (999, 999_999, False), (300_000, 1, False)]
)
def test_durations_are_bounded_to_the_nanosecond(ms: int, nanos: int, good: bool) -> None:
    kind = message_type(
        Field.TYPE_MESSAGE, rules_pb2.FieldRules(min_ms=1_000, max_ms=300_000), type_name=".google.protobuf.Duration"
    )
    total = ms * 1_000_000 + nanos
    message = kind(value=duration_pb2.Duration(seconds=total // 10**9, nanos=total % 10**9))
    assert (violations(message) == []) is good
    assert violations(kind()) == []


@pytest.mark.parametrize(
    ("seconds", "nanos", "good"),
    [
        (1, 999_999_999, True),
        (-1, -999_999_999, True),
        (0, -5, True),
        (315_576_000_000, 0, True),
        (1, -1, False),
        (-1, 1, False),
        (0, 10**9, False),
        (315_576_000_001, 0, False),
        (-315_576_000_001, 0, False),
    ],
)
def test_durations_are_valid_by_their_own_definition(seconds: int, nanos: int, good: bool) -> None:
    kind = message_type(Field.TYPE_MESSAGE, rules_pb2.FieldRules(), type_name=".google.protobuf.Duration")
    assert (violations(kind(value=duration_pb2.Duration(seconds=seconds, nanos=nanos))) == []) is good


@pytest.mark.parametrize(
    ("seconds", "nanos", "good"),
    [
        (0, 0, True),
        (-62_135_596_800, 0, True),
        (253_402_300_799, 999_999_999, True),
        (-62_135_596_801, 0, False),
        (253_402_300_800, 0, False),
        (0, -1, False),
        (0, 10**9, False),
    ],
)
def test_timestamps_are_valid_by_their_own_definition(seconds: int, nanos: int, good: bool) -> None:
    kind = message_type(Field.TYPE_MESSAGE, rules_pb2.FieldRules(), type_name=".google.protobuf.Timestamp")
    assert (violations(kind(value=timestamp_pb2.Timestamp(seconds=seconds, nanos=nanos))) == []) is good


def test_lists_are_bounded_item_by_item() -> None:
    rules = rules_pb2.FieldRules(required=True, max_items=3, item_format=FILTER, item_max_bytes=5, unique=True)
    kind = message_type(STRING, rules, repeated=True)
    assert violations(kind(value=["a", "b", "c.>"])) == []
    assert violations(kind()) == [Violation("value", "must not be empty", "0 items")]
    assert violations(kind(value=["a", "b", "c", "d"])) == [Violation("value", "must have at most 3 items", "4 items")]
    assert [v.field for v in violations(kind(value=["a", "a..b", "abcdef"]))] == ["value[1]", "value[2]"]
    assert violations(kind(value=["a", "b", "a"])) == [Violation("value", "must not have two equal items", "'a'")]


def test_undeclared_enum_values_are_refused_everywhere() -> None:
    name = ".trunkline.api.v1.Sync"
    single = message_type(Field.TYPE_ENUM, rules_pb2.FieldRules(), type_name=name)
    assert violations(single(value=3)) == []
    assert violations(single()) == []
    [violation] = violations(single(value=4))
    assert violation == Violation(
        "value", "must be one of SYNC_UNSPECIFIED, SYNC_MEMORY, SYNC_WRITTEN, SYNC_FSYNCED", "4"
    )
    assert len(violations(single(value=-1))) == 1
    required = message_type(Field.TYPE_ENUM, rules_pb2.FieldRules(required=True), type_name=name)
    assert [v.rule for v in violations(required())] == ["must be one of SYNC_MEMORY, SYNC_WRITTEN, SYNC_FSYNCED"]
    many = message_type(Field.TYPE_ENUM, rules_pb2.FieldRules(), type_name=name, repeated=True)
    assert [v.field for v in violations(many(value=[1, 9, 2, -7]))] == ["value[1]", "value[3]"]


def test_nested_messages_lists_and_maps_have_full_paths() -> None:
    request = registry_pb2.RegisterRequest(lease_secret=b"x" * 15)
    instance = request.instance
    instance.namespace, instance.service, instance.id = "shop", "Cart", "cart-1"
    instance.endpoints.add(host="a", port=1)
    instance.endpoints.add(host="::", port=65_536)
    instance.labels["ok"] = "\u00e9" * 129
    instance.labels["-bad"] = "x"
    instance.locality.zone = "z" * 64
    request.ttl.seconds = 301
    assert sorted(violation.field for violation in violations(request)) == [
        "instance.endpoints[1].host",
        "instance.endpoints[1].port",
        "instance.labels[-bad]",
        "instance.labels[ok]",
        "instance.locality.zone",
        "instance.service",
        "lease_secret",
        "ttl",
    ]


def test_a_secret_is_not_shown() -> None:
    request = registry_pb2.RegisterRequest(lease_secret=b"geheim")
    shown = [violation.value for violation in violations(request) if violation.field == "lease_secret"]
    assert shown == ["6 bytes"]


def test_messages_that_must_be_there() -> None:
    assert [v.field for v in violations(registry_pb2.RegisterRequest(lease_secret=b"x" * 16))] == ["instance"]
    assert [v.field for v in violations(registry_pb2.DeregisterRequest())] == ["registration"]


def test_equal_messages_are_found() -> None:
    endpoint = common_pb2.Endpoint(host="a", port=1)
    instance = common_pb2.Instance(namespace="n", service="s", id="i", endpoints=[endpoint, endpoint])
    [violation] = violations(instance)
    assert violation == Violation("endpoints", "must not have two equal items", 'host: "a" port: 1')


def test_oneofs() -> None:
    assert [v.field for v in violations(discovery_pb2.WatchRequest())] == ["command"]
    cancel = discovery_pb2.WatchRequest(cancel=discovery_pb2.CancelWatch(watch_id=1))
    assert violations(cancel) == []
    # A member that is set to its zero value is set.
    assert [v.field for v in violations(discovery_pb2.WatchRequest(cancel=discovery_pb2.CancelWatch()))] == [
        "cancel.watch_id"
    ]
    assert violations(common_pb2.HealthCheck(grpc=common_pb2.GrpcHealthCheck())) == []
    assert [v.field for v in violations(common_pb2.HealthCheck())] == ["kind"]
    config = events_pb2.SubscriptionConfig(start=events_pb2.StartPosition(time=timestamp_pb2.Timestamp(nanos=-1)))
    assert [v.field for v in violations(config)] == ["start.time"]


def test_what_is_told_is_bounded() -> None:
    request = registry_pb2.RegisterRequest(lease_secret=b"x" * 16)
    instance = request.instance
    instance.namespace, instance.service, instance.id = "n", "s", "i"
    for _ in range(16):
        instance.endpoints.add(host="h" * 10_000, protocol="P" * 10_000)
    found = violations(request)
    assert len(found) == VIOLATIONS_MAX
    assert all(len(v.value) <= SHOWN_CHARACTERS_MAX for v in found)
    labels = common_pb2.Instance(labels={"x" * 500: "y"})
    assert max(len(v.field) for v in violations(labels)) <= len("labels[]") + SHOWN_CHARACTERS_MAX


def test_an_events_attributes_are_not_looked_into() -> None:
    event = events_pb2.CloudEvent(id="1", source="s", spec_version="1.0", type="t")
    event.attributes["when"].ce_timestamp.nanos = -1
    assert violations(event) == []
    for index in range(64):
        event.attributes[str(index)].ce_boolean = True
    assert [v.field for v in violations(event)] == ["attributes"]
