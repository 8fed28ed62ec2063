"""Watches as their clients see them."""

from __future__ import annotations

import pytest

from reference.registry_facts import instance
from reference.watch import ModelWatcher
from reference.watch_world import World
from trunkline.core.model import ROUTABLE, Declared, Locality
from trunkline.core.selector import Selector
from trunkline.core.token import ControlToken
from trunkline.server.discovery.watch_config import WatchConfig
from trunkline.server.registry.fold import TombstoneConfig

A, B, C = (f"instance/default/orders/{name}" for name in "abc")


@pytest.fixture
def world() -> World:
    made = World()
    made.step(made.journal.registered(instance("a")))
    return made


def kinds(watcher: ModelWatcher) -> list[str]:
    return [event.kind for event in watcher.seen]


def ids(watcher: ModelWatcher) -> list[str]:
    return sorted(instance_id for _, instance_id in watcher.view)


def test_a_watch_begins_with_a_snapshot_and_goes_on_with_changes(world: World) -> None:
    watcher = world.watch()
    assert (kinds(watcher), ids(watcher)) == (["snapshot"], ["a"])
    world.step(world.journal.registered(instance("b"), lease_id=2))
    world.step(world.journal.removed(A))
    world.settle()
    assert (kinds(watcher), ids(watcher)) == (["snapshot", "changes", "changes"], ["b"])
    assert [event.revision for event in watcher.seen] == [1, 2, 3]


def test_a_service_that_nobody_registered_is_an_empty_snapshot(world: World) -> None:
    watcher = world.watch("nowhere")
    assert (kinds(watcher), ids(watcher)) == (["snapshot"], [])


def test_what_does_not_concern_a_watch_is_not_told(world: World) -> None:
    watcher = world.watch()
    world.step(world.journal.registered(instance("x", service="other"), lease_id=2))
    world.step(world.journal.registered(instance("x", namespace="other"), lease_id=3))
    world.settle()
    assert kinds(watcher) == ["snapshot"]


def test_an_empty_service_watches_the_namespace(world: World) -> None:
    watcher = world.watch("")
    world.step(
        world.journal.registered(instance("x", service="cart"), lease_id=2),
        world.journal.registered(instance("y", service="mail"), lease_id=3),
        world.journal.registered(instance("z", namespace="other"), lease_id=4),
    )
    world.settle()
    assert set(watcher.view) == {("orders", "a"), ("cart", "x"), ("mail", "y")}
    assert kinds(watcher) == ["snapshot", "changes"], "one event for one group"


def test_leaving_a_selector_is_a_removal(world: World) -> None:
    selector = Selector(locality=Locality(zone="eu-1"))
    watcher = world.watch(selector=selector)
    world.step(world.journal.registered(instance("b", locality=Locality(zone="eu-1")), lease_id=2))
    world.settle()
    assert ids(watcher) == ["b"]
    world.step(world.journal.registered(instance("b", locality=Locality(zone="eu-2")), lease_id=2))
    world.settle()
    assert ids(watcher) == []
    assert watcher.seen[-1].removed == {("orders", "b")}


def test_draining_leaves_the_default_selector(world: World) -> None:
    watcher = world.watch()
    world.step(world.journal.declared(A, Declared.DRAINING))
    world.settle()
    assert ids(watcher) == []


def test_what_comes_and_goes_in_one_group_is_not_told(world: World) -> None:
    watcher = world.watch()
    world.step(world.journal.registered(instance("b"), lease_id=2), world.journal.removed(B))
    world.settle()
    assert kinds(watcher) == ["snapshot"]


def test_resuming_tells_only_what_changed(world: World) -> None:
    watcher = world.watch()
    world.step(world.journal.registered(instance("b"), lease_id=2))
    world.settle()
    world.disconnect(world.client_of(watcher))
    world.step(world.journal.removed(A))
    world.step(world.journal.registered(instance("c"), lease_id=3))
    world.step(world.journal.registered(instance("d"), lease_id=4))
    world.open(world.connect(), watcher, token=watcher.token)
    world.settle()
    assert watcher.seen[-1].kind == "changes"
    assert set(watcher.seen[-1].upserted) == {("orders", "c"), ("orders", "d")}
    assert watcher.seen[-1].removed == {("orders", "a")}
    assert ids(watcher) == ["b", "c", "d"]


