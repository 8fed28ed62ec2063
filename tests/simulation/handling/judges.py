"""What is demanded of a world in which the handling of events fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import guarantees
from simulation import judge
from simulation.clients import DEAD_LETTERS
from simulation.handling import schedule_judges, verdicts, webhook_judges
from simulation.handling.delivery_log import DeliveryLog, Sent
from simulation.handling.fates import (
    CLINIC,
    LANES,
    MOVED,
    TAKEN,
    WELL,
    Taken,
    expires_ns,
    fate_of,
    key_of,
    text_of,
)
from simulation.handling.verdicts import Letter
from simulation.truth import Journal
from simulation.virtual import EPOCH_NS

from trunkline.api import convert

if TYPE_CHECKING:
    from simulation.world import World

DURABLE_S = 2.0
"""A checkpoint says what was settled after so long without trouble."""
WELL_S = LANES.ack_deadline_s + 1.0
"""How long an event of a lane that is well may wait: one ahead of it is with a consumer that is lost."""
COME_BACK_S = 7.0
"""After trouble consumers connect again, and what the lost ones had is taken back."""


def _log(world: World) -> DeliveryLog:
    assert isinstance(world.seen, DeliveryLog)
    return world.seen


def _letters(journal: Journal) -> list[Letter]:
    found = []
    for event in journal.streams.get(DEAD_LETTERS, {}).values():
        given_up_ns = convert.time_ns_from(event.attributes["dltime"].ce_timestamp)
        found.append(
            Letter(
                id=f"{event.source} {event.id}",
                subscription=text_of(event, "dlsubscription"),
                offset=int(text_of(event, "dloffset")),
                attempts=event.attributes["dlattempts"].ce_integer,
                reason=text_of(event, "dlreason"),
                at_s=(given_up_ns - EPOCH_NS) / 1e9,
            )
        )
    return found


def _letters_of(journal: Journal, taken: Taken) -> list[Letter]:
    return [letter for letter in _letters(journal) if letter.subscription == taken.name]


def _kept(world: World, taken: Taken) -> list[Sent]:
    """What was sent to those who did not close the subscription: attempts of others are taken back. Attempts at what is
    delivered again on request are counted anew."""
    closed, anew = world.history.closed_clean, _anew(world, taken)
    sent = _log(world).sent[taken.name]
    return [one for one in sent if (taken.name, one.consumer) not in closed and one.offset not in anew]


def _anew(world: World, taken: Taken) -> set[int]:
    asked = (asked for asked in world.history.redeliveries if asked.subscription == taken.name)
    return {offset for one in asked for offset in one.offsets}


def _expires_ns(journal: Journal) -> dict[int, int]:
    expiries = {offset: expires_ns(event) for offset, event in journal.events.items()}
    return {offset: at_ns for offset, at_ns in expiries.items() if at_ns is not None}


def _attempts_counted(world: World, journal: Journal) -> Iterator[str]:
    for taken in TAKEN:
        broken = verdicts.broke_attempts_counted(_kept(world, taken), taken.max_deliveries)
        yield from (f"{taken.name}: {what}" for what in broken)


def _settled_stays(world: World, journal: Journal) -> Iterator[str]:
    for taken in TAKEN:
        times: dict[int, list[float]] = {}
        if len(world.clock_steps) == 1:  # else the times that letters tell are of another clock
            for letter in _letters_of(journal, taken):
                times.setdefault(letter.offset, []).append(letter.at_s)
        broken = verdicts.broke_settled_stays_settled(
            _log(world).sent[taken.name],
            [word for word in _log(world).said[taken.name] if word.offset not in _anew(world, taken)],
            ack_deadline_s=taken.ack_deadline_s,
            durable=lambda at_s: world.is_sound(at_s, at_s + DURABLE_S),
            letters=times,
        )
        yield from (f"{taken.name}: {what}" for what in broken)


def _one_dead_letter(world: World, journal: Journal) -> Iterator[str]:
    asked = Counter((one.subscription, offset) for one in world.history.redeliveries for offset in one.offsets)
    return verdicts.broke_one_dead_letter(_letters(journal), asked)


def _owed_dead_letter(world: World, journal: Journal) -> Iterator[str]:
    for taken in TAKEN:
        handled = {offset for _, offset in world.history.handled[taken.name]}
        given_up = {letter.offset for letter in _letters_of(journal, taken)} | _expires_ns(journal).keys()
        wanted = [offset for offset, event in journal.events.items() if taken.takes(event)]
        broken = verdicts.broke_owed_dead_letter(wanted, handled, given_up)
        yield from (f"{taken.name}: {what}" for what in broken)


def _dead_letters_true(world: World, journal: Journal) -> Iterator[str]:
    """A dead letter is its event, under another name, and says the truth."""
    for event in journal.streams.get(DEAD_LETTERS, {}).values():
        stored = journal.events.get(int(text_of(event, "dloffset")))
        told = (text_of(event, "dlsource"), text_of(event, "dlid"), event.binary_data, fate_of(event), key_of(event))
        if stored is None or told != (stored.source, stored.id, stored.binary_data, fate_of(stored), key_of(stored)):
            yield f"dead letter {event.id} is not the event at {text_of(event, 'dloffset')}"
    fates = {offset: fate_of(event) for offset, event in journal.events.items()}
    keys = {offset: "doomed" if key_of(event) == "sick" else "fine" for offset, event in journal.events.items()}
    for taken, known in ((CLINIC, fates), (LANES, keys)):
        letters = _letters_of(journal, taken)
        yield from verdicts.broke_deserved(letters, max_deliveries=taken.max_deliveries, fates=known)


def _expired(world: World, journal: Journal) -> Iterator[str]:
    for taken in (*TAKEN, MOVED):
        broken = verdicts.broke_expired(_log(world).sent[taken.name], _expires_ns(journal))
        yield from (f"{taken.name}: {what}" for what in broken)


def _filtered(world: World, journal: Journal) -> Iterator[str]:
    for taken in TAKEN:
        others = {one.offset for one in _log(world).sent[taken.name] if not taken.takes(journal.events[one.offset])}
        yield from (f"{taken.name} was given {offset}, which its filter does not take" for offset in sorted(others))


def _asked_again(world: World, journal: Journal) -> Iterator[str]:
    """What was asked for and answered; of moves the last one counts."""
    expire, sent = _expires_ns(journal), _log(world).sent
    for one in world.history.redeliveries:
        wanted = (offset for offset in one.again if offset not in expire)
        broken = verdicts.broke_asked_again(sent[one.subscription], wanted, one.asked_s)
        yield from (f"{one.subscription}: {what}" for what in broken)
    last = world.history.seeks[-1] if world.history.seeks else None
    if last is not None and last.answered and last.offset is not None:
        from_offset = last.offset
        wanted = (offset for offset in journal.events if offset >= from_offset and offset not in expire)
        broken = verdicts.broke_asked_again(sent[last.subscription], wanted, last.asked_s)
        yield from (f"{last.subscription} was moved to {from_offset}: {what}" for what in broken)


def _lanes_ordered(world: World, journal: Journal) -> Iterator[str]:
    keys = {offset: key_of(event) for offset, event in journal.events.items()}
    yield from verdicts.broke_lanes_forward(_log(world).sent[LANES.name], keys.__getitem__)
    in_order = ((keys[one.offset], one.offset) for one in _log(world).sent[LANES.name])
    yield from guarantees.broke_lanes_ordered(in_order)


def _no_lane_waits(world: World, journal: Journal) -> Iterator[str]:
    sent = _log(world).sent[LANES.name]
    first_s: dict[int, float] = {}
    for one in sent:
        first_s.setdefault(one.offset, one.at_s)
    began_s = sent[0].at_s if sent else 0.0
    appended_s: dict[int, float] = {}
    for acked in world.history.events:
        if key_of(acked.event).startswith(WELL) and expires_ns(acked.event) is None:
            appended_s[acked.offset] = max(began_s, min(acked.at_s, appended_s.get(acked.offset, acked.at_s)))
    yield from verdicts.broke_no_lane_waits(appended_s, first_s, lambda at_s: world.limit_s(at_s, WELL_S, COME_BACK_S))


CHECKS = {
    "G1 acked is kept": judge.CHECKS["G1 acked is kept"],
    "G3 unique (publish)": judge.CHECKS["G3 unique (publish)"],
    "G4 reliable (subscription)": judge.CHECKS["G4 reliable (subscription)"],
    "nothing skipped": judge.CHECKS["nothing skipped"],
    "attempts are counted before delivering": _attempts_counted,
    "what is settled stays settled": _settled_stays,
    "one dead letter": _one_dead_letter,
    "G12 handled or given up": _owed_dead_letter,
    "dead letters say the truth": _dead_letters_true,
    "nothing is delivered after its time": _expired,
    "filters hold": _filtered,
    "moved and delivered again": _asked_again,
    "G2 ordered (lanes)": _lanes_ordered,
    "no lane waits for another": _no_lane_waits,
    **schedule_judges.CHECKS,
    **webhook_judges.CHECKS,
}
