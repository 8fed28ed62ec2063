"""Whatever happens to the registry, the streams and the clients: a watch shows what was true at its revision.

Random histories against the shipped fold and hub; the clients are `reference.watch`, the judges are `guarantees`.
"""

from __future__ import annotations

import guarantees
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from reference.registry_facts import instance
from reference.watch import ModelWatcher
from reference.watch_world import Client, World
from trunkline.core.model import Declared, Locality, Status
from trunkline.core.selector import Selector
from trunkline.server.journal.record import Record
from trunkline.server.registry.fold import TombstoneConfig
from trunkline.server.registry.watch_config import WatchConfig

SERVICES = ("orders", "cart")
IDS = tuple("abcdefg")
ZONES = ("", "eu-1", "eu-2")
SELECTORS = (
    Selector(),
    Selector(version=">=1.0.0 <2.0.0"),
    Selector(locality=Locality(zone="eu-1")),
    Selector(labels={"tier": "gold"}),
    Selector(statuses=frozenset({Status.STALE, Status.DRAINING})),
)

keys = st.tuples(st.sampled_from(SERVICES), st.sampled_from(IDS))
facts = st.one_of(
    st.tuples(
        st.just("registered"),
        keys,
        st.sampled_from(("1.0.0", "1.4.0", "2.0.0")),
        st.sampled_from(ZONES),
        st.sampled_from(("gold", "tin")),
    ),
    st.tuples(st.just("removed"), keys),
    st.tuples(st.just("lapsed"), keys),
    st.tuples(st.just("restored"), keys),
    st.tuples(st.just("declared"), keys, st.sampled_from(Declared)),
)


class Watcher(ModelWatcher):
    """One with its scope, and what it saw since its first snapshot or last going back."""

    def __init__(self, watch_id: int, service: str, selector: Selector) -> None:
        super().__init__(watch_id)
        self.service = service
        self.selector = selector
        self.streams: list[int] = []
        """Where in `seen` each of its streams begins."""


