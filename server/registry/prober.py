"""Probes instances that ask for it, and writes what changes. The server asks; the answer to 'is it well' is a record."""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Mapping
from typing import Protocol

from trunkline.core.clock import Clock, Rng
from trunkline.core.errors import TrunklineError
from trunkline.core.model import Endpoint, RegisteredInstance
from trunkline.core.registered import Entry

from .changes import RegistryStep
from .decisions import Target
from .entity import InstanceKey
from .grpc_probe import GrpcProbe
from .probe_config import ProberConfig
from .probe_state import Doubt, ProbeState
from .registry import Alarm, Registry

log = logging.getLogger(__name__)

RETRY_S = 1.0
"""Pause after verdicts could not be written."""


class Probe(Protocol):
    """Asks one endpoint."""

    async def check(self, endpoint: Endpoint, service: str, *, timeout_ms: int) -> str | None:
        """None if it serves, else what is wrong with it."""

    async def close(self) -> None: ...


class _Probed:
    """A target on the schedule. Replaced as a whole when what is probed changes."""

    __slots__ = ("endpoint", "key", "lease_id", "state")

    def __init__(self, key: InstanceKey, entry: Entry) -> None:
        instance = entry.registered.instance
        check = instance.health_check
        assert check is not None
        self.key = key
        self.lease_id = entry.lease.id
        self.endpoint = instance.endpoints[min(check.endpoint_index, len(instance.endpoints) - 1)]
        self.state = ProbeState(check, failed=entry.probe_failure is not None)


