"""A write between its decision and its end, and who waits for it."""

from __future__ import annotations

import asyncio

from trunkline.core.clock import Clock
from trunkline.core.errors import DeadlineExceeded, TrunklineError
from trunkline.core.records import Draft, Record

TICK_S = 0.05
"""How often deadlines are looked at while anybody waits."""


class PendingWrite:
    """A decided write on its way: its records, what became of them, and who waits for that."""

    __slots__ = ("_waiters", "drafts", "outcome", "outstanding", "records", "request_id", "skipped")

    def __init__(self, drafts: list[Draft], request_id: str) -> None:
        self.drafts = drafts
        self.request_id = request_id
        self.outstanding = 0
        """Of the drafts, how many are not folded and not skipped."""
        self.records: list[Record] | None = None
        """Those that are folded."""
        self.skipped = False
        self.outcome: bool | TrunklineError | None = None
        """True: all folded. False: one was skipped, or nothing was appended; decide again. An error: the append failed."""
        self._waiters: list[asyncio.Future[None]] | None = None

    def folded(self, record: Record) -> None:
        """One of its records is folded."""
        if self.records is None:
            self.records = [record]
        else:
            self.records.append(record)

    def await_with(self, waiter: asyncio.Future[None]) -> None:
        """Wake it when the outcome is there."""
        if self._waiters is None:
            self._waiters = [waiter]
        else:
            self._waiters.append(waiter)

    def came_through(self) -> bool:
        """The outcome, when the wait for it is over. DeadlineExceeded without one, and the error of the append."""
        outcome = self.outcome
        if outcome is None:
            raise late()
        if isinstance(outcome, TrunklineError):
            raise outcome
        return outcome

    def settle(self, outcome: bool | TrunklineError) -> None:
        """Tell everybody."""
        self.outcome = outcome
        for waiter in self._waiters or ():
            _wake(waiter)


class Waits:
    """Who waits for writes, with one timer for all: one each costs several microseconds, and few come to their deadline.

    A wait that comes to it ends up to TICK_S later.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due_ns: dict[asyncio.Future[None], int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def enter(self, write: PendingWrite, deadline_ns: int) -> asyncio.Future[None]:
        """What to await for a write that has no outcome yet; `leave` must follow."""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        write.await_with(waiter)
        self._due_ns[waiter] = deadline_ns
        if self._timer is None:
            self._timer = loop.call_later(TICK_S, self._tick, loop)
        return waiter

    def leave(self, waiter: asyncio.Future[None]) -> None:
        """It is over, in whatever way."""
        del self._due_ns[waiter]

    async def until(self, write: PendingWrite, deadline_ns: int) -> bool:
        """A write's outcome, once it is there. See `came_through`."""
        if write.outcome is None:
            waiter = self.enter(write, deadline_ns)
            try:
                await waiter
            finally:
                self.leave(waiter)
        return write.came_through()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now_ns = self._clock.now_ns()
        for waiter, due_ns in self._due_ns.items():
            if due_ns <= now_ns:
                _wake(waiter)
        self._timer = loop.call_later(TICK_S, self._tick, loop) if self._due_ns else None


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def late() -> DeadlineExceeded:
    """A wait was over before its write."""
    return DeadlineExceeded("the write was not durable before the deadline; it may still be written")