def test_resuming_where_nothing_changed_is_answered_at_once(world: World) -> None:
    watcher = world.watch()
    world.disconnect(world.client_of(watcher))
    world.open(world.connect(), watcher, token=watcher.token)
    world.settle()
    assert kinds(watcher) == ["snapshot", "bookmark"]


def test_resuming_survives_a_restart(world: World) -> None:
    watchers = [world.watch(), world.watch("")]
    world.step(world.journal.removed(A), world.journal.registered(instance("b"), lease_id=2))
    world.restart()
    world.step(world.journal.registered(instance("c", service="cart"), lease_id=3))
    for watcher, service in zip(watchers, ("orders", ""), strict=True):
        world.open(world.connect(), watcher, service, token=watcher.token)
    world.settle()
    assert [kinds(watcher)[-1] for watcher in watchers] == ["changes", "changes"]
    assert sorted(watchers[0].view) == [("orders", "b")]
    assert sorted(watchers[1].view) == [("cart", "c"), ("orders", "b")]


@pytest.mark.parametrize("service", ["orders", ""])
def test_a_token_from_before_what_is_remembered_is_told_to_resync(service: str) -> None:
    world = World(tombstones=TombstoneConfig(per_service_max=1, total_max=1))
    world.step(*(world.journal.registered(instance(n), lease_id=i) for i, n in enumerate("abcd")))
    watcher = world.watch(service)
    world.disconnect(world.client_of(watcher))
    for key in (A, B, C):
        world.step(world.journal.removed(key))
    world.open(world.connect(), watcher, service, token=watcher.token)
    world.settle()
    assert (kinds(watcher), ids(watcher)) == (["snapshot", "snapshot"], ["d"])


def test_a_service_that_is_forgotten_is_told_to_resync() -> None:
    world = World(tombstones=TombstoneConfig(per_service_max=1, total_max=1))
    world.step(world.journal.registered(instance("a")))
    watcher = world.watch()
    world.disconnect(world.client_of(watcher))
    world.step(world.journal.removed(A))
    world.step(world.journal.registered(instance("x", service="other"), lease_id=2))
    world.step(world.journal.removed("instance/default/other/x"))
    assert world.fold.service("default", "orders") is None
    world.open(world.connect(), watcher, token=watcher.token)
    world.settle()
    assert (kinds(watcher), ids(watcher)) == (["snapshot", "snapshot"], [])


def test_a_resync_does_not_go_back_behind_the_token() -> None:
    """The namespace has not changed, so its snapshot from before would do, but the client is further than that."""
    world = World(tombstones=TombstoneConfig(per_service_max=1, total_max=1))
    world.step(world.journal.registered(instance("a")))
    _staying, leaving = world.watch(""), world.watch("")
    for name in ("x", "y"):
        world.step(world.journal.registered(instance("i", service=name, namespace="elsewhere"), lease_id=2))
        world.step(world.journal.removed(f"instance/elsewhere/{name}/i"))
        world.tick(5_500)
        world.read_all()
    assert leaving.revision == 5
    world.disconnect(world.client_of(leaving))
    for name in ("z", "q", "r"):
        world.step(world.journal.registered(instance("i", service=name, namespace="elsewhere"), lease_id=2))
        world.step(world.journal.removed(f"instance/elsewhere/{name}/i"))
    assert world.fold.floor > leaving.revision
    world.open(world.connect(), leaving, "", token=leaving.token)
    world.settle()
    assert leaving.seen[-1].kind == "snapshot"
    assert leaving.seen[-1].revision >= 5


def test_a_token_of_another_incarnation_is_told_to_resync(world: World) -> None:
    watcher = world.watch()
    token = ControlToken.decode(watcher.token)
    old = ControlToken(token.journal_id, 9, 10_000, token.scope)
    world.disconnect(world.client_of(watcher))
    world.open(world.connect(), watcher, token=old.encode())
    world.settle()
    assert kinds(watcher) == ["snapshot", "snapshot"]


