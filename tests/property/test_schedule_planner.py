"""Schedules against brute force: rules against every time there is, the planner through crashes, lost answers and clocks
that are set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import cron
from trunkline.core.errors import InvalidArgument
from trunkline.server.schedules.fold import Fired, ScheduleEntity
from trunkline.server.schedules.planner import Live, Pace, Planner
from trunkline.server.schedules.rule import TIME_MS_MAX, At, Cron, Every, Rule, Times
from trunkline.server.schedules.spec import Spec

NOW = 1_795_730_000_000
DAY = 86_400_000
PACE = Pace(misfire_after_ms=10_000, remember_ms=60_000, retry_ms_max=30_000)


# Rules.


def check_rule(rule: Rule, times: list[int], first: int, last: int, looks: list[int]) -> None:
    """`times` are all of [first, last]."""
    for look in looks:
        following = [time for time in times if time > look]
        if following:
            assert rule.after(look) == following[0]
        else:
            assert (found := rule.after(look)) is None or found > last
        for end in looks:
            within = [time for time in times if look < time <= end]
            assert rule.latest(look, end) == (within[-1] if within else None)
            assert Times(rule).between(look, end, limit=3) == within[-3:]
            assert Times(rule).between(look, end, limit=10_000) == within


@given(
    interval=st.integers(100, 10_000), start=st.integers(NOW - 20_000, NOW + 20_000),
    looks=st.lists(st.integers(NOW - 30_000, NOW + 30_000), min_size=1, max_size=6),
)  # fmt: skip
def test_an_interval_stands_for_its_multiples(interval: int, start: int, looks: list[int]) -> None:
    times = list(range(start, NOW + 40_000, interval))
    check_rule(Every(interval_ms=interval, start_ms=start), times, NOW - 30_000, NOW + 40_000 - interval, looks)


@given(at=st.integers(NOW - 10, NOW + 10), looks=st.lists(st.integers(NOW - 20, NOW + 20), min_size=1, max_size=6))
def test_once_is_once(at: int, looks: list[int]) -> None:
    check_rule(At(at_ms=at), [at], NOW - 20, TIME_MS_MAX, looks)


def _fields(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    # Of two at least: one with a step is read by the library as that number and what follows, as "1/2" is.
    spans = st.sets(number, min_size=2, max_size=2).map(lambda two: f"{min(two)}-{max(two)}")
    steps = st.tuples(st.one_of(st.just("*"), spans), st.integers(1, 30)).map(lambda two: f"{two[0]}/{two[1]}")
    one = st.one_of(number.map(str), spans, steps)
    return st.one_of(st.just("*"), st.just("*"), one, st.lists(number.map(str), min_size=2, max_size=4).map(",".join))


EXPRESSIONS = st.tuples(*(_fields(low, high) for low, high in cron.RANGES)).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(expression=EXPRESSIONS, begin=st.integers(0, 2_000 * DAY), data=st.data())
def test_a_calendar_rule_in_utc_stands_for_the_minutes_that_it_names(
    expression: str, begin: int, data: st.DataObject
) -> None:
    first = NOW + begin
    try:
        rule = Cron(expression, "UTC")
    except InvalidArgument:
        assert not cron.times(expression, first, first + 3 * DAY)
        return
    times = cron.times(expression, first, first + 3 * DAY)
    inner = st.one_of(st.integers(first, first + 3 * DAY), st.sampled_from(times or [first]))
    check_rule(rule, times, first, first + 3 * DAY, data.draw(st.lists(inner, min_size=2, max_size=4)))


ZONES = st.sampled_from(
    ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Sao_Paulo"]
)


@settings(max_examples=60, deadline=None)
@given(
    zone=ZONES, data=st.data(), begin=st.integers(0, 800 * DAY),
    expression=st.sampled_from(["30 2 * * *", "*/20 * * * *", "0 */2 * * *", "15 1,2,3 * * *", "0 0 * * 0", "45 1 * * *"]),
)  # fmt: skip
def test_a_calendar_rule_is_one_growing_sequence_wherever_one_looks_from(
    zone: str, expression: str, begin: int, data: st.DataObject
) -> None:
    rule = Cron(expression, zone)
    first = NOW - 400 * DAY + begin
    times: list[int] = []
    look = first
    while len(times) < 60:
        found = rule.after(look)
        assert found is not None
        assert found > look
        times.append(look := found)
    looks = data.draw(st.lists(st.integers(first, times[-1] - 1), min_size=2, max_size=4))
    check_rule(rule, times, first, times[-1], looks)


@given(text=st.text(alphabet="0123456789*/-,LW#MONFRI ", min_size=5, max_size=30))
def test_whatever_is_no_expression_is_refused(text: str) -> None:
    try:
        Cron(text, "UTC")
    except InvalidArgument as error:
        (violation,) = error.violations
        named = violation.field
    else:
        return
    assert named == "expression"


# Clock changes, as crontab(5) of Debian has them.


def local(rule: Cron, after: str, count: int) -> list[str]:
    """Local times of the next ones."""
    look = int(datetime.fromisoformat(after).timestamp()) * 1_000
    shown = []
    for _ in range(count):
        found = rule.after(look)
        assert found is not None
        look = found
        shown.append(datetime.fromtimestamp(found / 1_000, UTC).astimezone(rule._zone).strftime("%d %H:%M%z"))
    return shown


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        # 2027-03-28: 02:00 is 03:00. A job of 02:30 runs at 03:00, one of each half hour goes on by the hour that passes.
        ("30 2 * * *", "2027-03-27T12:00+00:00", ["28 03:00+0200", "29 02:30+0200"]),
        ("0,30 2 * * *", "2027-03-27T12:00+00:00", ["28 03:00+0200", "29 02:00+0200"]),
        ("*/30 * * * *", "2027-03-28T00:29+00:00", ["28 01:30+0100", "28 03:00+0200", "28 03:30+0200"]),
        # 2027-10-31: 03:00 is 02:00 again. A job of 02:30 runs in the first of the two hours only, the others in both.
        ("30 2 * * *", "2027-10-30T12:00+00:00", ["31 02:30+0200", "01 02:30+0100"]),
        ("30 2 * * *", "2027-10-31T01:10+00:00", ["01 02:30+0100"]),
        ("30 * * * *", "2027-10-31T00:00+00:00", ["31 02:30+0200", "31 02:30+0100", "31 03:30+0100"]),
    ],
)
def test_clock_changes_of_berlin(expression: str, after: str, expected: list[str]) -> None:
    assert local(Cron(expression, "Europe/Berlin"), after, len(expected)) == expected


# The planner.


@dataclass
class Model:
    """One schedule, the stream that it publishes to, what control remembers, and a clock: all else is the planner's.

    The stream does not recognise repeats, so a second event of one time is seen.
    """

    entity: ScheduleEntity
    now: int
    stream: dict[int, int] = field(default_factory=dict)
    """Time by time when it was published."""
    last_ms: int = 0
    is_deleted: bool = False
    planner: Planner = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Begin, also after a crash: what is in memory is lost."""
        self.planner = Planner(PACE)
        if not self.is_deleted:
            live = self.planner.add(self.entity, attempted_ms=self.last_ms)
            self.remember(live, kept=True)

    def look(self, *, came_through: bool, answered: bool, kept: bool) -> list[int]:
        """Look at the clock, publish what is due; returns what was published."""
        published = []
        for live in self.planner.take_due(self.now, limit=10):
            found = {due: place for place, due in enumerate(self.stream) if due in live.attempted()}
            live.found(found)
            due = live.choose(self.now)
            if due is not None:
                live.attempted_ms = due
                if came_through:
                    assert due not in self.stream, "an event of this time was published before"
                    assert due <= self.now, "before its time"
                    self.stream[due] = self.now
                    self.last_ms = max(self.last_ms, self.now)
                    published.append(due)
                if came_through and answered:
                    live.published(due, len(self.stream) - 1)
                else:
                    live.failed("lost", self.now)
            self.remember(live, kept=kept)
            self.planner.put_back(live)
        return published

    def remember(self, live: Live, *, kept: bool) -> None:
        if live.remember(self.now) and kept:
            if live.is_finished:
                self.is_deleted = True
                self.planner.remove(self.entity.key)
            else:
                self.entity = replace(self.entity, fired=live.fired)
                live.remembered(live.fired, self.now)


