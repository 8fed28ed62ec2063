"""Who may get a call, with what weight, and why the others may not: a policy and candidates in, pools out.

Pure, and run when something changes; what is done for each call is trunkline.core.call_chain. The SDK, the server's Pick
and `explain` share it, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

from trunkline.core.localities import EVERYBODY, NOWHERE, Count, level_of, levels_of, loads, passed_over
from trunkline.core.model import ROUTABLE, Endpoint, Locality, RegisteredInstance, Status
from trunkline.core.parts import WHATEVER, Parts
from trunkline.core.policy import Algorithm, Destination, LocalityScope, Policy
from trunkline.core.selector import Selector
from trunkline.core.slow_start import factor_of, next_step_ns

ANY = Selector()
"""What may be called."""

WEIGHT_SCALE = 1_000
"""Weights are multiplied by it while some are reduced, so that little is lost by rounding."""

SLOWLY_STARTED = frozenset({Algorithm.ROUND_ROBIN, Algorithm.WEIGHTED_RANDOM, Algorithm.LEAST_REQUEST})
"""What goes by weights that may change at any time. Tables of hashes do not: keys would move without need."""


class Candidate:
    """An instance with the endpoint that would be called, and what its caller knows of it."""

    __slots__ = ("ejected", "endpoint", "instance", "new_since_ns", "out", "slot")

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


class Exclusion(NamedTuple):
    """Why a candidate is not picked. Rules are named in trunkline.api.v1.traffic."""

    rule: str
    detail: str


class Member(NamedTuple):
    """One that is picked."""

    candidate: Candidate
    weight: int
    """As pickers take it: relative to the others of its level."""


class Level(NamedTuple):
    """Members that are equally near."""

    name: str
    load_percent: int
    """Of the pool's calls; levels without calls are not there."""
    members: tuple[Member, ...]
    weight_scale: int
    """What the members' weights have been multiplied with."""


class Pool(NamedTuple):
    """Those that calls to one destination may go to; at least one."""

    status: Status
    levels: tuple[Level, ...]
    panic: bool
    """Ejected ones are among them, because too few others are left."""
    unreachable: bool
    """None of them can be reached, and trying is better than refusing."""


