"""The registry's fold on random records: deterministic, whole after a snapshot, its indexes always true."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from reference.registry_facts import Journal, instance
from trunkline.core.model import Declared, GrpcHealthCheck, Status
from trunkline.core.records import Record
from trunkline.server.registry.fold import RegistryFold, TombstoneConfig

ids = st.sampled_from("abc")
services = st.sampled_from(["orders", "cart"])
namespaces = st.sampled_from(["default", "shop"])
leases = st.integers(1, 3)


@st.composite
def facts(draw: st.DrawFn) -> Callable[[Journal], Record]:
    name, service, namespace = draw(ids), draw(services), draw(namespaces)
    key = f"instance/{namespace}/{service}/{name}"
    # A lease belongs to one instance.
    lease = draw(leases) + 10 * sum(map(ord, key))
    match draw(st.integers(0, 8)):
        case 0 | 1:
            version = draw(st.sampled_from(["", "1.0.0", "2.0.0"]))
            declared = instance(name, service, namespace, weight=draw(st.integers(1, 3)), version=version)
            return lambda journal: journal.registered(declared, lease_id=lease)
        case 2:
            probed = instance(name, service, namespace, health_check=GrpcHealthCheck())
            return lambda journal: journal.registered(probed, lease_id=lease)
        case 3:
            says = draw(st.sampled_from(list(Declared)))
            return lambda journal: journal.declared(key, says)
        case 4:
            return lambda journal: journal.lapsed(key, lease)
        case 5:
            moves = draw(st.booleans())
            return lambda journal: (journal.moved if moves else journal.restored)(key, lease)
        case 6:
            failure = draw(st.sampled_from([None, "no", "still no"]))
            return lambda journal: journal.probed(key, failure)
        case 7:
            status = draw(st.sampled_from([None, Status.DRAINING, Status.SERVING]))
            return lambda journal: journal.overridden(key, status, "because")
        case _:
            cause = draw(st.integers(1, 3))
            return lambda journal: journal.removed(key, cause)


small = TombstoneConfig(retention_s=20, per_service_max=2, total_max=5)


@settings(max_examples=200, deadline=None)
@given(history=st.lists(facts(), max_size=60), at=st.integers(0, 60), pause_s=st.integers(0, 30))
def test_a_fold_is_the_same_however_it_came_to_be(
    history: list[Callable[[Journal], Record]], at: int, pause_s: int
) -> None:
    """Replayed from the start, or from a snapshot in the middle: equal bytes at the end."""
    journal = Journal()
    whole, again = RegistryFold(small), RegistryFold(small)
    loaded = RegistryFold(small)
    for number, make in enumerate(history):
        if number == at:
            loaded.load(whole.version, list(whole.dump()))
            assert loaded.digest() == whole.digest()
            journal.time_ns += pause_s * 1_000_000_000
        record = make(journal)
        whole.apply(record)
        again.apply(record)
        if number >= at:
            loaded.apply(record)
    assert again.digest() == whole.digest()
    if at < len(history):
        assert loaded.digest() == whole.digest()


@settings(max_examples=200, deadline=None)
@given(history=st.lists(facts(), max_size=60))
def test_indexes_counts_and_changes_tell_the_same_story(history: list[Callable[[Journal], Record]]) -> None:
    journal, fold = Journal(), RegistryFold(small, collecting=True)
    follower: dict[tuple[str, str, str], object] = {}
    for make in history:
        fold.apply(make(journal))
        for change in fold.changes:
            name = (change.namespace, change.service, change.instance_id)
            assert follower.get(name) is change.before
            follower[name] = change.after
        fold.changes.clear()
        shown = {name: there for name, there in follower.items() if there is not None}
        entries = list(fold.entries())
        assert {
            (e.registered.instance.namespace, e.registered.instance.service, e.registered.instance.id): e.registered
            for e in entries
        } == shown
        revisions = [entry.registered.modified_revision for entry in entries]
        assert revisions == sorted(revisions)
        assert {id(fold.of_lease(entry.lease.id)) for entry in entries} == set(map(id, entries))
        check_states(fold)


def check_states(fold: RegistryFold) -> None:
    live, lapsed, serving = Counter[str](), Counter[str](), Counter[tuple[str, str]]()
    for entry in fold.entries():
        of = entry.registered.instance
        live[of.namespace] += 1
        lapsed[of.namespace] += entry.lease.lapsed
        serving[of.namespace, of.service] += not entry.lease.lapsed and entry.registered.status <= Status.DEGRADED
    total_gone = 0
    for namespace in fold.namespaces():
        assert fold.leases(namespace) == (live[namespace], lapsed[namespace])
        for service in fold.services(namespace):
            state = fold.service(namespace, service)
            assert state is not None
            assert state.instances or state.tombstones
            assert state.serving == serving[namespace, service]
            assert state.versions == Counter(one.instance.version for one in state.instances.values())
            assert not state.instances.keys() & state.tombstones.keys()
            assert all(revision > state.floor for revision in state.tombstones.values())
            assert len(state.tombstones) <= small.per_service_max
            assert list(state.tombstones.values()) == sorted(state.tombstones.values())
            order = [shown.modified_revision for shown in state.instances.values()]
            assert order == sorted(order)
            total_gone += len(state.tombstones)
    assert total_gone <= small.total_max
