"""Never empty by accident: what becomes of an instance whose lease has run out.

It goes, except when it is kept (STALE) because
- over `lapsed_percent_max` of its namespace's leases, and at least `lapses_min`, lapse within one TTL: that is the
  network's or our own doing more often than theirs, so expiry pauses and an alarm is raised; or
- no other instance of its service would serve.
An instance that declared itself DRAINING has said that it leaves: it goes, and is not counted.

Leases that fall silent together run out one after the other, as they were last renewed. So that the first of them do
not go before the last are counted, those that missed keep-alives count with the lapsed; when they are heard of again,
the pause ends.

Pure: who is there is asked of the fold, and times are monotonic nanoseconds without the server's stalls.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from .entity import InstanceKey


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardConfig:
    """When the guard holds instances back, and for how long."""

    lapsed_percent_max: int = 15
    """Expiry pauses when more of a namespace's leases lapse within one TTL, and goes on when fewer are lapsed."""
    lapses_min: int = 5
    """... but never for fewer leases than this."""
    silent_percent: int = 60
    """A lease counts as about to lapse after this part of its TTL. Holders renew after a third."""
    stale_retention_ms: int = 600_000
    """A lapsed instance is kept no longer than this, and a pause lasts no longer."""


class Lapse(NamedTuple):
    """A lease that has run out."""

    lease_id: int
    instance: InstanceKey
    ttl_ms: int
    serving: bool
    """Its instance is SERVING or DEGRADED."""
    draining: bool
    """Its instance declared itself DRAINING."""


class Judgement(NamedTuple):
    """What becomes of it, and why, for people."""

    lapse: Lapse
    keep: bool
    why: str


class Population(Protocol):
    """Who is there."""

    def leases(self, namespace: str) -> tuple[int, int]:
        """How many leases a namespace has, and how many of them have lapsed."""

    def serving(self, namespace: str, service: str) -> int:
        """How many instances of a service are SERVING or DEGRADED, and alive."""


class Ended(NamedTuple):
    """A pause that is over."""

    namespace: str
    why: str


NO_KEEP_ALIVE = "no keep-alive within the TTL"
LAST_SERVING = "no other instance of its service serves"


@dataclass(slots=True)
class _Namespace:
    """The lapses of one namespace that are not older than their TTL, and its pause."""

    until_ns: dict[int, int] = field(default_factory=dict)  # by lease: until when its lapse counts
    by_time: list[tuple[int, int]] = field(default_factory=list)  # heap; what `until_ns` does not confirm is void
    gone: set[int] = field(default_factory=set)  # of these, whose instances are removed
    paused_since_ns: int | None = None

    def forget(self, lease_id: int) -> None:
        if self.until_ns.pop(lease_id, None) is not None:
            self.gone.discard(lease_id)

    def forget_before(self, now_ns: int) -> None:
        while self.by_time and self.by_time[0][0] <= now_ns:
            until_ns, lease_id = heapq.heappop(self.by_time)
            if self.until_ns.get(lease_id) == until_ns:
                self.forget(lease_id)

    def clear(self) -> None:
        self.until_ns.clear()
        self.by_time.clear()
        self.gone.clear()
        self.paused_since_ns = None


