"""Webhooks' pure parts: requests that independent libraries read back, signatures, outcomes, an endpoint's health."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_binary, from_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent as ReadEvent
from google.protobuf import any_pb2, timestamp_pb2
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook as Verifier

from trunkline.api.rules import checker
from trunkline.api.v1 import events_pb2
from trunkline.core.clock import Rng
from trunkline.core.errors import InvalidArgument, NotSupported
from trunkline.server.events.rotation import Rotation
from trunkline.server.events.settings import SubscriptionSettings
from trunkline.server.events.webhook_health import FAILURES_IN_A_ROW, PROBES_PER_TRY, EndpointHealth
from trunkline.server.events.webhook_outcome import (
    BACKOFF_MAX_NS,
    GONE_NS,
    RETRY_AFTER_MAX_NS,
    Answer,
    Result,
    Silence,
    Verdict,
    outcome_of,
    retry_after_ns,
)
from trunkline.server.events.webhook_request import Request, request_of, signature, webhook_id
from trunkline.server.events.webhook_settings import WebhooksConfig, WebhookSettings, check

S = 1_000_000_000
NOW_NS = 1_790_000_000 * S
URL = "https://hooks.example/in"
NAMES = st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True).filter(
    lambda name: name not in ("time", "datacontenttype", "dataschema", "subject")
)
WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)
Value = events_pb2.CloudEvent.CloudEventAttributeValue


@st.composite
def events(draw: st.DrawFn) -> events_pb2.CloudEvent:
    event = events_pb2.CloudEvent(
        id=draw(WORDS), source=draw(st.from_regex(r"/[a-z/]{0,20}", fullmatch=True)), spec_version="1.0", type="t.x"
    )
    reserved = ("id", "source", "type", "specversion", "data")
    for name, value in draw(
        st.dictionaries(NAMES.filter(lambda name: name not in reserved), WORDS, max_size=4)
    ).items():
        event.attributes[name].ce_string = value
    return event


def sent(event: events_pb2.CloudEvent, *, structured: bool = False, secret: bytes = b"") -> Request:
    settings = WebhookSettings(url=URL, structured=structured, secret=secret)
    return request_of(event, settings, subscription="shop/events/billing", attempt=2, time_ns=NOW_NS)


def read(request: Request, *, structured: bool) -> Any:
    # The library takes these for attributes of its own in no mode; it reads ce-* and Content-Type only.
    message = HTTPMessage({name.lower(): value for name, value in request.headers.items()}, request.body)
    return (from_structured if structured else from_binary)(message, JSONFormat(), ReadEvent)


# Requests.


@given(event=events(), data=st.binary(max_size=60), structured=st.booleans())
def test_another_library_reads_an_event_back(event: events_pb2.CloudEvent, data: bytes, structured: bool) -> None:
    event.binary_data = data
    event.attributes["datacontenttype"].ce_string = "application/octet-stream"
    event.attributes["time"].ce_timestamp.CopyFrom(timestamp_pb2.Timestamp(seconds=1_700_000_000, nanos=5_000_000))
    found = read(sent(event, structured=structured), structured=structured)
    assert (found.get_id(), found.get_source(), found.get_type()) == (event.id, event.source, "t.x")
    assert found.get_specversion() == "1.0"
    assert found.get_time() == datetime(2023, 11, 14, 22, 13, 20, 5_000, tzinfo=UTC)
    assert found.get_datacontenttype() == "application/octet-stream"
    got = found.get_data() or b""
    assert (got.encode() if isinstance(got, str) else got) == data  # that library makes text of what can be text
    for name, value in event.attributes.items():
        if name not in ("time", "datacontenttype"):
            assert found.get_extension(name) == value.ce_string


@given(event=events(), text=WORDS)
def test_text_comes_as_it_was(event: events_pb2.CloudEvent, text: str) -> None:
    event.text_data = text
    event.attributes["datacontenttype"].ce_string = "text/plain"
    assert read(sent(event, structured=True), structured=True).get_data() == text
    binary = sent(event)
    assert (binary.body, binary.headers["Content-Type"]) == (text.encode(), "text/plain")


@pytest.mark.parametrize(
    ("text", "content_type", "body"),
    [
        ('{"a": 1.10, "b": 1e400}', "application/json", '{"a": 1.10, "b": 1e400}'),
        ('{"a":1}', "", '{"a":1}'),
        ('{"a":1}', "application/vnd.x+json; charset=utf-8", '{"a":1}'),
        ('{"a":1}', "text/plain", '"{\\"a\\":1}"'),
        ("not json", "application/json", '"not json"'),
        ("NaN", "application/json", '"NaN"'),
        ("[" * 100_000, "application/json", '"' + "[" * 100_000 + '"'),
    ],
)
def test_json_stands_in_the_body_as_it_is_and_everything_else_as_text(text: str, content_type: str, body: str) -> None:
    event = events_pb2.CloudEvent(id="1", source="/s", spec_version="1.0", type="t", text_data=text)
    if content_type:
        event.attributes["datacontenttype"].ce_string = content_type
    assert sent(event, structured=True).body.decode().endswith(f',"data":{body}}}')


def test_a_packed_message_says_what_it_is() -> None:
    packed = any_pb2.Any(type_url="type.googleapis.com/x.Y", value=b"\x08\x01")
    event = events_pb2.CloudEvent(id="1", source="/s", spec_version="1.0", type="t", proto_data=packed)
    binary = sent(event)
    assert binary.body == b"\x08\x01"
    assert binary.headers["Content-Type"] == "application/protobuf"
    assert binary.headers["ce-dataschema"] == "type.googleapis.com/x.Y"
    structured = read(sent(event, structured=True), structured=True)
    assert (structured.get_data(), structured.get_dataschema()) == (b"\x08\x01", "type.googleapis.com/x.Y")


def test_no_attribute_writes_a_header_of_its_own() -> None:
    event = events_pb2.CloudEvent(id="1", source="/s", spec_version="1.0", type="t")
    event.attributes["evil"].ce_string = 'a\r\nX-Admin: yes\x00é "%'
    event.attributes["datacontenttype"].ce_string = "text/plain\r\nX-Admin: yes"
    event.attributes["id"].ce_string = "another"
    event.attributes["data"].ce_string = "another"
    event.attributes["flag"].ce_boolean = True
    event.attributes["count"].ce_integer = -3
    event.attributes["raw"].ce_bytes = b"\xff\x00"
    headers = sent(event).headers
    assert headers["ce-evil"] == "a%0D%0AX-Admin:%20yes%00%C3%A9%20%22%25"
    assert headers["Content-Type"] == "text/plain%0D%0AX-Admin:%20yes"
    assert (headers["ce-id"], headers["ce-flag"], headers["ce-count"], headers["ce-raw"]) == ("1", "true", "-3", "/wA=")
    assert "ce-data" not in headers
    assert headers["trunkline-attempt"] == "2"
    assert headers["trunkline-subscription"] == "shop/events/billing"
    assert all(value.isascii() and value.isprintable() for value in headers.values())


# Signatures.


def test_the_reference_vector() -> None:
    """Standard Webhooks, its libraries' own test."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    said = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}')
    assert said == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(event=events(), text=st.text(max_size=40), secret=st.binary(min_size=16, max_size=64), structured=st.booleans())
