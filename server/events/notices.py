"""What a subscription is told besides deliveries, as bytes of SubscribeResponse."""

from __future__ import annotations

from grpc import StatusCode

from trunkline.api.v1 import common_pb2, events_pb2
from trunkline.core.errors import TrunklineError

_Notice = events_pb2.SubscriptionNotice


def failure(error: TrunklineError) -> common_pb2.Failure:
    """An error as an item of a stream carries it."""
    return common_pb2.Failure(code=StatusCode[error.status].value[0], reason=error.code, message=error.message)


def opened(subscription_id: int, *, incarnation: int, next_offset: int, token: bytes) -> bytes:
    """It is open; deliveries begin at `next_offset`."""
    return _encode(
        _Notice(
            subscription_id=subscription_id,
            kind=_Notice.KIND_OPENED,
            resume_token=token,
            incarnation=incarnation,
            next_offset=next_offset,
        )
    )


def bookmark(subscription_id: int, *, incarnation: int, next_offset: int, token: bytes) -> bytes:
    """Everything before `next_offset` has been sent (and acknowledged, where that is asked for)."""
    return _encode(
        _Notice(
            subscription_id=subscription_id,
            kind=_Notice.KIND_BOOKMARK,
            resume_token=token,
            incarnation=incarnation,
            next_offset=next_offset,
        )
    )


def gap(subscription_id: int, *, old: tuple[int, int], new: tuple[int, int]) -> bytes:
    """Delivery goes on at another place than the last one ended; places are (incarnation, offset)."""
    return _encode(
        _Notice(
            subscription_id=subscription_id,
            kind=_Notice.KIND_GAP,
            incarnation=new[0],
            next_offset=new[1],
            old_incarnation=old[0],
            old_offset=old[1],
        )
    )


def ended(subscription_id: int, error: TrunklineError | None) -> bytes:
    """Nothing more comes; without an error because the client asked for it."""
    notice = _Notice(subscription_id=subscription_id, kind=_Notice.KIND_ENDED)
    if error is not None:
        notice.error.CopyFrom(failure(error))
    return _encode(notice)


def _encode(notice: events_pb2.SubscriptionNotice) -> bytes:
    return events_pb2.SubscribeResponse(notices=[notice]).SerializeToString()
