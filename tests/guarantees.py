"""The guarantees by name, each a checker that says what broke it. The numbers are ARCHITECTURE.md's.

A checker takes what a client saw and what was true, and returns one line per violation: none is a kept promise.
Simulation, integration and property tests run the same ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeVar

Position = TypeVar("Position")
View = Mapping[tuple[str, str], int]
"""What a watch shows: (service, instance id) to the revision of the instance's last change."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A watching client after one event that it swapped in: a whole snapshot, changes, or a bookmark."""

    kind: Literal["snapshot", "changes", "bookmark"]
    revision: int
    view: View
    upserted: View
    removed: frozenset[tuple[str, str]]
    resumed: bool = False
    """The first event of a stream that was opened with a resume token."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What a watch should show: the view after every revision at which a group of records ended, in order."""

    views: Mapping[int, View]

    def at(self, revision: int) -> View:
        """The view at the last of these revisions up to this one."""
        known = [r for r in self.views if r <= revision]
        return self.views[max(known)] if known else {}


def broke_watch_ordered(seen: Sequence[Seen]) -> list[str]:
    """G2 Ordered: what a watch is told never goes back to an earlier revision."""
    return [
        f"revision {later.revision} was told after {earlier.revision}"
        for earlier, later in pairwise(seen)
        if later.revision < earlier.revision
    ]


def broke_watch_unique(seen: Sequence[Seen]) -> list[str]:
    """G3 Unique: no change is told twice; only a snapshot, which replaces everything, tells it again."""
    broken: list[str] = []
    told: dict[tuple[str, str], int] = {}
    for event in seen:
        if event.kind == "snapshot":
            told = dict(event.view)
            continue
        for instance, revision in event.upserted.items():
            if told.get(instance, -1) >= revision:
                broken.append(f"{instance} of revision {revision} was told twice, again at {event.revision}")
            told[instance] = revision
    return broken


def broke_watch_reliable(seen: Sequence[Seen], truth: Truth) -> list[str]:
    """G4 Reliable: after every event a watch shows exactly what was true at the event's revision."""
    return [
        f"at {event.revision} after {event.kind}: shows {dict(event.view)}, true is {dict(truth.at(event.revision))}"
        for event in seen
        if dict(event.view) != dict(truth.at(event.revision))
    ]


def broke_watch_atomic(seen: Sequence[Seen], truth: Truth) -> list[str]:
    """G5 Atomic: the changes of one group of records are told in one event, which ends where the group did."""
    return [
        f"an event ended at {event.revision}, inside a group"
        for event in seen
        if event.kind == "changes" and event.revision not in truth.views
    ]


def broke_watch_resumable(before: Sequence[Seen], after: Sequence[Seen]) -> list[str]:
    """G6 Resumable: a watch that was resumed goes on from its token: the first thing it is told is not older than that,
    and unless it was told to resync it is told only what changed since."""
    if not before or not after:
        return []
    last, first = before[-1], after[0]
    broken = []
    if first.revision < last.revision:
        broken.append(f"resumed at {last.revision}, told of {first.revision}")
    if first.kind == "changes":
        broken += [
            f"resumed at {last.revision}, told of {instance} as of {revision}"
            for instance, revision in first.upserted.items()
            if revision <= last.revision
        ]
    return broken


def broke_watch_bookmarkable(seen: Sequence[Seen]) -> list[str]:
    """G7 Bookmarkable: a bookmark says that nothing changed up to its revision, and so changes nothing."""
    return [
        f"the bookmark of {event.revision} changed the view"
        for earlier, event in pairwise(seen)
        if event.kind == "bookmark" and dict(earlier.view) != dict(event.view)
    ]


def broke_never_empty_by_accident(seen: Sequence[Seen], truth: Truth) -> list[str]:
    """G8 Never empty by accident: a view is empty only where the registry was."""
    return [
        f"empty at {event.revision}, where {sorted(truth.at(event.revision))} were registered"
        for event in seen
        if not event.view and truth.at(event.revision)
    ]


@dataclass(frozen=True, slots=True)
class Delivered:
    """One delivery as a consumer saw it."""

    incarnation: int
    offset: int
    attempt: int
    event_id: str


def broke_acked_is_kept(acknowledged: Mapping[str, int], stored: Mapping[int, str]) -> list[str]:
    """G1 Acked is kept: every event whose publish was answered stands at the offset that the answer named.

    `acknowledged`: event id to offset; `stored`: offset to event id, read after whatever happened.
    """
    return [
        f"{event_id} was acknowledged at {offset}, where {stored.get(offset, 'nothing')} stands"
        for event_id, offset in acknowledged.items()
        if stored.get(offset) != event_id
    ]


def broke_deduplicated(stored: Mapping[int, str]) -> list[str]:
    """G3 Unique, of publishing: within the window no event stands twice."""
    first: dict[str, int] = {}
    broken = []
    for offset in sorted(stored):
        if stored[offset] in first:
            broken.append(f"{stored[offset]} stands at {first[stored[offset]]} and at {offset}")
        first.setdefault(stored[offset], offset)
    return broken


