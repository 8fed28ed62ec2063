"""What became of calls, told to the control plane: added up, bounded, and never more often than every few seconds."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from trunkline.api.v1 import discovery_pb2
from trunkline.core.clock import Rng
from trunkline.core.errors import TrunklineError

from ._errors import is_transient
from ._link import Link

log = logging.getLogger("trunkline.client")

INSTANCE_ROWS_MAX: Final = 900
"""Of one report; behind them calls are counted for a version only, without the instance."""
ROWS_MAX: Final = 1_000
"""Of one report: the contract's bound. What finds no row is counted as dropped."""
EXACT_CALLS_MAX: Final = 10_000
"""Of one report, that are looked at one by one; behind them one in SAMPLED, by chance, stands for so many."""
SAMPLED: Final = 8
STATES_MAX: Final = 1_000
"""Of one report: the contract's bound."""
UNSENT_MAX: Final = 6
"""Reports that wait for the control plane to be back, half a minute of them; older ones say too little of today."""
SEND_S: Final = 5.0
FLUSH_S: Final = 1.0
"""At the end the last reports have so long."""
REST_S: Final = 300.0
"""A control plane that does not take reports is asked again after this time."""
JITTER: Final = 0.2
"""Intervals are longer by up to this part, so that callers do not report together."""

BUCKET_BOUNDS_NS: Final = tuple(int(100_000 * 2 ** (index / 4)) for index in range(80))
"""The longest latencies of the contract's buckets but the last."""


States = Mapping[str, Sequence[discovery_pb2.CallerState]]
"""By namespace."""


class OutcomeCounts(NamedTuple):
    """Calls, since the connection was opened; those of a sample count for those they stand for."""

    reported: int
    """In reports that the control plane took."""
    dropped: int
    """That were not told: the report had no row left for them, or was too old, or was refused."""


class _Row:
    __slots__ = ("buckets", "calls", "total_ns")

    def __init__(self) -> None:
        self.calls = 0
        self.total_ns = 0
        self.buckets: dict[int, int] = {}

    def count(self, calls: int, latency_ns: int) -> None:
        self.calls += calls
        self.total_ns += calls * latency_ns
        bucket = bisect_left(BUCKET_BOUNDS_NS, latency_ns)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + calls


class Key(NamedTuple):
    """What calls are added up by."""

    service: str
    instance_id: str
    version: str
    code: int


class OutcomeLog:
    """The calls of one namespace since the last report. Pure."""

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self._rows: dict[Key, _Row] = {}
        self._seen = 0
        self.dropped = 0
        """Calls that found no row, ever."""

    def __len__(self) -> int:
        return len(self._rows)

    def count(self, key: Key, latency_ns: int) -> None:
        """One call."""
        calls = 1
        self._seen += 1
        if self._seen > EXACT_CALLS_MAX:
            if self._rng.below(SAMPLED):
                return
            calls = SAMPLED
        row = self._rows.get(key) or self._new_row(key)
        if row is None:
            self.dropped += calls
        else:
            row.count(calls, latency_ns)

    def _new_row(self, key: Key) -> _Row | None:
        if len(self._rows) >= INSTANCE_ROWS_MAX:
            key = key._replace(instance_id="")
            if key not in self._rows and len(self._rows) >= ROWS_MAX:
                return None
        return self._rows.setdefault(key, _Row())

    def take(self) -> list[tuple[Key, _Row]]:
        """All of it; begins anew."""
        rows, self._rows, self._seen = self._rows, {}, 0
        return list(rows.items())


