"""What HTTP is told: a publish's outcome, or why there is none."""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from google.protobuf import json_format
from google.rpc import error_details_pb2

from trunkline.api.status import RETRY_AFTER_MS, status_to
from trunkline.api.v1 import events_pb2
from trunkline.core.errors import InvalidArgument, TrunklineError

STATUSES: Final = {
    "INVALID_ARGUMENT": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "FAILED_PRECONDITION": 412,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "DATA_LOSS": 500,
    "UNKNOWN": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""By the error's gRPC status."""
STATUSES_OF_CODES: Final = {"NOT_SUPPORTED": 501}
"""By the error's code, where that says more."""
RETRY_AFTER_S: Final = 1
"""Where an error that passes says nothing longer: HTTP counts in seconds."""
_PASSING: Final = frozenset({429, 503})
_BAD_REQUEST: Final = f"type.googleapis.com/{error_details_pb2.BadRequest.DESCRIPTOR.full_name}"


class Answer(NamedTuple):
    """One response."""

    status: int
    headers: dict[str, str]
    body: bytes


def published(response: bytes) -> Answer:
    """The answer to a publish: a serialized PublishResponse in protobuf's JSON."""
    message = events_pb2.PublishResponse.FromString(response)
    told = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    return Answer(200, {}, _encoded(told))


def refused(error: TrunklineError, status: int | None = None) -> Answer:
    """Why a request was refused: a google.rpc.Status in protobuf's JSON, each violation with its rule and value besides.

    `status`: what HTTP calls it, if the error does not say so.
    """
    status = status or STATUSES_OF_CODES.get(error.code) or STATUSES[error.status]
    told = json_format.MessageToDict(status_to(error))
    if isinstance(error, InvalidArgument):
        _tell_rules(told, error)
    return Answer(status, _headers(error, status), _encoded(told))


def _tell_rules(told: dict[str, Any], error: InvalidArgument) -> None:
    """`description` is for people, who read; programs get what it is made of."""
    for detail in told["details"]:
        if detail["@type"] == _BAD_REQUEST:
            for shown, violation in zip(detail["fieldViolations"], error.violations, strict=True):
                shown.update(rule=violation.rule, value=violation.value)


def _headers(error: TrunklineError, status: int) -> dict[str, str]:
    if status == 401:
        return {"WWW-Authenticate": "Bearer"}
    if status in _PASSING:
        return {"Retry-After": str(max(RETRY_AFTER_S, -(-RETRY_AFTER_MS.get(error.code, 0) // 1_000)))}
    return {}


def _encoded(told: dict[str, Any]) -> bytes:
    """With a new line at the end, for terminals."""
    return json.dumps(told, sort_keys=True).encode() + b"\n"


NOTHING_PUBLISHED: Final = Answer(200, {}, _encoded({"published": []}))
