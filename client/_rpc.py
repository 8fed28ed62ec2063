"""Small things about gRPC calls that channels and calls share."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio

from trunkline.api.status import DETAILS_KEY, status_to
from trunkline.core.errors import TrunklineError
from trunkline.core.policy import StatusCode


class NotSent(Exception):
    """An attempt that never left this process, and why."""

    def __init__(self, code: grpc.StatusCode, why: TrunklineError) -> None:
        super().__init__(why.message)
        self.code = code
        self.why = why

    @property
    def error(self) -> grpc.aio.AioRpcError:
        """What stubs raise."""
        return rpc_error(self.code, self.why)


def refused(error: TrunklineError) -> NotSent:
    """With the status that goes with the error."""
    return NotSent(grpc.StatusCode[error.status], error)


def rpc_error(code: grpc.StatusCode, error: TrunklineError) -> grpc.aio.AioRpcError:
    """What stubs raise, with Trunkline's error in its details."""
    status = status_to(error)
    trailing = grpc.aio.Metadata((DETAILS_KEY, status.SerializeToString()))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, error.message)


def number_of(code: grpc.StatusCode | None) -> StatusCode:
    """As core has it; a call that was cancelled here has none, and is CANCELLED."""
    return StatusCode.CANCELLED if code is None else StatusCode[code.name]


def code_of(call: Any) -> grpc.StatusCode | None:
    """The code of a call that is done: grpc.aio has it ready, so the coroutine that gives it ends at its first step."""
    coroutine = call.code()
    try:
        coroutine.send(None)
    except StopIteration as answer:
        code: grpc.StatusCode = answer.value
        return code
    coroutine.close()
    return None
