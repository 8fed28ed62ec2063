"""The fold of schedules: what snapshots keep of it, and its pages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference.events_world import event
from reference.schedules_world import Schedule
from trunkline.api.journal.v1 import control_pb2
from trunkline.core.records import Record
from trunkline.server.schedules.fold import (
    SCHEDULE_CREATED,
    SCHEDULE_DELETED,
    SCHEDULE_FIRED,
    Fired,
    SchedulesFold,
    fired_to,
)
from trunkline.server.schedules.spec import schedule_key


def created(revision: int, namespace: str, name: str, *, size: int = 0) -> Record:
    every = Schedule.Interval()
    every.interval.FromSeconds(60)
    made = Schedule(namespace=namespace, name=name, event=event("", data=b"x" * size), every=every)
    body = control_pb2.ScheduleCreated(schedule=made, created_ms=1_000).SerializeToString()
    return Record(revision, 0, SCHEDULE_CREATED, body, key=schedule_key(namespace, name))


def fired(revision: int, namespace: str, name: str) -> Record:
    body = fired_to(Fired(handled_ms=9_000, fired_ms=8_000, offset=revision, count=3)).SerializeToString()
    return Record(revision, 0, SCHEDULE_FIRED, body, key=schedule_key(namespace, name))


def deleted(revision: int, namespace: str, name: str) -> Record:
    return Record(revision, 0, SCHEDULE_DELETED, b"", key=schedule_key(namespace, name))


STEPS = st.lists(
    st.tuples(
        st.sampled_from([created, created, fired, deleted]),
        st.sampled_from(["a", "a-b", "b"]),
        st.sampled_from(["x", "x/y", "x-y", "z"]),
    ),
    max_size=40,
)


def folded(steps: list[tuple[object, str, str]]) -> SchedulesFold:
    fold = SchedulesFold()
    for revision, (make, namespace, name) in enumerate(steps):
        fold.apply(make(revision, namespace, name))  # type: ignore[operator]
    return fold


@given(steps=STEPS)
def test_a_snapshot_leads_to_the_same_state(steps: list[tuple[object, str, str]]) -> None:
    fold, again = folded(steps), SchedulesFold()
    again.load(1, list(fold.dump()))
    assert list(again.schedules()) == sorted(fold.schedules(), key=lambda one: one.key)
    assert list(again.dump()) == list(fold.dump())
    for namespace in ("a", "a-b", "b"):
        own = [one for one in fold.schedules() if one.spec.namespace == namespace]
        assert fold.count(namespace) == again.count(namespace) == len(own)
        assert fold.event_bytes(namespace) == sum(len(one.spec.event) for one in own)


@given(steps=STEPS, behind=st.sampled_from(["", "schedule/a/x", "schedule/a/x/y", "schedule/b/a", "schedule/zz"]))
def test_pages_are_in_the_order_of_keys(steps: list[tuple[object, str, str]], behind: str) -> None:
    fold = folded(steps)
    for prefix in ("schedule/", "schedule/a/", "schedule/b/", "schedule/none/"):
        keys = sorted(one.key for one in fold.schedules() if one.key.startswith(prefix) and one.key > behind)
        assert [one.key for one in fold.behind(behind, prefix=prefix)] == keys


def test_pieces_are_bounded_by_bytes() -> None:
    fold = SchedulesFold()
    for n in range(20):
        fold.apply(created(n, "a", f"s-{n}", size=60_000))
    assert len(list(fold.dump())) >= 4
    assert max(map(len, fold.dump())) < 400_000


def test_a_newer_section_is_refused() -> None:
    with pytest.raises(ValueError, match="version 2"):
        SchedulesFold().load(2, [])
