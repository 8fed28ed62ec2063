"""The judges of schedules see what they are there for."""

from __future__ import annotations

from simulation.handling.schedule_verdicts import Clock, Fired, Rule, broke_fired_in_time, broke_fired_once

EVERY = Rule(first_ms=1_000, interval_ms=1_000, max_count=0, skips=False)
ONCE = Rule(first_ms=3_000, interval_ms=0, max_count=1, skips=False)
CLOCK = Clock([(0.0, 0)], 0)


def fired(*due_ms: int, late_s: float = 0.1) -> list[Fired]:
    return [Fired(ms, ms / 1_000 + late_s) for ms in due_ms]


def once(rule: Rule, *due_ms: int) -> int:
    return len(list(broke_fired_once(rule, fired(*due_ms))))


def in_time(
    rule: Rule,
    events: list[Fired],
    *,
    clock: Clock = CLOCK,
    trouble: tuple[float, float] | None = None,
    until_s: float = 5.5,
) -> int:
    def had_trouble(from_s: float, end_s: float) -> bool:
        return trouble is not None and trouble[0] < end_s and trouble[1] > from_s

    def limit_s(at_s: float) -> float:
        return at_s + 0.5 if trouble is None or not trouble[0] <= at_s <= trouble[1] else trouble[1] + 0.5

    broken = broke_fired_in_time(
        rule, events, clock, made_s=0.5, until_s=until_s, limit_s=limit_s, had_trouble=had_trouble
    )
    return len(list(broken))


def test_fired_once() -> None:
    assert once(EVERY, 1_000, 2_000, 4_000) == 0
    assert once(EVERY, 2_000, 2_000) == 1
    assert once(EVERY, 2_000, 1_000) == 1
    assert once(EVERY, 1_500) == 1
    assert once(EVERY._replace(max_count=1), 1_000, 2_000) == 1
    assert once(ONCE, 3_000) == 0
    assert once(ONCE, 4_000) == 1


def test_fired_in_time() -> None:
    all_ = fired(1_000, 2_000, 3_000, 4_000, 5_000)
    assert in_time(EVERY, all_) == 0
    assert in_time(EVERY, all_[:2] + all_[3:]) == 1, "3,000 never came"
    assert in_time(EVERY, fired(1_000, 2_000, 3_000, 4_000, 5_000, late_s=0.7)) == 5
    assert in_time(ONCE, fired(3_000)) == 0
    assert in_time(ONCE, []) == 1
    assert in_time(EVERY._replace(max_count=2), all_[:2]) == 0


def test_what_was_missed_in_trouble_is_made_good_for_by_the_last_of_it() -> None:
    down, late = (1.5, 3.9), [Fired(1_000, 1.1), Fired(3_000, 4.0), *fired(4_000, 5_000)]
    assert in_time(EVERY, late, trouble=down) == 0
    assert in_time(EVERY, [late[0], *late[2:]], trouble=down, until_s=4.6) == 0, "the next one stands for it"
    assert in_time(EVERY, late[:1], trouble=down, until_s=4.45) == 2, "nothing came"
    assert in_time(EVERY._replace(skips=True), late[:1], trouble=down, until_s=4.45) == 0
    assert in_time(ONCE, [], trouble=down) == 1, "a single time is not missed, however late"


def test_a_clock_that_is_set() -> None:
    back = Clock([(0.0, 0), (2.5, -1_000_000_000)], 0)
    assert back.shows_s(2_000, 0.0) == 2.0
    assert back.shows_s(3_000, 0.0) == 4.0
    assert back.wall_ms(3.0) == 2_000
    forward = Clock([(0.0, 0), (2.5, 10_000_000_000)], 0)
    assert forward.shows_s(5_000, 0.0) == 2.5
    assert forward.shows_s(13_000, 0.0) == 3.0
