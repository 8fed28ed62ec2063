"""Who may get a call, and with what weight: a policy and candidates in, pools out.

Pure, and run when something changes; what is done for each call is trunkline.core.call_chain. The SDK, the server's Pick
and `explain` share it, so they cannot disagree. A service has thousands of instances, so what looks at all of them is
trunkline.core.work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from trunkline.core.localities import EVERYBODY, NOWHERE, Count, level_of, levels_of, loads, passed_over
from trunkline.core.model import ROUTABLE, Endpoint, Locality, RegisteredInstance, Status
from trunkline.core.parts import WHATEVER, Parts
from trunkline.core.policy import Algorithm, Destination, LocalityScope, Policy, SlowStart
from trunkline.core.selector import Selector
from trunkline.core.slow_start import factor_of, next_step_ns
from trunkline.core.work import PIECE, Work, at_once, by_pieces, is_full, pieces

ANY = Selector()
"""What may be called."""

WEIGHT_SCALE = 1_000
"""Weights are multiplied by it while some are reduced, so that little is lost by rounding."""

SLOWLY_STARTED = frozenset({Algorithm.ROUND_ROBIN, Algorithm.WEIGHTED_RANDOM, Algorithm.LEAST_REQUEST})
"""What goes by weights that may change at any time. Tables of hashes do not: keys would move without need."""


class Candidate:
    """An instance with the endpoint that would be called, and what its caller knows of it."""

    __slots__ = ("_address", "ejected", "endpoint", "instance", "new_since_ns", "out", "slot")

    def __init__(
        self,
        instance: RegisteredInstance,
        endpoint: Endpoint | None,
        *,
        slot: int = -1,
        out: str = "",
        ejected: str = "",
        new_since_ns: int | None = None,
    ) -> None:
        self.instance = instance
        self.endpoint = endpoint
        """The first that speaks the protocol; None when none does."""
        self.slot = slot
        """Its number where calls in flight are counted."""
        self.out = out
        """Why it cannot be reached; empty when it can."""
        self.ejected = ejected
        """Why outlier detection ejected it; empty when it did not."""
        self.new_since_ns = new_since_ns
        """Since when it counts as new, on the clock of `now_ns`; None when it does not."""
        self._address = ""

    @property
    def address(self) -> str:
        """Of its endpoint, empty when there is none. An endpoint that takes another's place has the same."""
        if not self._address and self.endpoint is not None:
            self._address = self.endpoint.address
        return self._address


class Level(NamedTuple):
    """Those that are picked and equally near."""

    name: str
    load_percent: int
    """Of the pool's calls; levels without calls are not there."""
    candidates: Sequence[Candidate]
    weights: Sequence[int]
    """Of each, as pickers take it: relative to the others of its level."""
    weight_scale: int
    """What the weights have been multiplied with."""


class Pool(NamedTuple):
    """Those that calls to one destination may go to; at least one."""

    status: Status
    levels: tuple[Level, ...]
    panic: bool
    """Ejected ones are among them, because too few others are left."""
    unreachable: bool
    """None of them can be reached, and trying is better than refusing."""


class Liveness(NamedTuple):
    """How well calls to a destination could be answered; smaller is better."""

    nobody: bool
    unreachable: bool
    stale: bool


class _Group(NamedTuple):
    """Whether anybody of a group can be reached, and whether anybody is not STALE."""

    reachable: bool
    reachable_live: bool
    live: bool


class _Tier(NamedTuple):
    status: Status
    everybody: list[Candidate]
    picked: list[Candidate]
    panic: bool
    unreachable: bool


