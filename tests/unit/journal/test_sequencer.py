"""Decide, append, fold, answer: against a log that becomes durable when the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from trunkline.core.clock import ManualClock
from trunkline.core.errors import DiskFull, InstanceAlive, LimitExceeded, NotReady, OutcomeUnknown, TrunklineError
from trunkline.core.records import Change, Record, Version
from trunkline.server.journal.batch import Batch
from trunkline.server.journal.block import Block
from trunkline.server.journal.control import sequencer as sequencer_module
from trunkline.server.journal.control.fold import Folds
from trunkline.server.journal.control.sequencer import Group, Origin, Sequencer, Written
from trunkline.server.journal.log import Log

ORIGIN = Origin(author="test")


class Values:
    """A fold of `value.set` records: each key has its last body; an empty body removes it."""

    name = "values"
    version = 1
    topics: Sequence[str] = ("value", "node")

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        return self.values.get(key)

    def reduce(self, entity: bytes | None, change: Change, *, revision: int, time_ns: int) -> bytes | None:
        return change.body or None

    def apply(self, record: Record) -> None:
        if record.body:
            self.values[record.key] = record.body
        else:
            self.values.pop(record.key, None)

    def dump(self) -> Iterator[bytes]:
        return iter([repr(sorted(self.values.items())).encode()])

    def load(self, version: int, pieces: Iterable[bytes]) -> None:
        raise ValueError(version)


class HeldLog:
    """A log whose appends become durable, or fail, when the test says so."""

    def __init__(self) -> None:
        self.failed: TrunklineError | None = None
        self.held: list[tuple[Batch, int, asyncio.Future[None]]] = []
        self.arrived = asyncio.Event()
        self.next_offset = 0
        self.fold: Any = None

    async def append(self, batch: Batch, *, time_ns: int) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.held.append((batch, time_ns, future))
        self.arrived.set()
        await future

    async def group(self) -> Batch:
        """The next group that waits to become durable."""
        while not self.held:
            self.arrived.clear()
            await self.arrived.wait()
        return self.held[0][0]

    def block(self, batch: Batch, time_ns: int) -> Any:
        records = [draft.record(self.next_offset + i, time_ns) for i, draft in enumerate(batch.drafts)]
        self.next_offset += batch.count
        return SimpleNamespace(count=batch.count, time_ns=time_ns, record=records.__getitem__)

    async def make_durable(self) -> None:
        await self.group()
        batch, time_ns, future = self.held.pop(0)
        self.fold(self.block(batch, time_ns))
        future.set_result(None)
        await asyncio.sleep(0)

    async def make_durable_of(self, write: asyncio.Task[Any]) -> None:
        """Make the next group durable; `write` is answered by it."""
        await self.make_durable()
        await write

    async def fail(self, error: TrunklineError) -> None:
        await self.group()
        _, _, future = self.held.pop(0)
        future.set_exception(error)
        await asyncio.sleep(0)


class Plane:
    """A sequencer over a held log, with its own epoch already begun."""

    def __init__(self) -> None:
        self.log = HeldLog()
        self.values = Values()
        self.clock = ManualClock(1_000)
        self.sequencer = Sequencer(
            Folds([self.values]),
            cast(Log, self.log),  # of a log, the sequencer uses `append` and `failed` alone
            self.clock,
            node_id=7,
            program_version="test",
        )
        self.log.fold = self.sequencer.fold_block
        self.groups: list[Group] = []
        self.sequencer.on_group(self.groups.append)
        self.tasks: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> Plane:
        self.spawn(self.sequencer.run())
        start = self.spawn(self.sequencer.start())
        await self.log.make_durable()
        await start
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def spawn(self, coroutine: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.append(task)
        return task

    def fold(self, *records: Record) -> None:
        """What another node, or the network, put into the journal."""
        block = SimpleNamespace(count=len(records), time_ns=1, record=records.__getitem__)
        self.sequencer.fold_block(cast(Block, block))

    def put(self, key: str, body: bytes, request_id: str = "") -> asyncio.Task[Written]:
        change = Change(topic="value.set", key=f"value/{key}", body=body)
        return self.spawn(self.sequencer.write(lambda _: [change], Origin(author="test", request_id=request_id)))

    def claim(self, key: str) -> asyncio.Task[Written]:
        """Set the key to b'taken', or refuse when it has a value."""

        def decide(view: Any) -> list[Change]:
            if view.get(f"value/{key}") is not None:
                raise InstanceAlive(key)
            return [Change(topic="value.set", key=f"value/{key}", body=b"taken")]

        return self.spawn(self.sequencer.write(decide, ORIGIN))


async def settle() -> None:
    """Let everything that can run, run."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_write_is_answered_when_it_is_durable_and_folded() -> None:
    async with Plane() as plane:
        write = plane.put("a", b"1")
        await plane.log.group()
        await settle()
        assert not write.done()
        assert plane.values.get("value/a") is None
        await plane.log.make_durable()
        written = await write
        assert plane.values.get("value/a") == b"1"
        assert written.revision == plane.sequencer.revision == 1
        assert [record.key for record in written.records] == ["value/a"]


