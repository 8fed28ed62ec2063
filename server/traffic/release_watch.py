"""What is known of the steps that releases are in: how long they have lasted here, and the calls since.

In memory. After a start the hold goes on where it was, the calls are counted anew, and the gate is given its whole time to
get data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trunkline.core.clock import Clock
from trunkline.core.ranges import takes

from .outcomes import Mark, Outcomes, Sample, Tally
from .release import ALL, ReleaseEntity, Waited, waited
from .release_gate import Judgement, judge


@dataclass(slots=True)
class Watched:
    """A step that is looked at."""

    step_revision: int
    began_ns: int
    """Monotonic; when it began, were the clock never set and the server never down."""
    mark: Mark
    judgement: Judgement | None = None
    """The last one."""


def in_range(tallies: Mapping[str, Tally], version: str) -> Sample:
    """All calls to versions of a range."""
    found = Tally()
    for name, tally in tallies.items():
        if takes(version, name):
            found.add(tally)
    return found.sample()


class ReleaseWatches:
    """One for each release that is on its way."""

    def __init__(self, outcomes: Outcomes, clock: Clock) -> None:
        self._outcomes = outcomes
        self._clock = clock
        self._watched: dict[str, Watched] = {}

    def of(self, release: ReleaseEntity) -> Watched:
        """The watch of its step; begins now if the step is new."""
        key = release.spec.key
        watched = self._watched.get(key)
        if watched is None or watched.step_revision != release.step_revision:
            behind_ns = self._clock.time_ns() - release.step_began_ns
            behind_ns = min(max(0, behind_ns), release.at.hold_ns)
            mark = self._outcomes.mark(release.spec.namespace, release.spec.service)
            watched = Watched(release.step_revision, self._clock.now_ns() - behind_ns, mark)
            self._watched[key] = watched
        return watched

    def forget(self, key: str) -> None:
        """It is over."""
        self._watched.pop(key, None)

    def last(self, release: ReleaseEntity) -> Judgement | None:
        """What the gate said of this step when it was looked at last."""
        watched = self._watched.get(release.spec.key)
        return watched.judgement if watched is not None and watched.step_revision == release.step_revision else None

    def time_of(self, release: ReleaseEntity) -> Waited:
        """How far the step is."""
        return waited(release, self._clock.now_ns() - self.of(release).began_ns)

    def look(self, release: ReleaseEntity) -> Judgement:
        """Ask the gate."""
        watched, spec = self.of(release), release.spec
        tallies = self._outcomes.since(spec.namespace, spec.service, watched.mark)
        released, baseline = in_range(tallies, spec.version), in_range(tallies, spec.baseline)
        where = ""
        if release.percent == ALL and release.baseline_calls.calls >= spec.gate.minimum_calls:
            baseline, where = release.baseline_calls, "the step before" if release.step else "before the release"
        watched.judgement = judge(spec.gate, released, baseline, looks=len(spec.steps), where=where)
        return watched.judgement

    def lately(self, namespace: str, service: str, version: str) -> Sample:
        """What became of the calls to a range in the last minutes."""
        return in_range(self._outcomes.lately(namespace, service, self._clock.now_ns()), version)
