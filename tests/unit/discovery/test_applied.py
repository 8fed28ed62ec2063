"""Who is waited for, and who is late."""

from __future__ import annotations

import asyncio

import async_solipsism
import pytest

from reference.registry_facts import instance
from reference.watch import ModelWatcher
from reference.watch_world import World
from trunkline.core.clock import Clock
from trunkline.core.errors import LimitExceeded, RevisionInFuture
from trunkline.core.model import Declared, Locality
from trunkline.core.selector import Selector
from trunkline.server.discovery.applied import AppliedWait
from trunkline.server.discovery.watch_config import WatchConfig

A = "instance/default/orders/a"
EAST, WEST = (Selector(locality=Locality(zone=zone)) for zone in ("east", "west"))


class Waiting:
    """A wait, and whether it has been told that it is over."""

    def __init__(self, world: World, revision: int, *, service: str = "orders", instance_id: str | None = None) -> None:
        self.over = 0
        self._world = world
        self.wait: AppliedWait = world.hub.begin_wait("default", service, instance_id, revision, self._done)

    def _done(self) -> None:
        self.over += 1

    def late(self) -> list[tuple[str, int]]:
        return [(late.client, late.applied_revision) for late in self._world.hub.end_wait(self.wait)]


@pytest.fixture
def world() -> World:
    made = World()
    made.step(made.journal.registered(instance("a", locality=Locality(zone="east"))))
    return made


def test_everyone_who_watches_the_service_is_waited_for(world: World) -> None:
    first, second, other = world.watch(name="first"), world.watch("", name="second"), world.watch("other")
    waiting = Waiting(world, 1)
    assert set(waiting.wait.pending) == {
        world.client_of(first).connection.watches[1],
        world.client_of(second).connection.watches[1],
    }
    world.acknowledge(first)
    assert waiting.over == 0
    world.acknowledge(second)
    assert waiting.over == 1
    assert waiting.late() == []
    assert other.revision == 1


def test_late_watchers_are_named_furthest_behind_first(world: World) -> None:
    slow, slower = world.watch(name="slow"), world.watch(name="slower")
    world.acknowledge(slow)
    revision = world.step(world.journal.declared(A, Declared.DRAINING))
    world.clock.advance(3_000_000_000)
    waiting = Waiting(world, revision)
    world.clock.advance(1_000_000_000)
    late = world.hub.end_wait(waiting.wait)
    assert [(one.client, one.applied_revision, one.late_by_ns) for one in late] == [
        ("slower", 0, 4_000_000_000),
        ("slow", 1, 4_000_000_000),
    ]
    assert slower.seen


def test_a_watcher_that_could_not_route_there_is_not_waited_for(world: World) -> None:
    east, west = world.watch(selector=EAST, name="east"), world.watch(selector=WEST, name="west")
    world.acknowledge(east)
    world.acknowledge(west)
    revision = world.step(world.journal.declared(A, Declared.DRAINING))
    waiting = Waiting(world, revision, instance_id="a")
    assert waiting.late() == [("east", 1)]


def test_a_watcher_that_may_still_have_it_from_before_is_waited_for(world: World) -> None:
    """It moved west and was drained there. Who has not applied the move still routes to it in the east."""
    east = world.watch(selector=EAST, name="east")
    world.acknowledge(east)
    world.step(world.journal.registered(instance("a", locality=Locality(zone="west"))))
    drained = world.step(world.journal.declared(A, Declared.DRAINING))
    waiting = Waiting(world, drained, instance_id="a")
    assert [watch.client for watch in waiting.wait.pending] == ["east"]
    world.settle()
    world.acknowledge(east)
    assert waiting.over == 1, "a bookmark told it at once that there is nothing more"


def test_when_it_is_not_known_what_it_was_like_everyone_is_waited_for(world: World) -> None:
    west = world.watch(selector=WEST, name="west")
    world.acknowledge(west)
    drained = world.step(world.journal.declared(A, Declared.DRAINING))
    world.step(world.journal.probed(A, "no"))
    waiting = Waiting(world, drained, instance_id="a")
    assert waiting.late() == [("west", 1)]


def test_a_watcher_with_nothing_to_be_told_gets_a_bookmark_at_once(world: World) -> None:
    west = world.watch(selector=WEST)
    world.acknowledge(west)
    revision = world.step(world.journal.declared(A, Declared.DRAINING))
    waiting = Waiting(world, revision)
    world.settle()
    assert (west.seen[-1].kind, west.revision) == ("bookmark", revision)
    world.acknowledge(west)
    assert waiting.over == 1


def test_a_bookmark_that_finds_the_connection_full_is_told_later(world: World) -> None:
    client = world.connect()
    chatty, silent = world.open(client, ModelWatcher(1)), world.open(client, ModelWatcher(2), selector=WEST)
    world.settle()
    client.sink.full = True
    revision = world.step(world.journal.registered(instance("b"), lease_id=2))
    world.read(client)
    assert (chatty.revision, silent.revision) == (revision, 1)
    waiting = Waiting(world, revision)
    world.settle()
    assert silent.revision == 1
    client.sink.drain()
    world.settle()
    assert (silent.revision, silent.seen[-1].kind) == (revision, "bookmark")
    world.acknowledge(chatty)
    world.acknowledge(silent)
    assert waiting.over == 1