def refused(world: World, token: bytes) -> str:
    """Open a watch beside a good one; the reason it is refused with. The good one must go on."""
    client = world.connect()
    good = world.open(client, ModelWatcher(1))
    bad = world.open(client, ModelWatcher(2), token=token)
    world.settle()
    world.step(world.journal.registered(instance("z"), lease_id=9))
    world.settle()
    assert "z" in ids(good)
    assert bad.ended
    assert bad.error is not None
    return bad.error.reason


def test_tokens_that_cannot_be_resumed_end_their_watch_alone(world: World) -> None:
    of_orders = ControlToken.decode(world.watch().token)
    foreign = ControlToken("f" * 32, 1, 1, of_orders.scope)
    future = ControlToken(of_orders.journal_id, 1, 99, of_orders.scope)
    assert refused(world, world.watch("other").token) == "TOKEN_FOREIGN"
    assert refused(world, foreign.encode()) == "TOKEN_FOREIGN"
    assert refused(world, future.encode()) == "REVISION_IN_FUTURE"
    assert refused(world, b"nonsense") == "TOKEN_MALFORMED"
    assert refused(world, of_orders.encode()[:-1] + b"\0") == "TOKEN_MALFORMED"


def test_the_same_selector_written_differently_is_one_scope(world: World) -> None:
    watcher = world.watch(selector=Selector(labels={"a": "1", "b": "2"}))
    world.disconnect(world.client_of(watcher))
    world.open(
        world.connect(), watcher, selector=Selector(labels={"b": "2", "a": "1"}, statuses=ROUTABLE), token=watcher.token
    )
    world.settle()
    assert kinds(watcher) == ["snapshot", "bookmark"]


def test_an_id_that_is_taken_ends_both(world: World) -> None:
    watcher = world.watch()
    client = world.client_of(watcher)
    world.open(client, ModelWatcher(1))
    world.settle()
    assert not client.connection.watches
    assert client.watchers[1].error is not None
    assert client.watchers[1].error.reason == "INVALID_ARGUMENT"


def test_cancelling_frees_the_id(world: World) -> None:
    watcher = world.watch()
    client = world.client_of(watcher)
    world.hub.cancel(client.connection, 1)
    world.read(client)
    assert watcher.ended
    assert watcher.error is None
    again = world.open(client, ModelWatcher(1))
    world.settle()
    assert ids(again) == ["a"]


def test_limits_refuse_by_name() -> None:
    world = World(config=WatchConfig(watches_per_connection_max=1, watches_max=2))
    client = world.connect()
    first, second = world.open(client, ModelWatcher(1)), world.open(client, ModelWatcher(2))
    third, fourth = world.watch(), world.watch()
    world.settle()
    assert not first.ended
    assert not third.ended
    for refused_watcher, limit in ((second, "watches_per_connection_max"), (fourth, "watches_max")):
        assert refused_watcher.error is not None
        assert refused_watcher.error.reason == "LIMIT_EXCEEDED"
        assert limit in refused_watcher.error.message


def test_without_credit_a_watch_is_coalesced_to_the_latest_state(world: World) -> None:
    watcher = world.watch(credit=2)
    for lease_id in range(2, 10):
        world.step(world.journal.registered(instance(f"i{lease_id}"), lease_id=lease_id))
    world.settle()
    assert kinds(watcher) == ["snapshot", "changes"]
    world.acknowledge(watcher)
    world.settle()
    assert kinds(watcher) == ["snapshot", "changes", "changes"]
    assert len(watcher.seen[-1].upserted) == 7
    assert len(watcher.view) == 9
    world.acknowledge(watcher)
    world.step(world.journal.removed(A))
    world.settle()
    assert watcher.seen[-1].removed == {("orders", "a")}, "it is told step by step again"


def test_an_acknowledgement_that_frees_nothing_gives_no_credit(world: World) -> None:
    watcher = world.watch(credit=1)
    world.step(world.journal.registered(instance("b"), lease_id=2))
    world.acknowledge(watcher, 0)
    world.settle()
    assert kinds(watcher) == ["snapshot"]


