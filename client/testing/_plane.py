"""A control plane in this process, for users' tests: no sockets, no disk, time that the test moves."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import grpc
import grpc.aio

from trunkline.api.v1 import (
    admin_pb2_grpc,
    common_pb2,
    discovery_pb2_grpc,
    events_pb2_grpc,
    registry_pb2_grpc,
    releases_pb2_grpc,
    schedules_pb2_grpc,
    traffic_pb2_grpc,
)
from trunkline.api.v1.discovery_pb2 import CallOutcomes
from trunkline.api.v1.policy_pb2 import TrafficPolicy
from trunkline.core.clock import Clock, ManualClock, Rng
from trunkline.core.errors import InstanceNotFound, TrunklineError

from .._connection import Trunkline
from .._edge import Edge, dial_instance
from .._options import ClientOptions
from .._policies import policy_of
from .._portal import Portal
from .._view_cache import Store, ViewCache
from ..sync import SyncTrunkline
from ._event_service import EventServicer
from ._memory_channel import HandlerTable, MemoryChannel
from ._policies import MemoryPolicies
from ._registry import EXPIRED, MemoryRegistry
from ._registry_service import DiscoveryServicer, RegistryServicer
from ._streams import MemoryStream
from ._traffic_service import TrafficServicer

MEMORY_TARGET = "memory:1"


Given = ParamSpec("Given")
Answer = TypeVar("Answer")


def _on_its_loop(
    method: Callable[Concatenate[FakeControlPlane, Given], Answer],
) -> Callable[Concatenate[FakeControlPlane, Given], Answer]:
    """Run it where the control plane runs: on the blocking connections' loop, when there is one."""

    @wraps(method)
    def hop(plane: FakeControlPlane, /, *args: Given.args, **kwargs: Given.kwargs) -> Answer:
        if plane.portal.is_elsewhere:
            return plane.portal.run(method, plane, *args, **kwargs)
        return method(plane, *args, **kwargs)

    return hop


class MemoryAddresses:
    """Everything is on loopback."""

    async def local_address(self) -> str:
        return "127.0.0.1"

    async def control_is_loopback(self) -> bool:
        return True


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """Nothing of it is played here: every method is UNIMPLEMENTED."""


class ScheduleServicer(schedules_pb2_grpc.ScheduleServiceServicer):
    """Nor of this."""


class ReleaseServicer(releases_pb2_grpc.ReleaseServiceServicer):
    """Nor of this."""