class Outcomes:
    """Of one connection. `run` belongs to its tasks."""

    def __init__(
        self,
        link: Link,
        rng: Rng,
        *,
        interval_s: float,
        caller: Callable[[], str],
        client: str = "",
        states: Callable[[], States] = dict,
    ) -> None:
        """`caller` names the service that calls, empty when it is none; `client` who this is.

        `states` are what its channels make of those they call, where that is not as usual. They are told at every
        interval for as long as there are any, and once more when there are none.
        """
        self._link = link
        self._rng = rng
        self._interval_s = interval_s
        self._caller = caller
        self._client = client
        self._states = states
        self._said: frozenset[str] = frozenset()
        """Namespaces of which states were told last."""
        self._logs: dict[str, OutcomeLog] = {}
        self._unsent: deque[discovery_pb2.ReportOutcomesRequest] = deque()
        self._counted = asyncio.Event()
        self._reported = 0
        self._lost = 0
        self._resting = False

    @property
    def counts(self) -> OutcomeCounts:
        """See OutcomeCounts."""
        return OutcomeCounts(self._reported, self._lost + sum(one.dropped for one in self._logs.values()))

    def count(self, namespace: str, key: Key, latency_ns: int) -> None:
        """One call has ended."""
        found = self._logs.get(namespace)
        if found is None:
            found = self._logs[namespace] = OutcomeLog(self._rng)
        found.count(key, latency_ns)
        self._counted.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._news()
            await asyncio.sleep(REST_S if self._resting else self._interval_s * (1 + JITTER * self._rng.random()))
            self._counted.clear()
            self._resting = False
            self._collect()
            await self._send(SEND_S)
            if self._unsent:
                self._counted.set()

    async def _news(self) -> None:
        """Return when there is anything to tell."""
        while not self._counted.is_set():
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._counted.wait()
            except TimeoutError:
                if self._said or self._states():
                    return

    async def flush(self) -> None:
        """Tell what is left, as far as that goes within FLUSH_S."""
        self._collect()
        await self._send(FLUSH_S)
        self._forget()

    def _collect(self) -> None:
        states = self._states()
        for namespace in {**self._logs, **dict.fromkeys(self._said), **states}:
            found = self._logs.get(namespace)
            if found or namespace in states or namespace in self._said:
                self._add(namespace, found.take() if found else [], states.get(namespace, ())[:STATES_MAX])
        self._said = frozenset(states)
        while len(self._unsent) > UNSENT_MAX * max(1, len(self._logs)):
            self._lost += _calls(self._unsent.popleft())

    def _add(self, namespace: str, rows: list[tuple[Key, _Row]], states: Sequence[discovery_pb2.CallerState]) -> None:
        waiting = next((request for request in reversed(self._unsent) if request.namespace == namespace), None)
        if rows or waiting is None:
            waiting = _request(namespace, self._caller(), rows)
            waiting.client = self._client
            self._unsent.append(waiting)
        # States without calls need no report of their own, which would push out one that has calls.
        del waiting.states[:]
        waiting.states.extend(states)

    async def _send(self, within_s: float) -> None:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + within_s
        while self._unsent and (left_s := until_s - loop.time()) > 0:
            request = self._unsent[0]
            try:
                await self._link.call(
                    lambda stubs: stubs.discovery.ReportOutcomes,
                    request,
                    discovery_pb2.ReportOutcomesResponse,
                    timeout_s=left_s,
                )
            except TrunklineError as error:
                if is_transient(error):
                    return
                log.info("outcomes were refused", extra={"error": str(error)})
                self._resting = True
                self._forget()
                return
            self._reported += _calls(request)
            self._unsent.popleft()

    def _forget(self) -> None:
        self._lost += sum(_calls(request) for request in self._unsent)
        self._unsent.clear()


def _calls(request: discovery_pb2.ReportOutcomesRequest) -> int:
    return sum(outcome.count for outcome in request.outcomes)


def _request(namespace: str, caller: str, rows: list[tuple[Key, _Row]]) -> discovery_pb2.ReportOutcomesRequest:
    request = discovery_pb2.ReportOutcomesRequest(namespace=namespace, caller=caller)
    for key, row in rows:
        outcome = request.outcomes.add(
            service=key.service,
            instance_id=key.instance_id,
            version=key.version,
            status_code=key.code,
            count=row.calls,
            latency_buckets=row.buckets,
        )
        outcome.total_latency.FromNanoseconds(row.total_ns)
    return request
