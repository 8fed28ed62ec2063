"""Every error has an answer that programs can read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trunkline.api.v1 import common_pb2, events_pb2
from trunkline.core.errors import (
    DiskFull,
    InvalidArgument,
    LimitExceeded,
    NotReady,
    RemoteError,
    TrunklineError,
    Unauthenticated,
    Violation,
    leaf_errors,
)
from trunkline.server.ingestion.answers import published, refused


@pytest.mark.parametrize("code", sorted(leaf_errors()))
def test_every_error_is_told(code: str) -> None:
    kind = leaf_errors()[code]
    error = kind.__new__(kind)
    TrunklineError.__init__(error, "why", place="here")
    if isinstance(error, InvalidArgument):
        error.violations = ()
    answer = refused(error)
    assert 400 <= answer.status < 600
    assert answer.status != 500 or error.status in ("INTERNAL", "DATA_LOSS", "UNKNOWN")
    told = json.loads(answer.body)
    assert told["details"][0]["reason"] == kind.code
    assert told["message"] == "why"


@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (NotReady("starting"), 503, {"Retry-After": "1"}),
        (DiskFull("full"), 503, {"Retry-After": "5"}),
        (LimitExceeded("streams_max", 7), 429, {"Retry-After": "1"}),
        (Unauthenticated("who?"), 401, {"WWW-Authenticate": "Bearer"}),
        (RemoteError("?"), 500, {}),
    ],
)
def test_statuses_and_headers(error: TrunklineError, status: int, headers: dict[str, str]) -> None:
    answer = refused(error)
    assert (answer.status, answer.headers) == (status, headers)


def violations_of(body: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(body)["details"][1]["fieldViolations"]
    return found


def test_each_violation_is_told_with_its_rule_and_value() -> None:
    answer = refused(InvalidArgument(Violation("ce-id", "required", "nothing"), Violation("ce-time", "a time", "'x'")))
    assert answer.status == 400
    assert violations_of(answer.body) == [
        {"field": "ce-id", "description": "required, got nothing", "rule": "required", "value": "nothing"},
        {"field": "ce-time", "description": "a time, got 'x'", "rule": "a time", "value": "'x'"},
    ]


def test_what_is_too_much_to_tell_is_cut() -> None:
    answer = refused(InvalidArgument(*(Violation(f"field{n}", "r" * 100, "v" * 80) for n in range(100))))
    assert answer.status == 400
    assert len(answer.body) < 5_000


def test_a_publish_is_answered_with_all_that_it_is_promised() -> None:
    response = events_pb2.PublishResponse(
        header=common_pb2.ResponseHeader(journal_id="j"),
        incarnation=2**63,
        durability=common_pb2.Durability(sync=common_pb2.SYNC_FSYNCED, copies=1),
        published=[events_pb2.PublishedRange(count=2), events_pb2.PublishedRange(offset=7, count=1, duplicate=True)],
    )
    answer = published(response.SerializeToString())
    told = json.loads(answer.body)
    assert answer.status == 200
    assert told["incarnation"] == str(2**63)
    assert told["durability"] == {"sync": "SYNC_FSYNCED", "copies": 1}
    assert told["published"] == [
        {"offset": "0", "count": 2, "duplicate": False},
        {"offset": "7", "count": 1, "duplicate": True},
    ]