async def test_what_arrives_meanwhile_goes_together() -> None:
    async with Plane() as plane:
        first = plane.put("a", b"1")
        await plane.log.group()
        others = [plane.put(f"k{i}", b"x") for i in range(50)]
        await settle()
        await plane.log.make_durable()
        assert (await plane.log.group()).count == 50
        await plane.log.make_durable()
        assert len({(await write).revision for write in [first, *others]}) == 51


async def test_a_refusal_that_rests_on_a_pending_record_waits_for_it() -> None:
    async with Plane() as plane:
        winner = plane.claim("a")
        await plane.log.group()
        loser = plane.claim("a")
        await settle()
        assert not loser.done(), "refused because of a record that may never be"
        await plane.log.make_durable()
        await winner
        with pytest.raises(InstanceAlive):
            await loser


async def test_when_the_pending_record_fails_the_one_that_waited_wins() -> None:
    async with Plane() as plane:
        first = plane.claim("a")
        await plane.log.group()
        second = plane.claim("a")
        await settle()
        await plane.log.fail(DiskFull("no space"))
        with pytest.raises(DiskFull):
            await first
        with pytest.raises(DiskFull):  # it rested on the first
            await second
        third = plane.claim("a")
        await plane.log.make_durable()
        assert (await third).records[0].expects is None


async def test_records_decided_on_top_of_pending_ones_expect_them() -> None:
    async with Plane() as plane:
        plane.put("a", b"1")
        await plane.log.group()
        second = plane.put("a", b"2")
        await settle()
        await plane.log.make_durable()
        await plane.log.make_durable()
        record = (await second).records[0]
        assert record.expects == Version(7, 1, record.version.sequence - 1)
        assert plane.sequencer.skipped == 0


async def test_a_failed_group_takes_what_was_decided_on_it_back_and_it_is_decided_again() -> None:
    async with Plane() as plane:
        first = plane.put("a", b"1")
        await plane.log.group()
        second = plane.put("a", b"2")
        await settle()
        await plane.log.fail(DiskFull("no space"))
        with pytest.raises(DiskFull):
            await first
        await plane.log.make_durable()
        assert (await second).records[0].expects is None
        assert plane.values.get("value/a") == b"2"


async def test_another_writers_record_makes_ours_be_decided_again() -> None:
    async with Plane() as plane:
        ours = plane.put("a", b"ours")
        batch = await plane.log.group()
        foreign = Change(topic="value.set", key="value/a", body=b"theirs")
        started = Record(offset=1, time_ns=1, topic="node.started", body=b"", key="node/9", version=Version(9, 1, 1))
        theirs = Record(
            offset=2, time_ns=1, topic=foreign.topic, body=foreign.body, key=foreign.key, version=Version(9, 1, 2)
        )
        plane.log.next_offset = 3
        plane.fold(started, theirs)
        assert batch.count == 1
        await plane.log.make_durable()  # ours, with an expectation that is gone
        assert plane.sequencer.skipped == 1
        assert plane.values.get("value/a") == b"theirs"
        await plane.log.make_durable()
        assert (await ours).records[0].expects == Version(9, 1, 2)
        assert plane.values.get("value/a") == b"ours"


async def test_an_older_epoch_is_fenced() -> None:
    async with Plane() as plane:
        late = Record(offset=1, time_ns=1, topic="value.set", body=b"old", key="value/a", version=Version(7, 0, 9))
        plane.fold(late)
        assert plane.values.get("value/a") is None
        assert plane.groups[-1].skipped == 1
        assert plane.sequencer.revision == 1, "skipped records advance the revision"


async def test_an_append_that_comes_twice_counts_once_though_its_key_is_gone_between() -> None:
    async with Plane() as plane:
        theirs = [
            Record(offset=1, time_ns=1, topic="node.started", body=b"", key="node/9", version=Version(9, 1, 1)),
            Record(offset=2, time_ns=1, topic="value.set", body=b"old", key="value/a", version=Version(9, 1, 2)),
            Record(
                offset=3, time_ns=1, topic="value.set", body=b"", key="value/a", version=Version(9, 1, 3),
                expects=Version(9, 1, 2),
            ),
        ]  # fmt: skip
        again = theirs[1].record(4, 1)
        plane.fold(*theirs, again)
        assert plane.values.get("value/a") is None
        assert plane.sequencer.skipped == 1