def test_the_standard_s_library_verifies_every_request(
    event: events_pb2.CloudEvent, text: str, secret: bytes, structured: bool
) -> None:
    event.text_data = text
    settings = WebhookSettings(url=URL, structured=structured, secret=secret)
    now_ns = int(datetime.now(UTC).timestamp()) * S
    request = request_of(event, settings, subscription="a/b/c", attempt=1, time_ns=now_ns)
    Verifier(secret).verify(request.body, request.headers, json_parse=False)
    again = request_of(event, settings, subscription="a/b/c", attempt=2, time_ns=now_ns + 7 * S)
    assert again.headers["webhook-id"] == request.headers["webhook-id"]
    assert again.headers["webhook-signature"] != request.headers["webhook-signature"]


@given(one=events(), other=events())
def test_an_id_is_one_event_s_and_fits_a_signature(one: events_pb2.CloudEvent, other: events_pb2.CloudEvent) -> None:
    same = (one.source, one.id) == (other.source, other.id)
    assert (webhook_id(one) == webhook_id(other)) is same
    assert "." not in webhook_id(one)


def test_without_a_secret_nothing_is_signed() -> None:
    headers = sent(events_pb2.CloudEvent(id="1", source="/s", spec_version="1.0", type="t")).headers
    assert "webhook-id" in headers
    assert "webhook-signature" not in headers