class Prober:
    """Probes the instances whose leases this node keeps. Nothing happens until `run`."""

    def __init__(
        self, registry: Registry, clock: Clock, rng: Rng, config: ProberConfig, *, probe: Probe | None = None
    ) -> None:
        self.config = config
        self.doubt = Doubt(config)
        self._registry = registry
        self._clock = clock
        self._rng = rng
        self._probe = probe or GrpcProbe(config)
        self._targets: dict[InstanceKey, _Probed] = {}
        self._schedule: list[tuple[int, int, _Probed]] = []  # heap; what `_targets` does not confirm is void
        self._scheduled = 0
        self._changed = asyncio.Event()
        self._due: asyncio.Queue[_Probed] = asyncio.Queue(maxsize=config.concurrent_max)
        self._verdicts: dict[InstanceKey, tuple[_Probed, str | None]] = {}
        self._undecided = asyncio.Event()
        self._counts = {"probes": 0, "probes_failed": 0, "verdicts_withheld": 0}

    async def run(self) -> None:
        """Probe until cancelled."""
        if not self.config.enabled:
            return
        self._registry.on_step(self._follow)
        for entry in self._registry.fold.entries():
            if _is_probed(entry.registered):
                self._consider(InstanceKey.of(entry.registered.instance))
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._dispatch_forever(), name="probe schedule")
                tasks.create_task(self._write_forever(), name="probe verdicts")
                for number in range(self.config.concurrent_max):
                    tasks.create_task(self._probe_forever(), name=f"probe {number}")
        finally:
            await self._probe.close()

    def alarms(self) -> list[Alarm]:
        """That the prober is doubted."""
        since_ns = self.doubt.since_ns
        if since_ns is None:
            return []
        message = (
            f"{self.doubt.failing} of {self.doubt.targets} probes fail and began to within "
            f"{self.config.doubt_window_ms // 1_000} s: the last verdicts stand"
        )
        began_ns = self._clock.time_ns() - (self._clock.now_ns() - since_ns)
        return [Alarm("PROBER_DOUBTED", "", "grpc", message, began_ns)]

    def metrics(self) -> Mapping[str, int]:
        """Counters and gauges by name, without the prefix `trunkline_prober_`."""
        return {
            **{f"{name}_total": count for name, count in self._counts.items()},
            "targets": len(self._targets),
            "failing": self.doubt.failing,
            "doubted": int(self.doubt.since_ns is not None),
        }

    # What is to be probed.

    def _follow(self, step: RegistryStep) -> None:
        for change in step.changes:
            if _is_probed(change.before) or _is_probed(change.after):
                self._consider(InstanceKey(change.namespace, change.service, change.instance_id))

    def _consider(self, key: InstanceKey) -> None:
        """Bring what is known of an instance in line with the fold."""
        entry = self._registry.fold.get(key.text)
        wanted = None if entry is None or not self._is_ours(entry) else _Probed(key, entry)
        there = self._targets.get(key)
        if wanted is None:
            if there is not None:
                self._drop(key)
            return
        if there is not None and _alike(there, wanted):
            if there.state.failed is not wanted.state.failed:
                there.state.settle(failed=wanted.state.failed)
            return
        self._drop(key)
        self._targets[key] = wanted
        self.doubt.targets = len(self._targets)
        # Anywhere in its first interval, so that a start does not probe everybody at once.
        self._put(wanted, self._rng.below(wanted.state.check.interval_ms * 1_000_000))

    def _is_ours(self, entry: Entry) -> bool:
        # A lapsed instance is behind every live one already; it is probed again when it is heard of.
        return _is_probed(entry.registered) and not entry.lease.lapsed and self._registry.keeper.is_mine(entry.lease)

    def _drop(self, key: InstanceKey) -> None:
        self._targets.pop(key, None)
        self._verdicts.pop(key, None)
        self.doubt.targets = len(self._targets)
        self.doubt.forget(key, now_ns=self._clock.now_ns())

    def _put(self, probed: _Probed, in_ns: int) -> None:
        self._scheduled += 1
        heapq.heappush(self._schedule, (self._clock.now_ns() + in_ns, self._scheduled, probed))
        if self._schedule[0][2] is probed:
            self._changed.set()

    async def _dispatch_forever(self) -> None:
        while True:
            self._changed.clear()
            if not self._schedule:
                await self._changed.wait()
                continue
            wait_ns = self._schedule[0][0] - self._clock.now_ns()
            if wait_ns > 0:
                try:
                    async with asyncio.timeout(-(-wait_ns // 1_000_000) / 1_000):  # whole milliseconds, not too early
                        await self._changed.wait()
                except TimeoutError:
                    pass
                continue
            probed = heapq.heappop(self._schedule)[2]
            if self._targets.get(probed.key) is probed:
                await self._due.put(probed)  # waits while every prober is busy: probes are late, not piled up

    # Probing.

    async def _probe_forever(self) -> None:
        while True:
            probed = await self._due.get()
            if self._targets.get(probed.key) is not probed:
                continue
            check = probed.state.check
            stalled_ns = self._registry.keeper.stalled_ns
            failure = await self._probe.check(probed.endpoint, check.service, timeout_ms=check.timeout_ms)
            if self._targets.get(probed.key) is not probed:
                continue
            self._put(probed, self._interval_ns(check.interval_ms))
            if stalled_ns == self._registry.keeper.stalled_ns:  # else it was us who did not listen
                self._take(probed, failure)

    def _interval_ns(self, interval_ms: int) -> int:
        interval_ns = interval_ms * 1_000_000
        jitter_ns = interval_ns * self.config.interval_jitter_percent // 100
        return interval_ns - jitter_ns + self._rng.below(2 * jitter_ns + 1)

    def _take(self, probed: _Probed, failure: str | None) -> None:
        """What a probe said."""
        passed = failure is None
        self._counts["probes"] += 1
        self._counts["probes_failed"] += not passed
        doubted = self.doubt.since_ns is not None
        self.doubt.add(probed.key, passed=passed, now_ns=self._clock.now_ns())
        if self.doubt.since_ns is not None and not doubted:
            log.warning("prober doubted", extra={"failing": self.doubt.failing, "targets": self.doubt.targets})
        if not probed.state.add(passed=passed):
            self._verdicts.pop(probed.key, None)
        elif not passed and self.doubt.since_ns is not None:
            self._counts["verdicts_withheld"] += 1
        else:
            self._verdicts[probed.key] = (probed, failure)
            self._undecided.set()

    # Writing.

    async def _write_forever(self) -> None:
        while True:
            await self._undecided.wait()
            self._undecided.clear()
            try:
                while self._verdicts:
                    await self._write()
            except TrunklineError as error:
                log.warning("verdicts not written", extra={"reason": error.code, "error": error.message})
                await asyncio.sleep(RETRY_S)
                self._undecided.set()

    async def _write(self) -> None:
        batch = list(self._verdicts.items())[: self.config.batch_max]
        await self._registry.record_verdicts(
            [(Target(key, probed.lease_id), failure) for key, (probed, failure) in batch]
        )
        for key, verdict in batch:
            if self._verdicts.get(key) is verdict:
                del self._verdicts[key]


def _is_probed(registered: RegisteredInstance | None) -> bool:
    return registered is not None and registered.instance.health_check is not None


def _alike(there: _Probed, wanted: _Probed) -> bool:
    return (there.lease_id, there.endpoint, there.state.check) == (
        wanted.lease_id,
        wanted.endpoint,
        wanted.state.check,
    )
