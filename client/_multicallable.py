"""What generated stubs call: each call goes to an endpoint of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol

import grpc.aio

from ._balancer import Candidate
from ._subchannel import Subchannel
from ._waiting_call import WaitingCall


class Endpoints(Protocol):
    """Chooses where a call goes."""

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
    """A method on every endpoint. `make` makes grpc.aio's multicallable for it on a channel."""

    def __init__(
        self,
        endpoints: Endpoints,
        make: Callable[[grpc.aio.Channel], Any],
        waiting: Callable[..., WaitingCall],
    ) -> None:
        self._endpoints = endpoints
        self._make = make
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
        chosen, subchannel = self._endpoints.choose_endpoint(metadata)
        if chosen is not None and subchannel is not None:
            return self._send(chosen, subchannel, request, timeout, metadata, options)
        return self._waiting(partial(self._find_and_send, chosen, request, timeout, metadata, options), timeout)

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
        method = subchannel.method(self, self._make)
        call = method(request, timeout=timeout_s, metadata=metadata, **options)
        self._endpoints.begun(candidate, subchannel, call)
        return call
