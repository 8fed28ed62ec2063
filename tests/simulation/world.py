"""A world from a seed: one control plane, a dozen clients, and faults at the moments when they hurt.

It runs in virtual time: faults first, each at the moment that the plan says; then everything is sound again, and within
SETTLE_S the promises that take time must be kept; then a last power cut, and what is found on the disk is the truth.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import guarantees
from simulation import virtual
from simulation.chance import between, rng_of
from simulation.clients import DEAD_LETTERS, JOBS, NAMESPACE, Client, Heard, Part, Place
from simulation.errors import listening
from simulation.faults import FAULTS, Cell
from simulation.history import History
from simulation.network import Network
from simulation.node import FOLDER, Node
from simulation.scene import Scene
from simulation.sim_disk import DiskFaults, SimDisk
from simulation.truth import Journal, read_back
from simulation.virtual import Host
from simulation.wire import Operation, Wire

REACH_WITHIN_S = 60.0
"""A planned cell that is not reached by then is a failure of the simulation."""
SETTLE_S = 60.0
KNOWN_WITHIN_S = 5.0 + 1.0 + 1.0
"""After so long a connected view shows what was decided: the bookmark interval + 1 s, and one for how often we look."""
DONE_WITHIN_S = 20.0
"""After so long consumers that forget one in ten have done everything: several ack deadlines."""
FRESH_WITHIN_S = 15.0 + 3.0 + 1.0
"""After so long without word a view must say that it is stale: stale_after_s, a look at the clock, and one to spare."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a world."""

    seed: int
    broken: list[str]
    unreached: list[Cell]
    digest: str
    lines: list[str]


class Mark(NamedTuple):
    """How far the server was."""

    at_s: float
    revision: int
    ends: dict[str, int]
    """By stream, where the next event would come."""


START = Mark(0.0, 0, {})