class Verdict(NamedTuple):
    """A candidate in the eyes of a pick."""

    candidate: Candidate
    exclusions: tuple[Exclusion, ...]
    weight: float
    """Slow start and its level's share taken in."""
    share_percent: float
    """Of the destination's calls, by weight."""


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
    ) -> None:
        """`selector` narrows what is called besides what the policy says."""
        self.policy = policy
        self.candidates: Sequence[Candidate] = tuple(candidates)
        self.where = where
        self.now_ns = now_ns
        self._statuses = selector.statuses or ROUTABLE
        self._matches = _without_statuses(selector).matches
        self._able = [
            one
            for one in self.candidates
            if one.endpoint is not None and one.instance.status in self._statuses and self._matches(one.instance)
        ]
        self._parts = Parts([one.instance for one in self._able], policy.subsets)
        self._found: dict[Destination | None, list[Candidate]] = {None: self._able}
        self._pools: dict[Destination | None, Pool | None] = {}

    @property
    def next_ns(self) -> int | None:
        """When weights are to be worked out anew because instances are less new; None when they are not."""
        slow = self.policy.slow_start
        if slow is None or self.policy.load_balancing.algorithm not in SLOWLY_STARTED:
            return None
        news = [one.new_since_ns for one in self._able if one.new_since_ns is not None]
        return min((due for since in news if (due := next_step_ns(slow, since, self.now_ns)) is not None), default=None)

    def pool(self, destination: Destination | None = None) -> Pool | None:
        """Those that calls to a destination may go to, of all when it is None; None when nobody is there."""
        key = _unweighted(destination)
        if key not in self._pools:
            self._pools[key] = self._make_pool(self._part(key))
        return self._pools[key]

    def reserve(self, destination: Destination | None = None) -> Pool | None:
        """Those who would be as good as a destination's pool were they not ejected; None when there are none.

        They are called when the pool's breakers refuse: trying is better than that, as in a panic.
        """
        pool = self.pool(destination)
        if pool is None or pool.panic:
            return None
        held = [
            one
            for one in self._part(_unweighted(destination))
            if one.ejected and one.instance.status <= pool.status and (pool.unreachable or not one.out)
        ]
        tier = _Tier(pool.status, held, held, panic=True, unreachable=pool.unreachable)
        return self._pool_of(tier) if held else None

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
        groups = [self._of_groups[number] for number in self._parts.groups_of(_unweighted(destination))]
        reachable = any(group.reachable for group in groups)
        live = any(group.reachable_live if reachable else group.live for group in groups)
        return Liveness(nobody=not groups, unreachable=not reachable, stale=not live)

    @cached_property
    def _of_groups(self) -> list[_Group]:
        """Of each group of the parts."""
        found = []
        for places in self._parts.groups:
            group = [self._able[place] for place in places]
            live = [one for one in group if one.instance.status is not Status.STALE]
            reachable = any(not one.out for one in group)
            found.append(_Group(reachable, any(not one.out for one in live), bool(live)))
        return found

    def verdicts(self, destination: Destination | None = None) -> list[Verdict]:
        """What becomes of each candidate in a call to a destination; without exclusions if and only if it can be picked."""
        pool = self.pool(destination)
        inside = (
            {member.candidate: (level, member) for level in pool.levels for member in level.members} if pool else {}
        )
        totals = {level.name: sum(member.weight for member in level.members) for level in pool.levels} if pool else {}
        takes = self._parts.takes(destination)
        found = []
        for one in self.candidates:
            if one not in inside:
                rules = [] if takes(one.instance) else [Exclusion("split", f"not of {name_of(destination)}")]
                found.append(Verdict(one, tuple(self._exclusions(one, rules, pool)), 0.0, 0.0))
                continue
            level, member = inside[one]
            equal = self.policy.load_balancing.algorithm is Algorithm.RANDOM
            part = 1 / len(level.members) if equal else member.weight / totals[level.name]
            weight = member.weight / level.weight_scale * level.load_percent / 100
            exclusions = () if member.weight or equal else (Exclusion("weight", "a weight of 0"),)
            found.append(Verdict(one, exclusions, weight, part * level.load_percent))
        return found

    # Who is there at all.

    def _left_out_of_all(self, one: Candidate) -> list[Exclusion]:
        found = []
        if one.instance.status not in self._statuses:
            found.append(Exclusion("status", _status_detail(one.instance)))
        if one.endpoint is None:
            found.append(Exclusion("protocol", "no endpoint speaks it"))
        if not self._matches(one.instance):
            found.append(Exclusion("selector", "the selector means others"))
        return found

    def _part(self, destination: Destination | None) -> list[Candidate]:
        part = self._found.get(destination)
        if part is None:
            part = self._found[destination] = [self._able[place] for place in self._parts.places_of(destination)]
        return part

    # Which of them are picked.

    def _make_pool(self, part: list[Candidate]) -> Pool | None:
        tier = self._tier(part)
        return None if tier is None else self._pool_of(tier)

    def _pool_of(self, tier: _Tier) -> Pool:
        counts, levels = self._spread(tier)
        preference = self.policy.locality
        shares = [100] if preference is None else loads(counts, preference.overprovisioning_factor)
        made = [
            self._level(name, share, members)
            for (name, members), share in zip(levels, shares, strict=True)
            if share and members
        ]
        return Pool(tier.status, tuple(made), tier.panic, tier.unreachable)

    def _tier(self, part: list[Candidate]) -> _Tier | None:
        """The best status that there is, and who of it is picked.

        Ejections give way when too few are left (https://www.envoyproxy.io/docs, "Panic threshold"), and when there would
        be nobody, or only STALE ones.
        """
        reachable = [one for one in part if not one.out]
        everybody = _by_status(part)
        tiers = _by_status(reachable) if 0 < len(reachable) < len(part) else everybody
        live: list[Status] = [status for status in tiers if status is not Status.STALE] or list(tiers)
        for status in live:
            left = [one for one in tiers[status] if not one.ejected]
            enough = 100 * len(left) >= self.policy.healthy_panic_threshold * len(everybody[status])
            if left and (enough or len(left) == len(tiers[status])):
                return _Tier(status, everybody[status], left, panic=False, unreachable=not reachable)
            if not enough:
                return _Tier(status, everybody[status], tiers[status], panic=True, unreachable=not reachable)
        if not live:
            return None
        return _Tier(live[0], everybody[live[0]], tiers[live[0]], panic=True, unreachable=not reachable)

    def _spread(self, tier: _Tier) -> tuple[list[Count], list[tuple[str, list[Candidate]]]]:
        """The levels of a tier with who is picked of each; small ones have gone into the next."""
        scopes = levels_of(self.policy.locality, self.where)
        names = [*(scope.name.lower() for scope in scopes), EVERYBODY]
        everybody = self._by_level(tier.everybody, scopes)
        picked = everybody if len(tier.picked) == len(tier.everybody) else self._by_level(tier.picked, scopes)
        preference = self.policy.locality
        counts = [Count(len(some), len(all_)) for some, all_ in zip(picked, everybody, strict=True)]
        joined = passed_over(counts, preference.min_instances if preference else 1)
        levels: list[tuple[str, list[Candidate]]] = []
        sums: list[Count] = []
        for number, name in enumerate(names):
            from_ = [other for other, target in enumerate(joined) if target == number]
            if from_:
                levels.append((name, [one for other in from_ for one in picked[other]]))
                sums.append(Count(len(levels[-1][1]), sum(counts[other].all for other in from_)))
        return sums, levels

    def _by_level(self, candidates: list[Candidate], scopes: list[LocalityScope]) -> list[list[Candidate]]:
        if not scopes:
            return [candidates]
        found: list[list[Candidate]] = [[] for _ in range(len(scopes) + 1)]
        for one in candidates:
            found[level_of(scopes, self.where, one.instance.instance.locality)].append(one)
        return found

    def _level(self, name: str, load_percent: int, candidates: list[Candidate]) -> Level:
        weights = [one.instance.instance.weight for one in candidates]
        if not any(weights):
            weights = [1] * len(weights)
        slow = self.policy.slow_start if self.policy.load_balancing.algorithm in SLOWLY_STARTED else None
        factors = [] if slow is None else [factor_of(slow, one.new_since_ns, self.now_ns) for one in candidates]
        if min(factors, default=1.0) < 1.0:
            scaled = [max(1, round(w * f * WEIGHT_SCALE)) if w else 0 for w, f in zip(weights, factors, strict=True)]
            return Level(name, load_percent, _members(candidates, scaled), WEIGHT_SCALE)
        return Level(name, load_percent, _members(candidates, weights), 1)

    # Why the others are not.

    def _exclusions(self, one: Candidate, rules: list[Exclusion], pool: Pool | None) -> list[Exclusion]:
        found = self._left_out_of_all(one) + rules
        if found or pool is None:
            return found
        if one.instance.status is not pool.status:
            found.append(Exclusion("tier", f"behind {pool.status.name} ones"))
        if one.out and not pool.unreachable:
            found.append(Exclusion("unreachable", one.out))
        if one.ejected and not pool.panic:
            found.append(Exclusion("ejected", one.ejected))
        if not found:
            found.append(Exclusion("locality", "nearer ones get all calls"))
        return found


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


def _by_status(candidates: Iterable[Candidate]) -> dict[Status, list[Candidate]]:
    found: dict[Status, list[Candidate]] = {}
    for one in candidates:
        found.setdefault(one.instance.status, []).append(one)
    return dict(sorted(found.items()))


def _members(candidates: Sequence[Candidate], weights: Sequence[int]) -> tuple[Member, ...]:
    return tuple(map(Member, candidates, weights))


def _status_detail(registered: RegisteredInstance) -> str:
    reason = registered.status_reason
    return f"{registered.status.name}: {reason}" if reason else registered.status.name
