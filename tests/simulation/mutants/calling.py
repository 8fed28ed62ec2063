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
        "evaluator.begin(metadata, key, avoid=_slots_of(tried), ",
        "evaluator.begin(metadata, key, avoid=None, ",
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
