"""How an endpoint does, and how many requests it may have now. Pure.

An endpoint that fails several times in a row is sent one event at a time, with longer and longer pauses, so that its outage
does not use up the attempts of all events. One that does not answer at all is **held**: no event is sent until it answers a
probe, whatever it answers. Once in several probes that reach it without an answer an event goes all the same: some endpoints
know nothing but POST.
"""

from __future__ import annotations

from trunkline.core.clock import Rng

from .webhook_outcome import Answer, Outcome, Result, Silence, bound_ns

FAILURES_IN_A_ROW = 5
"""From then on one at a time, with pauses."""
PROBES_PER_TRY = 8


class EndpointHealth:
    """`now_ns` is monotonic."""

    def __init__(self, concurrency: int, rng: Rng) -> None:
        self.failures = 0
        """Since the last success."""
        self.paused_until_ns = 0
        self.is_held = False
        self.last_status = 0
        self.last_error = ""
        self._concurrency = concurrency
        self._allowed = concurrency
        self._rng = rng
        self._pauses = 0
        self._was_told = False
        """The pause is what the endpoint asked for."""
        self._mute_probes = 0

    def room(self, now_ns: int, in_flight: int) -> int:
        """How many more requests it may have now."""
        if self.is_held or now_ns < self.paused_until_ns:
            return 0
        return max(0, self._allowed - in_flight)

    def succeeded(self, result: Result) -> None:
        """It took an event: what was one at a time grows again."""
        self.failures = self._pauses = self._mute_probes = 0
        self.last_status = result.status if isinstance(result, Answer) else 0
        self.last_error = ""
        self.is_held = False
        if not self._was_told:
            self.paused_until_ns = 0
        self._allowed = min(self._concurrency, self._allowed + 1)

    def failed(self, result: Result, outcome: Outcome, now_ns: int) -> None:
        """It did not. A kept connection that it closed meanwhile says nothing of it."""
        if isinstance(result, Silence) and result.was_stale:
            return
        self.failures += 1
        self.last_status = result.status if isinstance(result, Answer) else 0
        self.last_error = outcome.error
        in_a_row = self.failures >= FAILURES_IN_A_ROW
        if outcome.pause_ns:
            self._pause_as_told(outcome.pause_ns, now_ns)
        elif outcome.is_unreachable or in_a_row:
            self._allowed = 1
            self.is_held = self.is_held or outcome.is_silent
            self._pause(now_ns)

    def probed(self, result: Result, now_ns: int) -> None:
        """It was asked whether it is there."""
        if not self.is_held:
            return
        if isinstance(result, Answer):
            self.is_held = False
            return
        self.last_error = result.reason
        self._mute_probes += result.was_sent
        if self._mute_probes >= PROBES_PER_TRY:
            self._mute_probes = 0
            self.is_held = False
            return
        self._pause(now_ns)

    def _pause_as_told(self, pause_ns: int, now_ns: int) -> None:
        self._allowed = 1
        self._was_told = True
        self.paused_until_ns = max(self.paused_until_ns, now_ns + pause_ns)

    def _pause(self, now_ns: int) -> None:
        """Longer than the last; what failed together counts once."""
        if now_ns < self.paused_until_ns:
            return
        self._was_told = False
        self._pauses += 1
        longest_ns = bound_ns(self._pauses)
        self.paused_until_ns = now_ns + longest_ns // 2 + self._rng.below(longest_ns // 2 + 1)
