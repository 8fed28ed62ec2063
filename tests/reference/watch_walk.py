"""A random walk through everything that can happen to a registry, its watches and their clients, from one seed."""

from __future__ import annotations

import random
from collections.abc import Callable

import guarantees

from reference.registry_facts import instance
from reference.watch import ModelWatcher
from reference.watch_world import Client, World
from trunkline.api.v1.policy_pb2 import TrafficPolicy
from trunkline.core.model import Declared, Locality, Status
from trunkline.core.records import Record
from trunkline.core.selector import Selector
from trunkline.server.discovery.watch_config import WatchConfig
from trunkline.server.registry.fold import TombstoneConfig

SERVICES = ("orders", "cart")
IDS = tuple("abcdefg")
SELECTORS = (
    Selector(),
    Selector(version=">=1.0.0 <2.0.0"),
    Selector(locality=Locality(zone="eu-1")),
    Selector(labels={"tier": "gold"}),
    Selector(statuses=frozenset({Status.STALE, Status.DRAINING})),
)


class Watcher(ModelWatcher):
    """One with its scope, and what it saw since its first snapshot or last going back."""

    def __init__(self, watch_id: int, service: str, selector: Selector) -> None:
        super().__init__(watch_id)
        self.service = service
        self.selector = selector
        self.credit_max = 0
        """The most that it ever gave on its stream."""
        self.streams: list[int] = []
        """Where in `seen` each of its streams begins."""