async def test_an_append_that_was_overtaken_is_skipped_whatever_it_expects() -> None:
    async with Plane() as plane:
        started = Record(offset=1, time_ns=1, topic="node.started", body=b"", key="node/9", version=Version(9, 1, 1))
        first = Record(offset=2, time_ns=1, topic="value.set", body=b"1", key="value/a", version=Version(9, 1, 3))
        late = Record(offset=3, time_ns=1, topic="value.set", body=b"2", key="value/b", version=Version(9, 1, 2))
        plane.fold(started, first, late)
        assert (plane.values.get("value/a"), plane.values.get("value/b")) == (b"1", None)


async def test_a_repeat_of_our_own_append_leaves_what_is_pending_alone() -> None:
    async with Plane() as plane:
        first = plane.put("a", b"1")
        await plane.log.make_durable()
        done = (await first).records[0]
        second = plane.put("a", b"2")
        await plane.log.group()
        plane.fold(done.record(done.offset + 1, done.time_ns))
        plane.log.next_offset = done.offset + 2
        third = plane.put("a", b"3")
        await settle()
        await plane.log.make_durable()
        await plane.log.make_durable()
        assert (await third).records[0].expects == (await second).records[0].version
        assert plane.sequencer.skipped == 1


async def test_a_repeated_request_is_answered_with_the_first_ones_revision() -> None:
    async with Plane() as plane:
        first = plane.put("a", b"1", request_id="r1")
        await plane.log.group()
        meanwhile = plane.put("a", b"1", request_id="r1")
        await settle()
        assert not meanwhile.done()
        await plane.log.make_durable()
        later = await plane.put("a", b"1", request_id="r1")
        assert (await meanwhile).revision == later.revision == (await first).revision
        assert later.repeated
        assert not plane.log.held


async def test_a_request_and_its_repetition_that_both_wait_are_carried_out_once() -> None:
    async with Plane() as plane:
        await plane.log.make_durable_of(plane.put("a", b"1"))
        plane.put("a", b"")
        await plane.log.group()

        def count_unless_a_goes(view: Any) -> list[Change]:
            if view.get("value/a") is None and plane.values.get("value/a") is not None:
                return []  # nothing to do, as long as the removal is only pending
            counted = (view.get("value/count") or b"") + b"x"
            return [Change(topic="value.set", key="value/count", body=counted)]

        origin = Origin(author="test", request_id="r1")
        both = [plane.spawn(plane.sequencer.write(count_unless_a_goes, origin)) for _ in range(2)]
        await settle()
        await plane.log.make_durable()
        await plane.log.make_durable()
        first, second = await asyncio.gather(*both)
        assert plane.values.get("value/count") == b"x"
        assert first.revision == second.revision


async def test_removing_and_making_anew_expects_nothing() -> None:
    async with Plane() as plane:
        for body in (b"1", b"", b"2"):
            write = plane.put("a", body)
            await plane.log.make_durable()
            await write
        assert (await write).records[0].expects is None
        assert plane.values.get("value/a") == b"2"


async def test_what_is_made_anew_behind_a_pending_removal_is_not_skipped() -> None:
    async with Plane() as plane:
        made = plane.put("a", b"one")
        await plane.log.make_durable_of(made)
        removed = plane.put("a", b"")
        again = plane.put("a", b"two")
        await plane.log.make_durable()
        await asyncio.gather(removed, again)
        assert plane.values.get("value/a") == b"two"
        assert plane.sequencer.skipped == 0


async def test_an_unknown_outcome_closes_control_until_it_is_recovered() -> None:
    async with Plane() as plane:
        write = plane.put("a", b"1")
        await plane.log.group()
        plane.log.failed = OutcomeUnknown("fsync failed")
        await plane.log.fail(plane.log.failed)
        with pytest.raises(OutcomeUnknown):
            await write
        with pytest.raises(NotReady):
            await plane.put("b", b"1")
        plane.log.failed = None
        plane.sequencer.recovered()
        write = plane.put("b", b"1")
        await plane.log.make_durable()
        assert (await write).revision == 1


async def test_the_queue_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequencer_module, "QUEUE_RECORDS_MAX", 3)
    async with Plane() as plane:
        writes = [plane.put(str(i), b"x") for i in range(3)]
        await settle()
        with pytest.raises(LimitExceeded, match="control_queue_records_max"):
            await plane.put("one too many", b"x")
        await plane.log.make_durable()  # all three went in one group
        await asyncio.gather(*writes)


async def test_listeners_hear_of_a_group_once_and_before_the_writers() -> None:
    async with Plane() as plane:
        order: list[str] = []
        plane.sequencer.on_group(lambda group: order.append(f"group {group.revision}"))
        write = plane.put("a", b"1")
        write.add_done_callback(lambda _: order.append("answer"))
        await plane.log.make_durable()
        await write
        await settle()
        assert order == ["group 1", "answer"]
