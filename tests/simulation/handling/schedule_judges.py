"""What is demanded of schedules in a world."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from simulation.clients import JOBS
from simulation.handling import schedule_verdicts
from simulation.handling.plan import RETRY_S_MAX
from simulation.handling.schedule_verdicts import Clock, Fired, Rule
from simulation.truth import Journal
from simulation.virtual import EPOCH_NS

from trunkline.api.v1 import schedules_pb2

if TYPE_CHECKING:
    from simulation.world import World

LATE_S = 2.5
"""A look at the clock each second, an append, and how often the world looks."""
SYNC_S = 1.5
"""How long one may take that began while the disk was slow."""
AFTER_TROUBLE_S = RETRY_S_MAX + SYNC_S + LATE_S
MINUTE_MS = 60_000


def _fired(world: World, journal: Journal) -> dict[str, list[Fired]]:
    found: dict[str, list[Fired]] = defaultdict(list)
    for offset, event in journal.streams.get(JOBS, {}).items():
        name, _, due_ms = event.id.split("/")
        by_s = world.appended_by_s(JOBS, offset)
        found[name].append(Fired(int(due_ms), float("inf") if by_s is None else by_s))
    return found


def _rule(schedule: schedules_pb2.Schedule) -> Rule:
    skips = schedule.misfire == schedules_pb2.Schedule.MISFIRE_SKIP
    kind = schedule.WhichOneof("rule")
    if kind == "at":
        return Rule(schedule.at.ToMilliseconds(), 0, 1, skips=False)
    if kind == "cron":
        return Rule(EPOCH_NS // 1_000_000 // MINUTE_MS * MINUTE_MS, MINUTE_MS, schedule.max_count, skips)
    first_ms, interval_ms = schedule.every.start.ToMilliseconds(), schedule.every.interval.ToMilliseconds()
    return Rule(first_ms, interval_ms, schedule.max_count, skips)


def fired_once(world: World, journal: Journal) -> Iterator[str]:
    fired = _fired(world, journal)
    for name, made in world.history.scheduled.items():
        broken = schedule_verdicts.broke_fired_once(_rule(made.schedule), fired[name])
        yield from (f"schedule {name}: {what}" for what in broken)
    ids = [(event.source, event.id) for event in journal.streams.get(JOBS, {}).values()]
    yield from (f"{id} was published {ids.count(id)} times" for id in sorted(set(ids)) if ids.count(id) > 1)


def fired_in_time(world: World, journal: Journal) -> Iterator[str]:
    fired, clock = _fired(world, journal), Clock(world.clock_steps, EPOCH_NS)
    for name, made in world.history.scheduled.items():
        broken = schedule_verdicts.broke_fired_in_time(
            _rule(made.schedule),
            fired[name],
            clock,
            made_s=made.at_s,
            until_s=world.history.unscheduled.get(name, made.at_s),
            limit_s=lambda at_s: world.limit_s(at_s, LATE_S, AFTER_TROUBLE_S),
            had_trouble=lambda from_s, until_s: not world.is_sound(from_s - RETRY_S_MAX - SYNC_S, until_s),
        )
        yield from (f"schedule {name}: {what}" for what in broken)


CHECKS = {"schedules fire once": fired_once, "schedules fire in time": fired_in_time}