class Placement:
    """One policy, one set of candidates, one caller, one time. Pools are made when they are asked for, and kept."""

    def __init__(
        self,
        policy: Policy,
        candidates: Iterable[Candidate],
        *,
        where: Locality = NOWHERE,
        now_ns: int = 0,
        selector: Selector = ANY,
        prepared: bool = True,
    ) -> None:
        """`selector` narrows what is called besides what the policy says. When it is not `prepared`, `preparing` is to be
        done before anything is asked.
        """
        self.policy = policy
        self.candidates: Sequence[Candidate] = tuple(candidates)
        self.where = where
        self.now_ns = now_ns
        self.statuses = selector.statuses or ROUTABLE
        """Those of whom may be called."""
        self.matches = None if selector.only_statuses else _without_statuses(selector).matches
        """What else the selector asks of them, if anything."""
        self._able: list[Candidate] = []
        self._parts = Parts((), policy.subsets)
        self._found: dict[Destination | None, list[Candidate]] = {}
        self._pools: dict[Destination | None, Pool | None] = {}
        self._of_groups: list[_Group] | None = None
        self.next_ns: int | None = None
        """When weights are to be worked out anew because instances are less new; None when they are not."""
        if prepared:
            at_once(self.preparing())

    def preparing(self) -> Work[None]:
        """Who can be called at all, and when somebody will be less new."""
        self._able = yield from by_pieces(self.candidates, self._able_of)
        instances = yield from by_pieces(self._able, lambda some: [one.instance for one in some])
        self._parts = Parts(instances, self.policy.subsets)
        self._found = {None: self._able}
        slow = self._slow_start
        if slow is not None:
            news = yield from by_pieces(self._able, lambda some: _news(slow, some, self.now_ns))
            self.next_ns = next_step_ns(slow, min(news), self.now_ns) if news else None

    def _able_of(self, some: Sequence[Candidate]) -> list[Candidate]:
        statuses, matches = self.statuses, self.matches
        found = [one for one in some if one.endpoint is not None and one.instance.status in statuses]
        return found if matches is None else [one for one in found if matches(one.instance)]

    @property
    def _slow_start(self) -> SlowStart | None:
        """As far as it matters to how calls are balanced."""
        return self.policy.slow_start if self.policy.load_balancing.algorithm in SLOWLY_STARTED else None

    def pool(self, destination: Destination | None = None) -> Pool | None:
        """Those that calls to a destination may go to, of all when it is None; None when nobody is there."""
        return at_once(self.making_pool(destination))

    def making_pool(self, destination: Destination | None = None) -> Work[Pool | None]:
        """See `pool`."""
        key = _unweighted(destination)
        if key not in self._pools:
            part = yield from self._finding_part(key)
            self._pools[key] = yield from self._make_pool(part)
        return self._pools[key]

    def reserve(self, destination: Destination | None = None) -> Pool | None:
        """Those who would be as good as a destination's pool were they not ejected; None when there are none.

        They are called when the pool's breakers refuse: trying is better than that, as in a panic.
        """
        return at_once(self.making_reserve(destination))

    def making_reserve(self, destination: Destination | None = None) -> Work[Pool | None]:
        """See `reserve`."""
        pool = yield from self.making_pool(destination)
        if pool is None or pool.panic:
            return None
        status, unreachable = pool.status, pool.unreachable

        def held_of(some: Sequence[Candidate]) -> list[Candidate]:
            return [
                one for one in some if one.ejected and one.instance.status <= status and (unreachable or not one.out)
            ]

        part = yield from self._finding_part(_unweighted(destination))
        held = yield from by_pieces(part, held_of)
        if not held:
            return None
        return (yield from self._pool_of(_Tier(status, held, held, panic=True, unreachable=unreachable)))

    def companions(self, of: Candidate) -> list[Candidate]:
        """Those that can stand in for a candidate: of a destination of the split that takes it, itself included."""
        split = self.policy.split
        named = [] if split is None else [*(match.destination for match in split.matches), *split.destinations]
        for destination in named:
            if self._parts.takes(destination)(of.instance):
                return self._part(_unweighted(destination))
        return self._able

    def liveness(self, destination: Destination | None) -> Liveness:
        """How well calls to a destination could be answered now; to any instance when it is None."""
        of_groups = at_once(self.grouping())
        groups = [of_groups[number] for number in self._parts.groups_of(_unweighted(destination))]
        reachable = any(group.reachable for group in groups)
        live = any(group.reachable_live if reachable else group.live for group in groups)
        return Liveness(nobody=not groups, unreachable=not reachable, stale=not live)

    def grouping(self) -> Work[list[_Group]]:
        """What `liveness` is made of: each group of the parts."""
        if self._of_groups is None:
            groups = yield from self._parts.grouping()
            found: list[_Group] = []
            looked_at = 0
            for places in groups:
                live = reachable = reachable_live = False
                for some in pieces(places):
                    group = [self._able[place] for place in some]
                    lively = [one for one in group if one.instance.status is not Status.STALE]
                    live = live or bool(lively)
                    reachable = reachable or any(not one.out for one in group)
                    reachable_live = reachable_live or any(not one.out for one in lively)
                    looked_at += len(some)
                    if looked_at >= PIECE:
                        looked_at = 0
                        yield
                found.append(_Group(reachable, reachable_live, live))
            self._of_groups = found
        return self._of_groups

    # Who is there at all.

    def takes(self, destination: Destination | None) -> Callable[[RegisteredInstance], bool]:
        """Whether an instance lies in a destination; None takes all."""
        return self._parts.takes(destination)

    def _part(self, destination: Destination | None) -> list[Candidate]:
        return at_once(self._finding_part(destination))

    def _finding_part(self, destination: Destination | None) -> Work[list[Candidate]]:
        part = self._found.get(destination)
        if part is None:
            yield from self._parts.grouping()
            places = self._parts.places_of(destination)
            part = yield from by_pieces(places, lambda some: [self._able[place] for place in some])
            self._found[destination] = part
        return part

    # Which of them are picked.

    def _make_pool(self, part: list[Candidate]) -> Work[Pool | None]:
        tier = yield from self._tier(part)
        return None if tier is None else (yield from self._pool_of(tier))

    def _pool_of(self, tier: _Tier) -> Work[Pool]:
        counts, levels = yield from self._spread(tier)
        preference = self.policy.locality
        shares = [100] if preference is None else loads(counts, preference.overprovisioning_factor)
        made: list[Level] = []
        for (name, picked), share in zip(levels, shares, strict=True):
            if share and picked:
                level = yield from self._level(name, share, picked)
                made.append(level)
        return Pool(tier.status, tuple(made), tier.panic, tier.unreachable)

    def _tier(self, part: list[Candidate]) -> Work[_Tier | None]:
        """The best status that there is, and who of it is picked.

        Ejections give way when too few are left (https://www.envoyproxy.io/docs, "Panic threshold"), and when there would
        be nobody, or only STALE ones.
        """
        reachable = yield from by_pieces(part, lambda some: [one for one in some if not one.out])
        everybody = yield from _by_status(part)
        tiers = everybody
        if 0 < len(reachable) < len(part):
            tiers = yield from _by_status(reachable)
        live: list[Status] = [status for status in tiers if status is not Status.STALE] or list(tiers)
        for status in live:
            left = yield from by_pieces(tiers[status], lambda some: [one for one in some if not one.ejected])
            enough = 100 * len(left) >= self.policy.healthy_panic_threshold * len(everybody[status])
            if left and (enough or len(left) == len(tiers[status])):
                return _Tier(status, everybody[status], left, panic=False, unreachable=not reachable)
            if not enough:
                return _Tier(status, everybody[status], tiers[status], panic=True, unreachable=not reachable)
        if not live:
            return None
        return _Tier(live[0], everybody[live[0]], tiers[live[0]], panic=True, unreachable=not reachable)

    def _spread(self, tier: _Tier) -> Work[tuple[list[Count], list[tuple[str, list[Candidate]]]]]:
        """The levels of a tier with who is picked of each; small ones have gone into the next."""
        scopes = levels_of(self.policy.locality, self.where)
        names = [*(scope.name.lower() for scope in scopes), EVERYBODY]
        everybody = picked = yield from self._by_level(tier.everybody, scopes)
        if len(tier.picked) != len(tier.everybody):
            picked = yield from self._by_level(tier.picked, scopes)
        preference = self.policy.locality
        counts = [Count(len(some), len(all_)) for some, all_ in zip(picked, everybody, strict=True)]
        joined = passed_over(counts, preference.min_instances if preference else 1)
        levels: list[tuple[str, list[Candidate]]] = []
        sums: list[Count] = []
        for number, name in enumerate(names):
            from_ = [other for other, target in enumerate(joined) if target == number]
            if from_:
                levels.append((name, list(chain.from_iterable(picked[other] for other in from_))))
                sums.append(Count(len(levels[-1][1]), sum(counts[other].all for other in from_)))
        return sums, levels

    def _by_level(self, candidates: list[Candidate], scopes: list[LocalityScope]) -> Work[list[list[Candidate]]]:
        if not scopes:
            return [candidates]
        found: list[list[Candidate]] = [[] for _ in range(len(scopes) + 1)]
        of_locality: dict[int, list[Candidate]] = {}  # by identity: thousands share the values of few places
        for some in pieces(candidates):
            for one in some:
                locality = one.instance.instance.locality
                level = of_locality.get(id(locality))
                if level is None:
                    level = of_locality[id(locality)] = found[level_of(scopes, self.where, locality)]
                level.append(one)
            if is_full(some):
                yield
        return found

    def _level(self, name: str, load_percent: int, candidates: list[Candidate]) -> Work[Level]:
        weights = yield from by_pieces(candidates, lambda some: [one.instance.instance.weight for one in some])
        if not any(weights):
            weights = [1] * len(weights)
        slow = self._slow_start
        if slow is None:
            return Level(name, load_percent, candidates, weights, 1)
        now_ns = self.now_ns
        factors = yield from by_pieces(
            candidates, lambda some: [factor_of(slow, one.new_since_ns, now_ns) for one in some]
        )
        if min(factors) == 1.0:
            return Level(name, load_percent, candidates, weights, 1)
        weighted = tuple(zip(weights, factors, strict=True))
        scaled = yield from by_pieces(
            weighted, lambda some: [max(1, round(w * f * WEIGHT_SCALE)) if w else 0 for w, f in some]
        )
        return Level(name, load_percent, candidates, scaled, WEIGHT_SCALE)