# Outcomes.

RESULTS = st.one_of(
    st.builds(Answer, st.integers(100, 999), st.sampled_from(["", "5", "999999999", "x", "-1"])),
    st.builds(Silence, st.just("why"), st.booleans(), st.booleans()),
)


@given(result=RESULTS, attempt=st.integers(1, 1_000), chance=st.floats(0, 1, exclude_max=True))
def test_only_an_answer_2xx_is_done_and_no_wait_is_longer_than_its_bound(
    result: Result, attempt: int, chance: float
) -> None:
    outcome = outcome_of(result, attempt=attempt, chance=chance, time_ns=NOW_NS)
    done = isinstance(result, Answer) and 200 <= result.status < 300
    assert (outcome.verdict is Verdict.DONE) is done
    assert done is (outcome.error == "")
    assert 0 <= outcome.delay_ns <= (outcome.pause_ns or BACKOFF_MAX_NS)
    assert 0 <= outcome.pause_ns <= RETRY_AFTER_MAX_NS
    if isinstance(result, Silence) and not result.was_sent:
        assert outcome.verdict is Verdict.BACK


@pytest.mark.parametrize(
    ("result", "verdict", "delay_ns", "pause_ns"),
    [
        (Answer(204), Verdict.DONE, 0, 0),
        (Answer(410), Verdict.BACK, 0, GONE_NS),
        (Answer(429, "7"), Verdict.AGAIN, 7 * S, 7 * S),
        (Answer(503, "7200"), Verdict.AGAIN, 3_600 * S, 3_600 * S),
        (Answer(429), Verdict.AGAIN, 2 * S, 0),
        (Answer(500, "7"), Verdict.AGAIN, 2 * S, 0),
        (Answer(302), Verdict.AGAIN, 2 * S, 0),
        (Answer(401), Verdict.AGAIN, 2 * S, 0),
        (Silence("refused", was_sent=False), Verdict.BACK, 0, 0),
        (Silence("stale", was_sent=True, was_stale=True), Verdict.BACK, 0, 0),
        (Silence("late", was_sent=True), Verdict.AGAIN, 2 * S, 0),
    ],
)
def test_the_table(result: Result, verdict: Verdict, delay_ns: int, pause_ns: int) -> None:
    outcome = outcome_of(result, attempt=3, chance=0.5, time_ns=NOW_NS)
    assert (outcome.verdict, outcome.delay_ns, outcome.pause_ns) == (verdict, delay_ns, pause_ns)


@given(
    header=st.one_of(st.text(max_size=40), st.from_regex(r"(Mon, )?\d{1,3} [A-Z][a-z]{2} \d{1,5} \d+:\d+:\d+ \S{0,6}"))
)
def test_whatever_a_header_says_the_wait_is_bounded(header: str) -> None:
    told_ns = retry_after_ns(header, NOW_NS)
    assert told_ns is None or 0 <= told_ns <= RETRY_AFTER_MAX_NS