def test_more_credit_lets_a_watch_go_on(world: World) -> None:
    watcher = world.watch(credit=1)
    world.step(world.journal.registered(instance("b"), lease_id=2))
    world.settle()
    assert ids(watcher) == ["a"]
    world.hub.set_credit(world.client_of(watcher).connection, 1, 2)
    world.settle()
    assert ids(watcher) == ["a", "b"]


def test_a_full_sink_holds_up_nobody_else(world: World) -> None:
    slow, quick = world.watch(), world.watch()
    sink = world.client_of(slow).sink
    sink.full = True
    for lease_id in range(2, 6):
        world.step(world.journal.registered(instance(f"i{lease_id}"), lease_id=lease_id))
    assert sink.offered == 2, "the snapshot, and one more that was answered with 'full'"
    world.read(world.client_of(quick))
    assert len(quick.seen) == 5
    sink.drain()
    world.settle()
    assert len(slow.seen) == 3
    assert slow.view.keys() == quick.view.keys()


def test_a_slow_reader_gets_a_snapshot_part_by_part() -> None:
    world = World(config=WatchConfig(part_instances_max=10))
    world.step(*(world.journal.registered(instance(f"i{n}"), lease_id=n) for n in range(95)))
    client = world.connect()
    client.sink.full = True
    watcher = world.open(client, ModelWatcher(1))
    for parts in range(1, 11):
        while world.hub.work():
            pass
        assert client.sink.offered == parts
        # Meanwhile the registry goes on; the snapshot is still of one revision.
        world.step(world.journal.registered(instance(f"i{parts}", weight=7), lease_id=parts))
        world.read(client)
        assert len(watcher.seen) == parts // 10
        client.sink.drain()
        client.sink.full = True
    assert watcher.seen[0].kind == "snapshot"
    assert watcher.seen[0].revision == 95
    client.sink.drain()
    world.settle()
    assert watcher.seen[1].kind == "changes"
    assert len(watcher.seen[1].upserted) == 10


def test_a_step_too_large_for_one_event_is_a_resync() -> None:
    world = World(config=WatchConfig(event_changes_max=10, part_instances_max=4))
    world.step(world.journal.registered(instance("a")))
    watcher = world.watch()
    world.step(*(world.journal.registered(instance(f"i{n}"), lease_id=n + 2) for n in range(11)))
    world.settle()
    assert kinds(watcher) == ["snapshot", "snapshot"]
    assert len(watcher.view) == 12
    world.step(world.journal.removed(A))
    world.settle()
    assert kinds(watcher)[-1] == "changes"


def test_silence_is_broken_by_bookmarks_every_five_seconds(world: World) -> None:
    watchers = [world.watch() for _ in range(20)]
    world.step(world.journal.registered(instance("x", service="other"), lease_id=2))
    silent_ms = dict.fromkeys(watchers, 0)
    for _ in range(500):
        before = [len(watcher.seen) for watcher in watchers]
        world.tick(100)
        world.read_all()
        for watcher, seen in zip(watchers, before, strict=True):
            silent_ms[watcher] = 0 if len(watcher.seen) > seen else silent_ms[watcher] + 100
            assert silent_ms[watcher] <= 5_500
    for watcher in watchers:
        assert watcher.revision == 2
        assert kinds(watcher).count("bookmark") == len(watcher.seen) - 1
        assert 9 <= kinds(watcher).count("bookmark") <= 10


def test_bookmarks_are_spread_over_time(world: World) -> None:
    watchers = [world.watch() for _ in range(200)]
    told: list[int] = []
    for _ in range(55):
        before = world.hub.counts.bookmarks
        world.tick(100)
        told.append(world.hub.counts.bookmarks - before)
    assert sum(told) == len(watchers)
    assert max(told) < len(watchers) // 4


def test_a_watch_that_is_told_of_changes_needs_no_bookmark(world: World) -> None:
    watcher = world.watch(credit=100)
    for lease_id in range(2, 12):
        world.step(world.journal.registered(instance("b", weight=lease_id), lease_id=2))
        world.tick(2_000)
    world.settle()
    assert "bookmark" not in kinds(watcher)


def test_skipped_records_are_covered_soon(world: World) -> None:
    watcher = world.watch()
    world.step(skipped=3)
    world.tick(1_000)
    world.read_all()
    assert (kinds(watcher), watcher.revision) == (["snapshot", "bookmark"], 4)