def entity_of(made_at: int, **fields: object) -> ScheduleEntity:
    spec = Spec(namespace="shop", name="s", stream="events", event=b"", topic="t", **fields)  # type: ignore[arg-type]
    fired = Fired(handled_ms=spec.first_behind(made_at))
    return ScheduleEntity(spec=spec, created_ms=made_at, created_revision=7, fired=fired)


@st.composite
def entities(draw: st.DrawFn) -> ScheduleEntity:
    until = draw(st.one_of(st.none(), st.integers(NOW + 60_000, NOW + 600_000)))
    ends = {"until_ms": until, "max_count": draw(st.sampled_from([0, 0, 1, 3, 20])), "skips": draw(st.booleans())}
    match draw(st.sampled_from(["at", "every", "every", "cron"])):
        case "at":
            return entity_of(NOW, at_ms=draw(st.integers(NOW - 60_000, NOW + 300_000)))
        case "every":
            start = draw(st.one_of(st.none(), st.integers(NOW - 100_000, NOW + 100_000)))
            return entity_of(NOW, interval_ms=draw(st.integers(10_000, 90_000)), start_ms=start, **ends)
        case _:
            return entity_of(NOW, expression=draw(st.sampled_from(["* * * * *", "*/3 * * * *"])), **ends)


def all_times(entity: ScheduleEntity, until: int) -> list[int]:
    """Every time of a schedule up to one, by counting."""
    spec = entity.spec
    end = until if spec.until_ms is None else min(until, spec.until_ms)
    if spec.at_ms is not None:
        return [spec.at_ms] if spec.at_ms <= end else []
    if spec.expression:
        return cron.times(spec.expression, NOW, end)
    start = NOW if spec.start_ms is None else spec.start_ms
    return [time for time in range(start, end + 1, spec.interval_ms) if time > NOW]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.integers(1, 20_000)),
        st.tuples(st.just("pass"), st.integers(1, 400_000)),
        st.tuples(st.just("set"), st.integers(-200_000, 200_000)),
        st.tuples(st.just("crash"), st.integers(0, 300_000)),
        st.tuples(st.just("lose"), st.sampled_from([(True, False), (False, False)])),
        st.tuples(st.just("forget"), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=400, deadline=None)
