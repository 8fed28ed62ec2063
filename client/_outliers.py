"""Outlier detection over a channel's endpoints: who is left out for a while, and the look at them at each interval."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from trunkline.core.clock import Clock, Rng
from trunkline.core.outliers import Ejection, OutlierDetector
from trunkline.core.policy import OutlierDetection

from ._balancer import Candidate
from ._tasks import Tasks

LOOK_S = (0.01, 1.0)
"""The clock is looked at no sooner and no later than that; a clock that tests move does not wake the loop."""


class Ejections:
    """Who is left out. No I/O: whoever uses it looks when it is time. `changed` is called when somebody was ejected, or
    taken back."""

    def __init__(self, rng: Rng, clock: Clock, changed: Callable[[], None]) -> None:
        self._rng = rng
        self._clock = clock
        self._changed = changed
        self._settings: OutlierDetection | None = None
        self._detector: OutlierDetector | None = None
        self._indexes: dict[Candidate, int] = {}

    def __len__(self) -> int:
        """Of how many endpoints anything is known."""
        return len(self._indexes)

    @property
    def on(self) -> bool:
        """Whether there is any."""
        return self._detector is not None

    def adopt(self, settings: OutlierDetection | None) -> bool:
        """Begin anew with other settings, or go on with the same; None ends it, and every ejection. Whether it is new."""
        if settings == self._settings:
            return False
        self._settings = settings
        self._detector = None
        if settings is not None:
            self._detector = OutlierDetector(settings, self._rng)
            self._detector.set_hosts([_key(one) for one in self._indexes])
        self._changed()
        return True

    def set_hosts(self, candidates: Sequence[Candidate]) -> None:
        """Those that there are now; what is known of those that stay is kept."""
        self._indexes = {candidate: index for index, candidate in enumerate(candidates)}
        if self._detector is not None:
            self._detector.set_hosts([_key(one) for one in candidates])
            self._changed()

    def record(self, candidate: Candidate, code: int, *, local_origin: bool) -> None:
        """An attempt has ended there. One on an endpoint that is gone is nobody's."""
        index = self._indexes.get(candidate)
        if self._detector is None or index is None:
            return
        if self._detector.record(index, code, local_origin, self._clock.now_ns()):
            self._changed()

    def ejection(self, candidate: Candidate) -> Ejection | None:
        """Why and since when it is left out; None when it is not."""
        index = self._indexes.get(candidate)
        return None if self._detector is None or index is None else self._detector.ejected(index)

    def why(self, candidate: Candidate) -> str:
        """The same in words; empty when it is not."""
        ejection = self.ejection(candidate)
        return "" if ejection is None else f"ejected: {ejection.reason.name.lower()}"

    def look(self) -> int:
        """Look at them if it is time; nanoseconds until the next look."""
        assert self._detector is not None
        now_ns = self._clock.now_ns()
        if self._detector.advance(now_ns):
            self._changed()
        return self._detector.next_ns - now_ns


class Outliers(Ejections):
    """The same, looked at by a task."""

    def __init__(self, rng: Rng, clock: Clock, tasks: Tasks, changed: Callable[[], None]) -> None:
        super().__init__(rng, clock, changed)
        self._tasks = tasks
        self._looking: asyncio.Task[None] | None = None

    def adopt(self, settings: OutlierDetection | None) -> bool:
        """See Ejections."""
        is_new = super().adopt(settings)
        if is_new and self._looking is not None:
            self._looking.cancel()
            self._looking = None
        if is_new and self.on:
            self._looking = self._tasks.spawn(self._look(), name="outlier detection")
        return is_new

    async def _look(self) -> None:
        while True:
            wait_s = self.look() / 1e9
            await asyncio.sleep(min(max(wait_s, LOOK_S[0]), LOOK_S[1]))


def _key(candidate: Candidate) -> str:
    return " ".join(candidate.key)  # neither services nor ids hold blanks
