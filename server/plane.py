"""One control plane: folds, journal, registry, discovery, events and security, wired together.

Everything of the machine comes in as an argument (engine with its disk, clock, chance, entropy, the registrar that the
servicers are registered with), so that the simulator runs exactly this.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from trunkline.api.v1 import (
    admin_pb2_grpc,
    discovery_pb2_grpc,
    events_pb2_grpc,
    registry_pb2_grpc,
    releases_pb2_grpc,
    schedules_pb2_grpc,
    traffic_pb2_grpc,
)
from trunkline.core.clock import Clock, Rng

from .admin.about import About
from .admin.operations import Operations
from .admin.service import AdminService
from .chain.chain import Chain, Registrar
from .chain.config import ChainConfig
from .chain.gate import House
from .chain.metrics import ChainMetrics
from .chain.readiness import Readiness
from .discovery.discovery import Discovery, DiscoveryConfig
from .discovery.explain import Explain
from .discovery.history import History, HistoryConfig
from .discovery.service import DiscoveryService
from .events.bounds import DEFAULT, LookAhead
from .events.bus import BusConfig, EventBus
from .events.changes import Changes
from .events.fold import EventsFold
from .events.publishing import Publishing
from .events.service import EventService
from .events.streams import Promise
from .events.tasks import Tasks
from .events.webhook_settings import WebhooksConfig
from .events.webhooks import ClosableSender
from .journal.control.fold import Fold, Folds
from .journal.control.node import Control, ControlConfig
from .journal.control.sequencer import Group, Origin
from .journal.engine import Engine
from .metrics import PlaneMetrics
from .registry.config import RegistryConfig
from .registry.fold import RegistryFold
from .registry.probe_config import ProberConfig
from .registry.prober import Probe, Prober
from .registry.registry import Registry
from .registry.service import RegistryService
from .schedules.config import SchedulesConfig
from .schedules.fold import SchedulesFold
from .schedules.schedules import Schedules
from .schedules.service import ScheduleService
from .security.authenticate import Authenticator
from .security.config import SecurityConfig
from .security.tokens import Tokens
from .security.tokens_fold import TokensFold
from .traffic.calls import Calls
from .traffic.config import TrafficConfig
from .traffic.fold import PoliciesFold
from .traffic.release_config import ReleasesConfig
from .traffic.release_fold import ReleasesFold
from .traffic.release_service import ReleaseService
from .traffic.releases import Releases
from .traffic.service import TrafficService
from .traffic.traffic import Traffic
from .transport.sink import SinkConfig

log = logging.getLogger(__name__)

AUTHOR = Origin(author="trunkline")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaneConfig:
    """Every part's configuration."""

    control: ControlConfig = field(default_factory=ControlConfig)
    registry: RegistryConfig = field(default_factory=RegistryConfig)
    prober: ProberConfig = field(default_factory=ProberConfig)
    discovery: DiscoveryConfig = field(default_factory=DiscoveryConfig)
    history: HistoryConfig = field(default_factory=HistoryConfig)
    events: BusConfig = field(default_factory=BusConfig)
    schedules: SchedulesConfig = field(default_factory=SchedulesConfig)
    traffic: TrafficConfig = field(default_factory=TrafficConfig)
    releases: ReleasesConfig = field(default_factory=ReleasesConfig)
    chain: ChainConfig = field(default_factory=ChainConfig)
    security: SecurityConfig = field(default_factory=SecurityConfig)
    sink: SinkConfig = field(default_factory=SinkConfig)


