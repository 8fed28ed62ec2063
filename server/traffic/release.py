"""A release: a version that gets a growing share of a service's calls, and when it goes on, waits, or goes back. Pure.

    RUNNING --hold over, gate GOOD--> next step ... --behind the last--> COMPLETED: the version gets all calls
       |  \\--gate has no data for too long, or there is nothing to go back to--> PAUSED --somebody resumes--> RUNNING
       |  \\--gate WORSE, at any time--> ROLLED_BACK: the baseline gets all calls
       \\--somebody aborts--> ABORTED: the same

Somebody may take the next step at any time, from PAUSED too, pause, and abort, a completed release as well. Nothing
happens by itself to one that is PAUSED.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from trunkline.core.policy import Destination, KeySource

from .outcomes import NO_CALLS, Sample
from .release_gate import Gate, Judgement, Verdict

S: Final = 1_000_000_000
ALL: Final = 100
"""Percent of the calls."""


class Phase(IntEnum):
    """Values are the contract's ReleaseState.Phase."""

    RUNNING = 1
    PAUSED = 2
    COMPLETED = 3
    ROLLED_BACK = 4
    ABORTED = 5


OPEN: Final = frozenset({Phase.RUNNING, Phase.PAUSED})
"""A service has one release of these at most."""
RETURNED: Final = frozenset({Phase.ROLLED_BACK, Phase.ABORTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A share of the calls, for a while."""

    percent: int
    hold_ns: int = 60 * S
    manual: bool = False
    """Its end waits for somebody to promote it."""


DEFAULT_GATE: Final = Gate()
STEPS: Final = tuple(Step(percent=percent) for percent in (5, 25, 50, ALL))
"""Of a release that names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseSpec:
    """What was asked for, whatever was left out filled in."""

    namespace: str
    service: str
    version: str
    """A range."""
    named_baseline: str = ""
    """As it was asked for; empty when it was left to us."""
    baseline: str
    """A range: what it returns to."""
    steps: tuple[Step, ...] = STEPS
    gate: Gate = DEFAULT_GATE
    sticky_on: KeySource | None = None

    @property
    def key(self) -> str:
        """What names it in the control stream."""
        return release_key(self.namespace, self.service)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseEntity:
    """A release as it is now. The last one of a service stays."""

    spec: ReleaseSpec
    phase: Phase = Phase.RUNNING
    step: int = 0
    percent: int
    started_ns: int
    """Nanoseconds since the epoch, as all times here."""
    step_began_ns: int
    changed_ns: int
    step_revision: int
    """Of the record that began the step."""
    split_revision: int
    """Of the record that last changed who gets the calls."""
    revision: int
    """Of the last change."""
    author: str = ""
    reason: str = ""
    target: str = ""
    """A range: who gets all calls, once it is over."""
    gate: bytes = b""
    """What the gate said when it changed last: a GateReport."""
    baseline_calls: Sample = NO_CALLS
    """The baseline's before this step, or before the release: what the version is compared with when it gets all calls."""
    proven: str = ""
    """The range that an earlier release of the service proved good."""

    @property
    def is_open(self) -> bool:
        """Whether it is on its way, held or not."""
        return self.phase in OPEN

    @property
    def at(self) -> Step:
        """The step that it is in."""
        return self.spec.steps[self.step]

    @property
    def is_last(self) -> bool:
        """No step comes behind this one."""
        return self.step + 1 == len(self.spec.steps)

    @property
    def proven_now(self) -> str:
        """The last range of the service that was proven good; empty when none ever was."""
        return self.spec.version if self.phase is Phase.COMPLETED else self.proven


class ReleaseSplit(NamedTuple):
    """What a release says of who gets a service's calls, in place of a policy's destinations."""

    destinations: tuple[Destination, ...]
    sticky_on: KeySource | None
    revision: int
    """Of the last change of any of it."""
    settled: bool
    """The release is over."""


def release_key(namespace: str, service: str) -> str:
    """What names a service's release in the control stream."""
    return f"release/{namespace}/{service}"


def split_of(release: ReleaseEntity) -> ReleaseSplit:
    """Who gets the calls now."""
    spec = release.spec
    shares: tuple[tuple[str, int], ...] = ((release.target, ALL),)
    if release.is_open:
        shares = ((spec.version, release.percent), (spec.baseline, ALL - release.percent))
    return ReleaseSplit(
        tuple(Destination(version=version, weight=weight) for version, weight in shares),
        spec.sticky_on,
        release.split_revision,
        not release.is_open,
    )


class Move(IntEnum):
    """What a release does next."""

    STEP = 1
    """The next step, or COMPLETED behind the last."""
    ROLL_BACK = 2
    PAUSE = 3


class Waited(NamedTuple):
    """What time makes of a step."""

    hold_over: bool
    no_data_over: bool
    """The gate has been waited for as long as it asks for, behind the hold."""


def waited(release: ReleaseEntity, in_step_ns: int) -> Waited:
    """How far a step is that has lasted so long."""
    hold_ns = release.at.hold_ns
    return Waited(in_step_ns >= hold_ns, in_step_ns >= hold_ns + release.spec.gate.no_data_after_ns)


def next_move(release: ReleaseEntity, judgement: Judgement, time: Waited) -> Move | None:
    """What happens by itself; None: nothing yet."""
    if release.phase is not Phase.RUNNING:
        return None
    if judgement.verdict is Verdict.WORSE:
        return Move.ROLL_BACK
    if not time.hold_over or release.at.manual:
        return None
    if judgement.verdict is Verdict.GOOD:
        return Move.STEP
    return Move.PAUSE if time.no_data_over else None
