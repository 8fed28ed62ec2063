"""Releases between messages and values; named for the direction, as trunkline.api.convert. What the contract lets be left
out is filled in before anything is kept, so that defaults may change and old releases stay what they were."""

from __future__ import annotations

from dataclasses import replace

from google.protobuf.message import Message

from trunkline.api import convert
from trunkline.api.journal.v1 import control_pb2
from trunkline.api.v1 import policy_pb2, releases_pb2
from trunkline.core.policy import KeySource

from .outcomes import NO_CALLS, Sample
from .release import DEFAULT_GATE, STEPS, Phase, ReleaseEntity, ReleaseSpec, Step
from .release_gate import Gate, Judgement

_MS = 1_000_000


def phase_from(phase: releases_pb2.ReleaseState.Phase.ValueType) -> Phase:
    """The contract's phases are ours."""
    return Phase(phase)


def phase_to(phase: Phase) -> releases_pb2.ReleaseState.Phase.ValueType:
    """Ours are the contract's."""
    return releases_pb2.ReleaseState.Phase.ValueType(phase)


# What is asked for.


def asked(message: releases_pb2.Release) -> ReleaseSpec:
    """What a request asks for, what it leaves out filled in, but for the baseline."""
    steps = tuple(map(_step_from, message.steps)) or STEPS
    return ReleaseSpec(
        namespace=message.namespace,
        service=message.service,
        version=message.version,
        named_baseline=message.baseline,
        baseline=message.baseline,
        steps=steps,
        gate=_gate_from(message.gate),
        sticky_on=_key_from(message.sticky_on) if message.HasField("sticky_on") else None,
    )


def spec_from(body: control_pb2.ReleaseStarted) -> ReleaseSpec:
    """As it was kept."""
    return replace(asked(body.release), baseline=body.baseline)


def spec_to(spec: ReleaseSpec) -> control_pb2.ReleaseStarted:
    """The body of a record, without the baseline's calls."""
    return control_pb2.ReleaseStarted(release=release_to(spec), baseline=spec.baseline)


def release_to(spec: ReleaseSpec) -> releases_pb2.Release:
    """The contract's message, everything filled in."""
    message = releases_pb2.Release(
        namespace=spec.namespace,
        service=spec.service,
        version=spec.version,
        baseline=spec.named_baseline,
        steps=map(_step_to, spec.steps),
        gate=_gate_to(spec.gate),
    )
    if spec.sticky_on is not None:
        source = policy_pb2.KeySource()
        if spec.sticky_on.caller:
            source.caller = True
        else:
            source.header = spec.sticky_on.header
        message.sticky_on.CopyFrom(source)
    return message


def _key_from(message: policy_pb2.KeySource) -> KeySource:
    return KeySource(header=message.header, caller=message.caller)


def _step_from(message: releases_pb2.Release.Step) -> Step:
    return Step(percent=message.percent, hold_ns=convert.ms_from(message, "hold", 60_000) * _MS, manual=message.manual)


def _step_to(step: Step) -> releases_pb2.Release.Step:
    return releases_pb2.Release.Step(percent=step.percent, hold=convert.ms_to(step.hold_ns // _MS), manual=step.manual)


def _gate_from(message: releases_pb2.Release.Gate) -> Gate:
    return Gate(
        minimum_calls=message.minimum_calls or DEFAULT_GATE.minimum_calls,
        max_success_rate_drop_basis_points=_given(
            message, "max_success_rate_drop_basis_points", DEFAULT_GATE.max_success_rate_drop_basis_points
        ),
        max_latency_increase_percent=_given(
            message, "max_latency_increase_percent", DEFAULT_GATE.max_latency_increase_percent
        ),
        latency_percentile=message.latency_percentile or DEFAULT_GATE.latency_percentile,
        significance_basis_points=message.significance_basis_points or DEFAULT_GATE.significance_basis_points,
        no_data_after_ns=convert.ms_from(message, "no_data_after", DEFAULT_GATE.no_data_after_ns // _MS) * _MS,
    )


def _given(message: Message, field: str, default: int) -> int:
    value: int = getattr(message, field) if message.HasField(field) else default
    return value


def _gate_to(gate: Gate) -> releases_pb2.Release.Gate:
    return releases_pb2.Release.Gate(
        minimum_calls=gate.minimum_calls,
        max_success_rate_drop_basis_points=gate.max_success_rate_drop_basis_points,
        max_latency_increase_percent=gate.max_latency_increase_percent,
        latency_percentile=gate.latency_percentile,
        significance_basis_points=gate.significance_basis_points,
        no_data_after=convert.ms_to(gate.no_data_after_ns // _MS),
    )


# Calls, and what the gate makes of them.


def sample_from(message: control_pb2.CallSample) -> Sample:
    """As it was kept; an absent one has no calls."""
    if not message.calls:
        return NO_CALLS
    buckets = dict(sorted(message.latency_buckets.items()))
    return Sample(calls=message.calls, failed=message.failed, buckets=buckets)


def sample_to(sample: Sample) -> control_pb2.CallSample | None:
    """None, which leaves the field absent, without calls."""
    if not sample.calls:
        return None
    return control_pb2.CallSample(calls=sample.calls, failed=sample.failed, latency_buckets=sample.buckets)


def report_to(judgement: Judgement) -> releases_pb2.GateReport:
    """What the gate says."""
    return releases_pb2.GateReport(
        verdict=releases_pb2.GateReport.Verdict.ValueType(judgement.verdict),
        reason=judgement.reason,
        released=_shown(judgement.released, judgement.released_ns),
        baseline=_shown(judgement.baseline, judgement.baseline_ns),
    )


def _shown(sample: Sample, latency_ns: int) -> releases_pb2.GateReport.Sample:
    shown = releases_pb2.GateReport.Sample(calls=sample.calls, failed=sample.failed)
    if latency_ns:
        shown.latency.FromNanoseconds(latency_ns)
    return shown


# What is shown.


def state_to(entity: ReleaseEntity, judgement: Judgement | None) -> releases_pb2.ReleaseState:
    """A release as people see it; with what the gate says now, else what it said last."""
    state = releases_pb2.ReleaseState(
        release=release_to(entity.spec),
        phase=phase_to(entity.phase),
        step=entity.step,
        percent=entity.percent,
        reason=entity.reason,
        started_at=convert.time_ns_to(entity.started_ns),
        step_began_at=convert.time_ns_to(entity.step_began_ns),
        revision=entity.revision,
        author=entity.author,
        baseline="" if entity.spec.named_baseline else entity.spec.baseline,
    )
    if judgement is not None:
        state.gate.CopyFrom(report_to(judgement))
    elif entity.gate:
        state.gate.MergeFromString(entity.gate)
    return state
