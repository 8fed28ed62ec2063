"""What is demanded of a world: each promise by its number, held against what was seen and what was true."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import guarantees
from guarantees import Truth
from simulation.clients import NAMESPACE
from simulation.history import Delivered, Watched
from simulation.plane_config import STALE_RETENTION_S
from simulation.truth import Journal
from simulation.virtual import EPOCH_NS

from trunkline.api.journal.v1 import control_pb2
from trunkline.core.fanout import matches
from trunkline.core.model import Declared
from trunkline.core.records import Record
from trunkline.server.registry.config import ExpiryConfig
from trunkline.server.registry.guard import GuardConfig
from trunkline.server.registry.reduce import LAPSED, REGISTERED, REMOVED

if TYPE_CHECKING:
    from simulation.world import World

LATE_S = 1.0
"""G9's: how much longer than its TTL a dead instance may be taken for alive."""
SLACK_S = 0.25
"""Of what the network and the disk take, which is no part of the promise."""
EARLY_S = 0.15
"""The server measures its own stalls from the next tick that it expected, and its start a little before it answers."""
LAPSES_MIN = GuardConfig().lapses_min
EXPIRY = ExpiryConfig()
WRITE_S = 4.0
"""How long before its record a lapse may have been decided."""


def _nothing_skipped(world: World, journal: Journal) -> Iterator[str]:
    """With one writer nothing is ever skipped."""
    for revision in journal.skipped:
        yield f"record {revision} ({journal.records[revision].topic}) does not count"


def _acked_kept(world: World, journal: Journal) -> Iterator[str]:
    history = world.history
    yield from guarantees.broke_acked_bytes_are_kept(
        ((acked.offset, acked.event) for acked in history.events), journal.events
    )
    for registration in history.registrations:
        record = journal.records.get(registration.revision)
        if record is None or record.key != registration.key:
            yield f"{registration.key} was registered at {registration.revision}: {record and record.key}"
    removed = {
        before.lease.id: revision
        for revision, before in journal.before.items()
        if before is not None and journal.records[revision].topic == REMOVED
    }
    for removal in history.removals:
        if removed.get(removal.lease_id, removal.revision + 1) > removal.revision:
            yield f"lease {removal.lease_id:x} was deregistered by {removal.revision}, it is there"
    for drain in history.drains:
        yield from _drained(journal, drain.lease_id, drain.revision)


def _drained(journal: Journal, lease_id: int, revision: int) -> Iterator[str]:
    state = next((group.entries for group in journal.groups if group.end >= revision), None)
    if state is None:
        yield f"a drain was answered at {revision}, which is not there"
        return
    for entry in state.values():
        if entry.lease.id == lease_id and entry.registered.instance.declared is not Declared.DRAINING:
            yield f"lease {lease_id:x} was drained at {revision}, where it is {entry.registered.status.name}"


def _appended_once(world: World, journal: Journal) -> Iterator[str]:
    """An event that is published again within the stream's window is kept once."""
    seen: dict[tuple[str, str], int] = {}
    for offset, event in journal.events.items():
        first = seen.setdefault((event.source, event.id), offset)
        if first != offset:
            yield f"event {event.id} is at {first} and again at {offset}"


def _producers_ordered(world: World, journal: Journal) -> Iterator[str]:
    """What a producer sent stands in the order in which it was sent, and nothing of it behind its successor's events."""
    last: dict[str, tuple[int, int]] = {}
    for offset, event in sorted(journal.events.items()):
        sender, _, number = event.id.rpartition("-")
        role, _, life = sender.rpartition(".")
        if role == "pipeline-numbered":
            place = int(life), int(number)
            if place <= last.get(role, (-1, -1)):
                yield f"event {event.id} is at {offset}, behind {last[role]}"
            last[role] = place


def _nothing_made_up(world: World, journal: Journal) -> Iterator[str]:
    """What is kept is what somebody sent, byte for byte."""
    for offset, event in journal.events.items():
        if world.history.sent.get((event.source, event.id)) != event:
            yield f"nobody sent what stands at {offset}: {str(event)[:80]!r}"


def _watches(world: World, journal: Journal) -> Iterator[tuple[Watched, Truth]]:
    for watched in world.history.watches:
        yield watched, journal.watch_truth(NAMESPACE, watched.service, watched.selector)


def _watch_ordered(world: World, journal: Journal) -> Iterator[str]:
    for watched in world.history.watches:
        yield from guarantees.broke_watch_ordered(watched.seen)


def _watch_unique(world: World, journal: Journal) -> Iterator[str]:
    for watched in world.history.watches:
        yield from guarantees.broke_watch_unique(watched.seen)


def _watch_reliable(world: World, journal: Journal) -> Iterator[str]:
    for watched, truth in _watches(world, journal):
        yield from guarantees.broke_watch_reliable(watched.seen, truth)


def _watch_atomic(world: World, journal: Journal) -> Iterator[str]:
    for watched, truth in _watches(world, journal):
        yield from guarantees.broke_watch_atomic(watched.seen, truth)