def broke_at_least_once(stored: Mapping[int, str], seen: Sequence[Delivered], excused: frozenset[int]) -> list[str]:
    """G12 At least once: every stored event was delivered, except what was set aside before anybody got it (`excused`)."""
    delivered = {one.offset for one in seen}
    return [f"{stored[offset]} at {offset} was never delivered" for offset in stored.keys() - delivered - excused]


def broke_attempts_counted(seen: Sequence[Delivered], max_deliveries: int) -> list[str]:
    """Attempts are counted before delivering: none of an event's deliveries tells a number that was told before,
    through whatever crash, nor one above the maximum."""
    told: dict[tuple[int, int], int] = {}
    broken = []
    for one in seen:
        before = told.get((one.incarnation, one.offset), 0)
        if one.attempt <= before:
            broken.append(f"{one.offset} was attempt {one.attempt} after attempt {before}")
        if one.attempt > max_deliveries:
            broken.append(f"{one.offset} was delivered a {one.attempt}th time of {max_deliveries}")
        told[one.incarnation, one.offset] = max(before, one.attempt)
    return broken


def broke_acked_bytes_are_kept(acked: Iterable[tuple[Position, object]], kept: Mapping[Position, object]) -> list[str]:
    """G1 Acked is kept: what was acknowledged at a position is found there again, the same."""
    return [
        f"{what!r:.80} was acknowledged at {position}, where {kept.get(position)!r:.80} is"
        for position, what in acked
        if position not in kept or kept[position] != what
    ]


def broke_subscription_ordered(first_deliveries: Iterable[tuple[str, int]]) -> list[str]:
    """G2 Ordered: deliveries (consumer, offset) that are not marked as repeated come once, and in order to a consumer."""
    broken: list[str] = []
    seen: set[int] = set()
    last: dict[str, int] = {}
    for consumer, offset in first_deliveries:
        if offset in seen:
            broken.append(f"{offset} was delivered twice as if for the first time, again to {consumer}")
        if offset < last.get(consumer, -1):
            broken.append(f"{consumer} was given {offset} behind {last[consumer]}")
        seen.add(offset)
        last[consumer] = offset
    return broken


def broke_lanes_ordered(deliveries: Iterable[tuple[str, int]]) -> list[str]:
    """G2 Ordered, of a subscription by key: of each key the deliveries (key, offset) that are the first of their event,
    at whatever attempt and to whomever, come in order."""
    broken: list[str] = []
    seen: set[int] = set()
    last: dict[str, int] = {}
    for key, offset in deliveries:
        if offset not in seen and offset < last.get(key, -1):
            broken.append(f"{offset} of key {key} was first delivered behind {last[key]}")
        seen.add(offset)
        last[key] = max(offset, last.get(key, -1))
    return broken


def broke_dead_gone_in_time(instance: str, died_s: float, gone_s: Iterable[float], limit_s: float) -> list[str]:
    """G9 Dead gone in time: one that died is behind the living, or out, by the limit. `gone_s` are the times it went."""
    first = min((at_s for at_s in gone_s if at_s >= died_s), default=None)
    if first is not None and first <= limit_s:
        return []
    return [f"{instance} died at {died_s:.3f} s and was taken for alive until {first}, allowed is {limit_s:.3f} s"]


def broke_mass_lapse_is_kept(lapses: Sequence[tuple[float, float]], *, lapses_min: int, slack_s: float) -> list[str]:
    """G8 Never empty by accident: fewer than `lapses_min` live instances are removed for silence within one of their TTLs;
    more are kept. `lapses` are the time of such a removal and the lease's TTL, in seconds, ordered by time."""
    broken = []
    for last in range(lapses_min - 1, len(lapses)):
        together = lapses[last - lapses_min + 1 : last + 1]
        within_s = together[-1][0] - together[0][0]
        if within_s < min(ttl_s for _, ttl_s in together) - slack_s:
            broken.append(
                f"{lapses_min} live instances were removed within {within_s:.3f} s, by {together[-1][0]:.3f} s"
            )
    return broken


def broke_watcher_fresh_in_time(watcher: str, revision: int, *, knows_it_is_stale: bool, durable: int) -> list[str]:
    """G10 Watcher fresh in time: it shows `durable`, a revision that is old enough, or knows that it is behind."""
    if knows_it_is_stale or revision >= durable:
        return []
    return [f"{watcher} is at {revision} and does not know that {durable} is long there"]


def broke_one_keeper_per_lease(timed: Iterable[Set[int]]) -> list[str]:
    """G11 One keeper per lease: no two nodes that stand at one revision time the same lease."""
    broken: list[str] = []
    known: set[int] = set()
    for leases in timed:
        broken += [f"lease {lease:x} is timed by two nodes" for lease in sorted(known & leases)]
        known |= leases
    return broken


def broke_handled_at_least_once(
    wanted: Iterable[int], handled: Set[int], set_aside: Set[int] = frozenset()
) -> list[str]:
    """G12 At least once: each event of the filter was handled, or is set aside."""
    return [f"{offset} was never handled" for offset in wanted if offset not in handled and offset not in set_aside]
