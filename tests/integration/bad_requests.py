"""Requests that a server must refuse, each with the status, the reason and, where a rule is broken, the field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from trunkline.api.v1 import admin_pb2, common_pb2, discovery_pb2, events_pb2, registry_pb2, schedules_pb2

Changed = TypeVar("Changed", bound=Message)


class Bad(NamedTuple):
    """One refused request."""

    name: str
    method: str
    request: Message | bytes
    status: str
    reason: str
    field: str = ""

    def __str__(self) -> str:
        return f"{self.method} {self.name}"


HOSTILE_LABELS = {
    "empty": "", "upper": "Shop", "long": "a" * 64, "dots": "a..b", "path": "../../etc/passwd", "newline": "a\nb",
    "nul": "a\x00b", "underscore": "a_b", "hyphen first": "-a", "umlaut": "größe", "markup": "<script>", "quote": "a'--",
    "space": " a", "huge": "a" * 1_000_000,
}  # fmt: skip
HOSTILE_IDS = {"empty": "", "long": "a" * 129, "space": "a b", "markup": "<b>", "nul": "a\x00", "umlaut": "ö"}
HOSTILE_HOSTS = {
    "empty": "", "wildcard": "0.0.0.0", "wildcard 6": "::", "space": "a b", "path": "a/../b", "long": "a." * 127 + "a",
    "brackets": "[::1", "port inside": "a:80",
}  # fmt: skip
HOSTILE_TOPICS = {
    "empty": "", "star": "a.*", "greater": "a.>", "empty word": "a..b", "dot last": "a.", "space": "a b",
    "long": "a" * 257, "words": ".".join("a" * 17), "newline": "a\nb",
}  # fmt: skip
HOSTILE_FILTERS = {
    "empty": "",
    "greater inside": "a.>.b",
    "half a star": "a*.b",
    "empty word": "a..b",
    "long": "a" * 257,
}


def register(**changes: Any) -> registry_pb2.RegisterRequest:
    """A good request but for these fields, dotted as `instance__service`."""
    request = registry_pb2.RegisterRequest(lease_secret=bytes(16), ttl=Duration(seconds=10))
    request.instance.CopyFrom(instance())
    return changed(request, changes)


def instance() -> common_pb2.Instance:
    endpoint = common_pb2.Endpoint(host="127.0.0.1", port=80)
    return common_pb2.Instance(namespace="default", service="bad", id="bad-1", version="1.0.0", endpoints=[endpoint])


def changed(message: Changed, changes: dict[str, Any]) -> Changed:
    for path, value in changes.items():
        *parents, name = path.split("__")
        place: Any = message
        for parent in parents:
            place = getattr(place, parent)
        if value is None or isinstance(value, list | dict | Message):
            place.ClearField(name)
        if isinstance(value, list):
            getattr(place, name).extend(value)
        elif isinstance(value, dict):
            getattr(place, name).update(value)
        elif isinstance(value, Message):
            getattr(place, name).CopyFrom(value)
        elif value is not None:
            setattr(place, name, value)
    return message


def event(**changes: Any) -> events_pb2.CloudEvent:
    good = events_pb2.CloudEvent(id="1", source="/bad", spec_version="1.0", type="bad.seen")
    return changed(good, changes)


def publish(*events: events_pb2.CloudEvent, **changes: Any) -> events_pb2.PublishRequest:
    return changed(events_pb2.PublishRequest(namespace="default", events=events or [event()]), changes)


INVALID = ("INVALID_ARGUMENT", "INVALID_ARGUMENT")


def bad_registrations() -> Iterator[Bad]:
    def bad(name: str, field: str, **changes: Any) -> Bad:
        return Bad(name, "RegistryService/Register", register(**changes), *INVALID, field)

    for name, text in HOSTILE_LABELS.items():
        yield bad(f"namespace {name}", "instance.namespace", instance__namespace=text)
        yield bad(f"service {name}", "instance.service", instance__service=text)
    for name, text in HOSTILE_IDS.items():
        yield bad(f"id {name}", "instance.id", instance__id=text)
    for name, text in HOSTILE_HOSTS.items():
        endpoints = [common_pb2.Endpoint(host=text, port=80)]
        yield bad(f"host {name}", "instance.endpoints[0].host", instance__endpoints=endpoints)
    for port in (0, 65_536, 2**32 - 1):
        endpoints = [common_pb2.Endpoint(host="a", port=port)]
        yield bad(f"port {port}", "instance.endpoints[0].port", instance__endpoints=endpoints)
    one = common_pb2.Endpoint(host="a", port=1)
    many = [common_pb2.Endpoint(host="a", port=n + 1) for n in range(17)]
    yield bad("no endpoints", "instance.endpoints", instance__endpoints=[])
    yield bad("many endpoints", "instance.endpoints", instance__endpoints=many)
    yield bad("the same endpoint twice", "instance.endpoints", instance__endpoints=[one, one])
    spoken = common_pb2.Endpoint(host="a", port=1, protocol="GRPC!")
    yield bad("protocol", "instance.endpoints[0].protocol", instance__endpoints=[spoken])
    yield bad("version", "instance.version", instance__version="one")
    yield bad("weight", "instance.weight", instance__weight=10_001)
    yield bad("label key", "instance.labels", instance__labels={"a b": "x"})
    yield bad("label value", "instance.labels", instance__labels={"a": "x" * 257})
    yield bad("labels", "instance.labels", instance__labels={f"l{n}": "" for n in range(65)})
    yield bad("zone", "instance.locality.zone", instance__locality__zone="z" * 64)
    yield bad("declared", "instance.declared", instance__declared=99)
    yield bad("no instance", "instance", instance=None)
    yield bad("no secret", "lease_secret", lease_secret=b"")
    yield bad("short secret", "lease_secret", lease_secret=bytes(15))
    yield bad("long secret", "lease_secret", lease_secret=bytes(65))
    yield bad("health check of no kind", "instance.health_check", instance__health_check=common_pb2.HealthCheck())
    for name, ttl in {
        "zero": Duration(), "negative": Duration(seconds=-1), "short": Duration(nanos=999_000_000),
        "long": Duration(seconds=301), "no duration": Duration(seconds=1, nanos=-1), "endless": Duration(seconds=2**62),
    }.items():  # fmt: skip
        yield bad(f"ttl {name}", "ttl", ttl=ttl)


def bad_registry_calls() -> Iterator[Bad]:
    ref = registry_pb2.RegistrationRef
    unknown = ref(namespace="default", lease_id=12345)
    deregister, drain = registry_pb2.DeregisterRequest, registry_pb2.DrainRequest
    yield Bad("without whom", "RegistryService/Deregister", deregister(), *INVALID, "registration")
    nobody = deregister(registration=ref(namespace="default"))
    yield Bad("neither lease nor name", "RegistryService/Deregister", nobody, *INVALID, "registration")
    hostile = deregister(registration=unknown, request_id="a b")
    yield Bad("request id", "RegistryService/Deregister", hostile, *INVALID, "request_id")
    yield Bad("unknown lease", "RegistryService/Drain", drain(registration=unknown), "NOT_FOUND", "LEASE_NOT_FOUND")
    endless = drain(registration=unknown, limit=Duration(seconds=-1))
    yield Bad("limit", "RegistryService/Drain", endless, *INVALID, "limit")
    leases = registry_pb2.KeepAliveOnceRequest(lease_ids=range(1, 10_002))
    yield Bad("many leases", "RegistryService/KeepAliveOnce", leases, *INVALID, "lease_ids")
    none = registry_pb2.KeepAliveOnceRequest()
    yield Bad("no lease", "RegistryService/KeepAliveOnce", none, *INVALID, "lease_ids")

    def override(name: str, code: str, reason: str, field: str = "", **changes: Any) -> Bad:
        request = registry_pb2.SetOverrideRequest(namespace="default", service="good", instance_id="good-1")
        return Bad(name, "RegistryService/SetOverride", changed(request, changes), code, reason, field)

    yield override("unknown instance", "NOT_FOUND", "INSTANCE_NOT_FOUND", instance_id="nobody", status=1)
    yield override("STALE", *INVALID, "status", status=common_pb2.INSTANCE_STATUS_STALE)
    yield override("unknown status", *INVALID, "status", status=77)
    yield override("another revision", "ABORTED", "REVISION_MISMATCH", status=1, if_revision=1 << 60)


def bad_discovery() -> Iterator[Bad]:
    def resolve(name: str, field: str, **changes: Any) -> Bad:
        request = discovery_pb2.ResolveRequest(namespace="default", service="good")
        return Bad(name, "DiscoveryService/Resolve", changed(request, changes), *INVALID, field)

    def pick(name: str, status: str, reason: str, field: str = "", **changes: Any) -> Bad:
        request = discovery_pb2.PickRequest(namespace="default", service="good")
        return Bad(name, "DiscoveryService/Pick", changed(request, changes), status, reason, field)

    yield resolve("service", "service", service="Not A Name")
    for text in ("one", ">>1", "1.2.3.4", "a" * 200):
        yield resolve(f"version range {text[:9]}", "selector.version", selector__version=text)
    yield resolve("label key", "selector.labels", selector__labels={"": "x"})
    yield resolve("status", "selector.statuses", selector__statuses=[88])
    yield resolve("statuses twice", "selector.statuses", selector__statuses=[1, 1])
    yield pick("nobody", "UNAVAILABLE", "NO_INSTANCE", service="nobody")
    yield pick("balancing", *INVALID, "load_balancing", load_balancing=42)
    yield pick("no key", *INVALID, "hash_key", load_balancing=discovery_pb2.LOAD_BALANCING_RING_HASH)
    yield pick(
        "unseen", "FAILED_PRECONDITION", "NOT_SUPPORTED", load_balancing=discovery_pb2.LOAD_BALANCING_LEAST_REQUEST
    )
    listing = discovery_pb2.ListServicesRequest(page_size=10_001)
    yield Bad("page size", "DiscoveryService/ListServices", listing, *INVALID, "page_size")
    listing = discovery_pb2.ListServicesRequest(page_token="made up")
    yield Bad("page token", "DiscoveryService/ListServices", listing, *INVALID, "page_token")
    wait = discovery_pb2.WaitUntilAppliedRequest(namespace="default", revision=1 << 60)
    yield Bad("future", "DiscoveryService/WaitUntilApplied", wait, "OUT_OF_RANGE", "REVISION_IN_FUTURE")
    outcome = discovery_pb2.CallOutcomes(service="good", count=1, status_code=17)
    report = discovery_pb2.ReportOutcomesRequest(namespace="default", outcomes=[outcome])
    yield Bad("code", "DiscoveryService/ReportOutcomes", report, *INVALID, "outcomes[0].status_code")


def bad_publishes() -> Iterator[Bad]:
    def bad(name: str, field: str, request: events_pb2.PublishRequest) -> Bad:
        return Bad(name, "EventService/Publish", request, *INVALID, field)

    for name, text in HOSTILE_LABELS.items():
        yield bad(f"namespace {name}", "namespace", publish(namespace=text))
    for name, text in HOSTILE_TOPICS.items():
        yield bad(f"type {name}", "events[0].type", publish(event(type=text)))
    topic = event()
    topic.attributes["topic"].ce_string = "a..b"
    yield bad("topic", "events[0]", publish(topic))
    yield bad("no id", "events[0].id", publish(event(id="")))
    yield bad("long id", "events[0].id", publish(event(id="a" * 257)))
    yield bad("no source", "events[0].source", publish(event(source="")))
    yield bad("the second one", "events[1].id", publish(event(), event(id="")))
    yield bad("spec version", "events[0].spec_version", publish(event(spec_version="")))
    crowded = event()
    for number in range(65):
        crowded.attributes[f"a{number}"].ce_integer = 1
    yield bad("attributes", "events[0].attributes", publish(crowded))
    yield bad("a big event", "events[0]", publish(event(binary_data=bytes((1 << 20) + 1))))
    yield bad("many events", "events", publish(*[event(id=str(n)) for n in range(10_001)]))
    yield bad("no events", "events", publish(events=[]))
    yield bad("stream", "stream", publish(stream="UPPER"))
    yield bad("sync", "require_sync", publish(require_sync=9))
    yield Bad("no stream", "EventService/Publish", publish(stream="nowhere"), "NOT_FOUND", "STREAM_NOT_FOUND")
    good = publish().SerializeToString()
    twice = events_pb2.PublishRequest(namespace="other").SerializeToString()
    yield Bad("the namespace twice", "EventService/Publish", good + twice, *INVALID, "namespace")
    yield Bad("cut short", "EventService/Publish", good[:-3], *INVALID)
    yield Bad("no message", "EventService/Publish", b"\xff" * 40, *INVALID)


def bad_event_calls() -> Iterator[Bad]:
    streams, subscriptions = events_pb2.StreamConfig, events_pb2.SubscriptionConfig

    def stream(name: str, status: str, reason: str, field: str = "", **changes: Any) -> Bad:
        request = events_pb2.CreateStreamRequest(stream=streams(namespace="default", name="new"))
        return Bad(name, "EventService/CreateStream", changed(request, changes), status, reason, field)

    def subscribe(name: str, field: str, config: events_pb2.SubscriptionConfig) -> Bad:
        request = events_pb2.CreateSubscriptionRequest(namespace="default", name="new", config=config)
        return Bad(name, "EventService/CreateSubscription", request, *INVALID, field)

    yield stream("no stream", *INVALID, "stream", stream=None)
    yield stream("name", *INVALID, "stream.name", stream__name="a b")
    yield stream("sync", *INVALID, "stream.sync", stream__sync=7)
    yield stream("age", *INVALID, "stream.max_age", stream__max_age=Duration(seconds=-5))
    yield stream("dedupe", *INVALID, "stream.dedupe_ids", stream__dedupe_ids=10_000_001)
    yield stream("derived", "FAILED_PRECONDITION", "NOT_SUPPORTED", stream__name="changes")
    yield stream("another one", "ALREADY_EXISTS", "STREAM_EXISTS", stream__name="kept", stream__max_records=7)
    masks = {"update_mask": ["max_age", "colour"], "stream.sync": ["sync"], "stream.dedupe_ids": ["dedupe_ids"]}
    for field, paths in masks.items():
        kept = streams(namespace="default", name="kept", sync=common_pb2.SYNC_MEMORY, dedupe_ids=3)
        asked = events_pb2.UpdateStreamRequest(stream=kept, update_mask=FieldMask(paths=paths))
        yield Bad(f"update {field}", "EventService/UpdateStream", asked, *INVALID, field)
    nobody = events_pb2.UpdateSubscriptionRequest(namespace="default", name="nobody", config=subscriptions())
    yield Bad("unknown", "EventService/UpdateSubscription", nobody, "NOT_FOUND", "SUBSCRIPTION_NOT_FOUND")
    nothing = events_pb2.UpdateSubscriptionRequest(namespace="default", name="nobody")
    yield Bad("no config", "EventService/UpdateSubscription", nothing, *INVALID, "config")
    for name, text in HOSTILE_FILTERS.items():
        yield subscribe(f"filter {name}", "config.filters", subscriptions(filters=[text]))
    yield subscribe("filters", "config.filters", subscriptions(filters=[f"a{n}" for n in range(65)]))
    yield subscribe("filters twice", "config.filters", subscriptions(filters=["a", "a"]))
    yield subscribe("ack deadline", "config.ack_deadline", subscriptions(ack_deadline=Duration()))
    yield subscribe("ordering", "config.ordering", subscriptions(ordering=9))  # type: ignore[arg-type]
    yield subscribe("key for nothing", "config.key_attribute", subscriptions(key_attribute="tenant"))
    keyed = subscriptions(ordering=subscriptions.ORDERING_KEYED, key_attribute="Tenant-Id")
    yield subscribe("no attribute's name", "config.key_attribute", keyed)
    gone = events_pb2.DeleteStreamRequest(namespace="default", stream="nowhere")
    yield Bad("unknown", "EventService/DeleteStream", gone, "NOT_FOUND", "STREAM_NOT_FOUND")
    missing = ("NOT_FOUND", "SUBSCRIPTION_NOT_FOUND")
    fetch = events_pb2.FetchRequest(namespace="default", subscription="nobody")
    yield Bad("unknown", "EventService/Fetch", fetch, *missing)
    fetch = events_pb2.FetchRequest(namespace="default", subscription="nobody", max_events=10_001)
    yield Bad("events", "EventService/Fetch", fetch, *INVALID, "max_events")
    ack = events_pb2.Acknowledgement(outcome=events_pb2.Acknowledgement.OUTCOME_ACK, offsets=[1])
    acknowledge = events_pb2.AcknowledgeRequest(namespace="default", subscription="nobody", acknowledgements=[ack])
    yield Bad("unknown", "EventService/Acknowledge", acknowledge, *missing)
    ack = events_pb2.Acknowledgement(outcome=9, offsets=[1])  # type: ignore[arg-type]
    acknowledge = events_pb2.AcknowledgeRequest(namespace="default", subscription="kept", acknowledgements=[ack])
    yield Bad("outcome", "EventService/Acknowledge", acknowledge, *INVALID, "acknowledgements[0].outcome")
    delete = events_pb2.DeleteSubscriptionRequest(namespace="default", name="nobody")
    yield Bad("unknown", "EventService/DeleteSubscription", delete, *missing)
    aside = events_pb2.ListSetAsideRequest(namespace="default", subscription="nobody")
    yield Bad("unknown", "EventService/ListSetAside", aside, *missing)


def bad_schedules() -> Iterator[Bad]:
    def bad(name: str, field: str, **changes: Any) -> Bad:
        every = schedules_pb2.Schedule.Interval(interval=Duration(seconds=60))
        wanted = schedules_pb2.Schedule(namespace="default", name="new", event=event(), every=every)
        request = changed(schedules_pb2.CreateScheduleRequest(schedule=wanted), changes)
        return Bad(name, "ScheduleService/CreateSchedule", request, *INVALID, field)

    for name, text in HOSTILE_LABELS.items():
        yield bad(f"namespace {name}", "schedule.namespace", schedule__namespace=text)
    for name, text in HOSTILE_IDS.items():
        yield bad(f"name {name}", "schedule.name", schedule__name=text)
    for name, text in HOSTILE_TOPICS.items():
        yield bad(f"topic {name}", "schedule.event.type", schedule__event__type=text)
    yield bad("no rule", "schedule.rule", schedule__every=None)
    yield bad("no event", "schedule.event", schedule__event=None)
    yield bad("data", "schedule.event", schedule__event__text_data="x" * 65_537)
    yield bad("soon", "schedule.every.interval", schedule__every__interval=Duration(seconds=9))
    yield bad("in no time", "schedule.every.interval", schedule__every__interval=Duration())
    yield bad("never again", "schedule.until", schedule__until=Timestamp(seconds=1))
    yield bad("never", "schedule.at", schedule__at=Timestamp(seconds=1))
    yield bad("misfire", "schedule.misfire", schedule__misfire=9)
    for name, text in {
        "markup": "<b>",
        "huge": "*" * 300,
        "fields": "* *",
        "day": "0 0 31 2 *",
        "nul": "* * * * \x00",
    }.items():
        yield bad(f"cron {name}", "schedule.cron.expression", schedule__cron__expression=text)
    for name, text in {"path": "../../etc/passwd", "long": "a" * 65, "unknown": "Mars/Base"}.items():
        cron = schedules_pb2.Schedule.Calendar(expression="* * * * *", time_zone=text)
        yield bad(f"zone {name}", "schedule.cron.time_zone", schedule__cron=cron)
    delete = schedules_pb2.DeleteScheduleRequest(namespace="default", name="nobody")
    yield Bad("unknown", "ScheduleService/DeleteSchedule", delete, "NOT_FOUND", "SCHEDULE_NOT_FOUND")
    listing = schedules_pb2.ListSchedulesRequest(page_size=1_001)
    yield Bad("page size", "ScheduleService/ListSchedules", listing, *INVALID, "page_size")
    listing = schedules_pb2.ListSchedulesRequest(page_token="made up")
    yield Bad("page token", "ScheduleService/ListSchedules", listing, *INVALID, "page_token")


def bad_admin_calls() -> Iterator[Bad]:
    history = admin_pb2.HistoryRequest
    future = ("OUT_OF_RANGE", "REVISION_IN_FUTURE")
    yield Bad("future", "AdminService/History", history(namespace="default", revision=1 << 60), *future)
    backwards = history(namespace="default", revision=1, since_revision=1 << 60)
    yield Bad("backwards", "AdminService/History", backwards, *INVALID, "since_revision")
    many = history(namespace="default", max_changes=10_001)
    yield Bad("changes", "AdminService/History", many, *INVALID, "max_changes")
    token = admin_pb2.CreateTokenRequest
    yield Bad("no role", "AdminService/CreateToken", token(), *INVALID, "role")
    unknown = token(role=55)  # type: ignore[arg-type]
    yield Bad("unknown role", "AdminService/CreateToken", unknown, *INVALID, "role")
    short = token(role=admin_pb2.ROLE_READER, valid_for=Duration())
    yield Bad("no time", "AdminService/CreateToken", short, *INVALID, "valid_for")
    revoke = admin_pb2.RevokeTokenRequest(id="nobody")
    yield Bad("unknown", "AdminService/RevokeToken", revoke, "NOT_FOUND", "TOKEN_NOT_FOUND")


def malformed() -> Iterator[Bad]:
    """Bytes that are no protobuf, to every unary method."""
    for file in (registry_pb2, discovery_pb2, events_pb2, schedules_pb2, admin_pb2):
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                if not method.client_streaming and method.input_type.fields:
                    path = f"{service.name}/{method.name}"
                    yield Bad("no protobuf", path, b"\x0a\xff\xff\xff\xff\x0f!", *INVALID)


BAD = [
    *bad_registrations(), *bad_registry_calls(), *bad_discovery(), *bad_publishes(), *bad_event_calls(),
    *bad_schedules(), *bad_admin_calls(), *malformed(),
]  # fmt: skip