def _watch_resumable(world: World, journal: Journal) -> Iterator[str]:
    for before, after in world.history.resumptions:
        if before is not None:
            yield from guarantees.broke_watch_resumable([before], after)


def _holders_kept(world: World, journal: Journal) -> Iterator[str]:
    """While a lease lives nobody else gets its instance; nobody in a world asks to take over."""
    for record in journal.of_registry():
        before = journal.before.get(record.offset)
        if record.topic == REGISTERED and before is not None and not before.lease.lapsed:
            lease_id = control_pb2.InstanceRegistered.FromString(record.body).lease_id
            if lease_id != before.lease.id:
                yield f"{record.key} was given to another holder at {record.offset}"


def _watch_bookmarkable(world: World, journal: Journal) -> Iterator[str]:
    for watched in world.history.watches:
        yield from guarantees.broke_watch_bookmarkable(watched.seen)


def _never_empty(world: World, journal: Journal) -> Iterator[str]:
    """A service some of whose instances never die is never shown empty, once it was seen; nor is it ever empty, unless the
    last of it was silent for longer than lapsed ones are kept."""
    for watched, truth in _watches(world, journal):
        if watched.name in ("all", "cart"):
            first = next((place for place, seen in enumerate(watched.seen) if seen.view), len(watched.seen))
            empty = [seen.revision for seen in watched.seen[first:] if not seen.view]
            yield from (f"watch {watched.name} showed nothing at {revision}" for revision in empty)
        yield from guarantees.broke_never_empty_by_accident(watched.seen, truth)
    known: set[str] = set()
    lapsed_ns: dict[str, int] = {}
    for group in journal.groups:
        lapsed_ns |= {record.key: record.time_ns for record in group.records if record.topic == LAPSED}
        anchors = {key for key in group.entries if "-anchor" in key}
        for key in known - anchors:
            if world.calm_revision is not None and group.end < world.calm_revision:
                removed = [record for record in group.records if record.key == key and record.topic == REMOVED]
                cause = control_pb2.InstanceRemoved.FromString(removed[-1].body).cause if removed else 0
                if cause != control_pb2.InstanceRemoved.CAUSE_EXPIRED or _others_serve(group.entries, key):
                    continue
                if removed[-1].time_ns < lapsed_ns.get(key, removed[-1].time_ns) + STALE_RETENTION_S * 10**9:
                    yield f"{key} was removed at {group.end}, and nobody else serves"
        known = anchors


def _others_serve(entries: Iterable[str], key: str) -> bool:
    service = key.rpartition("/")[0]
    return any(other.rpartition("/")[0] == service for other in entries)


def _live_kept(world: World, journal: Journal) -> Iterator[str]:
    """No instance lapses whose holder was heard in time."""
    for record in journal.of_registry():
        before = journal.before.get(record.offset)
        if before is None or before.lease.lapsed or not _ended_by_silence(record):
            continue
        at_s, ttl_s = _seconds(record), before.lease.ttl_ms / 1_000
        if not _was_silent(world, before.lease.id, at_s, ttl_s):
            heard = [h for h in world.history.heard[before.lease.id] if h <= at_s][-3:]
            yield f"{record.key} lapsed at {at_s:.3f} s (TTL {ttl_s:g} s), last heard of at {heard}"


def _noticed_s(stall_s: float) -> float:
    """What a stall moves deadlines by, at least: a tick may have been due in it, and a short one is not told from load."""
    tick_s = EXPIRY.tick_ms / 1_000
    return stall_s - tick_s if stall_s > EXPIRY.stall_tolerance_ms / 1_000 + tick_s else 0.0


def _mass_kept(world: World, journal: Journal) -> Iterator[str]:
    """Between two starts (what the guard counts is not kept), a mass of silent leases is no reason to remove anybody."""
    starts = [*world.node.starts, float("inf")]
    removed = [
        (_seconds(record), before.lease.ttl_ms / 1_000)
        for record in journal.of_registry()
        if record.topic == REMOVED and _ended_by_silence(record)
        and (before := journal.before.get(record.offset)) is not None
        and not before.lease.lapsed and before.registered.instance.declared is not Declared.DRAINING
    ]  # fmt: skip
    for began_s, ended_s in pairwise(starts):
        yield from guarantees.broke_mass_lapse_is_kept(
            [lapse for lapse in removed if began_s <= lapse[0] < ended_s], lapses_min=LAPSES_MIN, slack_s=LATE_S
        )


def _ended_by_silence(record: Record) -> bool:
    if record.topic == LAPSED:
        return True
    expired = control_pb2.InstanceRemoved.CAUSE_EXPIRED
    return record.topic == REMOVED and control_pb2.InstanceRemoved.FromString(record.body).cause == expired


def _seconds(record: Record) -> float:
    return (record.time_ns - EPOCH_NS) / 1e9


def _was_silent(world: World, lease_id: int, at_s: float, ttl_s: float) -> bool:
    """Whether there was a silence of a TTL, not counting the server's stalls, that ended shortly before or at `at_s`."""
    words = sorted([h for h in world.history.heard[lease_id] if h < at_s] + [s for s in world.node.starts if s < at_s])
    for earlier, later in pairwise([*words, at_s]):
        deaf_s = sum(_noticed_s(min(end, later) - max(began, earlier)) for began, end in world.stalls)
        if later >= at_s - WRITE_S and later - earlier - deaf_s >= ttl_s - EARLY_S:
            return True
    return False