def test_a_bookmark_waits_for_what_comes_before_it() -> None:
    """The steps are told slice by slice; nobody may be told that they are up to date before that."""
    world = World(config=WatchConfig(slice_watches=1))
    world.step(world.journal.registered(instance("a", locality=Locality(zone="east"))))
    watchers = [world.watch(selector=EAST) for _ in range(10)]
    for watcher in watchers:
        world.acknowledge(watcher)
    revision = world.step(world.journal.declared(A, Declared.DRAINING))
    waiting = Waiting(world, revision)
    for _ in range(100):
        world.settle()
        for watcher in watchers:
            if watcher.revision == revision:
                assert not watcher.view, "it acknowledges a removal that it has not been told of"
                world.acknowledge(watcher)
    assert waiting.over == 1


def test_a_watcher_that_goes_is_not_waited_for(world: World) -> None:
    watcher = world.watch()
    waiting = Waiting(world, 1)
    world.disconnect(world.client_of(watcher))
    assert waiting.over == 1
    assert waiting.late() == []


def test_a_watcher_that_comes_back_behind_is_waited_for(world: World) -> None:
    staying, leaving = world.watch(name="staying"), world.watch(name="leaving")
    world.acknowledge(leaving)
    token = leaving.token
    world.disconnect(world.client_of(leaving))
    revision = world.step(world.journal.declared(A, Declared.DRAINING))
    waiting = Waiting(world, revision)
    world.open(world.connect(), leaving, token=token, name="leaving")
    world.settle()
    world.acknowledge(staying)
    assert waiting.over == 0
    world.acknowledge(leaving)
    assert waiting.over == 1


def test_a_token_is_as_good_as_an_acknowledgement(world: World) -> None:
    watcher = world.watch()
    world.disconnect(world.client_of(watcher))
    world.open(world.connect(), watcher, token=watcher.token)
    assert not Waiting(world, 1).wait.pending


def test_an_acknowledgement_of_what_was_not_told_does_not_count(world: World) -> None:
    watcher = world.watch(credit=1)
    revision = world.step(world.journal.declared(A, Declared.DRAINING))
    waiting = Waiting(world, revision)
    world.acknowledge(watcher, revision)
    assert waiting.over == 0, "it was left behind for want of credit and has the instance still"
    world.settle()
    world.acknowledge(watcher)
    assert waiting.over == 1


def test_nobody_to_wait_for_is_done_at_once(world: World) -> None:
    waiting = Waiting(world, 1)
    assert not waiting.wait.pending
    assert waiting.late() == []


def test_the_future_and_too_many_waits_are_refused() -> None:
    world = World(config=WatchConfig(waits_max=1))
    world.step(world.journal.registered(instance("a")))
    world.watch()
    with pytest.raises(RevisionInFuture):
        Waiting(world, 2)
    first = Waiting(world, 1)
    with pytest.raises(LimitExceeded, match="waits_max"):
        Waiting(world, 1)
    first.late()
    Waiting(world, 1).late()


def test_waiting_ends_with_the_last_acknowledgement_or_at_the_limit() -> None:
    async def scenario() -> None:
        world = World()
        world.step(world.journal.registered(instance("a")))
        watcher = ModelWatcher(1)
        client = world.connect()
        world.open(client, watcher, name="one")
        world.settle()
        loop = asyncio.get_running_loop()
        started = loop.time()
        late = await world.wait_applied("default", "orders", None, 1, 2_000_000_000)
        assert [one.client for one in late.late] == ["one"]
        assert loop.time() - started == pytest.approx(2.0)
        loop.call_later(0.5, world.acknowledge, watcher)
        result = await world.wait_applied("default", "orders", None, 1, 2_000_000_000)
        assert result.complete
        assert loop.time() - started == pytest.approx(2.5)

    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        runner.run(scenario())


def test_a_wait_that_is_given_up_is_forgotten() -> None:
    async def scenario() -> None:
        world = World(config=WatchConfig(waits_max=1))
        world.step(world.journal.registered(instance("a")))
        watch = world.client_of(world.watch()).connection.watches[1]
        waiting = asyncio.create_task(world.wait_applied("default", "orders", None, 1, 10**12))
        await asyncio.sleep(0)
        assert watch.waits
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert not watch.waits

    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        runner.run(scenario())


def test_the_loop_works_and_ticks_by_itself() -> None:
    async def scenario() -> None:
        world = World(clock=LoopClock(), config=WatchConfig(slice_watches=2))
        running = asyncio.create_task(world.loop.run())
        client = world.connect()
        watchers = [world.open(client, ModelWatcher(number)) for number in range(1, 8)]
        await asyncio.sleep(0.01)
        world.step(world.journal.registered(instance("a")))
        await asyncio.sleep(0.01)
        world.read_all()
        assert {len(watcher.view) for watcher in watchers} == {1}
        await asyncio.sleep(6)
        world.read_all()
        assert {watcher.seen[-1].kind for watcher in watchers} == {"bookmark"}
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        runner.run(scenario())


class LoopClock(Clock):
    """The virtual loop's time."""

    def now_ns(self) -> int:
        return int(asyncio.get_running_loop().time() * 1e9)
