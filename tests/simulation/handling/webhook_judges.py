"""What is demanded of a webhook: at least once, bounded, attempts counted, and over when it is acknowledged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from simulation.clients import DEAD_LETTERS
from simulation.handling import verdicts
from simulation.handling.delivery_log import Said, Sent
from simulation.handling.endpoint import CONCURRENCY, Endpoint, Requested
from simulation.handling.fates import HOOK, expires_ns, text_of
from simulation.truth import Journal

from trunkline.api.v1.events_pb2 import Acknowledgement

if TYPE_CHECKING:
    from simulation.world import World

DURABLE_S = 2.0
"""A checkpoint says what was acknowledged after so long without trouble."""


def _endpoint(world: World) -> Endpoint:
    assert isinstance(world.endpoint, Endpoint)
    return world.endpoint


def _places(journal: Journal) -> dict[tuple[str, str], int]:
    return {(event.source, event.id): offset for offset, event in journal.events.items()}


def _sent(journal: Journal, requests: list[Requested]) -> list[Sent]:
    places = _places(journal)
    return [Sent(r.at_s, r.wall_ns, r.life, "webhook", places[r.source, r.id], r.attempt) for r in requests]


def _webhook_at_least_once(world: World, journal: Journal) -> Iterator[str]:
    places = _places(journal)
    handled = {places[name] for name in _endpoint(world).taken}
    letters = journal.streams.get(DEAD_LETTERS, {}).values()
    given_up = {int(text_of(one, "dloffset")) for one in letters if text_of(one, "dlsubscription") == HOOK.name}
    expired = {offset for offset, event in journal.events.items() if expires_ns(event) is not None}
    return verdicts.broke_owed_dead_letter(journal.events, handled, given_up | expired)


def _webhook_bounded(world: World, journal: Journal) -> Iterator[str]:
    if _endpoint(world).open_max > CONCURRENCY:
        yield f"{_endpoint(world).open_max} requests stood open, allowed are {CONCURRENCY}"


def _webhook_attempts(world: World, journal: Journal) -> Iterator[str]:
    return verdicts.broke_attempts_counted(_sent(journal, _endpoint(world).requests), HOOK.max_deliveries)


def _webhook_settled(world: World, journal: Journal) -> Iterator[str]:
    answered = _sent(journal, _endpoint(world).answered)
    return verdicts.broke_settled_stays_settled(
        _sent(journal, _endpoint(world).requests),
        [Said(one.at_s, one.life, one.consumer, one.offset, Acknowledgement.OUTCOME_ACK) for one in answered],
        ack_deadline_s=HOOK.ack_deadline_s,
        durable=lambda at_s: world.is_sound(at_s, at_s + DURABLE_S),
        letters={},
    )


CHECKS = {
    "webhook at least once": _webhook_at_least_once,
    "webhook bounded": _webhook_bounded,
    "webhook attempts counted": _webhook_attempts,
    "webhook settled stays settled": _webhook_settled,
}
