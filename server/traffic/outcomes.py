"""What callers say became of their calls: per version, per instance, and between services. In memory, bounded.

Whoever may report may make up names. What the registry knows has room all the same: names that it never knew make way at
once.

Totals since a row was made serve whoever compares two moments (the gates of releases); what happened lately, at least 5
and at most 10 minutes, serves those who look once.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from types import MappingProxyType
from typing import NamedTuple, Protocol

from trunkline.core.errors import InvalidArgument
from trunkline.core.policy import FAILURES, StatusCode
from trunkline.core.work import Work, at_once

from .latency import LAST, Buckets

OUTCOMES_MAX = 10_000
"""Versions whose calls are counted."""
INSTANCES_MAX = 20_000
"""Instances whose calls are counted."""
EDGES_MAX = 10_000
"""Pairs of a service that calls and one that is called."""
VERSIONS_MAX = 256
"""Versions of one service: a gate looks at all of them every second."""
IDLE_NS = 600_000_000_000
"""A row that nobody reported to, or that the registry has not known, for so long makes way for a new one."""
PERIOD_NS = 300_000_000_000
"""What happened lately is the period that runs and the one before it."""

SLICE = 100
"""Reports that are looked at, or counted, between two turns of the loop."""

NO_BUCKETS: Buckets = MappingProxyType({})
_CODES = len(StatusCode)


class Reported(NamedTuple):
    """Calls of one kind since the caller's last report."""

    service: str
    version: str
    """The instance's, as the caller saw it."""
    status_code: int
    """gRPC's."""
    calls: int
    latency_ns: int
    """Of all of them together."""
    instance_id: str = ""
    buckets: Buckets = NO_BUCKETS
    """Empty, or all of the calls by latency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Calls as a gate looks at them: cancelled ones are no evidence and left out."""

    calls: int = 0
    failed: int = 0
    buckets: Buckets = field(default_factory=lambda: NO_BUCKETS, hash=False)
    """Those that did not fail, by latency; fewer when callers do not report latencies."""


NO_CALLS = Sample()


class Tally:
    """Counts of calls."""

    __slots__ = ("buckets", "codes", "latency_ns")

    def __init__(self) -> None:
        self.codes = [0] * _CODES
        """Calls by status code."""
        self.latency_ns = 0
        """Of all of them together."""
        self.buckets: dict[int, int] = {}
        """Calls that neither failed nor were cancelled, by latency."""

    @property
    def calls(self) -> int:
        """All of them."""
        return sum(self.codes)

    def count(self, reported: Reported) -> None:
        """Take in what was reported."""
        self.codes[reported.status_code] += reported.calls
        self.latency_ns += reported.latency_ns
        if reported.status_code not in FAILURES and reported.status_code != StatusCode.CANCELLED:
            for bucket, calls in reported.buckets.items():
                self.buckets[bucket] = self.buckets.get(bucket, 0) + calls

    def add(self, other: Tally, *, sign: int = 1) -> None:
        """Take in another one, or take away what it was at an earlier time."""
        self.codes = [ours + sign * theirs for ours, theirs in zip(self.codes, other.codes, strict=True)]
        self.latency_ns += sign * other.latency_ns
        for bucket, calls in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + sign * calls

    def copy(self) -> Tally:
        """As it is now."""
        copied = Tally()
        copied.add(self)
        return copied

    def sample(self) -> Sample:
        """What a gate looks at."""
        failed = sum(self.codes[code] for code in FAILURES)
        calls = sum(self.codes) - self.codes[StatusCode.CANCELLED]
        return Sample(calls=calls, failed=failed, buckets={b: n for b, n in sorted(self.buckets.items()) if n})


class Row:
    """The calls of one version, one instance or one pair of services."""

    __slots__ = ("_before", "_began_ns", "_now", "known_ns", "reported_ns", "total")

    def __init__(self, now_ns: int) -> None:
        self.total = Tally()
        """Since the row was made."""
        self.known_ns: int | None = None
        """Monotonic time of the last report when the registry knew what it is of; None: it never did."""
        self.reported_ns = now_ns
        """Monotonic time of the last report."""
        self._before, self._now = Tally(), Tally()
        self._began_ns = now_ns

    def count(self, reported: Reported, now_ns: int) -> None:
        """Take in what was reported."""
        self._turn(now_ns)
        self.reported_ns = now_ns
        self.total.count(reported)
        self._now.count(reported)

    def lately(self, now_ns: int) -> Tally:
        """In this period and the one before it."""
        self._turn(now_ns)
        found = self._before.copy()
        found.add(self._now)
        return found

    def _turn(self, now_ns: int) -> None:
        periods = (now_ns - self._began_ns) // PERIOD_NS
        if periods > 0:
            self._before, self._now = (self._now if periods == 1 else Tally()), Tally()
            self._began_ns += periods * PERIOD_NS


