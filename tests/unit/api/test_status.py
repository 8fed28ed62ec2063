"""Errors there and back over the wire."""

from __future__ import annotations

import pytest
from google.rpc import error_details_pb2, status_pb2

from trunkline.api.status import (
    DETAILS_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    RETRY_AFTER_MS,
    error_from,
    failure_from,
    failure_to,
    retry_after_ms,
    status_to,
)
from trunkline.core.errors import (
    DOMAIN,
    DiskFull,
    Internal,
    InvalidArgument,
    LimitExceeded,
    NotReady,
    NotSupported,
    RemoteError,
    TrunklineError,
    Unauthenticated,
    Unreachable,
    Violation,
    leaf_errors,
)


def instance_of(kind: type[TrunklineError]) -> TrunklineError:
    if kind is InvalidArgument:
        return InvalidArgument(Violation("a.b", "must be c, got it?", "'d, got e'"), Violation("f", "must be", ""))
    if kind is LimitExceeded:
        return LimitExceeded("streams_max", 5)
    return kind("it went wrong", subject="cart", at="7")


def there_and_back(error: TrunklineError) -> TrunklineError:
    status = status_to(error)
    return error_from(error.status, status.message, status.SerializeToString())


@pytest.mark.parametrize("kind", leaf_errors().values(), ids=lambda kind: kind.code)
def test_every_error_comes_back_as_itself(kind: type[TrunklineError]) -> None:
    sent = instance_of(kind)
    received = there_and_back(sent)
    assert type(received) is kind
    assert (received.message, received.code, received.status) == (sent.message, sent.code, sent.status)
    if isinstance(sent, InvalidArgument) and isinstance(received, InvalidArgument):
        assert received.violations == sent.violations
    else:
        assert received.fields == sent.fields
    assert str(received) == str(sent)


@pytest.mark.parametrize("kind", leaf_errors().values(), ids=lambda kind: kind.code)
def test_every_error_survives_as_the_failure_of_an_item(kind: type[TrunklineError]) -> None:
    sent = instance_of(kind)
    received = failure_from(failure_to(sent))
    assert type(received) is kind
    assert (received.message, received.code) == (sent.message, sent.code)


def test_other_languages_see_field_rule_and_value() -> None:
    status = status_to(InvalidArgument.of("instance.weight", "must be at most 10000", 10_001))
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(request)
    assert (info.reason, info.domain) == ("INVALID_ARGUMENT", DOMAIN)
    [violation] = request.field_violations
    assert (violation.field, violation.description) == ("instance.weight", "must be at most 10000, got 10001")


def test_retry_info_is_told_where_it_helps() -> None:
    assert retry_after_ms(status_to(NotReady("wait")).SerializeToString()) == RETRY_AFTER_MS["NOT_READY"]
    assert retry_after_ms(status_to(DiskFull("full")).SerializeToString()) == RETRY_AFTER_MS["DISK_FULL"]
    assert retry_after_ms(status_to(Unauthenticated("who")).SerializeToString()) is None
    assert retry_after_ms(None) is None


def test_only_what_is_unavailable_is_worth_retrying() -> None:
    leaves = leaf_errors()
    assert {leaves[code].status for code in RETRY_AFTER_MS} == {"UNAVAILABLE"}


def foreign(reason: str, domain: str) -> bytes:
    status = status_pb2.Status(message="m")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata={"k": "v"}))
    return bytes(status.SerializeToString())


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        ("UNAVAILABLE", None, Unreachable),
        ("UNAVAILABLE", b"\xff\xff damaged by a proxy", Unreachable),
        ("UNIMPLEMENTED", None, NotSupported),
        ("UNAVAILABLE", foreign("LEASE_NOT_FOUND", "example.org"), Unreachable),
        ("NOT_FOUND", foreign("LEASE_NOT_FOUND", "example.org"), RemoteError),
        ("NOT_FOUND", foreign("WIDGET_NOT_FOUND", DOMAIN), RemoteError),
        ("CANCELLED", None, RemoteError),
    ],
)
def test_what_is_not_known_becomes_an_error_by_its_status(
    code: str, details: bytes | None, kind: type[TrunklineError]
) -> None:
    error = error_from(code, "m", details)
    assert type(error) is kind
    assert error.message == "m"
    if kind is RemoteError:
        assert error.status == code


def test_a_newer_reason_is_kept() -> None:
    error = error_from("NOT_FOUND", "m", foreign("WIDGET_NOT_FOUND", DOMAIN))
    assert (error.code, error.status, error.fields) == ("WIDGET_NOT_FOUND", "NOT_FOUND", {"k": "v"})
    assert RemoteError.code == "REMOTE_ERROR"


def test_an_unknown_failure_code() -> None:
    failure = failure_to(Internal("x"))
    failure.code, failure.reason = 999, "NEWER"
    error = failure_from(failure)
    assert (type(error), error.code, error.status) == (RemoteError, "NEWER", "UNKNOWN")


def test_a_status_is_bounded() -> None:
    long = InvalidArgument(*(Violation("f" * 200, "must " + "r" * 300, "\u00e9" * 80) for _ in range(16)))
    for error in (long, NotReady("\u00e9" * 5_000, detail="x" * 10_000)):
        status = status_to(error)
        assert status.ByteSize() <= DETAILS_BYTES_MAX + MESSAGE_BYTES_MAX
        assert len(status.message.encode()) <= MESSAGE_BYTES_MAX
        assert type(error_from(error.status, status.message, status.SerializeToString())) is type(error)
