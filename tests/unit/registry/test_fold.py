"""The registry's fold: what each record makes of it, and what it remembers."""

from __future__ import annotations

import itertools

import pytest

from reference.registry_facts import HERE, Journal, instance
from trunkline.api.journal.v1 import control_pb2
from trunkline.core.model import Declared, Endpoint, GrpcHealthCheck, Status
from trunkline.server.registry.fold import RegistryFold, TombstoneConfig

KEY = "instance/default/orders/a"


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def fold() -> RegistryFold:
    return RegistryFold(collecting=True)


def shown(fold: RegistryFold, key: str = KEY) -> tuple[Status, str]:
    entry = fold.get(key)
    assert entry is not None
    return entry.registered.status, entry.registered.status_reason


def reloaded(fold: RegistryFold) -> RegistryFold:
    loaded = RegistryFold(fold.config)
    loaded.load(fold.version, list(fold.dump()))
    return loaded


def test_a_registration_is_found_by_key_service_and_lease(fold: RegistryFold, journal: Journal) -> None:
    fold.apply(journal.registered(instance(), lease_id=5))
    entry = fold.get(KEY)
    assert entry is not None
    assert fold.of_lease(5) is entry
    state = fold.service("default", "orders")
    assert state is not None
    assert state.instances == {"a": entry.registered}
    assert entry.registered.created_revision == entry.registered.modified_revision == 1
    [change] = fold.changes
    assert (change.before, change.after, change.what) == (None, entry.registered, "registered")
    assert list(fold.namespaces()) == ["default"]
    assert list(fold.services("default")) == ["orders"]


def test_status_is_the_first_that_applies(fold: RegistryFold, journal: Journal) -> None:
    """Each step adds a reason that stands above all before it; taking them back leads down again."""
    fold.apply(journal.registered(instance()))
    assert shown(fold) == (Status.SERVING, "declared")
    fold.apply(journal.declared(KEY, Declared.DEGRADED))
    assert shown(fold) == (Status.DEGRADED, "declared")
    fold.apply(journal.probed(KEY, "connection refused"))
    assert shown(fold) == (Status.NOT_SERVING, "probe: connection refused")
    fold.apply(journal.declared(KEY, Declared.STARTING))
    assert shown(fold) == (Status.STARTING, "declared")
    fold.apply(journal.declared(KEY, Declared.DRAINING))
    assert shown(fold) == (Status.DRAINING, "declared")
    fold.apply(journal.lapsed(KEY))
    assert shown(fold) == (Status.STALE, "lease lapsed")
    fold.apply(journal.overridden(KEY, Status.NOT_SERVING, "on fire"))
    assert shown(fold) == (Status.NOT_SERVING, "override: on fire")
    fold.apply(journal.overridden(KEY, None))
    assert shown(fold) == (Status.STALE, "lease lapsed")
    fold.apply(journal.restored(KEY))
    assert shown(fold) == (Status.DRAINING, "declared")
    fold.apply(journal.declared(KEY, Declared.SERVING))
    fold.apply(journal.probed(KEY, None))
    assert shown(fold) == (Status.SERVING, "declared")
    assert [change.what for change in fold.changes] == [
        "registered",
        "declared degraded",
        "probe failed",
        "declared starting",
        "declared draining",
        "lease lapsed",
        "override set",
        "override taken back",
        "lease restored",
        "declared serving",
        "probe passed",
    ]
    for earlier, later in itertools.pairwise(fold.changes):
        assert later.before is earlier.after


def test_a_record_of_something_that_is_not_there_changes_nothing(fold: RegistryFold, journal: Journal) -> None:
    records = [
        journal.declared(KEY, Declared.DRAINING),
        journal.lapsed(KEY),
        journal.restored(KEY),
        journal.moved(KEY),
        journal.probed(KEY, "no"),
        journal.overridden(KEY, Status.DRAINING),
        journal.removed(KEY),
    ]
    for record in records:
        fold.apply(record)
    assert len(fold) == 0
    assert fold.changes == []
    assert fold.digest() == RegistryFold().digest()