@given(entity=entities(), steps=STEPS)
def test_each_time_is_published_once_at_most_and_the_last_one_always(
    entity: ScheduleEntity, steps: list[tuple[str, Any]]
) -> None:
    model = Model(entity, NOW)
    kept, spec, latest = True, entity.spec, NOW
    for what, value in steps:
        came_through, answered = True, True
        match what:
            case "pass" | "set":
                model.now += value
            case "crash":
                model.now += value
                model.start()
            case "lose":
                came_through, answered = value
            case "forget":  # control cannot be written until the next start
                kept = False
        if what == "crash":
            kept = True
        latest = max(latest, model.now)
        model.look(came_through=came_through, answered=answered, kept=kept)
    model.start()
    model.now += 31_000  # whatever pause there was is over
    latest = max(latest, model.now)
    model.look(came_through=True, answered=True, kept=True)
    times = all_times(entity, max([model.now, *model.stream]))
    assert set(model.stream) <= set(times)
    limit = spec.max_count or len(times) + 1
    assert len(model.stream) <= limit
    due = [time for time in times if time <= model.now]
    if due and len(model.stream) < limit and not spec.skips:
        # Set back, the clock comes again to times that a later one was published for.
        assert max(model.stream) >= due[-1]
    if spec.skips:
        assert all(published - time <= PACE.misfire_after_ms for time, published in model.stream.items())
    if spec.at_ms is not None and due:
        assert model.is_deleted
    if model.is_deleted and len(model.stream) < limit:
        assert spec.at_ms is not None or spec.until_ms is not None
        assert all(time <= latest for time in all_times(entity, spec.until_ms or TIME_MS_MAX))


@settings(max_examples=40, deadline=None)
@given(entity=entities(), pause=st.integers(1, 9_000))
def test_with_a_server_that_runs_every_time_is_published(entity: ScheduleEntity, pause: int) -> None:
    model = Model(entity, NOW)
    while model.now < NOW + 400_000:
        model.now += pause
        model.look(came_through=True, answered=True, kept=True)
    limit = entity.spec.max_count or 10_000
    assert list(model.stream) == all_times(entity, model.now)[:limit]


def test_control_is_told_of_a_fast_schedule_once_a_minute_at_most() -> None:
    model = Model(entity_of(NOW, interval_ms=10_000), NOW)
    told: list[int] = []
    for _ in range(60):
        model.now += 10_000
        before = model.entity.fired
        model.look(came_through=True, answered=True, kept=True)
        if model.entity.fired is not before:
            told.append(model.now - NOW)
    assert told == [10_000 + minute * 60_000 for minute in range(10)]
    assert len(model.stream) == 60


def test_what_was_deleted_leaves_the_planner_small() -> None:
    planner = Planner(PACE)
    for n in range(1_000):
        entity = entity_of(NOW, at_ms=NOW + DAY)
        entity = replace(entity, spec=replace(entity.spec, name=f"s-{n}"))
        planner.add(entity)
        planner.remove(entity.key)
    assert len(planner) == 0
    assert len(planner._heap) < 100


def run_until(model: Model, until: int, step: int, then: Callable[[], None]) -> None:
    while model.now < until:
        model.now += step
        then()


def test_a_clock_that_is_set_back_publishes_nothing_twice_and_one_that_is_set_forward_once() -> None:
    model = Model(entity_of(NOW, interval_ms=10_000), NOW)

    def look() -> None:
        model.look(came_through=True, answered=True, kept=True)

    run_until(model, NOW + 60_000, 1_000, look)
    assert len(model.stream) == 6
    model.now -= 50_000
    run_until(model, NOW + 69_000, 1_000, look)
    assert len(model.stream) == 6
    model.now += 500_000
    look()
    assert list(model.stream)[6:] == [NOW + 560_000]