def _dead_gone(world: World, journal: Journal) -> Iterator[str]:
    """A killed instance is behind the living within its TTL and LATE_S, the server's own troubles aside."""
    ends: dict[str, list[float]] = defaultdict(list)
    ttl_s: dict[str, float] = {}
    for record in journal.of_registry():
        before = journal.before.get(record.offset)
        if before is not None:
            ttl_s[record.key] = before.lease.ttl_ms / 1_000
        if record.topic in (LAPSED, REMOVED):
            ends[record.key].append(_seconds(record))
    for key, died_s in world.history.died.items():
        if key not in ttl_s and not any(key in group.entries for group in journal.groups):
            continue
        after = [at_s for at_s in ends[key] if at_s >= died_s]
        lapsed_before = ends[key] and not after
        if lapsed_before:
            continue
        limit_s = _limit(world, died_s, ttl_s.get(key, 5.0) + LATE_S + SLACK_S)
        yield from guarantees.broke_dead_gone_in_time(key, died_s, after, limit_s)


def _limit(world: World, from_s: float, within_s: float) -> float:
    """When something must have happened, given that trouble of the server puts it off."""
    limit_s = from_s + within_s
    for began_s, ended_s in sorted(world.downs):
        if began_s < limit_s and ended_s > from_s:
            limit_s = max(limit_s, ended_s + within_s)
    return limit_s


def _deliveries_right(world: World, journal: Journal) -> Iterator[str]:
    for delivered in world.history.deliveries:
        if journal.streams.get(delivered.stream, {}).get(delivered.offset) != delivered.event:
            yield f"{delivered.subscription or 'a listener'} was given {delivered.event.id} as {delivered.offset}"


def _deliveries_ordered(world: World, journal: Journal) -> Iterator[str]:
    """First deliveries come in order, and each event has only one; what comes again says so, unless it was given back."""
    by_subscription: dict[str, list[Delivered]] = defaultdict(list)
    for delivered in world.history.deliveries:
        gave_back = (delivered.subscription, delivered.consumer) in world.history.closed_clean
        if delivered.subscription and delivered.attempt == 1 and not gave_back:
            by_subscription[delivered.subscription].append(delivered)
    laned = [one for one in world.history.deliveries if one.subscription == LANES]
    by_key = ((one.event.attributes["partitionkey"].ce_string, one.offset) for one in laned)
    yield from (f"{LANES}: {what}" for what in guarantees.broke_lanes_ordered(by_key))
    by_subscription.pop(LANES, None)
    for name, firsts in by_subscription.items():
        first = ((delivered.consumer, delivered.offset) for delivered in firsts)
        yield from (f"{name}: {what}" for what in guarantees.broke_subscription_ordered(first))


LANES = "lanes"
"""The subscription that keeps its order by key."""
FILTERS = {"billing": "order.>", "audit": ">", LANES: ">"}


def _at_least_once(world: World, journal: Journal) -> Iterator[str]:
    for name, wanted in FILTERS.items():
        handled = {offset for _, offset in world.history.handled[name]}
        if not handled:
            continue
        aside = world.set_aside.get(name, set())
        offsets = [offset for offset, event in journal.events.items() if matches(wanted, event.type)]
        yield from (f"{name}: {what}" for what in guarantees.broke_handled_at_least_once(offsets, handled, aside))
    for heard in world.heard:
        yield from _heard_all(world, journal, heard.name, heard.offsets, heard.acknowledges)


def _heard_all(world: World, journal: Journal, name: str, offsets: list[int], acknowledges: bool) -> Iterator[str]:
    if not acknowledges:
        for earlier, later in pairwise(offsets):
            if later <= earlier:
                yield f"listener {name} was given {later} after {earlier}"
    missing = sorted(set(range(max(offsets, default=-1))) - set(offsets))
    if missing:
        yield f"listener {name} was never given {missing[:5]}, it came to {max(offsets)}"


CHECKS = {
    "G1 acked is kept": _acked_kept,
    "nothing made up": _nothing_made_up,
    "G2 ordered (watch)": _watch_ordered,
    "G2 ordered (subscription)": _deliveries_ordered,
    "G2 ordered (producer)": _producers_ordered,
    "G3 unique": _watch_unique,
    "G3 unique (publish)": _appended_once,
    "G4 reliable": _watch_reliable,
    "G4 reliable (subscription)": _deliveries_right,
    "G5 atomic": _watch_atomic,
    "G6 resumable": _watch_resumable,
    "G7 bookmarkable": _watch_bookmarkable,
    "G8 never empty by accident": _never_empty,
    "G8 no live instance expired": _live_kept,
    "G8 a mass lapse is kept": _mass_kept,
    "G9 dead gone in time": _dead_gone,
    "G12 at least once": _at_least_once,
    "a lease has one holder": _holders_kept,
    "nothing skipped": _nothing_skipped,
}
