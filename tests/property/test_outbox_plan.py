"""The relay's decisions against a model: whatever dies when, every committed event is published, once and in order."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference.outbox_world import ROWS_MAX, World, event
from trunkline.client.outbox._plan import Plan, Publish, Read, Row, Settle, Verdict, fault_of, verdict_on
from trunkline.core import errors
from trunkline.core.errors import InvalidArgument, Violation

WHO = st.integers(0, 2)
KINDS = st.sampled_from(["a.b", "a.b", "a.b", "a.b", "broken", "refused"])
OUTCOMES = ["done", "lost before", "lost after", "later", "later after"]
STEP = st.tuples(st.just("step"), st.sampled_from(["done", "done", "done", *OUTCOMES]))
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), WHO, KINDS),
        st.tuples(st.sampled_from(["commit", "commit", "commit", "roll_back"]), WHO),
        STEP,
        STEP,
        st.tuples(st.sampled_from(["crash", "stall", "arrive"])),
    ),
    min_size=30,
    max_size=90,
)


def judge(world: World) -> None:
    """What must hold when nothing is left to do."""
    sound = world.committed - world.bad
    assert sorted(world.stream) == sorted(sound), "each once, and nothing that was rolled back"
    assert world.failed == world.committed & world.bad
    assert not world.waiting
    place = {id: at for at, id in enumerate(world.stream)}
    late = [(one, other) for other in sound for one in world.behind[other] & sound if place[one] > place[other]]
    assert not late, f"published behind what it stood before: {late}"


@settings(max_examples=200, deadline=None)
@given(ACTS)
def test_every_committed_event_is_published_once_and_in_order(acts: list[tuple[str, ...]]) -> None:
    world = World()
    for name, *arguments in acts:
        if name == "step":
            world.step(outcome=arguments[0])
        else:
            getattr(world, name)(*arguments)
    for who in list(world.open):
        world.commit(who)
    while world.late:
        world.arrive()
    world.finish()
    judge(world)


@pytest.mark.parametrize(("dies_at", "outcome"), list(product(range(14), OUTCOMES[1:])))
def test_a_relay_that_dies_at_any_step(dies_at: int, outcome: str) -> None:
    world = World()
    for number in range(2 * ROWS_MAX + 1):
        world.add(number % 2, "refused" if number == 2 else "a.b")
        if number % 3 == 2:
            world.commit(number % 2)
    world.commit(0)
    for _ in range(dies_at):
        world.step()
    world.step(outcome=outcome)
    if outcome.startswith("lost"):
        world.crash()
    world.commit(1)
    world.finish()
    judge(world)


def test_what_becomes_visible_late_is_not_missed() -> None:
    world = World()
    world.add(0, "a.b")  # id 1, of a transaction that takes its time
    world.add(1, "a.b")
    world.commit(1)
    world.finish()
    assert world.stream == [2]
    world.commit(0)
    world.finish()
    assert world.stream == [2, 1], "concurrent transactions have no order; none is lost"


@pytest.mark.parametrize("at", range(8))
def test_an_event_that_the_bus_refuses_costs_a_few_requests(at: int) -> None:
    plan, requests = Plan(), 0
    plan.read([Row(number, event(str(number))) for number in range(8)])
    settled: list[int] = []
    while not isinstance(action := plan.next(), Read):
        if isinstance(action, Settle):
            settled += [row.id for row in action.published] + [-row.id for row, _ in action.failed]
            plan.settled()
            continue
        assert isinstance(action, Publish)
        requests += 1
        plan.invalid("no") if any(row.id == at for row in action.rows) else plan.published()
    assert [abs(id) for id in settled] == list(range(8)), "in order, the refused one in its place"
    assert requests <= 7, "twice the halvings and the first: it is not looked for one by one"


def test_a_broken_row_is_found_before_anybody_is_asked() -> None:
    assert fault_of(Row(1, event("1"))) == ""
    assert "well-formed" in fault_of(Row(1, event("1", kind="broken")))
    assert "at most 1048576 bytes" in fault_of(Row(1, b"\x0a" + b"\x00" * (1 << 20)))


LATER = (
    errors.Unreachable, errors.NotReady, errors.OutcomeUnknown, errors.DiskFull, errors.DiskReadOnly, errors.StreamClosed,
    errors.DeadlineExceeded, errors.Internal, errors.RemoteError,
)  # fmt: skip
REFUSED = (
    errors.Unauthenticated, errors.PermissionDenied, errors.StreamNotFound, errors.DurabilityUnmet, errors.NotSupported,
    errors.JournalCorrupt,
)  # fmt: skip


def test_what_may_pass_is_waited_for_and_what_somebody_has_to_mend_is_not() -> None:
    assert {verdict_on(error("why")) for error in LATER} == {Verdict.LATER}
    assert verdict_on(errors.LimitExceeded("streams_max", 1)) is Verdict.LATER
    assert {verdict_on(error("why")) for error in REFUSED} == {Verdict.REFUSED}
    assert verdict_on(InvalidArgument.of("stream", "a name", "?")) is Verdict.REFUSED


def test_only_a_fault_of_an_event_marks_it() -> None:
    about_event = Violation("events[3].type", "a topic", "''")
    assert verdict_on(InvalidArgument(about_event)) is Verdict.INVALID
    assert verdict_on(InvalidArgument(about_event, Violation("stream", "a name", "?"))) is Verdict.REFUSED
    assert verdict_on(InvalidArgument()) is Verdict.REFUSED
