"""Mistakes that show where callers have policies and backends are in trouble."""

from __future__ import annotations

from functools import partial

from simulation.mutants.mutant import CALLING, CLIENT, CORE, Mutant

_Mutant = partial(Mutant, world=CALLING)

CALLING_MUTANTS = (
    # Retries.
    _Mutant(
        "retries are not taken from the budget",
        f"{CLIENT}._attempts",
        "        return self._budget is None or self._budget.take(now_ns)\n",
        "        return True\n",
    ),
    _Mutant(
        "a call is told to the budget twice",
        f"{CLIENT}._guards",
        "            self.budget.called(now_ns)\n",
        "            self.budget.called(now_ns)\n            self.budget.called(now_ns)\n",
    ),
    _Mutant(
        "an attempt more than there may be",
        f"{CLIENT}._attempts",
        "        if self._failed >= retry.max_attempts:\n",
        "        if self._failed > retry.max_attempts:\n",
    ),
    _Mutant(
        "a retry goes where the call went before",
        f"{CLIENT}._balancer",
        "evaluator.begin(metadata, key, avoid=self._slots_of(tried), ",
        "evaluator.begin(metadata, key, avoid=None, ",
    ),
    _Mutant(
        "who has the place of one that was tried and is gone counts as tried",
        f"{CLIENT}._balancer",
        "for one in tried if self.holds(one))",
        "for one in tried)",
        test="tests/unit/client/test_balancer_policy.py"
        "::test_who_has_the_place_of_one_that_was_tried_and_is_gone_was_not_tried",
    ),
    _Mutant(
        "an endpoint that could not be connected has a call for ever",
        f"{CLIENT}._way",
        "        self._end(Outcome.CANCELLED)\n",
        "        self._route.ticket = None\n",
    ),
    _Mutant(
        "ejected ones are not tried when all others refuse",
        f"{CORE}.placement",
        "        if pool is None or pool.panic:\n",
        "        if True:\n",
    ),
    # Hosts come and go.
    _Mutant(
        "who is gone is picked",
        f"{CLIENT}._balancer",
        "        self._updated = True\n        self._evaluator = None\n",
        "        self._updated = True\n",
    ),
    _Mutant(
        "those that are gone keep their places",
        f"{CLIENT}._balancer",
        "            self._calls.release(gone.slot)\n",
        "            pass\n",
    ),
    _Mutant(
        "a newcomer has no breaker",
        f"{CLIENT}._balancer",
        "            self._calls.set_endpoint_breaker(made.slot, breaker)\n",
        "            pass\n",
    ),
    _Mutant(
        "outlier detection takes an address for a host",
        f"{CLIENT}._outliers",
        '    return " ".join(candidate.key)',
        "    return candidate.endpoint.address",
    ),
    _Mutant(
        "those that leave may leave ejected ones alone",
        f"{CORE}.outliers",
        "        if hosts and self.ejected_count == len(hosts):\n",
        "        if False:\n",
    ),
    # Splits.
    _Mutant(
        "a retry chooses its version anew",
        f"{CLIENT}._way",
        "destination=route.destination, earlier=route.earlier\n",
        "destination=route.destination\n",
    ),
    _Mutant(
        "a side that nobody is on has its share",
        f"{CORE}.splits",
        "zip(destinations, ranks, strict=True) if rank == best]",
        "zip(destinations, ranks, strict=True)]",
    ),
    _Mutant(
        "sides have equal shares of the calls",
        f"{CORE}.splits",
        "bisect_right(self._sums, rng.below(self._sums[-1]))",
        "rng.below(len(self._sums))",
    ),
    _Mutant(
        "sides have equal shares of the keys",
        f"{CORE}.splits",
        " / weight if weight else",
        " if weight else",
    ),
    _Mutant(
        "keys stick to the place of a side among those in use",
        f"{CORE}.splits",
        "        self._seeds = [xxh64(name_of(one).encode()) for one in self._destinations]\n",
        "        self._seeds = list(range(len(self._destinations)))\n",
    ),
    _Mutant(
        "keys stick to intervals of their hash",
        f"{CORE}.splits",
        "        return min(range(len(scores)), key=scores.__getitem__)\n",
        "        return bisect_right(self._sums, xxh64(key) % self._sums[-1])\n",
    ),
    # Outlier detection.
    _Mutant(
        "the last host may be ejected",
        f"{CORE}.outliers",
        "        if count >= len(self._hosts):\n            return False\n",
        "",
    ),
    _Mutant(
        "the share of the ejected is taken before the ejection",
        f"{CORE}.outliers",
        "        few = 100 * count <= ",
        "        few = 100 * (count - 1) <= ",
    ),
    _Mutant(
        "an ejected host does not come back",
        f"{CORE}.outliers",
        "host.ejection.until_ns <= now_ns:\n",
        "host.ejection.until_ns <= 0:\n",
    ),
    _Mutant(
        "hosts are looked at every tenth interval",
        f"{CORE}.outliers",
        "        self.next_ns = now_ns + self._policy.interval_ns\n",
        "        self.next_ns = now_ns + 10 * self._policy.interval_ns\n",
    ),
    _Mutant(
        "an ejection may be longer than the longest",
        f"{CORE}.outliers",
        "        time_ns = min(host.multiplier * base_ns, max_ns) + jitter_ns\n",
        "        time_ns = host.multiplier * base_ns * 2 + jitter_ns\n",
    ),
    _Mutant(
        "whoever is under the others' mean and more is an outlier",
        f"{CORE}.outliers",
        "    return mean - factor * sqrt(variance)\n",
        "    return mean + factor * sqrt(variance)\n",
    ),
    # Who is picked.
    _Mutant(
        "who is ejected is picked",
        f"{CORE}.placement",
        "by_pieces(tiers[status], lambda some: [one for one in some if not one.ejected])",
        "by_pieces(tiers[status], lambda some: some)",
    ),
    _Mutant(
        "when no connection is there, nobody is picked",
        f"{CORE}.placement",
        "        if 0 < len(reachable) < len(part):\n",
        "        if len(reachable) < len(part):\n",
    ),
    # Breakers.
    _Mutant(
        "no failure is a breaker's business",
        f"{CORE}.breakers",
        "    return Outcome.FAILURE if code in policy.record_codes else Outcome.SUCCESS\n",
        "    return Outcome.SUCCESS\n",
    ),
    _Mutant(
        "a breaker lets all calls through that it should try with",
        f"{CORE}.breakers",
        "        permitted_number_of_calls_in_half_open_state=policy.permitted_number_of_calls_in_half_open_state,\n",
        "        permitted_number_of_calls_in_half_open_state=100,\n",
    ),
    _Mutant(
        "a breaker that sheds lets half of the calls through",
        f"{CORE}.breakers",
        "        max_rejection_percent=policy.max_rejection_percent,\n",
        "        max_rejection_percent=20,\n",
    ),
)