def test_a_fact_about_another_lease_changes_nothing(fold: RegistryFold, journal: Journal) -> None:
    fold.apply(journal.registered(instance(), lease_id=1))
    before = fold.get(KEY)
    fold.apply(journal.lapsed(KEY, lease_id=2))
    fold.apply(journal.moved(KEY, lease_id=2))
    fold.apply(journal.restored(KEY, lease_id=1))  # it has not lapsed
    assert fold.get(KEY) is before


def test_an_update_keeps_the_registration_and_restores_the_lease(fold: RegistryFold, journal: Journal) -> None:
    fold.apply(journal.registered(instance()))
    fold.apply(journal.lapsed(KEY))
    fold.apply(journal.registered(instance(weight=5)))
    entry = fold.get(KEY)
    assert entry is not None
    assert (entry.registered.created_revision, entry.registered.modified_revision) == (1, 3)
    assert entry.registered.instance.weight == 5
    assert not entry.lease.lapsed
    assert fold.changes[-1].what == "registered again"


def test_another_lease_is_a_new_registration_under_the_same_override(fold: RegistryFold, journal: Journal) -> None:
    check = GrpcHealthCheck()
    fold.apply(journal.registered(instance(health_check=check), lease_id=1))
    fold.apply(journal.probed(KEY, "no"))
    fold.apply(journal.overridden(KEY, Status.DRAINING, "bad host"))
    fold.apply(journal.registered(instance(health_check=check), lease_id=2))
    entry = fold.get(KEY)
    assert entry is not None
    assert entry.registered.created_revision == 4
    assert entry.probe_failure is None
    assert shown(fold) == (Status.DRAINING, "override: bad host")
    assert fold.of_lease(1) is None
    assert fold.of_lease(2) is entry
    assert fold.changes[-1].what == "taken over"


def test_a_probe_verdict_holds_while_what_was_probed_stays(fold: RegistryFold, journal: Journal) -> None:
    check = GrpcHealthCheck()
    fold.apply(journal.registered(instance(health_check=check)))
    fold.apply(journal.probed(KEY, "no"))
    fold.apply(journal.registered(instance(health_check=check, weight=1)))
    assert shown(fold) == (Status.NOT_SERVING, "probe: no")
    fold.apply(journal.registered(instance(health_check=check, endpoints=(Endpoint("10.0.0.2", 1),))))
    assert shown(fold) == (Status.SERVING, "declared")


def test_a_moved_lease_is_not_shown_as_a_change(fold: RegistryFold, journal: Journal) -> None:
    fold.apply(journal.registered(instance()))
    fold.apply(journal.moved(KEY, keeper=HERE + 1))
    entry = fold.get(KEY)
    assert entry is not None
    assert entry.lease.keeper == HERE + 1
    assert entry.registered.modified_revision == 1
    assert len(fold.changes) == 1
    assert [change.topic for change in fold.lease_changes] == ["instance.registered", "lease.moved"]


def test_instances_stand_in_the_order_of_their_last_change(fold: RegistryFold, journal: Journal) -> None:
    for number, name in enumerate("abc"):
        fold.apply(journal.registered(instance(name), lease_id=number))
    fold.apply(journal.declared("instance/default/orders/a", Declared.DEGRADED))
    state = fold.service("default", "orders")
    assert state is not None
    assert list(state.instances) == ["b", "c", "a"]
    assert [entry.registered.instance.id for entry in fold.entries()] == ["b", "c", "a"]


def test_counts_follow(fold: RegistryFold, journal: Journal) -> None:
    for number, name in enumerate("abc"):
        fold.apply(journal.registered(instance(name), lease_id=number))
    fold.apply(journal.lapsed("instance/default/orders/b", 1))
    fold.apply(journal.declared("instance/default/orders/c", Declared.DRAINING))
    state, namespace = fold.service("default", "orders"), fold.namespace("default")
    assert state is not None
    assert namespace is not None
    assert (state.serving, state.lapsed, namespace.instances, namespace.lapsed) == (1, 1, 3, 1)
    fold.apply(journal.removed("instance/default/orders/b"))
    assert (state.serving, state.lapsed, namespace.instances, namespace.lapsed) == (1, 0, 2, 0)
    fold.apply(journal.removed("instance/default/orders/a"))
    assert (state.serving, state.lapsed, namespace.instances, namespace.lapsed) == (0, 0, 1, 0)


