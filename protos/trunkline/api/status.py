"""Errors on the wire: TrunklineError to google.rpc.Status and back, and to the Failure of one item of a stream.

The reason travels in google.rpc.ErrorInfo, so the client raises the class that the server raised. All of it is bounded:
it travels in HTTP/2 trailers, which peers may refuse above 8 KiB.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from trunkline.core.errors import (
    DOMAIN,
    DeadlineExceeded,
    InvalidArgument,
    NotSupported,
    PermissionDenied,
    RemoteError,
    TrunklineError,
    Unauthenticated,
    Unreachable,
    Violation,
    leaf_errors,
)

from .v1 import common_pb2

DETAILS_KEY: Final = "grpc-status-details-bin"
"""Trailing metadata in which gRPC libraries look for a google.rpc.Status."""

MESSAGE_BYTES_MAX: Final = 1_024
DETAILS_BYTES_MAX: Final = 3_584
"""Serialized; half of what peers must take, and a third more in base64."""

RETRY_AFTER_MS: Final = {
    "NOT_READY": 500,
    "STREAM_CLOSED": 1_000,
    "OUTCOME_UNKNOWN": 200,
    "DISK_FULL": 5_000,
    "DISK_READ_ONLY": 5_000,
}
"""By code: when trying again may help at the earliest. Of what is UNAVAILABLE, only what mends itself or is mended."""

_CLASSES = leaf_errors()
_BY_STATUS: Final[dict[str, type[TrunklineError]]] = {
    "INVALID_ARGUMENT": InvalidArgument,
    "UNAUTHENTICATED": Unauthenticated,
    "PERMISSION_DENIED": PermissionDenied,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "UNAVAILABLE": Unreachable,
    "UNIMPLEMENTED": NotSupported,
}
"""What a status without a known reason becomes; anything else becomes RemoteError."""


def status_to(error: TrunklineError) -> status_pb2.Status:
    """The status of a call that fails with this error."""
    status = status_pb2.Status(code=_number(error.status), message=_message(error))
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=error.code, domain=DOMAIN, metadata=_fields(error)))
    if isinstance(error, InvalidArgument) and error.violations:
        status.details.add().Pack(_bad_request(error.violations))
    retry_ms = RETRY_AFTER_MS.get(error.code)
    if retry_ms is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(retry_ms)
        status.details.add().Pack(retry)
    if status.ByteSize() > DETAILS_BYTES_MAX + MESSAGE_BYTES_MAX:
        del status.details[1:]
        status.details[0].Pack(error_details_pb2.ErrorInfo(reason=error.code, domain=DOMAIN))
    return status


def error_from(code: str, message: str, details: bytes | None) -> TrunklineError:
    """The error that a status stands for.

    `code` is the status' name ("NOT_FOUND"); `details` is the value of `grpc-status-details-bin`, None without one.
    A reason that this version does not know becomes an error by its status.
    """
    status = _parsed(details)
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(info) or detail.Unpack(bad_request)
    reason = info.reason if info.domain == DOMAIN else ""
    fields = dict(info.metadata) if reason else {}
    return _made(reason, code, message, fields, _violations(bad_request, fields))


def failure_to(error: TrunklineError) -> common_pb2.Failure:
    """The same for one item of a stream that goes on."""
    return common_pb2.Failure(code=_number(error.status), reason=error.code, message=_message(error))


def failure_from(failure: common_pb2.Failure) -> TrunklineError:
    """The error of one item of a stream."""
    known = failure.code in code_pb2.Code.values()
    name = code_pb2.Code.Name(code_pb2.Code.ValueType(failure.code)) if known else "UNKNOWN"
    return _made(failure.reason, name, failure.message, {}, ())


def retry_after_ms(details: bytes | None) -> int | None:
    """What the server's google.rpc.RetryInfo says; None if it says nothing."""
    retry = error_details_pb2.RetryInfo()
    for detail in _parsed(details).details:
        if detail.Unpack(retry):
            return int(retry.retry_delay.ToMilliseconds())
    return None


def _number(status: str) -> int:
    return int(code_pb2.Code.Value(status))


def _message(error: TrunklineError) -> str:
    encoded = error.message.encode()
    if len(encoded) <= MESSAGE_BYTES_MAX:
        return error.message
    return encoded[: MESSAGE_BYTES_MAX - 3].decode(errors="ignore") + "..."


def _fields(error: TrunklineError) -> dict[str, str]:
    """What stands in ErrorInfo.metadata. A violation's value stands there by itself, so that nobody must parse it."""
    if isinstance(error, InvalidArgument):
        return {f"value_{index}": violation.value for index, violation in enumerate(error.violations)}
    return error.fields


def _bad_request(violations: tuple[Violation, ...]) -> error_details_pb2.BadRequest:
    return error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field=field, description=f"{rule}, got {value}")
            for field, rule, value in violations
        ]
    )


def _violations(bad_request: error_details_pb2.BadRequest, fields: dict[str, str]) -> tuple[Violation, ...]:
    found = []
    for index, violation in enumerate(bad_request.field_violations):
        value = fields.pop(f"value_{index}", "")
        found.append(Violation(violation.field, violation.description.removesuffix(f", got {value}"), value))
    return tuple(found)


def _parsed(details: bytes | None) -> status_pb2.Status:
    """Empty when there are no details, or what a proxy left of them cannot be read."""
    try:
        return status_pb2.Status.FromString(details or b"")
    except DecodeError:
        return status_pb2.Status()


def _made(
    reason: str, status: str, message: str, fields: dict[str, str], violations: tuple[Violation, ...]
) -> TrunklineError:
    """An error of the class that the reason names, else the status; its constructor may want what is not told."""
    kind = _CLASSES.get(reason) or _BY_STATUS.get(status, RemoteError)
    error = kind.__new__(kind, message)
    TrunklineError.__init__(error, message, **fields)
    if isinstance(error, InvalidArgument):
        error.violations = violations
    if isinstance(error, RemoteError):
        error.code, error.status = reason or status, status  # type: ignore[misc]
    return error
