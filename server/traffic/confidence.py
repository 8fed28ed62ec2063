"""Bounds of a proportion that hold at every look at once.

For independent trials that succeed with probability p, let n of them have had x successes. The ratio of a mixture of
likelihoods over all probabilities, weighted by Beta(1/2, 1/2), to the likelihood of p is a martingale that begins at 1.
By Ville's inequality it ever reaches 1 / alpha with probability at most alpha, so that the set of those p for which it
has not is a confidence sequence: p is in all of them, however often and whenever anybody looks, with probability
1 - alpha. (H. Robbins, "Statistical Methods Related to the Law of the Iterated Logarithm", Ann. Math. Statist. 41, 1970;
S. R. Howard, A. Ramdas, J. McAuliffe, J. Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences",
Ann. Statist. 49, 2021, where it is the beta-binomial mixture.) The test is exact: nothing is taken for normal.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

_PRIOR: Final = 0.5
"""Both parameters of the mixing distribution: Jeffreys' prior, which loses little at small probabilities."""
_HALVINGS = 50


def lower_bound(successes: int, trials: int, alpha: float) -> float:
    """What the probability is certainly above; is wrong at any look with probability `alpha` at most."""
    return _bound(successes, trials, alpha, 0.0) if successes else 0.0


def upper_bound(successes: int, trials: int, alpha: float) -> float:
    """What the probability is certainly below; is wrong at any look with probability `alpha` at most."""
    return _bound(successes, trials, alpha, 1.0) if successes < trials else 1.0


@lru_cache(maxsize=4_096)
def _bound(successes: int, trials: int, alpha: float, far: float) -> float:
    """Where the martingale reaches 1 / alpha, between what was seen and `far`, 0 or 1; it grows towards that."""
    failures = trials - successes
    mixture = _log_beta(successes + _PRIOR, failures + _PRIOR) - _log_beta(_PRIOR, _PRIOR)
    limit = mixture + math.log(alpha)
    near = successes / trials
    for _ in range(_HALVINGS):
        middle = (near + far) / 2
        if _log_likelihood(successes, failures, middle) > limit:
            near = middle
        else:
            far = middle
    return far


def _log_likelihood(successes: int, failures: int, probability: float) -> float:
    found = successes * math.log(probability) if successes else 0.0
    return found + failures * math.log1p(-probability) if failures else found


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
