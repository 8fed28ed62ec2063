"""Mistakes that show where the handling of events fails: dead letters, attempts, lanes that are stuck."""

from __future__ import annotations

from functools import partial

from simulation.mutants.mutant import CLIENT, EVENTS, HANDLING, SCHEDULES, Mutant

_Mutant = partial(Mutant, world=HANDLING)

HANDLING_MUTANTS = (
    # Dead letters.
    _Mutant(
        "a restart does not look for the dead letters that were published before it",
        f"{EVENTS}.dead_letters",
        "            if aside.offset < feed.maybe_lettered_below\n",
        "            if aside.offset < 0\n",
        faults=("kill", "restart", "power cut"),
    ),
    _Mutant(
        "an event is done before its dead letter is durable",
        f"{EVENTS}.dead_letters",
        "        wanted = [letter for",
        "        self._buried(feed, kept)\n        wanted = [letter for",
        faults=("kill", "power cut", "failing sync", "failing write"),
    ),
    _Mutant(
        "a dead letter tells the attempts of the last restart",
        f"{EVENTS}.places",
        "SetAside(entry.offset, entry.attempts, reason",
        "SetAside(entry.offset, entry.attempts - 1, reason",
    ),
    _Mutant(
        "a termination whose word was lost is said again as an acknowledgement",
        f"{CLIENT}._subscription",
        "            outcome = Acknowledgement.OUTCOME_ACK if why_ended is None else Acknowledgement.OUTCOME_TERM\n",
        "            outcome = Acknowledgement.OUTCOME_ACK\n",
        test="tests/unit/client/test_subscription.py::test_a_lost_termination_is_said_again_as_what_it_was",
    ),
    # Attempts.
    _Mutant(
        "a later attempt is made before a checkpoint counts it",
        f"{EVENTS}.waiting",
        "            if entry is None or not ahead:\n",
        "            if True:\n",
        faults=("kill", "power cut"),
    ),
    _Mutant(
        "an attempt does not count when its consumer is lost",
        f"{EVENTS}.subscription",
        "        self.counts.given_back += 1\n        if clean:\n",
        "        self.counts.given_back += 1\n        if True:\n",
        faults=("client kill", "reset", "partition"),
    ),
    _Mutant(
        "what is to be delivered again is forgotten when nothing else is to be sent",
        f"{EVENTS}.places",
        "order.held or self._waiting or order.parked",
        "order.held or order.parked",
    ),
    # Lanes.
    _Mutant(
        "lanes that are stuck are not parked",
        f"{EVENTS}.lanes",
        "        lane = self._lanes[key]\n        if lane[0] not in self._open",
        "        lane = self._lanes[key]\n        if True or lane[0] not in self._open",
    ),
    _Mutant(
        "lanes that are stuck again fill what may be held",
        f"{EVENTS}.parking",
        "        while self.held >= self.limits.look_ahead.look_ahead_max and isinstance(self._order, Lanes):\n",
        "        while False and isinstance(self._order, Lanes):\n",
        test="tests/unit/events/test_parking.py",
    ),
    _Mutant(
        "a restart forgets which lanes are parked",
        f"{EVENTS}.subscription",
        "        state._restore_parked(progress.parked)\n",
        "",
        faults=("kill", "restart", "power cut"),
    ),
    _Mutant(
        "a checkpoint forgets what was readmitted of a parked lane",
        f"{EVENTS}.lanes",
        "            if first is not None:\n                found[key] = first\n",
        "",
        faults=("kill", "restart", "power cut"),
    ),
    _Mutant(
        "a parked lane is read from behind what it held",
        f"{EVENTS}.lanes",
        "            self._parked[key] = min(let_go)\n",
        "            self._parked[key] = max(let_go)\n",
    ),
    _Mutant(
        "a parked lane that is empty is not wanted",
        f"{EVENTS}.lanes",
        "        if key in self._parked:\n            self.wanted.add(key)\n",
        "",
    ),
    _Mutant(
        "what was tried of a parked lane is forgotten",
        f"{EVENTS}.parking",
        "            if entry is not None:\n                self._keep_parked(entry, key)\n",
        "",
        faults=("kill", "restart", "power cut"),
    ),
    _Mutant(
        "an event of a parked lane is delivered before a checkpoint names it",
        f"{EVENTS}.places",
        "        return order.is_readmitted(offset) or ",
        "        return False and ",
        faults=("kill", "power cut"),
    ),
    _Mutant(
        "what is counted ahead of a parked lane is not named in the checkpoint",
        f"{EVENTS}.subscription",
        ", *(Entry(offset, 0, 1) for offset in following))",
        ")",
        faults=("kill", "restart", "power cut"),
    ),
    # Moves, filters, times.
    _Mutant(
        "events are delivered after their time",
        f"{EVENTS}.feed",
        "            if block.expiries and block.expiries.get(offset, NEVER) <= time_ns:\n",
        "            if False:\n",
    ),
    _Mutant(
        "a filter on attributes is forgotten",
        f"{EVENTS}.feed",
        "dispatcher.matcher.join(settings.filters, settings.attribute_filters)",
        "dispatcher.matcher.join(settings.filters)",
    ),
    _Mutant(
        "a move is answered before it is durable",
        f"{EVENTS}.operations",
        "    await checkpoints.write_now([feed])\n    return old_floor\n",
        "    return old_floor\n",
        faults=("kill", "power cut"),
    ),
    _Mutant(
        "what is delivered again is taken for what was settled on a lost connection",
        f"{CLIENT}._ledger",
        "            if not self._durable or attempt > known.attempt:\n",
        "            if True:\n",
        test="tests/unit/client/test_subscription.py"
        "::test_what_is_delivered_anew_on_request_after_a_reconnect_is_handed_on",
    ),
    # Schedules.
    _Mutant(
        "a start does not look for what schedules had published",
        f"{SCHEDULES}.firing",
        "        await _look_up(stream, batch)\n",
        "",
        faults=("kill", "restart", "power cut"),
    ),
    _Mutant(
        "a schedule publishes every time that it has missed",
        f"{SCHEDULES}.planner",
        "        due_ms = self._times.latest(self.fired.handled_ms, now_ms)\n",
        "        due_ms = self._times.after(self.fired.handled_ms)\n"
        "        due_ms = None if due_ms is None or due_ms > now_ms else due_ms\n",
        test="tests/property/test_schedule_planner.py",
    ),
    _Mutant(
        "a clock that was set forward is noticed when something is due by the old one",
        f"{SCHEDULES}.firing",
        "            wait_s = min(wait_s, max(0, first_ms * _MS - self._clock.time_ns()) / 1e9)\n",
        "            wait_s = max(0, first_ms * _MS - self._clock.time_ns()) / 1e9\n",
        test="tests/unit/schedules/test_firing.py",
    ),
    _Mutant(
        "a schedule goes by the clock and not by how far it has come",
        f"{SCHEDULES}.planner",
        "        due_ms = self._times.latest(self.fired.handled_ms, now_ms)\n",
        "        due_ms = self._times.latest(min(self.fired.handled_ms, now_ms - 1_000), now_ms)\n",
        faults=("clock step",),
    ),
    _Mutant(
        "what was missed is passed over, wanted or not",
        f"{SCHEDULES}.planner",
        "        if due_ms is not None and self.entity.spec.skips and now_ms",
        "        if due_ms is not None and now_ms",
        test="tests/property/test_schedule_planner.py",
    ),
    # Webhooks.
    _Mutant(
        "what an endpoint has refused is done",
        f"{EVENTS}.webhook_consumer",
        "        if outcome.verdict is Verdict.DONE:\n",
        "        if outcome.verdict is not Verdict.BACK:\n",
    ),
    _Mutant(
        "a request that nobody answered counts as no attempt",
        f"{EVENTS}.webhook_consumer",
        "        if outcome.verdict is Verdict.AGAIN:\n",
        "        if False:\n",
    ),
    _Mutant(
        "an endpoint is sent more at a time than it wants",
        f"{EVENTS}.webhook_health",
        "self._allowed = min(self._concurrency, self._allowed + 1)",
        "self._allowed = self._allowed + 1",
    ),
)
