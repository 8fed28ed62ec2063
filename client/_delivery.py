"""One delivery of an event, and the four things that can be said of it."""

from __future__ import annotations

from typing import Protocol

from trunkline.api.v1.events_pb2 import Acknowledgement

from ._event import Event


class Settler(Protocol):
    """Takes word of deliveries; sends it with everything else said in the same turn of the loop."""

    def say(
        self,
        delivery: Delivery,
        outcome: Acknowledgement.Outcome.ValueType,
        *,
        delay_ms: int | None = None,
        reason: str = "",
    ) -> None: ...


class Delivery:
    """An event that was delivered and waits for `ack`, `nack` or `term`; the first of them counts.

    Said after the subscription has lost its place in the stream (another incarnation), they do nothing: the event comes
    again.
    """

    __slots__ = ("_settler", "attempt", "event", "incarnation", "offset", "settled", "time_ns")

    def __init__(
        self, settler: Settler, *, event: Event, offset: int, incarnation: int, attempt: int, time_ns: int
    ) -> None:
        self._settler = settler
        self.event = event
        self.offset = offset
        """Position in the stream."""
        self.incarnation = incarnation
        """Of the stream; offsets of another one are not comparable."""
        self.attempt = attempt
        """1 at the first delivery."""
        self.time_ns = time_ns
        """When the event was appended, in nanoseconds since the epoch."""
        self.settled = False
        """Something final was said."""

    def ack(self) -> None:
        """Done: never deliver it again."""
        if not self.settled:
            self.settled = True
            self._settler.say(self, Acknowledgement.OUTCOME_ACK)

    def nack(self, delay_s: float | None = None, reason: str = "") -> None:
        """Not done: deliver it again, no sooner than after `delay_s` seconds (unless given, the subscription's backoff).

        `reason` (at most 1,024 bytes) is kept if this was the last attempt.
        """
        delay_ms = None if delay_s is None else int(delay_s * 1_000)
        self._final(Acknowledgement.OUTCOME_NACK, delay_ms=delay_ms, reason=reason)

    def term(self, reason: str = "") -> None:
        """Never deliver it again: set it aside, where an operator finds it with this reason (at most 1,024 bytes)."""
        self._final(Acknowledgement.OUTCOME_TERM, reason=reason)

    def progress(self) -> None:
        """Still at it: start the acknowledgement deadline anew."""
        if not self.settled:
            self._settler.say(self, Acknowledgement.OUTCOME_PROGRESS)

    def _final(
        self, outcome: Acknowledgement.Outcome.ValueType, *, delay_ms: int | None = None, reason: str = ""
    ) -> None:
        if not self.settled:
            self.settled = True
            kept = reason.encode()[:REASON_BYTES_MAX].decode(errors="ignore")
            self._settler.say(self, outcome, delay_ms=delay_ms, reason=kept)

    def __repr__(self) -> str:
        return f"<Delivery of {self.event.type} {self.event.id} at {self.offset}, attempt {self.attempt}>"


class Said:
    """What was said since the last request, grouped as the contract groups it."""

    def __init__(self) -> None:
        self._offsets: dict[tuple[int, int | None, str], list[int]] = {}

    def add(self, outcome: int, offset: int, *, delay_ms: int | None, reason: str) -> None:
        """Keep one word."""
        self._offsets.setdefault((outcome, delay_ms, reason), []).append(offset)

    def clear(self) -> None:
        """Forget everything."""
        self._offsets.clear()

    def take(self, subscription_id: int) -> list[Acknowledgement]:
        """Everything that was kept, which is then forgotten."""
        offsets, self._offsets = self._offsets, {}
        return [
            acknowledgement
            for (outcome, delay_ms, reason), said in offsets.items()
            for acknowledgement in _acknowledgements(subscription_id, outcome, delay_ms, reason, said)
        ]


OFFSETS_MAX = 10_000
"""In one Acknowledgement."""
REASON_BYTES_MAX = 1_024


def _acknowledgements(
    subscription_id: int, outcome: int, delay_ms: int | None, reason: str, offsets: list[int]
) -> list[Acknowledgement]:
    made = []
    for start in range(0, len(offsets), OFFSETS_MAX):
        acknowledgement = Acknowledgement(
            subscription_id=subscription_id,
            outcome=Acknowledgement.Outcome.ValueType(outcome),
            offsets=offsets[start : start + OFFSETS_MAX],
            reason=reason,
        )
        if delay_ms is not None:
            acknowledgement.delay.FromMilliseconds(delay_ms)
        made.append(acknowledgement)
    return made