def name_of(destination: Destination | None) -> str:
    """Says which one is meant."""
    if destination is None:
        return "any"
    return f"subset {destination.subset}" if destination.subset else f"version {destination.version}"


def _unweighted(destination: Destination | None) -> Destination | None:
    """The same part of a service is one pool, whatever share leads to it."""
    if destination is None or not destination.weight:
        return destination
    return Destination(subset=destination.subset, version=destination.version)


def _without_statuses(selector: Selector) -> Selector:
    return Selector(version=selector.version, labels=selector.labels, locality=selector.locality, statuses=WHATEVER)


def _by_status(candidates: Sequence[Candidate]) -> Work[dict[Status, list[Candidate]]]:
    statuses = yield from by_pieces(candidates, lambda some: [one.instance.status for one in some])
    distinct = sorted(set(statuses))
    if len(distinct) == 1:
        return {distinct[0]: list(candidates)}
    found: dict[Status, list[Candidate]] = {status: [] for status in distinct}
    for some in pieces(tuple(zip(statuses, candidates, strict=True))):
        for status, one in some:
            found[status].append(one)
        if is_full(some):
            yield
    return found


def _news(slow: SlowStart, some: Iterable[Candidate], now_ns: int) -> list[int]:
    """Since when those are new that still are. The oldest is the first whose weight is to be worked out again."""
    begun_ns = now_ns - slow.window_ns
    return [since for one in some if (since := one.new_since_ns) is not None and since > begun_ns]
