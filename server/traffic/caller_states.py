"""What clients make of those they call: breakers that let not all through, instances that they have ejected.

Soft state: each client's last word, for a minute. In memory, bounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from trunkline.api.v1.discovery_pb2 import CallerState

CLIENTS_MAX = 10_000
"""Clients whose word is kept."""
STATES_MAX = 100_000
"""Of all clients together."""
KEPT_NS = 60_000_000_000
"""A client that says nothing for so long has nothing to say."""


class _Said(NamedTuple):
    at_ns: int
    states: tuple[CallerState, ...]


class CallerStates:
    """In the order of the last word."""

    def __init__(self, *, clients_max: int = CLIENTS_MAX, states_max: int = STATES_MAX, kept_ns: int = KEPT_NS) -> None:
        self._clients_max = clients_max
        self._states_max = states_max
        self._kept_ns = kept_ns
        self._said: dict[tuple[str, str], _Said] = {}
        self._states = 0
        self.dropped = 0
        """Words that were not kept because there was no room, since the start."""

    def say(self, namespace: str, client: str, states: Sequence[CallerState], now_ns: int) -> bool:
        """A client's word on a namespace, in place of what it said before; whether it is kept."""
        self._forget((namespace, client))
        if not states:
            return True
        while self._said and now_ns - next(iter(self._said.values())).at_ns >= self._kept_ns:
            self._forget(next(iter(self._said)))
        if len(self._said) >= self._clients_max or self._states + len(states) > self._states_max:
            self.dropped += 1
            return False
        self._said[namespace, client] = _Said(now_ns, tuple(states))
        self._states += len(states)
        return True

    def _forget(self, key: tuple[str, str]) -> None:
        found = self._said.pop(key, None)
        if found is not None:
            self._states -= len(found.states)

    def words(self, namespace: str, now_ns: int) -> list[tuple[str, Sequence[CallerState]]]:
        """Each client's, on all services of a namespace."""
        return [
            (client, said.states)
            for (where, client), said in self._said.items()
            if where == namespace and now_ns - said.at_ns < self._kept_ns
        ]

    def metrics(self) -> dict[str, float]:
        """Counts and bounds by name."""
        return {
            "caller_states": self._states,
            "caller_states_max": self._states_max,
            "caller_states_dropped_total": self.dropped,
        }