class WatchWalk:
    """Limits are drawn small, so that slices end early, parts are many, and tombstones are forgotten."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        choose = self.rng.choice
        tombstones = choose((1, 3, 1_000))
        self.world = World(
            config=WatchConfig(
                slice_watches=choose((1, 3, 1_000)),
                part_instances_max=choose((1, 2, 100)),
                event_changes_max=choose((3, 1_000)),
                scan_instances_max=2,
                backlog_steps_max=choose((2, 1_000)),
                since_cached_max=2,
            ),
            tombstones=TombstoneConfig(per_service_max=tombstones, total_max=tombstones + 1),
            policies_gone_max=choose((0, 1, 1_000)),
        )
        self.said: dict[str, TrafficPolicy] = {}
        """The policies that there are, by service, "" for the namespace's."""
        self.truths: dict[int, dict[str, TrafficPolicy]] = {0: {}}
        """What holds for each service, at each revision at which it changed."""
        self.watchers: list[Watcher] = []
        self.away: list[Watcher] = []
        self.actions: dict[Callable[[], None], int] = {
            self.step: 30,
            self.work: 15,
            self.time_goes_by: 5,
            self.open: 6,
            self.come_back: 8,
            self.read: 20,
            self.acknowledge: 12,
            self.change_credit: 2,
            self.become_full: 5,
            self.become_ready: 10,
            self.disconnect: 5,
            self.cancel: 2,
            self.restart: 1,
        }

    def walk(self, actions: int) -> None:
        """So many actions; then everybody reads and acknowledges until all are up to date, and is judged."""
        chosen = self.rng.choices(list(self.actions), weights=list(self.actions.values()), k=actions)
        for action in chosen:
            action()
            self.judge_credit()
        self.come_to_rest()

    # The registry.

    def _policy_record(self) -> Record:
        service = self.rng.choice((*SERVICES, "mail", ""))
        if service in self.said and self.rng.random() < 0.5:
            del self.said[service]
            return self.world.journal.policy_deleted(service)
        policy = TrafficPolicy(namespace="default", service=service)
        if self.rng.random() < 0.7:
            policy.limits.max_requests = self.rng.randrange(1, 5)
        if self.rng.random() < 0.7:
            policy.healthy_panic_threshold = self.rng.randrange(5)
        self.said[service] = policy
        return self.world.journal.policy_applied(policy)

    def _what_holds(self) -> dict[str, TrafficPolicy]:
        """By looking at everything."""
        default, held = self.said.get("", TrafficPolicy()), {}
        for service in (*SERVICES, "mail", "nobody"):
            own, policy = self.said.get(service, TrafficPolicy()), TrafficPolicy()
            for layer in (default, own):
                if layer.HasField("limits"):
                    policy.limits.CopyFrom(layer.limits)
                if layer.HasField("healthy_panic_threshold"):
                    policy.healthy_panic_threshold = layer.healthy_panic_threshold
            held[service] = policy
        return held

    def _record(self) -> Record:
        if self.rng.random() < 0.2:
            return self._policy_record()
        journal, choose = self.world.journal, self.rng.choice
        service, instance_id = choose(SERVICES), choose(IDS)
        key = f"instance/default/{service}/{instance_id}"
        lease_id = 1 + SERVICES.index(service) * 100 + IDS.index(instance_id)
        what = self.rng.random()
        if what < 0.5:
            return journal.registered(
                instance(
                    instance_id,
                    service,
                    version=choose(("1.0.0", "1.4.0", "2.0.0")),
                    locality=Locality(zone=choose(("", "eu-1", "eu-2"))),
                    labels={"tier": choose(("gold", "tin"))},
                ),
                lease_id=lease_id,
            )
        if what < 0.75:
            return journal.removed(key)
        if what < 0.85:
            return journal.lapsed(key, lease_id)
        if what < 0.9:
            return journal.restored(key, lease_id)
        return journal.declared(key, choose(list(Declared)))

    def step(self) -> None:
        records = [self._record() for _ in range(self.rng.choice((1, 1, 1, 2, 5)))]
        revision = self.world.step(*records, skipped=self.rng.choice((0, 0, 0, 2)))
        self.truths[revision] = self._what_holds()

    def work(self) -> None:
        self.world.hub.work()

    def time_goes_by(self) -> None:
        self.world.tick(self.rng.choice((100, 1_000, 5_500)))

    def restart(self) -> None:
        for client in list(self.world.clients):
            self._lost(client)
        self.world.restart()

    # The clients.

    def open(self) -> None:
        known = self.world.clients
        client = self.rng.choice(known) if known and self.rng.random() < 0.7 else self.world.connect()
        watcher = Watcher(
            1 + max(client.watchers, default=0), self.rng.choice((*SERVICES, "")), self.rng.choice(SELECTORS)
        )
        self.watchers.append(watcher)
        self._open(client, watcher, b"")

    def come_back(self) -> None:
        """Resume from the last token, or as a client that had not seen what came after an earlier one."""
        if not self.away:
            return
        watcher = self.away.pop(self.rng.randrange(len(self.away)))
        if watcher.tokens and self.rng.random() < 0.5:
            watcher.go_back_to(self.rng.randrange(len(watcher.tokens)))
            watcher.seen.clear()
            watcher.streams.clear()
        self._open(self.world.connect(), watcher, watcher.token)

    def _open(self, client: Client, watcher: Watcher, token: bytes) -> None:
        watcher.streams.append(len(watcher.seen))
        credit = watcher.credit_max = self.rng.choice((1, 2, 16))
        self.world.open(client, watcher, watcher.service, watcher.selector, token=token, credit=credit)

    def _client(self) -> Client | None:
        return self.rng.choice(self.world.clients) if self.world.clients else None

    def read(self) -> None:
        if client := self._client():
            self.world.read(client)

    def acknowledge(self) -> None:
        if client := self._client():
            for watcher in client.watchers.values():
                self.world.acknowledge(watcher)

    def change_credit(self) -> None:
        if client := self._client():
            for watch_id, watcher in client.watchers.items():
                credit = self.rng.choice((1, 3, 100))
                assert isinstance(watcher, Watcher)
                watcher.credit_max = max(watcher.credit_max, credit)
                self.world.hub.set_credit(client.connection, watch_id, credit)

    def become_full(self) -> None:
        if client := self._client():
            client.sink.full = True

    def become_ready(self) -> None:
        if client := self._client():
            client.sink.drain()

    def disconnect(self) -> None:
        if client := self._client():
            if self.rng.random() < 0.5:
                self.world.read(client)
            self.world.disconnect(client)
            self._lost(client)

    def _lost(self, client: Client) -> None:
        self.away += [watcher for watcher in client.watchers.values() if isinstance(watcher, Watcher)]

    def cancel(self) -> None:
        client = self._client()
        if client is None or not client.watchers:
            return
        watch_id = self.rng.choice(sorted(client.watchers))
        self.world.hub.cancel(client.connection, watch_id)
        self.world.read(client)
        watcher = client.watchers.pop(watch_id)
        assert watcher.ended
        assert watcher.error is None
        assert isinstance(watcher, Watcher)
        self.away.append(watcher)

    # The judges.

    def come_to_rest(self) -> None:
        """When everybody reads and acknowledges, everybody is up to date in the end."""
        self.world.settle_completely()
        self.world.tick(5_500)
        self.world.settle_completely()
        self.judge()
        for present in self.watchers:
            if present not in self.away:
                present.held.append((10**9, present.policies))  # nothing is later: it has to be what holds
        self.judge()
        for client in self.world.clients:
            for watcher in client.watchers.values():
                assert watcher.revision == self.world.hub.revision, "a watch never caught up"
                assert client.connection.watches[watcher.watch_id].live

    def judge_credit(self) -> None:
        for client in self.world.clients:
            for watch_id, watch in client.connection.watches.items():
                watcher = client.watchers[watch_id]
                assert isinstance(watcher, Watcher)
                assert len(watch.unacked) <= watcher.credit_max, "more than its credit stands unacknowledged"

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
            broken += self._broke_policies(watcher)
            for start in watcher.streams:
                broken += guarantees.broke_watch_resumable(seen[:start], seen[start:])
            assert not broken, "\n".join(broken)
            assert watcher.error is None, watcher.error

    def _broke_policies(self, watcher: Watcher) -> list[str]:
        """At each revision that a watch shows it holds the policies of that revision, or of a later one."""
        broken: list[str] = []
        for revision, held in watcher.held:
            for service in [watcher.service] if watcher.service else [*SERVICES, "mail", "nobody"]:
                shown = held.get(service) or held.get("")
                policy = TrafficPolicy()
                if shown is not None:
                    policy.CopyFrom(shown.policy)
                    policy.namespace = policy.service = ""
                then = self._truth(revision)[service]
                later = [truth[service] for at, truth in self.truths.items() if at > revision]
                if policy != then and policy not in later:
                    broken.append(f"at {revision} {service} is called by {policy}, not by {then}")
        return broken

    def _truth(self, revision: int) -> dict[str, TrafficPolicy]:
        at = max((one for one in self.truths if one <= revision), default=None)
        return self.truths[at] if at else dict.fromkeys([*SERVICES, "mail", "nobody"], TrafficPolicy())
