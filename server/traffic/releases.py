"""Every release of this installation: started, steered, shown, and kept going."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trunkline.api.v1 import releases_pb2
from trunkline.core.clock import Clock
from trunkline.core.errors import LimitExceeded, ReleaseBaselineEmpty, ReleaseEnded, ReleaseNotFound, ReleaseRunning
from trunkline.core.records import Change, Record
from trunkline.server.events.streams import Writer
from trunkline.server.journal.control.fold import View
from trunkline.server.journal.control.sequencer import Origin

from .outcomes import Outcomes
from .release import Phase, ReleaseEntity, ReleaseSpec, release_key
from .release_config import ReleasesConfig
from .release_convert import asked, sample_to, spec_to, state_to
from .release_fold import RELEASE_ABORTED, RELEASE_PAUSED, RELEASE_RESUMED, RELEASE_STARTED, ReleasesFold
from .release_gate import Judgement
from .release_rules import Instances, check_steps, way_back, with_baseline
from .release_runner import AUTHOR, ReleaseRunner, release_change, step_change
from .release_watch import ReleaseWatches

SLICE_RELEASES = 50
"""Shown between two looks at the loop."""

ALARMS = {Phase.PAUSED: "RELEASE_PAUSED", Phase.ROLLED_BACK: "RELEASE_ROLLED_BACK"}

State = releases_pb2.ReleaseState
Action = releases_pb2.SteerReleaseRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseAlarm:
    """A release that an operator should look at."""

    name: str
    namespace: str
    subject: str
    message: str
    since_ns: int


class Releases:
    """`run` until cancelled; told of every group of control records by `on_records`."""

    def __init__(
        self,
        fold: ReleasesFold,
        instances: Callable[[str, str], Instances],
        outcomes: Outcomes,
        writer: Writer,
        clock: Clock,
        config: ReleasesConfig,
    ) -> None:
        """`instances`: all of a service, as the registry has them now."""
        self._fold = fold
        self._instances = instances
        self._writer = writer
        self._clock = clock
        self._config = config
        self._watches = ReleaseWatches(outcomes, clock)
        self._runner = ReleaseRunner(fold, self._watches, instances, writer, config)

    async def run(self) -> None:
        """Go on with every release, until cancelled."""
        await self._runner.run()

    def on_records(self, records: Sequence[Record]) -> None:
        """Records of control were folded."""
        self._runner.on_records(records)

    # Starting and steering.

    async def start(self, message: releases_pb2.Release, origin: Origin, *, deadline_ns: int | None = None) -> State:
        """Begin a release. InvalidArgument, ReleaseRunning, LimitExceeded."""
        wanted = asked(message)
        check_steps(wanted)

        def decide(view: View) -> Sequence[Change]:
            earlier = view.get(wanted.key)
            if earlier is not None and earlier.is_open:
                raise ReleaseRunning(
                    f"version {earlier.spec.version} of {wanted.service} is being released",
                    namespace=wanted.namespace, service=wanted.service, version=earlier.spec.version,
                )  # fmt: skip
            if earlier is None and len(self._fold) >= self._config.releases_max:
                raise LimitExceeded("releases_max", self._config.releases_max)
            return [self._started(with_baseline(wanted, earlier, self._of(wanted)))]

        await self._writer.write(decide, origin, deadline_ns=deadline_ns)
        return self.get(wanted.namespace, wanted.service)

    def _started(self, spec: ReleaseSpec) -> Change:
        body = spec_to(spec)
        before = sample_to(self._watches.lately(spec.namespace, spec.service, spec.baseline))
        if before is not None:
            body.baseline_calls.CopyFrom(before)
        encoded = body.SerializeToString(deterministic=True)
        return Change(topic=RELEASE_STARTED, key=spec.key, body=encoded, namespace=spec.namespace)

    async def steer(
        self, namespace: str, service: str, action: Action.Action.ValueType, origin: Origin, *,
        deadline_ns: int | None = None,
    ) -> State:  # fmt: skip
        """Take the next step, hold, go on, or go back; nothing when it is so already.

        ReleaseNotFound, ReleaseEnded, ReleaseBaselineEmpty.
        """
        key = release_key(namespace, service)

        def decide(view: View) -> Sequence[Change]:
            found = view.get(key)
            if found is None:
                raise _not_found(namespace, service)
            change = self._steered(found, action)
            return [] if change is None else [change]

        await self._writer.write(decide, origin, deadline_ns=deadline_ns)
        return self.get(namespace, service)

    def _steered(self, release: ReleaseEntity, action: Action.Action.ValueType) -> Change | None:
        if action == Action.ACTION_ABORT:
            return self._aborted(release)
        if not release.is_open:
            raise ReleaseEnded(
                f"the release of {release.spec.version} is over: {release.phase.name}",
                service=release.spec.service, phase=release.phase.name,
            )  # fmt: skip
        if action == Action.ACTION_PROMOTE:
            return step_change(release, self._watches.look(release))
        if action == Action.ACTION_PAUSE and release.phase is Phase.RUNNING:
            return release_change(RELEASE_PAUSED, release, self._watches.look(release))
        if action == Action.ACTION_RESUME and release.phase is Phase.PAUSED:
            return release_change(RELEASE_RESUMED, release, None)
        return None

    def _aborted(self, release: ReleaseEntity) -> Change | None:
        if not release.is_open and release.phase is not Phase.COMPLETED:
            return None
        target = way_back(release, self._of(release.spec))
        if target is None:
            raise ReleaseBaselineEmpty(
                f"no instance of {release.spec.baseline} can be called", service=release.spec.service,
                baseline=release.spec.baseline,
            )  # fmt: skip
        judgement = self._watches.look(release) if release.is_open else None
        return release_change(RELEASE_ABORTED, release, judgement, target=target)

    def _of(self, spec: ReleaseSpec) -> Instances:
        return self._instances(spec.namespace, spec.service)

    # Showing.

    def get(self, namespace: str, service: str) -> State:
        """The last release of a service, with what the gate says now. ReleaseNotFound."""
        found = self._fold.get(release_key(namespace, service))
        if found is None:
            raise _not_found(namespace, service)
        return state_to(found, self._watches.look(found) if found.is_open else None)

    async def listed(self, namespace: str, *, sees: Callable[[str], bool]) -> Sequence[State]:
        """The last release of each service of a namespace, or of all that `sees` lets through; by namespace and service."""
        shown: list[State] = []
        for index, release in enumerate(list(self._fold.releases(namespace))):
            if sees(release.spec.namespace):
                shown.append(state_to(release, self._last(release)))
            if index % SLICE_RELEASES == SLICE_RELEASES - 1:
                await asyncio.sleep(0)
        return shown

    def _last(self, release: ReleaseEntity) -> Judgement | None:
        return self._watches.last(release) if release.is_open else None

    def metrics(self) -> dict[str, float]:
        """Counts and gauges by name, for Prometheus."""
        opened = self._fold.open_releases()
        return {
            "count": len(self._fold),
            "count_max": self._config.releases_max,
            "running": sum(release.phase is Phase.RUNNING for release in opened),
            "paused": sum(release.phase is Phase.PAUSED for release in opened),
            "moves_total": self._runner.moves,
            "failed_moves_total": self._runner.failures,
        }

    def alarms(self) -> list[ReleaseAlarm]:
        """RELEASE_PAUSED, of one that paused by itself; RELEASE_ROLLED_BACK, for a day."""
        since_ns = self._clock.time_ns() - int(self._config.rolled_back_alarm_s * 1e9)
        found: list[ReleaseAlarm] = []
        for release in self._fold.releases():
            paused = release.phase is Phase.PAUSED and release.author == AUTHOR
            went_back = release.phase is Phase.ROLLED_BACK and release.changed_ns > since_ns
            if paused or went_back:
                found.append(
                    ReleaseAlarm(
                        name=ALARMS[release.phase],
                        namespace=release.spec.namespace,
                        subject=release.spec.service,
                        message=f"the release of {release.spec.version}: {release.reason}",
                        since_ns=release.changed_ns,
                    )
                )
        return found


def _not_found(namespace: str, service: str) -> ReleaseNotFound:
    return ReleaseNotFound(f"{service} of {namespace} has had no release", namespace=namespace, service=service)