class Mark(NamedTuple):
    """What had been counted of a service's versions at a moment."""

    totals: Mapping[str, tuple[Row, Tally]]


class Edge(NamedTuple):
    """One service calls another."""

    caller: str
    service: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomesConfig:
    """Bounds of what is counted."""

    outcomes_max: int = OUTCOMES_MAX
    """Versions whose calls are counted."""
    versions_max: int = VERSIONS_MAX
    """The same of one service."""
    instances_max: int = INSTANCES_MAX
    """Instances whose calls are counted."""
    edges_max: int = EDGES_MAX
    """Pairs of a service that calls and one that is called, which are counted."""
    idle_s: float = IDLE_NS / 1e9
    """What nobody reported for so long makes way when there is no room."""


class ServiceView(Protocol):
    """One service as it is registered."""

    @property
    def instances(self) -> Container[str]:
        """Their ids."""

    @property
    def versions(self) -> Container[str]:
        """Theirs."""


class RegistryView(Protocol):
    """The registry as it is now."""

    def service(self, namespace: str, service: str) -> ServiceView | None: ...


class Outcomes:
    """Told by ReportOutcomes."""

    def __init__(self, config: OutcomesConfig | None = None, registry: RegistryView | None = None) -> None:
        """Without a registry, nothing is known of any name."""
        config = config or OutcomesConfig()
        idle_ns = int(config.idle_s * 1e9)
        self._registry = registry
        self._versions = _Table(config.outcomes_max, idle_ns, of_service_max=config.versions_max)
        self._instances = _Table(config.instances_max, idle_ns)
        self._edges = _Table(config.edges_max, idle_ns)

    def report(self, namespace: str, reports: Iterable[Reported], now_ns: int, *, caller: str = "") -> int:
        """Count what a caller reports; returns how many reports were not kept because a table is full.

        InvalidArgument, and nothing is counted, when the buckets of one do not add up.
        """
        return at_once(self.report_in_slices(namespace, reports, now_ns, caller=caller))

    def report_in_slices(
        self, namespace: str, reports: Iterable[Reported], now_ns: int, *, caller: str = ""
    ) -> Work[int]:
        """`report`, for those who have other things to do."""
        checked: list[Reported] = []
        for index, reported in enumerate(reports):
            checked.append(_checked(index, reported))
            if index % SLICE == SLICE - 1:
                yield
        dropped = 0
        for index, reported in enumerate(checked):
            if index % SLICE == SLICE - 1:
                yield
            service, instance_id = reported.service, reported.instance_id
            state = None if self._registry is None else self._registry.service(namespace, service)
            known = state is not None and reported.version in state.versions
            kept = self._versions.count((namespace, service, reported.version), reported, now_ns, known=known)
            if instance_id:
                known = state is not None and instance_id in state.instances
                kept &= self._instances.count((namespace, service, instance_id), reported, now_ns, known=known)
            if caller:
                kept &= self._edges.count((namespace, service, caller), reported, now_ns)
            dropped += not kept
        return dropped

    # Reading.

    def lately(self, namespace: str, service: str, now_ns: int) -> dict[str, Tally]:
        """Of each version, in the last minutes."""
        return {version: row.lately(now_ns) for version, row in self._versions.of(namespace, service).items()}

    def version_rows(self, namespace: str, service: str) -> list[tuple[str, Row]]:
        """The calls of each version."""
        return list(self._versions.of(namespace, service).items())

    def instance_rows(self, namespace: str, service: str) -> list[tuple[str, Row]]:
        """The calls of each instance."""
        return list(self._instances.of(namespace, service).items())

    def edge_rows(self, namespace: str, service: str = "") -> list[tuple[Edge, Row]]:
        """Who calls whom, as far as callers say who they are: all, or those that call a service or are called by it."""
        rows = self._edges.rows(namespace)
        return [(Edge(caller, called), row) for called, caller, row in rows if service in ("", called, caller)]

    def mark(self, namespace: str, service: str) -> Mark:
        """For `since`."""
        rows = self._versions.of(namespace, service)
        return Mark({version: (row, row.total.copy()) for version, row in rows.items()})

    def since(self, namespace: str, service: str, mark: Mark) -> dict[str, Tally]:
        """Of each version, since the mark. A row that made way meanwhile and was made again counts from then on."""
        found: dict[str, Tally] = {}
        for version, row in self._versions.of(namespace, service).items():
            tally = found[version] = row.total.copy()
            marked = mark.totals.get(version)
            if marked is not None and marked[0] is row:
                tally.add(marked[1], sign=-1)
        return found

    def metrics(self) -> dict[str, float]:
        """Counts and bounds by name."""
        tables = {"outcomes": self._versions, "outcome_instances": self._instances, "outcome_edges": self._edges}
        found: dict[str, float] = {}
        for name, table in tables.items():
            found |= {name: len(table), f"{name}_max": table.rows_max, f"{name}_dropped_total": table.dropped}
        return found