class Watching(RuleBasedStateMachine):
    """Slices of one watch, parts of two instances, tombstones for three: every path is taken often."""

    @initialize(
        slice_watches=st.sampled_from((1, 3, 1_000)),
        part_instances=st.sampled_from((1, 2, 100)),
        event_changes=st.sampled_from((3, 1_000)),
        tombstones=st.sampled_from((1, 3, 1_000)),
    )
    def begin(self, slice_watches: int, part_instances: int, event_changes: int, tombstones: int) -> None:
        self.world = World(
            config=WatchConfig(
                slice_watches=slice_watches,
                part_instances_max=part_instances,
                event_changes_max=event_changes,
                scan_instances_max=2,
                backlog_steps_max=4,
                since_cached_max=2,
            ),
            tombstones=TombstoneConfig(per_service_max=tombstones, total_max=tombstones + 1),
        )
        self.watchers: list[Watcher] = []
        self.away: list[Watcher] = []

    # The registry.

    def _record(self, fact: tuple[object, ...]) -> Record:
        journal = self.world.journal
        what, (service, instance_id) = fact[0], fact[1]  # type: ignore[misc]
        key = f"instance/default/{service}/{instance_id}"
        lease_id = 1 + SERVICES.index(service) * 100 + IDS.index(instance_id)
        if what == "registered":
            _, _, version, zone, tier = fact
            declared = instance(
                instance_id, service, version=version, locality=Locality(zone=zone), labels={"tier": tier}
            )
            return journal.registered(declared, lease_id=lease_id)
        if what == "removed":
            return journal.removed(key)
        if what == "lapsed":
            return journal.lapsed(key, lease_id)
        if what == "restored":
            return journal.restored(key, lease_id)
        return journal.declared(key, fact[2])  # type: ignore[arg-type]

    @rule(group=st.lists(facts, min_size=1, max_size=5), skipped=st.sampled_from((0, 0, 0, 2)))
    def step(self, group: list[tuple[object, ...]], skipped: int) -> None:
        self.world.step(*[self._record(fact) for fact in group], skipped=skipped)

    @rule()
    def work(self) -> None:
        self.world.hub.work()

    @rule(ms=st.sampled_from((100, 1_000, 5_500)))
    def time_goes_by(self, ms: int) -> None:
        self.world.tick(ms)

    @rule()
    def restart(self) -> None:
        self.away += [w for c in self.world.clients for w in c.watchers.values()]  # type: ignore[misc]
        self.world.restart()

    # The clients.

    @rule(
        service=st.sampled_from((*SERVICES, "")),
        selector=st.sampled_from(SELECTORS),
        credit=st.sampled_from((1, 2, 16)),
        data=st.data(),
    )
    def open(self, service: str, selector: Selector, credit: int, data: st.DataObject) -> None:
        client = self._some_client(data)
        watcher = Watcher(1 + max(client.watchers, default=0), service, selector)
        self.watchers.append(watcher)
        self._open(client, watcher, credit, b"")

    @precondition(lambda self: self.away)
    @rule(credit=st.sampled_from((1, 2, 16)), data=st.data(), earlier=st.booleans())
    def come_back(self, credit: int, data: st.DataObject, earlier: bool) -> None:
        watcher = self.away.pop(data.draw(st.integers(0, len(self.away) - 1)))
        if earlier and watcher.tokens:
            watcher.go_back_to(data.draw(st.integers(0, len(watcher.tokens) - 1)))
            watcher.seen.clear()
            watcher.streams.clear()
        client = self.world.connect()
        self._open(client, watcher, credit, watcher.token)

    def _some_client(self, data: st.DataObject) -> Client:
        known = self.world.clients
        index = data.draw(st.integers(0, len(known)))
        return self.world.connect() if index == len(known) else known[index]

    def _open(self, client: Client, watcher: Watcher, credit: int, token: bytes) -> None:
        watcher.streams.append(len(watcher.seen))
        self.world.open(client, watcher, watcher.service, watcher.selector, token=token, credit=credit)

    def _client(self, data: st.DataObject) -> Client:
        return data.draw(st.sampled_from(self.world.clients))

    @precondition(lambda self: self.world.clients)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        self.world.read(self._client(data))
        self.judge()

    @precondition(lambda self: self.world.clients)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        for watcher in self._client(data).watchers.values():
            self.world.acknowledge(watcher)

    @precondition(lambda self: self.world.clients)
    @rule(data=st.data())
    def become_full(self, data: st.DataObject) -> None:
        self._client(data).sink.full = True

    @precondition(lambda self: self.world.clients)
    @rule(data=st.data())
    def become_ready(self, data: st.DataObject) -> None:
        self._client(data).sink.drain()

    @precondition(lambda self: self.world.clients)
    @rule(data=st.data(), read_first=st.booleans())
    def disconnect(self, data: st.DataObject, read_first: bool) -> None:
        client = self._client(data)
        if read_first:
            self.world.read(client)
        self.world.disconnect(client)
        self.away += client.watchers.values()  # type: ignore[arg-type]

    @precondition(lambda self: self.world.clients)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        client = self._client(data)
        if client.watchers:
            watch_id = data.draw(st.sampled_from(sorted(client.watchers)))
            self.world.hub.cancel(client.connection, watch_id)
            self.world.read(client)
            watcher = client.watchers.pop(watch_id)
            assert watcher.ended
            assert watcher.error is None
            self.away.append(watcher)  # type: ignore[arg-type]

    # The judges.

    def judge(self) -> None:
        for watcher in self.watchers:
            truth = self.world.truth("default", watcher.service, watcher.selector)
            seen = watcher.seen
            broken = (
                guarantees.broke_watch_ordered(seen)
                + guarantees.broke_watch_unique(seen)
                + guarantees.broke_watch_reliable(seen, truth)
                + guarantees.broke_watch_atomic(seen, truth)
                + guarantees.broke_watch_bookmarkable(seen)
                + guarantees.broke_never_empty_by_accident(seen, truth)
            )
            for start in watcher.streams:
                broken += guarantees.broke_watch_resumable(seen[:start], seen[start:])
            assert not broken, "\n".join(broken)
            assert watcher.error is None, watcher.error

    def teardown(self) -> None:
        """In the end, when everybody reads and acknowledges, everybody is up to date."""
        if not hasattr(self, "world"):
            return
        for client in self.world.clients:
            client.sink.drain()
        self.world.settle_completely()
        self.world.tick(5_500)
        self.world.settle_completely()
        self.judge()
        for client in self.world.clients:
            for watcher in client.watchers.values():
                assert watcher.revision == self.world.hub.revision, "a watch that never catches up"
                watch = client.connection.watches[watcher.watch_id]
                assert watch.live
                assert watch.acked == watcher.seen[-1].revision or not watch.unacked


TestWatching = Watching.TestCase
TestWatching.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