def test_a_tombstone_stays_until_the_instance_comes_back(fold: RegistryFold, journal: Journal) -> None:
    fold.apply(journal.registered(instance()))
    fold.apply(journal.removed(KEY))
    state = fold.service("default", "orders")
    assert state is not None
    assert (dict(state.tombstones), state.floor) == ({"a": 2}, 0)
    assert reloaded(fold).digest() == fold.digest()
    fold.apply(journal.registered(instance()))
    assert not state.tombstones
    again = reloaded(fold)
    assert again.digest() == fold.digest()
    restored = again.service("default", "orders")
    assert restored is not None
    assert not restored.tombstones


@pytest.mark.parametrize(("cause", "word"), [(1, "deregistered"), (2, "expired"), (3, "taken over")])
def test_the_cause_of_a_removal_is_told(fold: RegistryFold, journal: Journal, cause: int, word: str) -> None:
    fold.apply(journal.registered(instance()))
    fold.apply(journal.removed(KEY, cause))
    assert fold.changes[-1].what == word
    assert fold.changes[-1].after is None
    assert fold.lease_changes[-1].cause == cause


def test_a_service_beyond_its_tombstones_has_a_floor(journal: Journal) -> None:
    fold = RegistryFold(TombstoneConfig(per_service_max=2))
    for number, name in enumerate("abc"):
        fold.apply(journal.registered(instance(name), lease_id=number))
    for name in "abc":
        fold.apply(journal.removed(f"instance/default/orders/{name}"))
    state = fold.service("default", "orders")
    assert state is not None
    assert (dict(state.tombstones), state.floor) == ({"b": 5, "c": 6}, 4)
    again = reloaded(fold)
    assert again.digest() == fold.digest()
    loaded = again.service("default", "orders")
    assert loaded is not None
    assert (loaded.tombstones, loaded.floor) == (state.tombstones, 4)


def test_old_tombstones_and_empty_services_are_forgotten_but_for_the_floor(journal: Journal) -> None:
    fold = RegistryFold(TombstoneConfig(retention_s=60))
    fold.apply(journal.registered(instance()))
    fold.apply(journal.removed(KEY))
    journal.time_ns += 61_000_000_000
    fold.apply(journal.registered(instance("b", "cart"), lease_id=2))
    assert fold.service("default", "orders") is None
    assert fold.floor == 2
    fold.apply(journal.registered(instance()))
    state = fold.service("default", "orders")
    assert state is not None
    assert state.floor == 2
    assert reloaded(fold).digest() == fold.digest()


def test_all_tombstones_together_are_bounded(journal: Journal) -> None:
    fold = RegistryFold(TombstoneConfig(total_max=3))
    for number in range(10):
        service = f"s{number}"
        fold.apply(journal.registered(instance("a", service), lease_id=number))
        fold.apply(journal.removed(f"instance/default/{service}/a"))
    assert list(fold.services("default")) == ["s7", "s8", "s9"]
    assert fold.floor == 14


def test_a_dump_is_of_the_moment_it_was_asked_for(fold: RegistryFold, journal: Journal) -> None:
    for number in range(200):
        fold.apply(journal.registered(instance(f"i{number}"), lease_id=number))
    digest = fold.digest()
    encoding = fold.dump()
    data = [next(encoding)]
    fold.apply(journal.removed("instance/default/orders/i199"))
    fold.apply(journal.declared("instance/default/orders/i7", Declared.DRAINING))
    data.extend(encoding)
    loaded = RegistryFold()
    loaded.load(fold.version, data)
    assert loaded.digest() == digest != fold.digest()


def test_another_form_of_snapshot_is_refused(fold: RegistryFold) -> None:
    with pytest.raises(ValueError, match="version 2"):
        fold.load(2, [])


def test_nothing_is_collected_while_nobody_drains(journal: Journal) -> None:
    fold = RegistryFold()
    fold.apply(journal.registered(instance()))
    assert fold.changes == []
    assert fold.lease_changes == []


def test_topics_of_a_newer_program_are_passed_over(fold: RegistryFold, journal: Journal) -> None:
    fold.apply(journal.registered(instance()))
    before = fold.get(KEY)
    fold.apply(journal._record("instance.polished", KEY, control_pb2.LeaseLapsed(lease_id=1).SerializeToString()))
    assert fold.get(KEY) is before
