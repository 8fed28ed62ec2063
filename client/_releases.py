"""Releases of versions, as users write and read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum

from trunkline.api import convert
from trunkline.api.v1 import releases_pb2

from ._edge import Edge
from ._link import Link


class ReleasePhase(IntEnum):
    """Values are the contract's ReleaseState.Phase."""

    RUNNING = 1
    PAUSED = 2
    COMPLETED = 3
    ROLLED_BACK = 4
    ABORTED = 5


class GateVerdict(IntEnum):
    """Values are the contract's GateReport.Verdict."""

    NO_DATA = 1
    GOOD = 2
    WORSE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseStep:
    """A share of the calls, for a while."""

    percent: int
    hold_s: float = 60.0
    """It is over not before this."""
    manual: bool = False
    """Its end waits for `promote_release`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseGate:
    """What the end of a step asks of the calls. None leaves the control plane's defaults, which are in brackets."""

    minimum_calls: int | None = None
    """Fewer calls of either version are no data (100)."""
    max_success_rate_drop_basis_points: int | None = None
    """Hundredths of a percent by which the success rate may be worse (100)."""
    max_latency_increase_percent: int | None = None
    """By which the latency at the percentile may be higher (50)."""
    latency_percentile: int | None = None
    """(99)"""
    significance_basis_points: int | None = None
    """Hundredths of a percent of being wrong when it says that a version is worse (100)."""
    no_data_after_s: float | None = None
    """How long a step whose hold is over is waited for (600)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSample:
    """Calls that a gate looked at."""

    calls: int
    failed: int
    latency_s: float
    """At the gate's percentile; 0 when it is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """What a gate says."""

    verdict: GateVerdict
    reason: str
    released: GateSample
    baseline: GateSample


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A service's last release. Times are UTC."""

    namespace: str
    service: str
    version: str
    """A range."""
    baseline: str
    """A range: what it returns to."""
    steps: tuple[ReleaseStep, ...]
    phase: ReleasePhase
    step: int
    """From 0."""
    percent: int
    """Of the calls, for the version, now."""
    reason: str
    author: str
    started_at: datetime
    step_began_at: datetime
    revision: int
    gate: GateReport | None
    """What the gate says now, or said last."""


def release_to(
    service: str, version: str, *, namespace: str, baseline: str, steps: Sequence[ReleaseStep | int],
    gate: ReleaseGate | None, sticky_on_header: str, sticky_on_caller: bool,
) -> releases_pb2.Release:  # fmt: skip
    """The contract's message."""
    wanted = releases_pb2.Release(namespace=namespace, service=service, version=version, baseline=baseline)
    for step in steps:
        said = step if isinstance(step, ReleaseStep) else ReleaseStep(percent=step)
        wanted.steps.add(percent=said.percent, hold=convert.ms_to(int(said.hold_s * 1_000)), manual=said.manual)
    if gate is not None:
        _set_gate(wanted.gate, gate)
    if sticky_on_caller:
        wanted.sticky_on.caller = True
    if sticky_on_header:
        wanted.sticky_on.header = sticky_on_header
    return wanted


def _set_gate(message: releases_pb2.Release.Gate, gate: ReleaseGate) -> None:
    message.SetInParent()
    for name in ReleaseGate.__slots__:
        value = getattr(gate, name)
        if value is None:
            continue
        if name == "no_data_after_s":
            message.no_data_after.CopyFrom(convert.ms_to(int(value * 1_000)))
        else:
            setattr(message, name, value)


async def start(link: Link, edge: Edge, wanted: releases_pb2.Release, reason: str) -> Release:
    """See Trunkline.start_release."""
    answer = await link.call(
        lambda stubs: stubs.releases.StartRelease,
        releases_pb2.StartReleaseRequest(release=wanted, reason=reason, request_id=edge.entropy(16).hex()),
        releases_pb2.StartReleaseResponse,
    )
    return release_from(answer.state)


async def get(link: Link, *, namespace: str, service: str) -> Release:
    """See Trunkline.get_release."""
    answer = await link.call(
        lambda stubs: stubs.releases.GetRelease,
        releases_pb2.GetReleaseRequest(namespace=namespace, service=service),
        releases_pb2.GetReleaseResponse,
    )
    return release_from(answer.state)


async def list_all(link: Link, *, namespace: str) -> tuple[Release, ...]:
    """See Trunkline.releases."""
    answer = await link.call(
        lambda stubs: stubs.releases.ListReleases,
        releases_pb2.ListReleasesRequest(namespace=namespace),
        releases_pb2.ListReleasesResponse,
    )
    return tuple(map(release_from, answer.releases))


async def steer(
    link: Link, edge: Edge, action: releases_pb2.SteerReleaseRequest.Action.ValueType, *, namespace: str, service: str,
    reason: str,
) -> Release:  # fmt: skip
    """See Trunkline.promote_release and its like."""
    request = releases_pb2.SteerReleaseRequest(
        namespace=namespace, service=service, action=action, reason=reason, request_id=edge.entropy(16).hex()
    )
    answer = await link.call(lambda stubs: stubs.releases.SteerRelease, request, releases_pb2.SteerReleaseResponse)
    return release_from(answer.state)


def release_from(state: releases_pb2.ReleaseState) -> Release:
    """As users read it."""
    said = state.release
    return Release(
        namespace=said.namespace,
        service=said.service,
        version=said.version,
        baseline=said.baseline or state.baseline,
        steps=tuple(
            ReleaseStep(percent=step.percent, hold_s=convert.ms_from(step, "hold", 60_000) / 1_000, manual=step.manual)
            for step in said.steps
        ),
        phase=ReleasePhase(state.phase),
        step=state.step,
        percent=state.percent,
        reason=state.reason,
        author=state.author,
        started_at=state.started_at.ToDatetime(tzinfo=UTC),
        step_began_at=state.step_began_at.ToDatetime(tzinfo=UTC),
        revision=state.revision,
        gate=_report_from(state.gate) if state.HasField("gate") else None,
    )


def _report_from(report: releases_pb2.GateReport) -> GateReport:
    return GateReport(
        verdict=GateVerdict(report.verdict),
        reason=report.reason,
        released=_sample_from(report.released),
        baseline=_sample_from(report.baseline),
    )


def _sample_from(sample: releases_pb2.GateReport.Sample) -> GateSample:
    latency_s = sample.latency.seconds + sample.latency.nanos / 1e9
    return GateSample(calls=sample.calls, failed=sample.failed, latency_s=latency_s)