class FakeControlPlane:
    """Answers as Trunkline does: registry, discovery, policies and events, with the same errors, in memory.

    Its clock stands still until `advance`: leases, acknowledgement deadlines and delays go by it. Connections to it
    come from `connect()`, which gives the SDK itself, so what works here is what will run; `add_to` serves it on a real
    grpc.aio server.
    """

    def __init__(self, *, seed: int = 1) -> None:
        self._clock = ManualClock(epoch_ns=1_700_000_000_000_000_000)
        self._rng = Rng(seed)
        self._registry = MemoryRegistry()
        # What is not played here stays as generated, which answers UNIMPLEMENTED; the stubs call that abstract.
        self._registrations = RegistryServicer(self._registry, self._clock, self._header)  # type: ignore[abstract]
        policies = MemoryPolicies()
        self._discovery = DiscoveryServicer(self._registry, policies, self._registrations, self._header)  # type: ignore[abstract]
        self._traffic = TrafficServicer(self._registry, policies, self._clock, self._header)  # type: ignore[abstract]
        self._events = EventServicer(self._clock, self._header)  # type: ignore[abstract]
        self._reachable = True
        self.portal = Portal()
        """The loop of all its blocking connections."""
        self._channels: weakref.WeakSet[MemoryChannel] = weakref.WeakSet()
        table = HandlerTable()
        self.add_to(table)
        self._handlers = table.handlers

    def add_to(self, server: Any) -> None:
        """Serve it on a grpc.aio.Server."""
        registry_pb2_grpc.add_RegistryServiceServicer_to_server(self._registrations, server)
        discovery_pb2_grpc.add_DiscoveryServiceServicer_to_server(self._discovery, server)
        events_pb2_grpc.add_EventServiceServicer_to_server(self._events, server)
        traffic_pb2_grpc.add_TrafficServiceServicer_to_server(self._traffic, server)
        schedules_pb2_grpc.add_ScheduleServiceServicer_to_server(ScheduleServicer(), server)  # type: ignore[abstract]
        releases_pb2_grpc.add_ReleaseServiceServicer_to_server(ReleaseServicer(), server)  # type: ignore[abstract]
        admin_pb2_grpc.add_AdminServiceServicer_to_server(AdminServicer(), server)  # type: ignore[abstract]

    def connect(
        self, *, namespace: str = "default", name: str = "test", options: ClientOptions | None = None,
        cache: Store | None = None, clock: Clock | None = None,
        dial_instance: Callable[[str, grpc.ChannelCredentials | None], grpc.aio.Channel] = dial_instance,
    ) -> Trunkline:  # fmt: skip
        """A connection to it; use it with `async with`.

        `cache` keeps views, `dial_instance` replaces the way to instances.
        """
        chosen = options or ClientOptions()
        edge = self.edge(clock=clock, dial_instance=dial_instance)
        interval_s = chosen.cache_interval_s
        views = ViewCache(cache, edge.clock, target=MEMORY_TARGET, interval_s=interval_s) if cache else None
        return Trunkline(edge, chosen, namespace=namespace, name=name, cache=views, target=MEMORY_TARGET)

    def edge(
        self, *, clock: Clock | None = None,
        dial_instance: Callable[[str, grpc.ChannelCredentials | None], grpc.aio.Channel] = dial_instance,
    ) -> Edge:  # fmt: skip
        """What a connection to it stands on."""
        return Edge(
            clock=clock or self._clock,
            rng=Rng(self._rng.u64()),
            entropy=self._rng.bytes,
            dial_control=self._dial,
            dial_instance=dial_instance,
            addresses=MemoryAddresses(),
        )

    def connect_sync(
        self, *, namespace: str = "default", name: str = "test", options: ClientOptions | None = None,
        cache: Store | None = None,
    ) -> SyncTrunkline:  # fmt: skip
        """The same for programs with threads; use it with `with`. One test uses either this or `connect`."""
        connection = self.connect(namespace=namespace, name=name, options=options, cache=cache)
        return SyncTrunkline(self.portal, connection)

    # Time and trouble.

    @_on_its_loop
    def advance(self, seconds: float) -> None:
        """Let time pass.

        Leases on open keep-alive streams count as renewed in it; others lapse when their TTL is over.
        """
        self._clock.advance(int(seconds * 1e9))
        for lease_id, streams in self._registrations.kept.items():
            if streams and lease_id in self._registry.leases:
                self._registry.renew(lease_id, now_ns=self._clock.now_ns())
        for lease_id in self._registry.expired(self._clock.now_ns()):
            self._registry.lapse(lease_id)
        self._events.look_at_clock()

    @_on_its_loop
    def go_away(self) -> None:
        """Break every connection and refuse new ones, until `come_back`."""
        self._reachable = False
        for channel in list(self._channels):
            channel.break_off()

    @_on_its_loop
    def come_back(self) -> None:
        """Accept connections again; nothing was forgotten."""
        self._reachable = True

    @_on_its_loop
    def end_lease(self, service: str, instance_id: str, *, namespace: str = "default", reason: int = EXPIRED) -> None:
        """The instance goes as if its lease had lapsed (or for another LostLease.Reason).

        InstanceNotFound without it.
        """
        if not self._registry.remove((namespace, service, instance_id), reason):
            raise InstanceNotFound(f"no instance {instance_id} of {service}")

    @_on_its_loop
    def set_policy(self, policy: TrafficPolicy | str, *, namespace: str = "default") -> int:
        """Keep a policy, a message or the YAML of one, whatever there was; returns its revision. InvalidArgument."""
        wanted = policy_of(policy, namespace)
        self._traffic.change((wanted.namespace, wanted.service), wanted)
        return self._registry.revision

    @_on_its_loop
    def compact_history(self) -> None:
        """Forget how the registry came to be: watches that resume start over from a snapshot."""
        self._registry.compact()

    @_on_its_loop
    def refuse_next_publish(self, error: TrunklineError) -> None:
        """Once."""
        self._events.refuse = error

    # A look inside.

    @_on_its_loop
    def instance_ids(self, service: str, *, namespace: str = "default") -> list[str]:
        """Who is registered."""
        return sorted(key[2] for key in self._registry.held if key[:2] == (namespace, service))

    @property
    def outcomes(self) -> list[CallOutcomes]:
        """What callers have said became of their calls, in order."""
        return [outcome for report in self._discovery.reports for outcome in report.outcomes]

    @_on_its_loop
    def create_stream(self, name: str, *, namespace: str = "default") -> MemoryStream:
        """Make a stream, or give the one that is there; `events` is there from the beginning."""
        return self._events.streams.setdefault((namespace, name), MemoryStream())

    def stream(self, name: str = "events", *, namespace: str = "default") -> MemoryStream:
        """A stream and its records. StreamNotFound for one that was not made."""
        return self._events.stream(namespace, name)

    @property
    def revision(self) -> int:
        """Of the last change."""
        return self._registry.revision

    def _dial(self) -> MemoryChannel:
        channel = MemoryChannel(self._handlers, lambda: self._reachable)
        self._channels.add(channel)
        return channel

    def _header(self) -> common_pb2.ResponseHeader:
        return common_pb2.ResponseHeader(journal_id="memory", incarnation=1, revision=self._registry.revision)


class FakeTrunkline(Trunkline):
    """A connection with a control plane of its own: `async with FakeTrunkline() as trunkline`, then
    `trunkline.plane`."""

    def __init__(self, *, namespace: str = "default", options: ClientOptions | None = None) -> None:
        self.plane = FakeControlPlane()
        """Moves time, makes trouble, and looks inside."""
        super().__init__(
            self.plane.edge(), options or ClientOptions(), namespace=namespace, name="test", target=MEMORY_TARGET
        )
