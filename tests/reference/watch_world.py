"""A registry and a hub with clients that watch it, in one process and without a clock of its own."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

from guarantees import Truth

from reference.registry_facts import Journal
from reference.watch import MemorySink, ModelWatcher
from trunkline.core.clock import Clock, ManualClock, Rng
from trunkline.core.records import Record
from trunkline.core.selector import Selector
from trunkline.server.discovery.applied import AppliedResult
from trunkline.server.discovery.tokens import TokenMaker
from trunkline.server.discovery.watch import WatchConnection
from trunkline.server.discovery.watch_config import WatchConfig
from trunkline.server.discovery.watch_hub import WatchHub, WatchOrder
from trunkline.server.discovery.watch_loop import WatchLoop
from trunkline.server.discovery.wire import EncodedInstances
from trunkline.server.registry.changes import RegistryStep
from trunkline.server.registry.fold import RegistryFold, TombstoneConfig
from trunkline.server.traffic.effective import EffectivePolicies, Shares
from trunkline.server.traffic.fold import PoliciesFold

JOURNAL_ID = "0123456789abcdef" * 2


@dataclass(eq=False)
class Client:
    """A connection and the watchers on it."""

    sink: MemorySink
    connection: WatchConnection
    watchers: dict[int, ModelWatcher] = field(default_factory=dict)


class World:
    """The shipped fold and hub; only the sinks and the clock are the tests' own."""

    def __init__(
        self,
        *,
        config: WatchConfig | None = None,
        tombstones: TombstoneConfig | None = None,
        incarnation: int = 1,
        clock: Clock | None = None,
        policies_gone_max: int = 1_000,
        shares: Shares | None = None,
    ) -> None:
        self.config = config or WatchConfig()
        self.journal = Journal()
        self.fold = RegistryFold(tombstones, collecting=True)
        self._gone_max = policies_gone_max
        self._shares = shares
        self.policies = EffectivePolicies(PoliciesFold(gone_max=policies_gone_max), shares)
        self.clock = ManualClock()
        self.tokens = TokenMaker(JOURNAL_ID, incarnation)
        self.loop = self._loop(clock or self.clock)
        self.clients: list[Client] = []
        self._views: dict[int, dict[tuple[str, str, str], object]] = {0: {}}

    def _loop(self, clock: Clock) -> WatchLoop:
        return WatchLoop(
            self.fold, self.tokens, clock=clock, rng=Rng(7), encoded=EncodedInstances(), config=self.config,
            policies=self.policies,
        )  # fmt: skip

    @property
    def hub(self) -> WatchHub:
        return self.loop.hub

    @property
    def wait_applied(self) -> Callable[[str, str, str | None, int, int], Coroutine[None, None, AppliedResult]]:
        return self.loop.wait_applied

    def restart(self) -> None:
        """The process ends and another begins from the same journal; every stream is lost."""
        loaded = RegistryFold(self.fold.config, collecting=True)
        loaded.load(self.fold.version, list(self.fold.dump()))
        self.fold = loaded
        policies = PoliciesFold(gone_max=self._gone_max)
        policies.load(policies.version, list(self.policies.fold.dump()))
        self.policies = EffectivePolicies(policies, self._shares)
        self.clients.clear()
        revision = self.hub.revision
        self.loop = self._loop(self.clock)
        self.hub.begin(revision)

    def step(self, *records: Record, skipped: int = 0) -> int:
        """Fold a group of records in one step and tell the hub; returns the revision."""
        for record in records:
            fold = self.policies.fold if record.topic.startswith("policy.") else self.fold
            fold.apply(record)
        self.policies.on_records(records)
        changes, self.fold.changes = tuple(self.fold.changes), []
        self.fold.lease_changes = []
        self.journal.offset += skipped
        revision = self.journal.offset - 1
        self._views[revision] = {
            (e.registered.instance.namespace, e.registered.instance.service, e.registered.instance.id): e.registered
            for e in self.fold.entries()
        }
        self.hub.apply(RegistryStep(revision=revision, time_ns=self.journal.time_ns, changes=changes, skipped=skipped))
        return revision

    def truth(self, namespace: str, service: str, selector: Selector) -> Truth:
        """What a watch of this scope should have shown at each revision, by looking at everything."""
        return Truth(
            {
                revision: {
                    (of_service, instance_id): registered.modified_revision  # type: ignore[attr-defined]
                    for (of_namespace, of_service, instance_id), registered in entries.items()
                    if of_namespace == namespace and service in ("", of_service) and selector.matches(registered)  # type: ignore[arg-type]
                }
                for revision, entries in self._views.items()
            }
        )

    def connect(self) -> Client:
        sink = MemorySink()
        client = Client(sink, self.hub.connect(sink, "a client"))
        self.clients.append(client)
        return client

    def disconnect(self, client: Client) -> None:
        self.clients.remove(client)
        self.hub.disconnect(client.connection)

    def open(
        self,
        client: Client,
        watcher: ModelWatcher,
        service: str = "orders",
        selector: Selector | None = None,
        *,
        namespace: str = "default",
        token: bytes = b"",
        credit: int = 0,
        name: str = "",
    ) -> ModelWatcher:
        watcher.reopened(resumed=bool(token))
        client.watchers[watcher.watch_id] = watcher
        self.hub.open(
            client.connection,
            WatchOrder(
                watch_id=watcher.watch_id,
                namespace=namespace,
                service=service,
                selector=selector or Selector(),
                resume_token=token,
                credit=credit,
                client=name,
            ),
        )
        return watcher

    def watch(self, service: str = "orders", selector: Selector | None = None, **options: object) -> ModelWatcher:
        """A client of its own with one watch, and everything read that there is to read."""
        watcher = ModelWatcher(1)
        self.open(self.connect(), watcher, service, selector, **options)  # type: ignore[arg-type]
        self.settle()
        return watcher

    def client_of(self, watcher: ModelWatcher) -> Client:
        return next(client for client in self.clients if watcher in client.watchers.values())

    def acknowledge(self, watcher: ModelWatcher, revision: int | None = None) -> None:
        """The client says what it has applied."""
        connection = self.client_of(watcher).connection
        self.hub.acknowledge(connection, watcher.watch_id, watcher.revision if revision is None else revision)

    def read(self, client: Client) -> None:
        """The client reads what its sink holds."""
        response = client.sink.take()
        if response.events:
            assert response.header.journal_id == JOURNAL_ID
        for event in response.events:
            client.watchers[event.watch_id].apply(event)

    def read_all(self) -> None:
        for client in self.clients:
            self.read(client)

    def settle(self) -> None:
        """Do all the work there is; everybody who can reads."""
        while self.hub.work():
            pass
        self.read_all()

    def settle_completely(self, *, rounds: int = 1_000) -> None:
        """Everybody reads and acknowledges until nothing more happens."""
        for _ in range(rounds):
            for client in self.clients:
                client.sink.drain()
            self.settle()
            said = False
            for client in self.clients:
                for watcher in client.watchers.values():
                    watch = client.connection.watches.get(watcher.watch_id)
                    if watch is not None and (watch.unacked or not watch.live):
                        said = True
                        self.acknowledge(watcher)
            if not said and not self.hub.work():
                return
        raise AssertionError("it never comes to rest")

    def tick(self, ms: int) -> None:
        """Let time go by."""
        for _ in range(ms // self.config.tick_ms):
            self.clock.advance(self.config.tick_ms * 1_000_000)
            self.hub.tick()
            while self.hub.work():
                pass
