"""Endpoints for protocols other than gRPC: chosen as the channel chooses them, called by the user."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from trunkline.core.clock import Clock, Rng
from trunkline.core.errors import NoInstance
from trunkline.core.localities import NOWHERE
from trunkline.core.model import Endpoint, Locality, RegisteredInstance

from ._balancer import Balancer, Candidate, LoadBalancing
from ._changes import Change
from ._fork import ForkGuard
from ._view import View

LEFT_OUT_S = 5.0
"""How long an endpoint that the user says has failed is not chosen, unless nothing else is there."""


class Choice:
    """One endpoint, for one call: `with chooser.choose() as choice`.

    An OSError that leaves the block counts as failed.
    """

    def __init__(self, chooser: Chooser, candidate: Candidate) -> None:
        self._chooser = chooser
        self._candidate = candidate

    @property
    def endpoint(self) -> Endpoint:
        """Where to call."""
        return self._candidate.endpoint

    @property
    def instance(self) -> RegisteredInstance:
        """Whose endpoint it is."""
        return self._candidate.instance

    def failed(self) -> None:
        """The connection was refused or lost: leave this endpoint out for a while."""
        self._chooser.leave_out(self._candidate)

    def __enter__(self) -> Self:
        self._chooser.begun(self._candidate)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._chooser.ended(self._candidate)
        if isinstance(error, OSError):
            self.failed()


class Chooser:
    """Picks among the endpoints of a live view that speak one protocol. Connects to nothing."""

    def __init__(
        self,
        view: View,
        rng: Rng,
        guard: ForkGuard,
        *,
        load_balancing: LoadBalancing,
        protocol: str,
        clock: Clock,
        locality: Locality = NOWHERE,
        caller: str = "",
    ) -> None:
        self._view = view
        self._guard = guard
        self._protocol = protocol
        self._balancer = Balancer(load_balancing, protocol, rng, clock=clock, where=locality, caller=caller)
        self._stop_listening = view.listen(self._view_changed)

    @property
    def view(self) -> View:
        """The live view that it picks from."""
        return self._view

    def choose(self, key: bytes | str | None = None) -> Choice:
        """An endpoint; with ring_hash and maglev, `key` decides which. NoInstance when there is none."""
        self._guard.check()
        candidate = self._balancer.pick(key.encode() if isinstance(key, str) else key)
        if candidate is None:
            raise NoInstance(f"no instance of {self._view.service} speaks {self._protocol} and can be called")
        return Choice(self, candidate)

    def leave_out(self, candidate: Candidate) -> None:
        """See Choice.failed."""
        self._balancer.set_out(candidate, "said to have failed")
        asyncio.get_running_loop().call_later(LEFT_OUT_S, self._balancer.set_out, candidate, "")

    def begun(self, candidate: Candidate) -> None:
        """A call is in flight."""
        self._balancer.begun(candidate)

    def ended(self, candidate: Candidate) -> None:
        """It is over."""
        self._balancer.ended(candidate)

    def close(self) -> None:
        """Close it and its view."""
        self._stop_listening()
        self._view.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _view_changed(self, change: Change) -> None:
        self._balancer.update(self._view.instances)