_Key = tuple[str, str, str]
"""Namespace, service, and what of it."""


class _Table:
    """Rows by service, and in the order in which they make way."""

    def __init__(self, rows_max: int, idle_ns: int, *, of_service_max: int | None = None) -> None:
        self.rows_max = rows_max
        self._of_service_max = rows_max if of_service_max is None else of_service_max
        self.dropped = 0
        """Reports that were not kept, since the start."""
        self._idle_ns = idle_ns
        self._known: dict[_Key, Row] = {}
        """What the registry knew once, in the order in which it last did."""
        self._claimed: dict[_Key, Row] = {}
        """What it never knew, in the order of the last report."""
        self._by_service: dict[tuple[str, str], dict[str, Row]] = {}

    def __len__(self) -> int:
        return len(self._known) + len(self._claimed)

    def of(self, namespace: str, service: str) -> Mapping[str, Row]:
        return self._by_service.get((namespace, service), {})

    def rows(self, namespace: str) -> Iterator[tuple[str, str, Row]]:
        for (where, service), rows in self._by_service.items():
            if where == namespace:
                yield from ((service, name, row) for name, row in rows.items())

    def count(self, key: _Key, reported: Reported, now_ns: int, *, known: bool = False) -> bool:
        """Whether it was kept. `known`: the registry knows now what it is of."""
        row = self._by_service.get(key[:2], {}).get(key[2])
        if row is None:
            if not self._room(key[:2], now_ns, known=known):
                self.dropped += 1
                return False
            row = self._by_service.setdefault(key[:2], {})[key[2]] = Row(now_ns)
        row.count(reported, now_ns)
        if known:
            self._claimed.pop(key, None)
            self._known.pop(key, None)
            self._known[key] = row
            row.known_ns = now_ns
        elif row.known_ns is None:
            self._claimed.pop(key, None)
            self._claimed[key] = row
        return True

    def _room(self, service: tuple[str, str], now_ns: int, *, known: bool) -> bool:
        of_service = self._by_service.get(service, {})
        if len(of_service) >= self._of_service_max:
            first = min(of_service, key=lambda name: (_used_ns(of_service[name], known), of_service[name].reported_ns))
            return self._made_way((*service, first), now_ns, known=known)
        if len(self) < self.rows_max:
            return True
        firsts = (next(iter(rows)) for rows in (self._claimed, self._known) if rows)
        return any(self._made_way(first, now_ns, known=known) for first in firsts)

    def _made_way(self, key: _Key, now_ns: int, *, known: bool) -> bool:
        """Whether a row went for a new one, of which the registry knows or not."""
        rows = self._claimed if key in self._claimed else self._known
        if now_ns - _used_ns(rows[key], known) < self._idle_ns:
            return False
        del rows[key]
        of_service = self._by_service[key[:2]]
        del of_service[key[2]]
        if not of_service:
            del self._by_service[key[:2]]
        return True


def _used_ns(row: Row, known: bool) -> float:
    """Since when a row is idle in the eyes of a new one, of which the registry knows or not."""
    if not known:
        return row.reported_ns
    return -inf if row.known_ns is None else row.known_ns


def _checked(index: int, reported: Reported) -> Reported:
    if reported.buckets:
        where = f"outcomes[{index}].latency_buckets"
        if (last := max(reported.buckets)) > LAST:
            raise InvalidArgument.of(where, f"buckets from 0 to {LAST}", last)
        if (counted := sum(reported.buckets.values())) != reported.calls:
            raise InvalidArgument.of(where, f"as many calls as `count` in all, {reported.calls}, or none", counted)
    return reported