def test_retry_after_is_a_time_or_a_date() -> None:
    date = format_datetime(datetime.fromtimestamp(NOW_NS // S + 90, UTC), usegmt=True)
    assert retry_after_ns(date, NOW_NS) == 90 * S
    assert retry_after_ns(format_datetime(datetime.fromtimestamp(0, UTC), usegmt=True), NOW_NS) == 0
    assert retry_after_ns("Mon, 99 Foo", NOW_NS) is None
    assert retry_after_ns("9" * 400, NOW_NS) == RETRY_AFTER_MAX_NS


# Health.


def fail(health: EndpointHealth, result: Result, now_ns: int) -> None:
    health.failed(result, outcome_of(result, attempt=1, chance=0.5, time_ns=NOW_NS), now_ns)


def test_a_few_failures_change_nothing_and_more_leave_one_at_a_time() -> None:
    health = EndpointHealth(10, Rng(1))
    for n in range(FAILURES_IN_A_ROW - 1):
        fail(health, Answer(500), n)
    assert health.room(10, 3) == 7
    fail(health, Answer(500), 10)
    assert health.room(11, 0) == 0
    later = health.paused_until_ns
    assert 0 < later <= 2 * S
    assert health.room(later, 0) == 1
    assert health.room(later, 1) == 0
    health.succeeded(Answer(200))
    assert [health.room(later, 0), health.failures, health.last_error] == [2, 0, ""]
    for _ in range(20):
        health.succeeded(Answer(200))
    assert health.room(later, 0) == 10


@given(rounds=st.integers(1, 40), together=st.integers(1, 20))
def test_pauses_double_up_to_a_minute_and_what_fails_together_counts_once(rounds: int, together: int) -> None:
    health = EndpointHealth(20, Rng(rounds))
    now_ns = 0
    for n in range(1, rounds + 1):
        for _ in range(together):
            fail(health, Silence("refused", was_sent=False), now_ns)
        longest = min(60 * S, S << min(n - 1, 10))
        assert longest // 2 <= health.paused_until_ns - now_ns <= longest
        now_ns = health.paused_until_ns
        health.probed(Answer(404), now_ns)
        assert health.room(now_ns, 0) == 1


def test_who_does_not_answer_is_held_until_it_answers_a_probe() -> None:
    health = EndpointHealth(10, Rng(1))
    fail(health, Silence("refused", was_sent=False), 0)
    far = 1_000 * S
    for n in range(50):
        health.probed(Silence("refused", was_sent=False), far * n)
        assert health.room(far * (n + 1), 0) == 0
    health.probed(Answer(405), 99 * far)
    assert health.room(99 * far, 0) == 1


def test_an_endpoint_that_is_mute_to_probes_is_sent_an_event_once_in_a_while() -> None:
    health = EndpointHealth(10, Rng(1))
    for n in range(FAILURES_IN_A_ROW):
        fail(health, Silence("late", was_sent=True), n)
    rooms = []
    for n in range(1, 2 * PROBES_PER_TRY + 1):
        now_ns = n * 1_000 * S
        health.probed(Silence("late", was_sent=True), now_ns)
        rooms.append(health.room(now_ns + 999 * S, 0))
        if rooms[-1]:
            fail(health, Silence("late", was_sent=True), now_ns)
    assert rooms == ([0] * (PROBES_PER_TRY - 1) + [1]) * 2


def test_what_an_endpoint_asks_for_is_kept_though_an_older_request_succeeds() -> None:
    health = EndpointHealth(10, Rng(1))
    fail(health, Answer(429, "30"), 0)
    health.succeeded(Answer(200))
    assert health.room(30 * S - 1, 0) == 0
    assert health.room(30 * S, 0) == 2


def test_connections_that_were_closed_meanwhile_say_nothing() -> None:
    health = EndpointHealth(10, Rng(1))
    for _ in range(10):
        fail(health, Silence("gone", was_sent=True, was_stale=True), 0)
    assert (health.failures, health.room(0, 0)) == (0, 10)


@given(credits=st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=30))
def test_credit_that_is_set_is_what_can_be_spent(credits: list[tuple[int, bool]]) -> None:
    rotation = Rotation()
    rotation.add(1)
    for credit, paused in credits:
        rotation.set_credit(1, credit)
        rotation.pause(1, paused=paused)
        assert len(rotation.willing) == (credit > 0 and not paused)
        assert rotation.credit(1) == credit


# Settings.


def config(**webhook: Any) -> events_pb2.SubscriptionConfig:
    return events_pb2.SubscriptionConfig(webhook=events_pb2.Webhook(url=URL, **webhook))


def test_a_secret_is_kept_for_the_journal_and_shown_to_nobody() -> None:
    secret = b"never to be seen"
    settings = SubscriptionSettings.of(config(secret=secret))
    assert SubscriptionSettings.of(settings.message()) == settings
    assert settings.message().webhook.secret == secret
    shown = settings.shown()
    assert shown.webhook.signed
    assert secret not in shown.SerializeToString()
    assert secret.decode() not in repr(settings)
    assert not SubscriptionSettings.of(config()).shown().webhook.signed


def test_defaults_and_another_webhook_is_another_configuration() -> None:
    plain = SubscriptionSettings.of(config())
    full = config(mode=events_pb2.Webhook.MODE_BINARY, concurrency=10, signed=True)
    full.webhook.timeout.FromSeconds(10)
    assert SubscriptionSettings.of(full) == plain
    for other in (config(concurrency=11), config(secret=b"x" * 16), config(mode=2), events_pb2.SubscriptionConfig()):
        assert SubscriptionSettings.of(other) != plain
    assert plain.limits(durable=True).ack_deadline_ns == 30 * S
    slow = config()
    slow.webhook.timeout.FromSeconds(60)
    assert SubscriptionSettings.of(slow).limits(durable=True).ack_deadline_ns == 75 * S


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("ftp://a.example/", "must be an https"),
        ("https://", "must be an https"),
        ("/relative", "must be an https"),
        ("https://a.example:99999/", "must be an https"),
        ("https://a.example/ x", "must be an https"),
        ("https://a.example/\n", "must be an https"),
        ("https://ex\u00e4mple/", "must be an https"),
        ("https://me:s3cret@a.example/", "must not hold a user"),
        ("https://me@a.example/", "must not hold a user"),
        ("https://a.example/#part", "must not have a fragment"),
        ("http://a.example/", "must be https"),
        ("http://10.0.0.1/", "must be https"),
        ("https://169.254.169.254/latest", "is never called"),
        ("https://[::ffff:169.254.169.254]/", "is never called"),
        ("https://[fe80::1%25eth0]/", "is never called"),
        ("https://0.0.0.0/", "is never called"),
        ("http://[fd00:ec2::254]/", "is never called"),
    ],
)
def test_urls_that_are_refused(url: str, rule: str) -> None:
    with pytest.raises(InvalidArgument, match=rule) as refusal:
        check(WebhookSettings(url=url), WebhooksConfig())
    assert "s3cret" not in str(refusal.value)


