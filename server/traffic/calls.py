"""What callers have reported, for people to look at: who calls whom, and how each version and instance does."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration

from trunkline.api.v1 import traffic_pb2
from trunkline.api.v1.discovery_pb2 import CallerState
from trunkline.core.clock import Clock

from .caller_states import CallerStates
from .latency import Buckets, bound_ns, percentile
from .outcomes import Outcomes, Row, Tally

ROWS_MAX = 5_000
"""Of one list of an answer."""
SLICE_ROWS = 128
"""Added up between two looks at the loop, about 2 ms."""

SLICE_WORDS = 256
"""Clients' words looked at between two looks at the loop: each has ten states, as a rule."""
REFUSING = frozenset({CallerState.BREAKER_OPEN, CallerState.BREAKER_HALF_OPEN, CallerState.BREAKER_FORCED_OPEN})

Name = TypeVar("Name")


class Calls:
    """Reads the outcomes."""

    def __init__(self, outcomes: Outcomes, states: CallerStates, clock: Clock) -> None:
        self._outcomes = outcomes
        self._states = states
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
            for client, state in await self._said(namespace, service):
                if len(answer.clients) == ROWS_MAX:
                    answer.truncated = True
                    break
                answer.clients.add(client=client, state=state)
        return answer

    async def _said(self, namespace: str, service: str) -> list[tuple[str, CallerState]]:
        """What clients make of a service."""
        found: list[tuple[str, CallerState]] = []
        for index, (client, states) in enumerate(self._states.words(namespace, self._clock.now_ns())):
            found += [(client, state) for state in states if state.service == service]
            if index % SLICE_WORDS == SLICE_WORDS - 1:
                await asyncio.sleep(0)
        return found

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
        """Say of each candidate what callers have reported of it, and make of it."""
        ejected, refused = Counter[str](), Counter[str]()
        for _, state in await self._said(namespace, service):
            ejected[state.instance_id] += bool(state.ejected)
            refused[state.instance_id] += refuses(state)
        rows, now_ns = dict(self._outcomes.instance_rows(namespace, service)), self._clock.now_ns()
        for index, candidate in enumerate(answer.candidates):
            if index % SLICE_ROWS == SLICE_ROWS - 1:
                await asyncio.sleep(0)
            candidate.ejected_by, candidate.breaker_open_at = ejected[candidate.id], refused[candidate.id]
            row = rows.get(candidate.id)
            if row is not None and (calls := statistics(row.lately(now_ns))).calls:
                candidate.calls.CopyFrom(calls)


def refuses(state: CallerState) -> bool:
    """Whether a breaker lets not all calls through."""
    return state.breaker in REFUSING or state.rejection_percent > 0


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
