"""What generated stubs call: each call goes to an endpoint of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol

import grpc.aio

from ._balancer import Candidate
from ._subchannel import Subchannel
from ._waiting_call import WaitingCall


class Rpc:
    """A method: its name, whether it streams, and what makes bytes of requests and responses of bytes.

    Compared by identity: it is the key of its multicallables, which are kept as long as it is.
    """

    __slots__ = ("__weakref__", "_further", "_serializer", "deserializer", "kind", "name", "streams_in", "streams_out")

    def __init__(self, kind: str, name: str, serializer: Any, deserializer: Any, further: dict[str, Any]) -> None:
        """`kind` is the name of grpc.aio.Channel's method: "unary_unary" and so on."""
        self.kind = kind
        self.name = name
        self.deserializer = deserializer
        self.streams_in = kind.startswith("stream_")
        self.streams_out = kind.endswith("_stream")
        self._serializer = serializer
        self._further = further

    def serialize(self, request: Any) -> bytes:
        """The request's bytes."""
        data: bytes = request if self._serializer is None else self._serializer(request)
        return data

    def make(self, channel: grpc.aio.Channel) -> Any:
        """Its multicallable, which takes requests."""
        return getattr(channel, self.kind)(self.name, self._serializer, self.deserializer, **self._further)

    def make_raw(self, channel: grpc.aio.Channel) -> Any:
        """Its multicallable, which takes requests' bytes."""
        return getattr(channel, self.kind)(self.name, None, self.deserializer, **self._further)

    def raw(self) -> Rpc:
        """The same method for those who have requests' bytes."""
        return Rpc(self.kind, self.name, None, self.deserializer, self._further)


class Endpoints(Protocol):
    """Chooses where a call goes."""

    @property
    def guarded(self) -> bool:
        """A policy asks for more than a pick: `begin_policy_call` makes the call."""

    def begin_policy_call(
        self, rpc: Rpc, request: Any, timeout_s: float | None, metadata: Any, options: Any, depth: int
    ) -> Any:
        """A call with all that the policy says of it."""

    def choose_endpoint(self, metadata: Any) -> tuple[Candidate | None, Subchannel | None]:
        """The picker's choice, and its subchannel if it is connected."""

    async def find_endpoint(
        self, chosen: Candidate | None, metadata: Any, *, timeout_s: float | None, wait_for_ready: bool
    ) -> tuple[Candidate, Subchannel, float | None]:
        """Connect the chosen one, else another; with what is left of the time.

        AioRpcError UNAVAILABLE or DEADLINE_EXCEEDED when there is none.
        """

    def begun(self, candidate: Candidate, subchannel: Subchannel, call: Any) -> None:
        """A call was sent there."""


class Method:
    """A method on every endpoint."""

    def __init__(self, endpoints: Endpoints, rpc: Rpc, waiting: Callable[..., WaitingCall]) -> None:
        self._endpoints = endpoints
        self._rpc = rpc
        self._waiting = waiting

    def __call__(
        self,
        request: Any = None,
        timeout: float | None = None,
        metadata: Iterable[tuple[str, str | bytes]] | None = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
        *,
        request_iterator: Any = None,
    ) -> Any:
        request = request_iterator if request is None else request
        options = {"credentials": credentials, "wait_for_ready": wait_for_ready, "compression": compression}
        return self.begin(request, timeout, metadata, options)

    def begin(self, request: Any, timeout_s: float | None, metadata: Any, options: Any, *, depth: int = 0) -> Any:
        """The call. `depth`: so many services were asked before this one, each in place of the one before."""
        if self._endpoints.guarded:
            return self._endpoints.begin_policy_call(self._rpc, request, timeout_s, metadata, options, depth)
        chosen, subchannel = self._endpoints.choose_endpoint(metadata)
        if chosen is not None and subchannel is not None:
            return self._send(chosen, subchannel, request, timeout_s, metadata, options)
        return self._waiting(partial(self._find_and_send, chosen, request, timeout_s, metadata, options), timeout_s)

    async def _find_and_send(
        self, chosen: Candidate | None, request: Any, timeout_s: float | None, metadata: Any, options: Any
    ) -> Any:
        candidate, subchannel, left_s = await self._endpoints.find_endpoint(
            chosen, metadata, timeout_s=timeout_s, wait_for_ready=bool(options["wait_for_ready"])
        )
        return self._send(candidate, subchannel, request, left_s, metadata, options)

    def _send(
        self, candidate: Candidate, subchannel: Subchannel, request: Any, timeout_s: float | None, metadata: Any,
        options: Any,
    ) -> Any:  # fmt: skip
        method = subchannel.method(self, self._rpc.make)
        call = method(request, timeout=timeout_s, metadata=metadata, **options)
        self._endpoints.begun(candidate, subchannel, call)
        return call