def test_an_acknowledgement_from_the_future_ends_the_watch(world: World) -> None:
    watcher = world.watch()
    world.acknowledge(watcher, 99)
    world.settle()
    assert watcher.error is not None
    assert watcher.error.reason == "REVISION_IN_FUTURE"


def test_staleness_is_the_age_of_what_is_not_acknowledged(world: World) -> None:
    watcher = world.watch()
    world.acknowledge(watcher)
    world.tick(1_000)
    assert world.hub.counts.staleness_ns_max == 0
    world.step(world.journal.registered(instance("b"), lease_id=2))
    world.tick(3_000)
    assert 1_000_000_000 < world.hub.counts.staleness_ns_max <= 3_000_000_000


def test_steps_that_pile_up_are_coalesced() -> None:
    world = World(config=WatchConfig(slice_watches=1, backlog_steps_max=3))
    world.step(world.journal.registered(instance("a")))
    watchers = [world.watch() for _ in range(30)]
    for lease_id in range(2, 12):
        world.step(world.journal.registered(instance(f"i{lease_id}"), lease_id=lease_id))
    world.settle()
    assert world.hub.counts.backlogs_dropped
    assert {len(watcher.view) for watcher in watchers} == {11}
    assert max(len(watcher.seen) for watcher in watchers) < 11


def test_bookmarks_outlive_steps_that_are_coalesced() -> None:
    world = World(config=WatchConfig(slice_watches=1, backlog_steps_max=1))
    world.step(world.journal.registered(instance("a")))
    watchers = [world.watch() for _ in range(40)]
    for _ in range(10):
        world.hub.tick()
    for lease_id in (2, 3, 4):
        world.step(world.journal.registered(instance("b", weight=lease_id), lease_id=2))
    assert world.hub.counts.backlogs_dropped
    world.settle()
    for watcher in watchers:
        world.acknowledge(watcher)
    world.tick(6_000)
    world.read_all()
    assert {watcher.seen[-1].kind for watcher in watchers} == {"bookmark"}


def test_after_steps_were_coalesced_a_new_watch_begins_with_what_is() -> None:
    """A step of `orders` is dropped before it is looked at: its snapshot from before must not be used again."""
    world = World(config=WatchConfig(slice_watches=1, backlog_steps_max=2))
    world.step(world.journal.registered(instance("a")))
    world.watch()
    for _ in range(10):
        world.watch("cart")
    world.step(world.journal.registered(instance("c", "cart"), lease_id=2))
    world.step(world.journal.registered(instance("b"), lease_id=3))
    world.step(world.journal.registered(instance("d", "cart"), lease_id=4))
    assert world.hub.counts.backlogs_dropped
    late = world.watch()
    assert [(event.kind, event.revision) for event in late.seen] == [("snapshot", 4)]


def test_what_did_not_concern_a_watch_does_not_make_it_resync() -> None:
    """It was up to date with everything before it was left behind, though it had been told nothing for long."""
    world = World(tombstones=TombstoneConfig(per_service_max=1, total_max=1))
    world.step(world.journal.registered(instance("a", labels={"mine": "yes"})))
    watcher = world.watch(selector=Selector(labels={"mine": "yes"}), credit=1)
    for lease_id, name in enumerate("xyz", start=2):
        world.step(world.journal.registered(instance(name), lease_id=lease_id))
        world.step(world.journal.removed(f"instance/default/orders/{name}"))
    world.step(world.journal.registered(instance("b", labels={"mine": "yes"}), lease_id=9))
    world.settle()
    assert kinds(watcher) == ["snapshot"], "it has no credit"
    world.acknowledge(watcher)
    world.settle()
    assert (kinds(watcher), ids(watcher)) == (["snapshot", "changes"], ["a", "b"])


def test_nothing_is_kept_of_a_connection_that_went(world: World) -> None:
    watcher = world.watch()
    world.disconnect(world.client_of(watcher))
    assert world.hub.counts.watches == world.hub.counts.connections == 0
    world.step(world.journal.registered(instance("b"), lease_id=2))
    world.settle()
    assert kinds(watcher) == ["snapshot"]
