"""Outlier detection over a channel's endpoints: who is left out for a while, and the look at them at each interval."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from trunkline.core.clock import Clock, Rng
from trunkline.core.outliers import OutlierDetector
from trunkline.core.policy import OutlierDetection

from ._balancer import Candidate
from ._tasks import Tasks

LOOK_S = (0.01, 1.0)
"""The clock is looked at no sooner and no later than that; a clock that tests move does not wake the loop."""


class Outliers:
    """`changed` is called when somebody was ejected, or taken back."""

    def __init__(self, rng: Rng, clock: Clock, tasks: Tasks, changed: Callable[[], None]) -> None:
        self._rng = rng
        self._clock = clock
        self._tasks = tasks
        self._changed = changed
        self._settings: OutlierDetection | None = None
        self._detector: OutlierDetector | None = None
        self._indexes: dict[Candidate, int] = {}
        self._looking: asyncio.Task[None] | None = None

    @property
    def on(self) -> bool:
        """Whether there is any."""
        return self._detector is not None

    def adopt(self, settings: OutlierDetection | None) -> None:
        """Begin anew with other settings, or go on with the same; None ends it, and every ejection."""
        if settings == self._settings:
            return
        self._settings = settings
        if self._looking is not None:
            self._looking.cancel()
        self._looking = self._detector = None
        if settings is not None:
            self._detector = OutlierDetector(settings, self._rng)
            self._detector.set_hosts([_key(one) for one in self._indexes])
            self._looking = self._tasks.spawn(self._look(self._detector), name="outlier detection")
        self._changed()

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

    def why(self, candidate: Candidate) -> str:
        """Why it is left out; empty when it is not."""
        index = self._indexes.get(candidate)
        ejection = None if self._detector is None or index is None else self._detector.ejected(index)
        return "" if ejection is None else f"ejected: {ejection.reason.name.lower()}"

    async def _look(self, detector: OutlierDetector) -> None:
        while True:
            if detector.advance(self._clock.now_ns()):
                self._changed()
            wait_s = (detector.next_ns - self._clock.now_ns()) / 1e9
            await asyncio.sleep(min(max(wait_s, LOOK_S[0]), LOOK_S[1]))


def _key(candidate: Candidate) -> str:
    return " ".join(candidate.key)  # neither services nor ids hold blanks
