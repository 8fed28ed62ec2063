"""Whom an attempt tries to reach, one endpoint after the other. No I/O: whoever uses it connects."""

from __future__ import annotations

from enum import StrEnum

from trunkline.core.breaker import Outcome
from trunkline.core.evaluator import NO_INSTANCE
from trunkline.core.in_flight import Ticket
from trunkline.core.policy import Destination
from trunkline.core.splits import Metadata

from ._balancer import Balancer, Candidate


class Route:
    """How one attempt finds its endpoint."""

    __slots__ = ("avoid", "chosen", "destination", "earlier", "guarded", "ticket")

    def __init__(
        self, chosen: Candidate | None = None, *, avoid: set[Candidate] | None = None,
        destination: Destination | None = None, earlier: Destination | None = None, guarded: bool = False,
    ) -> None:  # fmt: skip
        self.chosen = chosen
        """The picker's choice, if it was asked already."""
        self.avoid = avoid or set()
        """Those that were tried; gone to when there is no other."""
        self.destination = destination
        """The part of the service that is meant, if it is not what the policy's split says."""
        self.earlier = earlier
        """Where the split sent this call at first, if it was asked already."""
        self.guarded = guarded
        """Limits and breakers are asked."""
        self.ticket: Ticket | None = None
        """Of an attempt that they let through."""


class NoWay(StrEnum):
    """Why there is no endpoint to try."""

    NOBODY = "nobody"
    """Nobody is there."""
    REFUSED = "refused"
    """Limits or breakers let nothing through; the balancer says which."""
    UNREACHABLE = "unreachable"
    """Each was tried, and none could be connected."""


class Way:
    """Of one attempt. An endpoint is asked for with `next` and, when it cannot be connected, given back with `drop`.

    An endpoint that is not connected was not called, so breakers are told nothing of it. When none could be reached, they
    are told of one failure: that of the attempt.
    """

    def __init__(self, balancer: Balancer, route: Route, metadata: Metadata | None) -> None:
        self.tried: set[Candidate] = set()
        """Those that could not be connected."""
        self._balancer = balancer
        self._route = route
        self._metadata = metadata

    def next(self) -> Candidate | NoWay:
        """One that was not tried, if there is one."""
        found = self._guarded() if self._route.guarded else self._picked()
        if not isinstance(found, Candidate) or found not in self.tried:
            return found
        self._end(Outcome.FAILURE)
        return NoWay.UNREACHABLE

    def drop(self, candidate: Candidate) -> None:
        """It was not connected."""
        self.tried.add(candidate)
        self._end(Outcome.CANCELLED)

    def _end(self, outcome: Outcome) -> None:
        ticket, self._route.ticket = self._route.ticket, None
        if ticket is not None:
            ticket.end(outcome)

    def _guarded(self) -> Candidate | NoWay:
        route, balancer = self._route, self._balancer
        avoid = route.avoid | self.tried
        route.ticket = balancer.begin(
            metadata=self._metadata, tried=avoid, destination=route.destination, earlier=route.earlier
        )
        if route.ticket is None:
            return NoWay.NOBODY if balancer.refusal == NO_INSTANCE else NoWay.REFUSED
        if route.earlier is None:
            route.earlier = balancer.destination
        return balancer.candidate(route.ticket)

    def _picked(self) -> Candidate | NoWay:
        route, balancer, metadata, tried = self._route, self._balancer, self._metadata, self.tried
        chosen, route.chosen = route.chosen, None
        if chosen is not None and balancer.holds(chosen):
            return chosen
        if route.destination is not None:
            candidate = balancer.pick_of(route.destination, metadata=metadata, tried=tried)
        elif tried:
            candidate = balancer.pick_another(tried) or next(iter(tried))
        else:
            candidate = balancer.pick(metadata=metadata)
        return NoWay.NOBODY if candidate is None else candidate
