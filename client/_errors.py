"""From gRPC's errors to Trunkline's: the client raises the class that the server raised."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, cast

import grpc

from trunkline.api import status
from trunkline.core import errors
from trunkline.core.errors import TrunklineError

TRANSIENT = (
    errors.Unreachable,
    errors.NotReady,
    errors.OutcomeUnknown,
    errors.DiskFull,
    errors.DiskReadOnly,
    errors.StreamClosed,
    errors.SubscriptionMoved,
    errors.WriteConflict,
)
"""What may be gone at the next attempt.

Every call of the contract may be repeated: it carries ids that the client chose.
"""


def cancelled_by_channel() -> bool:
    """Tell, in an `except CancelledError`, whether gRPC cancelled the call (its channel was closed) and not somebody
    this task.

    To us that is a lost connection.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() == 0


def is_transient(error: TrunklineError) -> bool:
    """Whether the same call may succeed a little later."""
    return isinstance(error, TRANSIENT)


def error_of(error: grpc.RpcError) -> TrunklineError:
    """The error that the server raised, or what the lack of an answer means.

    INTERNAL without a reason is not the control plane's word, which gives one always: the gRPC library says so of a call
    that broke under it (a stream that was reset, a write that met a connection which had just been lost).
    """
    trailing: Iterable[tuple[str, Any]] = cast(Any, error.trailing_metadata()) or ()
    details = next((value for key, value in trailing if key == status.DETAILS_KEY), None)
    if details is None and error.code() is grpc.StatusCode.INTERNAL:
        return errors.Unreachable(error.details() or "the call broke on its way")
    return status.error_from(error.code().name, error.details() or "", details)
