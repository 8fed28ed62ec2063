"""What callers have reported, for people to look at: who calls whom, and how each version and instance does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration

from trunkline.api.v1 import traffic_pb2
from trunkline.core.clock import Clock

from .latency import Buckets, bound_ns, percentile
from .outcomes import Outcomes, Row, Tally

ROWS_MAX = 5_000
"""Of one list of an answer."""
SLICE_ROWS = 128
"""Added up between two looks at the loop, about 2 ms."""

Name = TypeVar("Name")


class Calls:
    """Reads the outcomes."""

    def __init__(self, outcomes: Outcomes, clock: Clock) -> None:
        self._outcomes = outcomes
        self._clock = clock

    async def look(self, namespace: str, service: str) -> traffic_pb2.GetCallsResponse:
        """Without a header. Of a whole namespace when there is no service: only who calls whom."""
        answer, outcomes = traffic_pb2.GetCallsResponse(), self._outcomes
        for edge, calls in await self._most(answer, outcomes.edge_rows(namespace, service)):
            answer.services.add(caller=edge.caller, service=edge.service, calls=calls)
        if service:
            for version, calls in await self._most(answer, outcomes.version_rows(namespace, service)):
                answer.versions.add(version=version, calls=calls)
            for instance, calls in await self._most(answer, outcomes.instance_rows(namespace, service)):
                answer.instances.add(id=instance, calls=calls)
        return answer

    async def _most(
        self, answer: traffic_pb2.GetCallsResponse, rows: Sequence[tuple[Name, Row]]
    ) -> list[tuple[Name, traffic_pb2.CallStatistics]]:
        """Those with calls, most first."""
        now_ns = self._clock.now_ns()
        found: list[tuple[Name, traffic_pb2.CallStatistics]] = []
        for at in range(0, len(rows), SLICE_ROWS):
            summed = [(name, statistics(row.lately(now_ns))) for name, row in rows[at : at + SLICE_ROWS]]
            found += [(name, calls) for name, calls in summed if calls.calls]
            await asyncio.sleep(0)
        found.sort(key=lambda one: -one[1].calls)
        answer.truncated = answer.truncated or len(found) > ROWS_MAX
        return found[:ROWS_MAX]

    async def note(self, answer: traffic_pb2.ExplainPickResponse, namespace: str, service: str) -> None:
        """Say of each candidate what callers have reported of it."""
        rows, now_ns = dict(self._outcomes.instance_rows(namespace, service)), self._clock.now_ns()
        for index, candidate in enumerate(answer.candidates):
            row = rows.get(candidate.id)
            if row is None:
                continue
            calls = statistics(row.lately(now_ns))
            if calls.calls:
                candidate.calls.CopyFrom(calls)
            if index % SLICE_ROWS == 0:
                await asyncio.sleep(0)


def statistics(tally: Tally) -> traffic_pb2.CallStatistics:
    """Counts and latencies of a tally, cancelled calls left out."""
    sample = tally.sample()
    found = traffic_pb2.CallStatistics(calls=sample.calls, failed=sample.failed)
    if sample.buckets:
        found.p50.CopyFrom(_latency_to(sample.buckets, 0.5))
        found.p99.CopyFrom(_latency_to(sample.buckets, 0.99))
    return found


def _latency_to(buckets: Buckets, share: float) -> Duration:
    seconds, nanos = divmod(bound_ns(percentile(buckets, share)), 1_000_000_000)
    return Duration(seconds=seconds, nanos=nanos)
