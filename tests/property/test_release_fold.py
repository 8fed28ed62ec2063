"""The state machine of releases: whatever people, gates and time do, in whichever order, and across snapshots."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from semantic_version import Version

from reference.release_world import spec, started
from trunkline.api.journal.v1 import control_pb2
from trunkline.core.model import Endpoint, Instance, RegisteredInstance, Status
from trunkline.core.ranges import parse_range, takes
from trunkline.core.records import Change, Record
from trunkline.server.traffic.outcomes import Sample
from trunkline.server.traffic.release import (
    ALL,
    OPEN,
    RETURNED,
    Move,
    Phase,
    ReleaseEntity,
    Step,
    Waited,
    next_move,
    split_of,
    waited,
)
from trunkline.server.traffic.release_convert import sample_to, spec_to
from trunkline.server.traffic.release_fold import (
    RELEASE_ABORTED,
    RELEASE_PAUSED,
    RELEASE_RESUMED,
    RELEASE_ROLLED_BACK,
    RELEASE_STARTED,
    ReleasesFold,
)
from trunkline.server.traffic.release_gate import Gate, Judgement, Verdict
from trunkline.server.traffic.release_rules import callable_in
from trunkline.server.traffic.release_runner import release_change, step_change

S = 1_000_000_000
SAMPLE = Sample(calls=500, failed=5, buckets={3: 400, 80: 95})
KEYS = [("shop", "orders"), ("shop", "carts"), ("shop-2", "orders")]


def judgement(verdict: Verdict, calls: int = 500) -> Judgement:
    sample = Sample(calls=calls, failed=min(calls, 5), buckets={3: max(0, calls - 5)} if calls > 5 else {})
    return Judgement(verdict, verdict.name, sample, sample, 168_000, 0)


class Machine:
    """A fold, fed with what the shipped deciders write."""

    def __init__(self) -> None:
        self.fold = ReleasesFold()
        self.revision = 0

    def write(self, change: Change | None) -> None:
        if change is None:
            return
        self.revision += 3
        time_ns = self.revision * S
        before = self.fold.get(change.key)
        pending = self.fold.reduce(before, change, revision=self.revision, time_ns=time_ns)
        self.fold.apply(
            Record(self.revision, time_ns, change.topic, change.body, key=change.key, author="a", reason="r")
        )
        after = self.fold.get(change.key)
        assert after is not None
        assert after == (pending if after is before or pending is None else replace(pending, author="a", reason="r"))

    def start(self, key: tuple[str, str], steps: tuple[Step, ...]) -> None:
        wanted = replace(spec(*steps), namespace=key[0], service=key[1])
        found = self.fold.get(wanted.key)
        if found is not None and found.is_open:
            return
        body = spec_to(wanted)
        kept = sample_to(SAMPLE)
        assert kept is not None
        body.baseline_calls.CopyFrom(kept)
        self.write(Change(RELEASE_STARTED, wanted.key, body.SerializeToString(), key[0]))

    def act(self, release: ReleaseEntity, action: str, said: Judgement) -> None:
        if action == "promote" and release.is_open:
            self.write(step_change(release, said))
        elif action == "pause" and release.phase is Phase.RUNNING:
            self.write(release_change(RELEASE_PAUSED, release, said))
        elif action == "resume" and release.phase is Phase.PAUSED:
            self.write(release_change(RELEASE_RESUMED, release, None))
        elif action == "abort" and (release.is_open or release.phase is Phase.COMPLETED):
            self.write(release_change(RELEASE_ABORTED, release, None, target=release.spec.baseline))
        elif action == "look":
            move = next_move(release, said, Waited(hold_over=True, no_data_over=True))
            if move is Move.STEP:
                self.write(step_change(release, said))
            elif move is Move.PAUSE:
                self.write(release_change(RELEASE_PAUSED, release, said))
            elif move is Move.ROLL_BACK:
                self.write(release_change(RELEASE_ROLLED_BACK, release, said, target=release.spec.baseline))


STEPS = st.lists(
    st.builds(
        Step, percent=st.integers(1, 100), hold_ns=st.integers(1, 3_600).map(lambda s: s * S), manual=st.booleans()
    ),
    min_size=1,
    max_size=4,
).map(lambda steps: tuple(sorted(steps, key=lambda step: step.percent)))
ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["start", "promote", "pause", "resume", "abort", "look", "look", "unknown topic"]),
        st.sampled_from(KEYS),
        STEPS,
        st.sampled_from(list(Verdict)),
        st.sampled_from([0, 50, 500]),
    ),
    max_size=40,
)


def check(before: ReleaseEntity | None, after: ReleaseEntity | None) -> None:
    """What holds of every change."""
    if after is None or after is before:
        return
    assert after.revision == after.step_revision or before is not None
    shares = {one.version: one.weight for one in split_of(after).destinations}
    assert sum(shares.values()) == ALL
    assert after.is_open == (after.phase in OPEN) == (not after.target)
    if after.is_open:
        assert after.percent == after.at.percent
        assert shares[after.spec.version] == after.percent
    elif after.phase is Phase.COMPLETED:
        assert shares == {after.spec.version: ALL}
        assert after.proven_now == after.spec.version
    else:
        assert after.phase in RETURNED
        assert shares == {after.spec.baseline: ALL}
    if before is None or after.started_ns != before.started_ns:
        assert (after.phase, after.step) == (Phase.RUNNING, 0)
        assert after.proven == ("" if before is None else before.proven_now)
        return
    assert before.is_open or (before.phase, after.phase) == (Phase.COMPLETED, Phase.ABORTED)
    assert after.step - before.step in (0, 1), "never two steps at once, never back"
    assert after.spec == before.spec
    assert (after.split_revision == after.revision) == (split_of(after)[:2] != split_of(before)[:2])
    assert after.proven == before.proven
    began = after.step_revision == after.revision
    assert began == (after.phase is Phase.RUNNING)
    assert after.step_began_ns == (after.changed_ns if began else before.step_began_ns)


@given(actions=ACTIONS, cut=st.integers(0, 40))
def test_it_only_goes_where_it_may_and_snapshots_lead_to_the_same(
    actions: list[tuple[str, tuple[str, str], tuple[Step, ...], Verdict, int]], cut: int
) -> None:
    machine = Machine()
    for index, (action, key, steps, verdict, calls) in enumerate(actions):
        if index == cut:
            again = ReleasesFold()
            again.load(1, list(machine.fold.dump()))
            machine.fold = again
        name = f"release/{key[0]}/{key[1]}"
        before = machine.fold.get(name)
        if action == "start":
            machine.start(key, steps)
        elif action == "unknown topic" and before is not None:
            machine.write(Change("release.mirrored", name, b"\xff", key[0]))
        elif before is not None:
            machine.act(before, action, judgement(verdict, calls))
        check(before, machine.fold.get(name))
    fold, again = machine.fold, ReleasesFold()
    again.load(1, list(fold.dump()))
    assert list(again.dump()) == list(fold.dump())
    assert list(again.releases()) == list(fold.releases())
    assert sorted(r.spec.key for r in again.open_releases()) == sorted(
        r.spec.key for r in fold.releases() if r.phase in OPEN
    )
    for namespace in ("shop", "shop-2", "shop-"):
        own = [r for r in fold.releases() if r.spec.namespace == namespace]
        assert list(fold.releases(namespace)) == own
        assert fold.services(namespace) == sorted(r.spec.service for r in own)
        assert fold.count(namespace) == again.count(namespace) == len(own)


BOTH = (False, True)


@pytest.mark.parametrize(
    ("verdict", "phase", "manual", "hold_over", "no_data_over"), list(product(Verdict, Phase, BOTH, BOTH, BOTH))
)
def test_what_happens_by_itself(
    verdict: Verdict, phase: Phase, manual: bool, hold_over: bool, no_data_over: bool
) -> None:
    release = replace(started(spec(Step(percent=10, manual=manual))), phase=phase)
    move = next_move(release, judgement(verdict), Waited(hold_over, hold_over and no_data_over))
    if phase is not Phase.RUNNING:
        assert move is None
    elif verdict is Verdict.WORSE:
        assert move is Move.ROLL_BACK, "at once, manual or not"
    elif manual or not hold_over:
        assert move is None
    elif verdict is Verdict.GOOD:
        assert move is Move.STEP
    else:
        assert move is (Move.PAUSE if no_data_over else None), "no data never passes"


@pytest.mark.parametrize(
    ("at_s", "expected"), [(59, (False, False)), (60, (True, False)), (659, (True, False)), (660, (True, True))]
)
def test_no_data_is_waited_for_behind_the_hold(at_s: int, expected: tuple[bool, bool]) -> None:
    assert waited(started(spec(Step(percent=10), gate=Gate())), at_s * S) == expected


def test_a_baseline_with_too_few_calls_leaves_what_was_kept_before() -> None:
    release = replace(started(spec(Step(percent=50), Step(percent=100))), baseline_calls=SAMPLE)
    for calls, kept in ((50, False), (500, True)):
        body = control_pb2.ReleaseChanged.FromString(step_change(release, judgement(Verdict.GOOD, calls)).body)
        assert body.HasField("baseline_calls") is kept


# Ranges that are made of others.

VERSIONS = st.builds(
    lambda major, minor, patch, pre: f"{major}.{minor}.{patch}{pre}",
    st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.sampled_from(["", "", "", "-rc.1", "-0", "-alpha"]),
)  # fmt: skip
SIMPLE = st.builds(
    lambda sign, version: sign + version,
    st.sampled_from(["", "^", "~", ">", ">=", "<", "<=", "="]),
    VERSIONS | st.sampled_from(["1", "2.x", "1.2", "*"]),
)
RANGES = st.lists(st.lists(SIMPLE, min_size=1, max_size=2).map(" ".join), min_size=1, max_size=3).map(" || ".join)


BOUND = re.compile(r"\d+\.\d+\.\d+(?:-[\w.]+)?")


def near(*texts: str) -> st.SearchStrategy[str]:
    """Any version, and often one that a range names."""
    named = [bound for text in texts for bound in BOUND.findall(text)]
    return st.sampled_from(named) | VERSIONS if named else VERSIONS


@given(text=RANGES, data=st.data())
@settings(max_examples=300)
def test_what_lies_outside_is_every_other_release(text: str, data: st.DataObject) -> None:
    version = data.draw(near(text))
    try:
        outside = parse_range(text).outside()
    except ValueError:  # too long to be written
        return
    inside = takes(text, version)
    beyond = outside is not None and outside.takes(Version(version))
    assert not (inside and beyond)
    if not Version(version).prerelease:
        assert inside != beyond


@given(left=RANGES, right=RANGES, data=st.data())
@settings(max_examples=300)
def test_what_both_take(left: str, right: str, data: st.DataObject) -> None:
    version = data.draw(near(left, right))
    try:
        both = parse_range(left).both(parse_range(right))
    except ValueError:
        return
    found = both is not None and both.takes(Version(version))
    if not Version(version).prerelease:
        assert found == (takes(left, version) and takes(right, version))


@pytest.mark.parametrize("status", list(Status))
def test_only_what_serves_is_ground_to_stand_on(status: Status) -> None:
    declared = Instance(
        namespace="shop", service="orders", id="a", endpoints=(Endpoint("10.0.0.1", 80),), version="1.4.0"
    )
    one = RegisteredInstance(declared, status, "", 1, 1, 0)
    serves = status in (Status.SERVING, Status.DEGRADED)
    assert callable_in([one], "^1") == ([one] if serves else [])
    assert callable_in([one], "^2") == []


def test_a_newer_section_is_refused() -> None:
    with pytest.raises(ValueError, match="version 2"):
        ReleasesFold().load(2, [])


def test_versions_that_are_not_semantic_lie_in_no_range() -> None:
    assert not takes("*", "")
    assert not takes("*", "latest")
    with pytest.raises(ValueError, match="not a version"):
        takes("latest", "1.0.0")