class World:
    """See the module."""

    def __init__(self, seed: int, scene: Scene, plan: list[Cell] | None = None) -> None:
        self.seed = seed
        self.scene = scene
        self.plan = scene.planned(seed) if plan is None else plan
        self.rng = rng_of(seed, "world")
        self.history = History()
        self.network = Network(rng_of(seed, "network"))
        self.disk = SimDisk(rng_of(seed, "disk"), DiskFaults(latency_ns=(20_000, 3_000_000)))
        self.wire = Wire(self.history)
        self.network.on_arrived.append(self.wire.arrived)
        self.network.on_taken.append(self.wire.taken)
        self.endpoint = None if scene.sender is None else scene.sender(self)
        """What the server's webhooks send to."""
        self.node = Node(
            "hub", seed, self.network, self.disk, scene.config(seed), note=self._note,
            watch_disk=self._disk_operation, look_ahead=scene.look_ahead(seed), sender=self.endpoint,
        )  # fmt: skip
        self.seen = scene.observe(self)
        self.stalls: list[tuple[float, float]] = []
        """Of the server."""
        self.clock_steps: list[tuple[float, int]] = [(0.0, 0)]
        """When the clock on the server's wall was set, and how many nanoseconds it has been ahead since."""
        self.downs: list[tuple[float, float]] = []
        """When the server was down or its disk failed: from, until."""
        self.heard: list[Heard] = []
        self.unreached: list[Cell] = []
        self.calm_since_s: float | None = None
        self.set_aside: dict[str, set[int]] = {}
        """By subscription, at the end."""
        self.calm_revision: int | None = None
        self._down_since: float | None = 0.0
        self._place = Place(seed, self.network, self.history, self.node.address)
        self._clients: dict[Host, Client] = {}
        self._roles: list[asyncio.Task[None]] = []
        self._leaving = False
        self._marks: list[Mark] = []

    # What is seen.

    def _note(self, what: str, *more: object) -> None:
        self.history.note(what, *more)
        now_s = asyncio.get_running_loop().time()
        if what == "starting":
            self._begin("start", None)
        elif what == "serving" and self._down_since is not None:
            self.downs.append((self._down_since, now_s))
            self._down_since = None
        elif what == "ended" and self._down_since is None:
            self._down_since = now_s

    def _begin(self, name: str, host: Host | None) -> Operation:
        operation = Operation(name, host)
        for told in list(self.wire.on_operation):
            told(operation)
        return operation

    def _disk_operation(self, name: str, path: str) -> Operation | None:
        if name not in ("write", "sync", "rename", "sync_folder"):
            return None
        part = path.removeprefix(f"{FOLDER}/")
        if part.startswith("snapshots"):
            return self._begin("snapshot", None)
        if part.startswith("streams/trunkline.subscriptions"):
            return self._begin("checkpoint", None)
        if part.startswith("streams/trunkline.control"):
            return self._begin("control append", None)
        stream = part.removeprefix("streams/").partition("/")[0].removeprefix(f"{NAMESPACE}%2F")
        append = {DEAD_LETTERS: "dead letter append", JOBS: "scheduled append"}.get(stream, "event append")
        return self._begin(append, None) if part.startswith("streams/") else None

    # Who lives here.

    @property
    def calm(self) -> bool:
        """No more faults."""
        return self.calm_since_s is not None

    def guests(self) -> list[str]:
        """Instances that come and go, and are there."""
        return [client.key for client in self.clients if client.key and "anchor" not in client.key]

    def _role(self, name: str, part: Callable[[], Part]) -> None:
        task = asyncio.get_running_loop().create_task(self._play(name, part, rng_of(self.seed, f"role {name}")))
        self._roles.append(task)

    async def _play(self, name: str, part: Callable[[], Part], rng: Any) -> None:
        """One client after the other, until the world ends."""
        number = 0
        while not self._leaving:
            number += 1
            client = Client(self._place, f"{name}.{number}", part())
            self._clients[client.host] = client
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await asyncio.wait([client.begin()])
            if client.host.alive:
                await client.host.kill()
            del self._clients[client.host]
            await asyncio.sleep(between(rng, 0.1, 1.5))

    @property
    def clients(self) -> list[Client]:
        """Those that live."""
        return list(self._clients.values())

    async def kill_client(self, host: Host) -> None:
        """SIGKILL of a client; of one that is to stay for ever, a reset of its connections."""
        client = self._clients.get(host)
        if client is None or "anchor" in host.name:
            self.network.reset(host)
        else:
            await client.kill()

    # Its life.

    async def live(self) -> Outcome:
        """From beginning to end."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._unexpected)
        keeping = loop.create_task(self.node.keep_running())
        await self.node.serving()
        for name, part in self.scene.people(self).items():
            self._role(name, part)
        sampling = loop.create_task(self._sample())
        await asyncio.sleep(between(self.rng, 1.0, 4.0))
        for cell in self.plan:
            await self._strike(cell)
            await asyncio.sleep(between(self.rng, 0.2, 2.5))
        await self._settle()
        sampling.cancel()
        await self._end()
        await self.node.kill(power=True)  # while it lives: one that has ended lets nothing be lost
        keeping.cancel()
        await asyncio.wait([keeping, sampling])
        journal = await read_back(self.disk)
        broken = self._judge(journal)
        return Outcome(self.seed, broken, self.unreached, self.history.digest, self.history.lines)

    def _judge(self, journal: Journal) -> list[str]:
        """Every broken promise, in words."""
        broken = list(self.history.broken)
        broken += [f"no unexpected error: the server crashed: {crash}" for crash in self.node.crashes]
        for name, check in self.scene.checks.items():
            broken += [f"{name}: {what}" for what in check(self, journal)]
        return broken

    def _unexpected(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.history.breaks("no unexpected error", f"{context.get('message')}: {context.get('exception')!r}")

    async def _strike(self, cell: Cell) -> None:
        """Wait until the cell's operation is under way, and let the fault strike."""
        fault, name = cell
        await self.node.serving()
        began: asyncio.Queue[Operation] = asyncio.Queue()

        def heard(operation: Operation) -> None:
            if operation.name == name:
                began.put_nowait(operation)

        self.wire.on_operation.append(heard)
        try:
            async with asyncio.timeout(REACH_WITHIN_S):
                operation = await self._caught(name, began)
        except TimeoutError:
            self.unreached.append(cell)
            return
        finally:
            self.wire.on_operation.remove(heard)
        self.history.reached[cell] += 1
        self.history.note("FAULT", fault, "during", name, "" if operation.host is None else operation.host.name)
        began_s = asyncio.get_running_loop().time()
        await FAULTS[fault](self, operation)
        self.downs.append((began_s, asyncio.get_running_loop().time()))
        self.history.note("healed", fault)

    async def _caught(self, name: str, began: asyncio.Queue[Operation]) -> Operation:
        """An operation of this name that is still under way a moment after it began; when most were over by then, at once."""
        loop = asyncio.get_running_loop()
        hurry_s = loop.time() + REACH_WITHIN_S / 2
        if name == "start":
            await self.node.kill()
        while True:
            operation = await began.get()
            while not began.empty():
                operation = began.get_nowait()
            if name != "ack" and loop.time() < hurry_s:
                await asyncio.sleep(self.rng.below(2_000) / 1e6)
            if operation.under_way and (operation.host is None or operation.host in self._clients):
                return operation

    async def _sample(self) -> None:
        """Look twice a second at what must always be so."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(0.5)
            if (plane := self.node.plane) is not None:
                ends = {stream.name: stream.history.next_offset for stream in plane.events.streams.opened()}
                self._marks.append(Mark(loop.time(), fold_revision(plane), ends))
                for name in self.scene.under_way(self):
                    self._begin(name, None)
            old = self._mark(FRESH_WITHIN_S)
            for client in self.clients:
                view = client.view
                if view is None or client.host.stalled or view.is_stale:
                    continue
                for what in guarantees.broke_watcher_fresh_in_time(
                    client.name, view.revision, knows_it_is_stale=client.host.stalled_s > 0, durable=old.revision
                ):
                    self.history.breaks("G10 watcher fresh in time", what)

    def is_sound(self, from_s: float, until_s: float) -> bool:
        """Whether there was no trouble in this time."""
        return not any(began_s < until_s and ended_s > from_s for began_s, ended_s in self.downs)

    def limit_s(self, from_s: float, within_s: float, after_trouble_s: float) -> float:
        """When something must have happened that takes so long, or, where trouble puts it off, so long after that."""
        limit_s = from_s + within_s
        for began_s, ended_s in sorted(self.downs):
            if began_s < limit_s and ended_s + after_trouble_s > from_s:
                limit_s = max(limit_s, ended_s + after_trouble_s)
        return limit_s

    def appended_by_s(self, stream: str, offset: int) -> float | None:
        """When it was first seen that the stream had an event there, or has none."""
        return next((mark.at_s for mark in self._marks if mark.ends.get(stream, 0) > offset), None)

    def _mark(self, ago_s: float) -> Mark:
        """How far the server was so many seconds ago."""
        limit_s = asyncio.get_running_loop().time() - ago_s
        return next((mark for mark in reversed(self._marks) if mark.at_s <= limit_s), START)

    # The end.

    async def _settle(self) -> None:
        """Everything is sound: wait until all that was promised with time is so."""
        self.network.heal()
        self.disk.faults = DiskFaults(latency_ns=self.disk.faults.latency_ns)
        self.calm_since_s = asyncio.get_running_loop().time()
        self.history.note("calm")
        deadline_s = asyncio.get_running_loop().time() + SETTLE_S
        await asyncio.sleep(8.0)
        while left := self._unsettled():
            if asyncio.get_running_loop().time() > deadline_s:
                for what in left:
                    self.history.breaks("liveness", f"not {SETTLE_S:g} s after the last fault: {what}")
                return
            await asyncio.sleep(0.5)

    def _unsettled(self) -> list[str]:
        plane = self.node.plane
        if plane is None:
            return ["G1 the server serves"]
        fold, left = plane.registry.fold, []
        known, done = self._mark(KNOWN_WITHIN_S), self._mark(DONE_WITHIN_S)
        for client in self.clients:
            if client.name.rpartition("-")[2].startswith("anchor"):
                entry = fold.get(client.key) if client.key else None
                if entry is None or entry.registered.status.name != "SERVING":
                    left.append(f"G8 {client.name} is registered and serves")
            if client.view is not None and (client.view.is_stale or client.view.revision < known.revision):
                left.append(f"G10 {client.name}'s view at {client.view.revision} is fresh ({known.revision})")
        left += [f"G9 {key} is gone" for key in self.history.died if fold.get(key) is not None]
        for stream in plane.events.streams.opened():
            end = done.ends.get(stream.name, 0)
            for name, feed in stream.feeds.items():
                if feed.state.floor < end:
                    left.append(f"G12 {name} has done all up to {end}, is at {feed.state.floor}")
        return left + self.scene.unsettled(self)

    async def _end(self) -> None:
        """Publishers leave first, so that consumers can come to the end; then everybody."""
        self._leaving = True
        for client in self.clients:
            if client.name.startswith(("publish", "pipeline", "twins")):
                client.leaving.set()
        deadline_s = asyncio.get_running_loop().time() + SETTLE_S
        await asyncio.sleep(5.0)
        while left := self._undone():
            if asyncio.get_running_loop().time() > deadline_s:
                for what in left:
                    self.history.breaks("G12 at least once", f"not {SETTLE_S:g} s after the last publish: {what}")
                break
            await asyncio.sleep(0.5)
        plane = self.node.plane
        if plane is not None:
            self.calm_revision = fold_revision(plane)
            for stream in plane.events.streams.opened():
                self.set_aside |= {name: set(feed.state.set_aside) for name, feed in stream.feeds.items()}
        for client in self.clients:
            client.leaving.set()
        async with asyncio.timeout(90.0):
            await asyncio.wait(self._roles)

    def _undone(self) -> list[str]:
        plane = self.node.plane
        if plane is None:
            return ["the server serves"]
        left = []
        for stream in plane.events.streams.opened():
            end = stream.history.next_offset
            for name, feed in stream.feeds.items():
                if feed.state.floor < end:
                    left.append(f"{name} has done all up to {end}, is at {feed.state.floor}")
            for heard in self.heard:
                if self._listens(heard) and end and (not heard.offsets or max(heard.offsets) < end - 1):
                    left.append(f"listener {heard.name} has heard all up to {end}: {heard.offsets[-1:]}")
        return left + self.scene.unsettled(self)

    def _listens(self, heard: Heard) -> bool:
        return heard is next((h for h in reversed(self.heard) if h.name == heard.name), None)


def fold_revision(plane: Any) -> int:
    """Where the control stream is."""
    revision: int = plane.control.sequencer.revision
    return revision


def live(seed: int, scene: Scene, plan: list[Cell] | None = None) -> Outcome:
    """Run the world of a seed."""

    async def main() -> Outcome:
        world = World(seed, scene, plan)
        with listening(world.history):
            return await world.live()

    return virtual.run(main())