class ControlPlane:
    """`open` rebuilds the state, `register` makes the servicers known, `run` keeps it going, `close` leaves it tidy."""

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        rng: Rng,
        *,
        entropy: Callable[[int], bytes],
        config: PlaneConfig,
        about: About,
        loopback_is_open: bool,
        promise: Promise,
        probe: Probe | None = None,
        sender: Callable[[WebhooksConfig], ClosableSender] | None = None,
        look_ahead: LookAhead = DEFAULT,
    ) -> None:
        """`probe`, `sender` and `look_ahead` are handed in by a simulation alone: see Prober and EventBus."""
        self.engine = engine
        self.config = config
        self.readiness = Readiness()
        self.metrics = CollectorRegistry()
        self._clock = clock
        self._rng = rng
        self._entropy = entropy
        self._about = about
        self._loopback_is_open = loopback_is_open
        self._promise = promise
        self._probe = probe
        self._sender = sender
        self._look_ahead = look_ahead
        self._registry_fold = RegistryFold(config.registry.tombstones)
        self._events_fold = EventsFold()
        self._tokens_fold = TokensFold()
        self._schedules_fold = SchedulesFold()
        self._policies_fold = PoliciesFold()
        self._releases_fold = ReleasesFold()
        self.control = Control(
            engine,
            Folds(self._folds()),
            clock,
            config.control,
            program_version=about.version,
            sync=promise.sync,
        )
        self._chain: Chain | None = None
        self._house: House | None = None
        self._reached = asyncio.Event()

    def _folds(self) -> list[Fold]:
        """All of them."""
        return [
            self._registry_fold,
            self._events_fold,
            self._tokens_fold,
            self._schedules_fold,
            self._policies_fold,
            self._releases_fold,
        ]

    async def open(self) -> None:
        """Rebuild the folds from the journal and make everything that stands on them."""
        await self.control.open()
        config, clock, rng = self.config, self._clock, self._rng
        sequencer = self.control.sequencer
        self.registry = Registry(
            self._registry_fold, sequencer, clock, rng, node_id=self.engine.node_id, config=config.registry
        )
        self._make_traffic()
        self.history = History(self.engine, self.control.log, clock, config.history)
        self.prober = Prober(self.registry, clock, rng, config.prober, probe=self._probe)
        self._make_events()
        self.schedules = Schedules(self._schedules_fold, self.events.streams, sequencer, clock, config.schedules)
        self.tokens = Tokens(sequencer, self._tokens_fold, clock, self._entropy)
        self.operations = Operations(
            self.control,
            self.registry,
            self.discovery,
            (self.registry, self.prober, self.events, self.schedules, self.releases),
            self._about,
            clock,
        )
        self.registry.watchers = self.discovery.watches
        self.registry.on_step(self.discovery.apply)
        self.registry.on_step(self.changes.on_step)
        sequencer.on_group(self._on_group)
        self.registry.begin()
        self.discovery.begin(sequencer.revision)

    def _make_traffic(self) -> None:
        """Policies, who is found and called by them, and the releases that change them."""
        sequencer, clock, config = self.control.sequencer, self._clock, self.config
        self.traffic = Traffic(
            self._policies_fold,
            self._registry_fold,
            sequencer,
            self.control.log,
            config.traffic,
            shares=self._releases_fold,
        )
        self.discovery = Discovery(
            self._registry_fold,
            journal_id=self.engine.journal_id,
            incarnation=self.control.log.incarnation,
            clock=clock,
            rng=self._rng,
            config=config.discovery,
            policies=self.traffic.policies,
        )
        self.releases = Releases(
            self._releases_fold,
            self._registry_fold.instances,
            self.discovery.outcomes,
            sequencer,
            clock,
            config.releases,
        )

    def _make_events(self) -> None:
        """The event bus, and the stream of what happens in control."""
        background = Tasks()
        self.changes = Changes(
            self.control.log,
            self.history,
            background,
            journal_id=self.engine.journal_id,
            revision=self.control.sequencer.revision,
        )
        self.events = EventBus(
            self.engine,
            self._events_fold,
            self.control.sequencer,
            self._clock,
            self._rng,
            self.config.events,
            background,
            promise=self._promise,
            changes=self.changes,
            sender=self._sender,
            look_ahead=self._look_ahead,
        )

    def register(self, registrar: Registrar) -> list[str]:
        """Register every servicer behind the chain; returns the services' names."""
        authenticator = Authenticator(
            self.config.security, self._tokens_fold, self._clock, loopback_is_open=self._loopback_is_open
        )
        house = self._house = House(
            authenticator=authenticator, readiness=self.readiness, clock=self._clock, config=self.config.chain
        )
        metrics = ChainMetrics()
        self.metrics.register(metrics)
        self.metrics.register(PlaneMetrics(self))
        chain = self._chain = Chain(registrar, house, metrics)
        server = chain.server
        header, sink = self.discovery.headers.message, self.config.sink
        events = EventService(self.events, self.publishing(), header, sink, namespaces=self._registry_fold.namespaces)
        registry_pb2_grpc.add_RegistryServiceServicer_to_server(
            RegistryService(self.registry, self.discovery.headers), server
        )
        discovery_pb2_grpc.add_DiscoveryServiceServicer_to_server(DiscoveryService(self.discovery, sink), server)
        events_pb2_grpc.add_EventServiceServicer_to_server(events, server)
        schedules_pb2_grpc.add_ScheduleServiceServicer_to_server(ScheduleService(self.schedules, header), server)
        calls = Calls(self.discovery.outcomes, self.discovery.caller_states, self._clock)
        explain = Explain(self._registry_fold, self.traffic.policies, self._clock, header)
        traffic = TrafficService(self.traffic, calls, explain, header)
        traffic_pb2_grpc.add_TrafficServiceServicer_to_server(traffic, server)
        releases_pb2_grpc.add_ReleaseServiceServicer_to_server(ReleaseService(self.releases, header), server)
        admin_pb2_grpc.add_AdminServiceServicer_to_server(
            AdminService(self.operations, self.tokens, self.history), server
        )
        return chain.services

    @property
    def chain(self) -> Chain:
        """What every servicer is registered with, once `register` was called; for services that are not ours too."""
        assert self._chain is not None, "nothing is registered yet"
        return self._chain

    @property
    def house(self) -> House:
        """What calls are let in by, once `register` was called; for other ways in than gRPC."""
        assert self._house is not None, "nothing is registered yet"
        return self._house

    def publishing(self) -> Publishing:
        """The way that every published event takes, wherever it comes from."""
        return Publishing(self.events.streams, self.discovery.headers.encoded)

    async def run(self) -> None:
        """Keep everything going until cancelled; `reached` tells when calls are answered."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.control.run(), name="control")
            await self.control.ready.wait()
            await self.events.start(AUTHOR)
            self.schedules.start()
            tasks.create_task(self.events.run(), name="events")
            tasks.create_task(self.schedules.run(), name="schedules")
            tasks.create_task(self.releases.run(), name="releases")
            tasks.create_task(self.registry.run(), name="registry")
            tasks.create_task(self.discovery.watches.run(), name="watches")
            tasks.create_task(self.discovery.pickers.work.run(), name="pickers")
            tasks.create_task(self.prober.run(), name="prober")
            self.readiness.open()
            self._reached.set()
            sequencer = self.control.sequencer
            log.info("ready", extra={"revision": sequencer.revision, "epoch": sequencer.epoch})

    def _on_group(self, group: Group) -> None:
        self.events.on_records(group.applied)
        self.schedules.on_records(group.applied)
        self.releases.on_records(group.applied)
        self.traffic.on_records(group.applied)  # before discovery tells of the group
        self.changes.on_group(group)

    async def reached(self) -> None:
        """Return when calls are answered."""
        await self._reached.wait()

    def refuse(self, why: str) -> None:
        """Answer no more calls, and end the streams, so that clients go elsewhere or come back later."""
        self.readiness.close(why)
        if self._chain is not None:
            self._chain.end_streams(why)

    async def close(self) -> None:
        """After `run` was cancelled: checkpoints, a last snapshot, and the clean mark."""
        if self._reached.is_set():
            await self.events.stop()
        await self.control.close()
        await self.engine.close()
