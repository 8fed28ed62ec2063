"""What one method's calls pass, coming and going. Made once per method; nothing is looked up during a call."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NoReturn

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from trunkline.api.rules import checker
from trunkline.api.status import DETAILS_KEY, status_to
from trunkline.core.clock import Clock
from trunkline.core.errors import Internal, InvalidArgument, LimitExceeded, TrunklineError

from ..security.authenticate import Authenticator
from ..security.principal import ANY, Principal, authorize
from .call import Call, Decode
from .config import ChainConfig
from .methods import Method
from .metrics import MethodStats
from .readiness import Readiness

log = logging.getLogger(__name__)

PeerGone = grpc.aio.InternalError
"""What grpc.aio raises when it writes to a connection that is no longer there."""

REPEATED_MAX: Final = 1_024
"""Requests of a method that are kept in the form in which they are served ..."""
REPEATED_BYTES_MAX: Final = 512
"""... if they have no more than this."""
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
        if not principal.may_everything:
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
        """What the caller is told of an error, alone or in a task group's. CancelledError when there is no caller left.

        What is no refusal is a fault of ours: logged here, once.
        """
        causes = list(_causes(error))
        if any(not isinstance(cause, TrunklineError | PeerGone) for cause in causes):
            log.error("call failed", exc_info=error, extra={"method": self.name})
            return Internal(f"{self.name} failed; the server's log says why")
        for cause in causes:
            if isinstance(cause, TrunklineError):
                return cause
        raise asyncio.CancelledError

    async def refuse(self, context: Any, error: TrunklineError) -> NoReturn:
        """End the call with the error's status and details.

        A peer that does not read keeps even the end of its call waiting; after a while the call is dropped instead.
        """
        status = status_to(error)
        details = ((DETAILS_KEY, status.SerializeToString()),)
        try:
            async with asyncio.timeout(self.house.config.refusal_timeout_ms / 1_000):
                await context.abort(grpc.StatusCode[error.status], status.message, details)
        except (TimeoutError, PeerGone):
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

    def read(data: bytes) -> Message:
        try:
            request = parse(data)
        except DecodeError:
            raise InvalidArgument.of(name, "must be a serialized message of this type", f"{len(data)} bytes") from None
        check(request)
        return request

    read_short = lru_cache(REPEATED_MAX)(read) if method.is_repeated else read
    plain = method.plain

    def decode(data: bytes, principal: Principal) -> Any:
        request = None if plain is None else plain(data)
        if request is None:
            request = read_short(data) if len(data) <= REPEATED_BYTES_MAX else read(data)
        if demands is not None and not principal.may_everything:
            demand = demands(request)
            if demand is not None:
                authorize(principal, *demand)
        return request

    return decode


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The errors that a group holds, or the one that it is."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _causes(inner)
    else:
        yield error
