"""What operators ask, put together from the parts that know."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from trunkline.api import convert
from trunkline.api.v1 import admin_pb2
from trunkline.core.clock import Clock
from trunkline.server.discovery.discovery import Discovery
from trunkline.server.journal.control.node import Control
from trunkline.server.registry.registry import Registry

from .about import About


class Alarm(Protocol):
    """Something that an operator should know; it stands until its cause is gone."""

    @property
    def name(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def since_ns(self) -> int: ...


class AlarmSource(Protocol):
    """A part that may have alarms."""

    def alarms(self) -> list[Any]:
        """Alarms that stand now."""


@dataclass(frozen=True, slots=True)
class Operations:
    """Status and alarms of one control plane."""

    control: Control
    registry: Registry
    discovery: Discovery
    alarm_sources: tuple[AlarmSource, ...]
    about: About
    clock: Clock

    def status(self) -> admin_pb2.StatusResponse:
        """How it is, now."""
        counts = self.discovery.watches.hub.counts
        registry = self.registry.metrics()
        sequencer = self.control.sequencer
        return admin_pb2.StatusResponse(
            header=self.discovery.headers.message(),
            version=self.about.version,
            node_id=f"{self.control.engine.node_id:016x}",
            epoch=sequencer.epoch,
            uptime=convert.ms_to((self.clock.now_ns() - self.about.started_ns) // 1_000_000),
            transport=self.about.transport,
            data_folder=self.about.data_folder,
            instances=registry["instances"],
            leases=registry["leases_live"],
            watches=counts.watches,
            watch_connections=counts.connections,
            alarms=map(_alarm_to, self.alarms()),
            staleness_max=convert.ms_to(counts.staleness_ns_max // 1_000_000),
        )

    def alarms(self) -> Iterator[Alarm]:
        """Every alarm that stands."""
        if self.control.sequencer.failed.is_set():
            yield _Disk("CONTROL_STREAM_FAILED", "", "trunkline.control", str(self.control.log.failed), 0)
        for source in self.alarm_sources:
            yield from source.alarms()


@dataclass(frozen=True, slots=True)
class _Disk:
    name: str
    namespace: str
    subject: str
    message: str
    since_ns: int


def _alarm_to(alarm: Alarm) -> admin_pb2.Alarm:
    return admin_pb2.Alarm(
        name=alarm.name,
        namespace=alarm.namespace,
        subject=alarm.subject,
        message=alarm.message,
        since=convert.time_ns_to(alarm.since_ns) if alarm.since_ns else None,
    )
