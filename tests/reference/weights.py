"""What every picker by weight refuses."""

from __future__ import annotations

from collections.abc import Sequence

COUNT_MAX = 1_000_000
WEIGHT_MAX = 2**31 - 1


def check_weights(weights: Sequence[int]) -> None:
    """ValueError when there are none or too many, when one is out of range, or when all are zero."""
    if not 1 <= len(weights) <= COUNT_MAX:
        raise ValueError("count")
    if any(not 0 <= weight <= WEIGHT_MAX for weight in weights):
        raise ValueError("weight")
    if not any(weights):
        raise ValueError("zero")


def check_hosts(hosts: Sequence[str], weights: Sequence[int]) -> None:
    """ValueError when check_weights has one, when the lists differ in length, or when an address is empty."""
    check_weights(weights)
    if len(hosts) != len(weights):
        raise ValueError("length")
    if "" in hosts:
        raise ValueError("empty")
