"""New instances get their weight little by little: Envoy's formula (https://www.envoyproxy.io/docs, "Slow start mode")."""

from __future__ import annotations

from trunkline.core.policy import S, SlowStart

STEPS = 50
"""So often in a window weights are worked out anew."""


def factor_of(slow: SlowStart, new_since_ns: int | None, now_ns: int) -> float:
    """What a weight is multiplied with: max(min_weight_percent, (age / window) ** (1 / aggression)), and 1 in the end.

    As in Envoy, an age under a second counts as one. An aggression of 0 keeps the least weight until the end.
    """
    if new_since_ns is None or now_ns - new_since_ns >= slow.window_ns:
        return 1.0
    time_factor = max(now_ns - new_since_ns, S) / slow.window_ns
    grown = time_factor ** (1 / slow.aggression) if slow.aggression > 0 else 0.0
    return min(1.0, max(slow.min_weight_percent / 100, grown))


def next_step_ns(slow: SlowStart, new_since_ns: int, now_ns: int) -> int | None:
    """When a new instance's weight is to be worked out again; None when it has all of it."""
    if now_ns - new_since_ns >= slow.window_ns:
        return None
    return min(now_ns + slow.window_ns // STEPS, new_since_ns + slow.window_ns)
