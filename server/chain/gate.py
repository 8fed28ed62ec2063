"""What one method's calls pass, coming and going. Made once per method; nothing is looked up during a call."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from trunkline.api.rules import checker
from trunkline.api.status import DETAILS_KEY, status_to
from trunkline.core.clock import Clock
from trunkline.core.errors import DeadlineExceeded, Internal, InvalidArgument, LimitExceeded, TrunklineError

from ..security.authenticate import Authenticator
from ..security.principal import ANY, Principal, authorize
from .call import Call, Decode
from .config import ChainConfig
from .methods import Method
from .metrics import MethodStats
from .readiness import Readiness

log = logging.getLogger(__name__)

OK: Final = "OK"
CANCELLED: Final = "CANCELLED"


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """What all methods share."""

    authenticator: Authenticator
    readiness: Readiness
    clock: Clock
    config: ChainConfig


class Gate:
    """In: readiness, limits, principal, verb. Per request: form, rules, demands. Out: status, count."""

    def __init__(self, house: House, descriptor: MethodDescriptor, method: Method, stats: MethodStats) -> None:
        self.house = house
        self.stats = stats
        self.clock = house.clock
        self.name = f"{descriptor.containing_service.full_name}/{descriptor.name}"
        self.decode: Decode = _decoder(descriptor, method)
        self._verb = method.verb
        self._before_ready = method.before_ready
        self._streams_by_peer: Counter[str] = Counter()

    def enter(self, context: Any) -> Call:
        """Let a call in. NotReady, LimitExceeded, Unauthenticated, PermissionDenied."""
        house = self.house
        if not house.readiness.is_open and not self._before_ready:
            raise house.readiness.refusal()
        if self.stats.in_flight > self.stats.in_flight_max:
            raise LimitExceeded(f"in_flight_max of {self.name}", self.stats.in_flight_max)
        principal = house.authenticator.principal(context)
        authorize(principal, self._verb, ANY)
        return Call(context, principal, self.decode, house.clock)

    def enter_stream(self, peer: str) -> None:
        """Count a connection's stream; `leave_stream` must follow. LimitExceeded."""
        limit = self.house.config.streams_per_connection_max
        self._streams_by_peer[peer] += 1
        if self._streams_by_peer[peer] > limit:
            raise LimitExceeded(f"streams_per_connection_max of {self.name}", limit)

    def leave_stream(self, peer: str) -> None:
        """The stream is over."""
        self._streams_by_peer[peer] -= 1
        if not self._streams_by_peer[peer]:
            del self._streams_by_peer[peer]

    def refusal_of(self, error: BaseException) -> TrunklineError:
        """What the caller is told of an error. What is no refusal is a fault of ours: logged here, once."""
        found = _refusal_in(error)
        if found is not None:
            return found
        log.error("call failed", exc_info=error, extra={"method": self.name})
        return Internal(f"{self.name} failed; the server's log says why")

    async def refuse(self, context: Any, error: TrunklineError) -> NoReturn:
        """End the call with the error's status and details.

        A peer that does not read keeps even the end of its call waiting; after a while the call is dropped instead.
        """
        status = status_to(error)
        details = ((DETAILS_KEY, status.SerializeToString()),)
        try:
            async with asyncio.timeout(self.house.config.refusal_timeout_ms / 1_000):
                await context.abort(grpc.StatusCode[error.status], status.message, details)
        except TimeoutError:
            raise asyncio.CancelledError from None
        raise AssertionError("abort returned")


def _decoder(descriptor: MethodDescriptor, method: Method) -> Decode:
    """From bytes to a checked and authorized request."""
    if method.raw_request:
        return lambda data, _principal: data
    kind: type[Message] = GetMessageClass(descriptor.input_type)
    parse: Callable[[bytes], Message] = kind.FromString
    check = checker(descriptor.input_type)
    demands = method.demands
    name = descriptor.input_type.full_name

    def decode(data: bytes, principal: Principal) -> Message:
        try:
            request = parse(data)
        except DecodeError:
            raise InvalidArgument.of(name, "must be a serialized message of this type", f"{len(data)} bytes") from None
        check(request)
        if demands is not None:
            demand = demands(request)
            if demand is not None:
                authorize(principal, *demand)
        return request

    return decode


def _refusal_in(error: BaseException) -> TrunklineError | None:
    """The refusal that an error is, or that a task group raised it within; None if anything else is in there."""
    if isinstance(error, TrunklineError):
        return error
    if isinstance(error, BaseExceptionGroup):
        found = [_refusal_in(inner) for inner in error.exceptions]
        return found[0] if all(found) else None
    return None


def late(name: str, deadline_ms: int) -> DeadlineExceeded:
    """A call that came without a deadline took too long."""
    return DeadlineExceeded(f"{name} was not done within {deadline_ms} ms, the limit for calls without a deadline")
