"""The law of a retry budget, from the list of all calls and retries, for any stretch of time."""

from __future__ import annotations

from fractions import Fraction

SECOND = 1_000_000_000


def reserve(budget_percent: int, min_retries_per_second: int, ttl_ns: int) -> Fraction:
    """How many retries a stretch may have without any call."""
    if min_retries_per_second == 0 and budget_percent:
        return Fraction(1)
    return Fraction(min_retries_per_second * ttl_ns, SECOND)


class Ledger:
    """All that happened, in order: (when, whether it was a retry)."""

    def __init__(self, budget_percent: int, min_retries_per_second: int, ttl_ns: int) -> None:
        self.share = Fraction(budget_percent, 100)
        self.reserve = reserve(budget_percent, min_retries_per_second, ttl_ns)
        self.ttl_ns = ttl_ns
        self.events: list[tuple[int, bool]] = []

    def over(self, late_ns: int = 0) -> Fraction:
        """By how much the worst stretch of less than ttl_ns + late_ns that ends with the last event is over the law."""
        if not self.events:
            return -self.reserve
        end_ns = self.events[-1][0]
        worst, sum_ = Fraction(0), Fraction(0)
        for at_ns, retry in reversed(self.events):
            if end_ns - at_ns >= self.ttl_ns + late_ns:
                break
            sum_ += 1 if retry else -self.share
            worst = max(worst, sum_)
        return worst - self.reserve

    def may(self, now_ns: int, late_ns: int = 0) -> bool:
        """Whether a retry now would keep the law in every stretch."""
        self.events.append((now_ns, True))
        kept = self.over(late_ns) <= 0
        self.events.pop()
        return kept


def retries_over(events: list[tuple[int, bool]], begin_ns: int, ledger: Ledger) -> Fraction:
    """The law as it is written, of the stretch [begin_ns, begin_ns + ttl): counted, and nothing else."""
    within = [retry for at_ns, retry in events if begin_ns <= at_ns < begin_ns + ledger.ttl_ns]
    return sum(within) - ledger.share * (len(within) - sum(within)) - ledger.reserve