class Guard:
    """Judges lapsed leases, pauses and resumes expiry, namespace by namespace."""

    def __init__(self, config: GuardConfig) -> None:
        self.config = config
        self._namespaces: dict[str, _Namespace] = {}

    def judge(
        self, due: Sequence[Lapse], population: Population, now_ns: int, *, silent: Mapping[str, int]
    ) -> list[Judgement]:
        """Decide on leases that ran out together: all are counted before the first is decided on.

        `silent` says how many live leases of each namespace are about to lapse, those in `due` among them.
        """
        others = dict(silent)
        for lapse in due:
            namespace = lapse.instance.namespace
            others[namespace] = others.get(namespace, 0) - 1
            if not lapse.draining:
                self._count(lapse, now_ns)
        for namespace in {lapse.instance.namespace for lapse in due}:
            self._pause_if_many(namespace, max(0, others[namespace]), population, now_ns)
        falling: dict[tuple[str, str], int] = {}
        for lapse in due:
            service = lapse.instance[:2]
            falling[service] = falling.get(service, 0) + lapse.serving
        left = {service: population.serving(*service) - count for service, count in falling.items()}
        paused = {
            namespace: self.explain(namespace, population)
            for namespace in {lapse.instance.namespace for lapse in due}
            if self.paused_since_ns(namespace) is not None
        }
        return [self._judge_one(lapse, left[lapse.instance[:2]], paused) for lapse in due]

    def _judge_one(self, lapse: Lapse, serving_left: int, paused: Mapping[str, str]) -> Judgement:
        """`paused` says of each namespace in which expiry is paused why."""
        if lapse.draining:
            return Judgement(lapse, False, NO_KEEP_ALIVE)
        if lapse.instance.namespace in paused:
            return Judgement(lapse, True, paused[lapse.instance.namespace])
        if serving_left <= 0:
            return Judgement(lapse, True, LAST_SERVING)
        return Judgement(lapse, False, NO_KEEP_ALIVE)

    def _count(self, lapse: Lapse, now_ns: int) -> None:
        state = self._namespaces.setdefault(lapse.instance.namespace, _Namespace())
        if lapse.lease_id not in state.until_ns:
            until_ns = now_ns + lapse.ttl_ms * 1_000_000
            state.until_ns[lapse.lease_id] = until_ns
            heapq.heappush(state.by_time, (until_ns, lapse.lease_id))

    def _pause_if_many(self, namespace: str, silent: int, population: Population, now_ns: int) -> None:
        state = self._namespaces.get(namespace)
        if state is None:
            return
        state.forget_before(now_ns)
        total = population.leases(namespace)[0] + len(state.gone)
        if state.until_ns and state.paused_since_ns is None and self._is_many(len(state.until_ns) + silent, total):
            state.paused_since_ns = now_ns

    def _is_many(self, lapsed: int, total: int) -> bool:
        return lapsed >= self.config.lapses_min and lapsed * 100 > self.config.lapsed_percent_max * total

    def begin(self, namespaces: Iterable[str], population: Population, now_ns: int) -> None:
        """After a start: a namespace that was paused before still is, by the looks of it."""
        for namespace in namespaces:
            total, lapsed = population.leases(namespace)
            if self._is_many(lapsed, total):
                self._namespaces.setdefault(namespace, _Namespace()).paused_since_ns = now_ns

    def review(self, population: Population, now_ns: int, *, silent: Mapping[str, int]) -> list[Ended]:
        """End the pauses that have lost their cause. What lapsed in those namespaces may go now."""
        ended = []
        for namespace, state in list(self._namespaces.items()):
            state.forget_before(now_ns)
            if state.paused_since_ns is not None:
                why = self._why_over(state, population.leases(namespace), silent.get(namespace, 0), now_ns)
                if why:
                    state.clear()
                    ended.append(Ended(namespace, why))
            if not state.until_ns and state.paused_since_ns is None:
                del self._namespaces[namespace]
        return ended

    def _why_over(self, state: _Namespace, leases: tuple[int, int], silent: int, now_ns: int) -> str:
        assert state.paused_since_ns is not None
        if now_ns - state.paused_since_ns >= self.config.stale_retention_ms * 1_000_000:
            return f"expiry was paused for {self.config.stale_retention_ms // 1_000} s"
        total, lapsed = leases[0] + len(state.gone), leases[1] + len(state.gone)
        if (lapsed + silent) * 100 < self.config.lapsed_percent_max * total or not total:
            return f"{lapsed} of {total} leases are lapsed, {silent} about to"
        return ""

    def end(self, namespace: str) -> bool:
        """An operator ends the pause. False if there was none."""
        state = self._namespaces.pop(namespace, None)
        return state is not None and state.paused_since_ns is not None

    def removed(self, namespace: str, lease_id: int) -> None:
        """The instance of a lapsed lease is no longer there."""
        state = self._namespaces.get(namespace)
        if state is not None and lease_id in state.until_ns:
            state.gone.add(lease_id)

    def restored(self, namespace: str, lease_id: int) -> None:
        """A lapsed lease was heard of again: it had not lapsed after all."""
        state = self._namespaces.get(namespace)
        if state is not None:
            state.forget(lease_id)

    def paused_since_ns(self, namespace: str) -> int | None:
        """Since when expiry is paused in a namespace; None if it is not."""
        state = self._namespaces.get(namespace)
        return None if state is None else state.paused_since_ns

    def paused(self) -> list[str]:
        """Namespaces in which expiry is paused."""
        return [name for name, state in self._namespaces.items() if state.paused_since_ns is not None]

    def explain(self, namespace: str, population: Population) -> str:
        """The namespace's state in one line."""
        total, lapsed = population.leases(namespace)
        state = self._namespaces.get(namespace, _Namespace())
        recent, total = len(state.until_ns), total + len(state.gone)
        if state.paused_since_ns is None:
            return f"expiry goes on: {recent} of {total} leases lapsed within their TTL"
        return (
            f"expiry is paused: of {total} leases, more than {self.config.lapsed_percent_max} % and at least "
            f"{self.config.lapses_min} lapsed within their TTL or are about to; {lapsed} are kept"
        )
