"""A database with open transactions, a bus that recognises repeats, and a relay that dies between any two steps."""

from __future__ import annotations

from dataclasses import dataclass, field

from trunkline.api.v1.events_pb2 import CloudEvent
from trunkline.client.outbox._plan import BackOff, Plan, Publish, Read, Rest, Row, Settle

ROWS_MAX = 4
"""In one read."""


def event(name: str, *, kind: str = "a.b") -> bytes:
    """What the table holds; kind "broken" is no event, and only the bus minds "refused"."""
    if kind == "broken":
        return b"\x00"
    return CloudEvent(id=name, source="/s", spec_version="1.0", type=kind).SerializeToString()


@dataclass
class Transaction:
    """Rows that nobody else sees yet, and whose were committed before each of them was added."""

    rows: list[tuple[Row, frozenset[int]]] = field(default_factory=list)


class World:
    """Ids are handed out at the add; what is visible at one moment is what was committed before it."""

    def __init__(self) -> None:
        self.plan = Plan()
        self.open: dict[int, Transaction] = {}
        self.waiting: dict[int, Row] = {}
        self.failed: set[int] = set()
        self.committed: set[int] = set()
        self.behind: dict[int, frozenset[int]] = {}
        """Of a row: the ids of those that have to be published before it."""
        self.bad: set[int] = set()
        self.stream: list[int] = []
        """Ids in the order in which the bus appended them, each once."""
        self.late: list[tuple[Row, ...]] = []
        """Requests of relays that lost the lock, still on their way."""
        self.requests = 0
        self._last_id = 0

    # The application.

    def add(self, who: int, kind: str) -> None:
        """In the transaction of `who`, which begins with it if none is open."""
        transaction = self.open.setdefault(who, Transaction())
        self._last_id += 1
        row = Row(self._last_id, event(str(self._last_id), kind=kind))
        own = frozenset(earlier.id for earlier, _ in transaction.rows)
        transaction.rows.append((row, frozenset(self.committed) | own))
        if kind != "a.b":
            self.bad.add(row.id)

    def commit(self, who: int) -> None:
        """All of its rows become visible at once."""
        for row, behind in self.open.pop(who, Transaction()).rows:
            self.waiting[row.id] = row
            self.committed.add(row.id)
            self.behind[row.id] = behind

    def roll_back(self, who: int) -> None:
        """Its ids are never seen."""
        self.open.pop(who, None)

    # The relay.

    def step(self, *, outcome: str = "done") -> None:
        """Do what the plan says. The outcome may be "lost before" or "lost after" it took effect, or, of the bus, "later"
        or "later after"."""
        match self.plan.next():
            case Read():
                self._answered(outcome, self._read)
            case Publish(rows):
                self._publish(rows, outcome)
            case Settle() as settle:
                assert {row.id for row in settle.published} <= set(self.stream), "not before it was acknowledged"
                assert {row.id for row, _ in settle.failed} <= self.bad, "only what can never be published"
                if outcome != "lost before":
                    self._settle(settle)
                self._answered(outcome, self.plan.settled)
            case BackOff():
                self.plan.backed_off()
            case Rest():
                self.plan.rested()

    def crash(self) -> None:
        """Another relay takes over."""
        self.plan = Plan()

    def stall(self) -> None:
        """It loses the lock with a request on its way, and another relay takes over."""
        action = self.plan.next()
        if isinstance(action, Publish):
            self.late.append(action.rows)
        self.crash()

    def arrive(self) -> None:
        """The oldest of such requests reaches the bus."""
        if self.late:
            self._append(self.late.pop(0))

    def finish(self) -> None:
        """Everything goes well from now on."""
        for _ in range(20 * (len(self.waiting) + 2)):
            self.step()
        assert isinstance(self.plan.next(), Rest | Read), "it comes to rest"

    def _read(self) -> None:
        self.plan.read([self.waiting[id] for id in sorted(self.waiting)][:ROWS_MAX])

    def _answered(self, outcome: str, answer: object) -> None:
        if outcome.startswith("lost"):
            self.plan.forget()
        else:
            assert callable(answer)
            answer()

    def _publish(self, rows: tuple[Row, ...], outcome: str) -> None:
        assert 0 < len(rows) <= ROWS_MAX
        self.requests += 1
        if outcome == "lost before":
            return self.crash()
        if outcome == "later":
            return self.plan.unpublished()
        is_taken = self._append(rows)
        if outcome == "lost after":
            return self.crash()
        if outcome == "later after":
            return self.plan.unpublished()
        return self.plan.published() if is_taken else self.plan.invalid("refused")

    def _append(self, rows: tuple[Row, ...]) -> bool:
        if any(row.id in self.bad for row in rows):
            return False
        self.stream += [row.id for row in rows if row.id not in self.stream]
        return True

    def _settle(self, settle: Settle) -> None:
        for row in settle.published:
            self.waiting.pop(row.id, None)
        for row, _ in settle.failed:
            self.waiting.pop(row.id, None)
            self.failed.add(row.id)