@pytest.mark.parametrize(
    "url", [URL, "http://127.0.0.1:1/x?y=z", "http://[::1]/", "http://localhost/", "https://10.1.2.3/"]
)
def test_urls_that_are_taken(url: str) -> None:
    check(WebhookSettings(url=url, secret=b"x" * 16), WebhooksConfig())


def test_an_operator_says_where_to() -> None:
    mine = WebhooksConfig(allowed_networks=("10.0.0.0/8",), allow_plain_http=True)
    check(WebhookSettings(url="http://10.1.1.1/"), mine)
    with pytest.raises(InvalidArgument, match="not in allowed_networks"):
        check(WebhookSettings(url="http://127.0.0.1/"), mine)
    with pytest.raises(NotSupported):
        check(WebhookSettings(url=URL), WebhooksConfig(enabled=False))
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/99"):
        WebhooksConfig(allowed_networks=("10.0.0.0/99",))


@pytest.mark.parametrize("size", [1, 15, 65])
def test_a_secret_of_a_wrong_length_is_refused_and_not_repeated(size: int) -> None:
    refuse = checker(events_pb2.CreateSubscriptionRequest.DESCRIPTOR)
    request = events_pb2.CreateSubscriptionRequest(namespace="shop", name="w", config=config(secret=b"q" * size))
    with pytest.raises(InvalidArgument, match=f"got {size} bytes") as refusal:
        refuse(request)
    assert "qq" not in str(refusal.value)
    request.config.webhook.secret = b"q" * 16
    refuse(request)
