"""Releases at work: asks the gates, and writes what follows from it.

Each move is decided against the release as it is in the fold, and is none when that has changed since the gate was asked:
so that two control planes, or an operator at the same moment, never make one move two.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from trunkline.core.errors import TrunklineError
from trunkline.core.records import Change, Record
from trunkline.server.events.streams import Writer
from trunkline.server.journal.control.fold import View
from trunkline.server.journal.control.sequencer import Origin

from .release import ALL, Move, ReleaseEntity, next_move
from .release_config import ReleasesConfig
from .release_convert import report_to, sample_to
from .release_fold import (
    RELEASE_COMPLETED,
    RELEASE_PAUSED,
    RELEASE_ROLLED_BACK,
    RELEASE_STEPPED,
    ReleasesFold,
    changed,
)
from .release_gate import Judgement
from .release_rules import Instances, way_back
from .release_watch import ReleaseWatches

log = logging.getLogger(__name__)

AUTHOR = "trunkline"
"""Of what happens by itself."""
REASON_BYTES_MAX = 1_024


class ReleaseRunner:
    """`run` until cancelled; told of every group of control records by `on_records`."""

    def __init__(
        self,
        fold: ReleasesFold,
        watches: ReleaseWatches,
        instances: Callable[[str, str], Instances],
        writer: Writer,
        config: ReleasesConfig,
    ) -> None:
        self.moves = 0
        """Made by itself."""
        self.failures = 0
        """Moves that could not be written; they are tried again."""
        self._fold = fold
        self._watches = watches
        self._instances = instances
        self._writer = writer
        self._config = config
        self._changed = asyncio.Event()

    def on_records(self, records: Sequence[Record]) -> None:
        """Records of control were folded."""
        for record in records:
            if not record.topic.startswith("release."):
                continue
            release = self._fold.get(record.key)
            if release is not None and release.is_open:
                self._watches.of(release)
                self._changed.set()
            else:
                self._watches.forget(record.key)

    async def run(self) -> None:
        """Look at every release that is on its way, again and again."""
        while True:
            self._changed.clear()
            for release in self._fold.open_releases():
                await self._look(release)
                await asyncio.sleep(0)
            if self._fold.open_releases():
                await asyncio.sleep(self._config.look_interval_s)
            else:
                await self._changed.wait()

    async def _look(self, release: ReleaseEntity) -> None:
        if self._fold.get(release.spec.key) is not release:
            return  # it changed while others were looked at
        judgement = self._watches.look(release)
        move = next_move(release, judgement, self._watches.time_of(release))
        if move is None:
            return
        try:
            await self._make(release, move, judgement)
        except TrunklineError as error:
            self.failures += 1
            log.warning("release not moved", extra={"release": release.spec.key, "reason": error.code})

    async def _make(self, release: ReleaseEntity, move: Move, judgement: Judgement) -> None:
        spec = release.spec
        target = way_back(release, self._instances(spec.namespace, spec.service)) if move is Move.ROLL_BACK else ""
        reason = judgement.reason
        if target is None:
            reason += "; nothing that it could return to can be called"
        change = _change(release, move, target, judgement)

        def decide(view: View) -> Sequence[Change]:
            found = view.get(spec.key)
            if found is None or found.revision != release.revision:
                return []
            if move is Move.ROLL_BACK and way_back(found, self._instances(spec.namespace, spec.service)) != target:
                return []
            return [change]

        written = await self._writer.write(decide, Origin(author=AUTHOR, reason=shortened(reason)))
        if written.records:
            self.moves += 1
            log.info("release moved", extra={"release": spec.key, "move": change.topic, "reason": reason})


def _change(release: ReleaseEntity, move: Move, target: str | None, judgement: Judgement) -> Change:
    if move is Move.STEP:
        return step_change(release, judgement)
    if move is Move.PAUSE or target is None:
        return release_change(RELEASE_PAUSED, release, judgement)
    return release_change(RELEASE_ROLLED_BACK, release, judgement, target=target)


def step_change(release: ReleaseEntity, judgement: Judgement) -> Change:
    """The next step, or behind the last the end."""
    if release.is_last:
        return release_change(RELEASE_COMPLETED, release, judgement, target=release.spec.version)
    return release_change(RELEASE_STEPPED, release, judgement, step=release.step + 1)


def release_change(
    topic: str, release: ReleaseEntity, judgement: Judgement | None, *, step: int | None = None, target: str = ""
) -> Change:
    """A record of the release, with what the gate says."""
    baseline = None
    if judgement is not None and release.percent < ALL:
        enough = judgement.baseline.calls >= release.spec.gate.minimum_calls
        baseline = sample_to(judgement.baseline) if enough else None
    report = b"" if judgement is None else report_to(judgement).SerializeToString(deterministic=True)
    body = changed(release, step=step, target=target, gate=report, baseline_calls=baseline)
    spec = release.spec
    return Change(topic=topic, key=spec.key, body=body.SerializeToString(deterministic=True), namespace=spec.namespace)


def shortened(reason: str) -> str:
    """As long as a reason may be."""
    return reason.encode()[:REASON_BYTES_MAX].decode(errors="ignore")
