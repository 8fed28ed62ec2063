"""Clients: the shipped SDK on hosts of their own, each doing one thing until it is told to stop or killed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import grpc
from guarantees import Seen
from simulation.chance import between, choose, happens, rng_of
from simulation.channel import Channel
from simulation.history import History, Watched
from simulation.network import Network
from simulation.virtual import NOBODY, Host, LoopClock

from trunkline.client._backoff import BackoffOptions
from trunkline.client._changes import Change, Fresh, Reset, Updated
from trunkline.client._connection import Trunkline
from trunkline.client._delivery import Delivery
from trunkline.client._edge import Edge
from trunkline.client._event import Event
from trunkline.client._options import ClientOptions
from trunkline.client._subscription import Subscription
from trunkline.client._view import View
from trunkline.core.errors import InstanceAlive, LeaseNotFound, OutOfOrderSequence, TrunklineError
from trunkline.core.model import RegisteredInstance
from trunkline.core.selector import Selector

OPTIONS = ClientOptions(
    timeout_s=8.0, drain_limit_s=3.0, backoff=BackoffOptions(initial_backoff_s=0.2, max_backoff_s=3.0)
)
NAMESPACE = "default"
DEAD_LETTERS = "dead"
"""The stream that takes them."""
JOBS = "jobs"
"""The stream that schedules publish to."""


class Addresses:
    """Every host has one, and the control plane is elsewhere."""

    async def local_address(self) -> str:
        return "10.0.0.1"

    async def control_is_loopback(self) -> bool:
        return False


@dataclass(eq=False)
class Place:
    """What every client is given."""

    seed: int
    network: Network
    history: History
    address: str


Part = Callable[["Client"], Awaitable[None]]


class Client:
    """One process with one connection. `part` is what it does; it may raise TrunklineError."""

    def __init__(self, place: Place, name: str, part: Part) -> None:
        self.name = name
        self.place = place
        self.history = place.history
        self.rng = rng_of(place.seed, f"client {name}")
        self.host: Host = place.network.host(name)
        self.leaving = asyncio.Event()
        """Set when it is to end in good order."""
        self.key = ""
        """Of the instance that it has registered."""
        self.view: View | None = None
        self._part = part
        edge = Edge(
            clock=LoopClock(),
            rng=rng_of(place.seed, f"edge {name}"),
            entropy=rng_of(place.seed, f"entropy {name}").bytes,
            dial_control=self.dial,
            dial_instance=self._dial_instance,
            addresses=Addresses(),
        )
        self.trunkline = Trunkline(edge, OPTIONS, namespace=NAMESPACE, name=name)

    def dial(self) -> Channel:
        """A connection to the control plane."""
        return Channel(self.place.network, self.host, self.place.address)

    def _dial_instance(self, address: str, credentials: grpc.ChannelCredentials | None) -> Any:
        return Channel(self.place.network, self.host, address)

    def begin(self) -> asyncio.Task[None]:
        """Run it."""
        self.history.note("client", self.name, "begins")
        return self.host.run(self._main(), name=self.name)

    async def _main(self) -> None:
        try:
            async with self.trunkline:
                await self._part(self)
        except TrunklineError as error:
            self.history.note("client", self.name, "gave up", type(error).__name__)
        except Exception as error:
            self.history.breaks("no unexpected error", f"client {self.name}: {error!r}")
            raise

    async def kill(self) -> None:
        """SIGKILL."""
        if not self.host.alive:
            return
        self.history.note("client", self.name, "killed")
        if self.key:
            self.history.died[self.key] = asyncio.get_running_loop().time()
        await self.host.kill()
        self.trunkline._closed = True  # nobody is left to be warned of it

    async def rest(self, low_s: float, high_s: float) -> bool:
        """Wait a random time; False when it is to leave."""
        try:
            async with asyncio.timeout(between(self.rng, low_s, high_s)):
                await self.leaving.wait()
        except TimeoutError:
            return True
        return False


def provider(service: str, *, ttl_s: float, version: str, lifetime_s: tuple[float, float] | None) -> Part:
    """Registers an instance and stays; with a lifetime it leaves in good order when that is over."""

    async def part(client: Client) -> None:
        instance_id = client.name
        registration = await client.trunkline.register(
            service, id=instance_id, port=80, version=version, ttl_s=ttl_s, labels={"tier": "gold"}
        )
        client.key = f"instance/{NAMESPACE}/{service}/{instance_id}"
        try:
            if lifetime_s is None:
                await client.leaving.wait()
            elif await client.rest(*lifetime_s) and happens(client.rng, 50):
                await registration.declare("degraded")
                await client.rest(*lifetime_s)
        except (InstanceAlive, LeaseNotFound):
            pass  # it was ended by somebody else
        if happens(client.rng, 70):
            await registration.drain()
        await registration.close()
        client.key = ""

    return part


def hermit(service: str, *, ttl_s: float, calm: Callable[[], bool]) -> Part:
    """An instance that stands still from time to time for longer than its lease lives, until all is calm."""

    async def part(client: Client) -> None:
        loop = asyncio.get_running_loop()
        registration = await client.trunkline.register(service, id=client.name, port=80, ttl_s=ttl_s)
        client.key = f"instance/{NAMESPACE}/{service}/{client.name}"
        while await client.rest(2.0, 6.0):
            if not calm():
                loop.call_later(between(client.rng, ttl_s, 2.5 * ttl_s), client.host.resume, context=NOBODY)
                client.host.stall()
                await client.host.awake()
        await registration.close()
        client.key = ""

    return part


def watcher(watched: Watched, looks: Callable[[Client, View], None] = lambda client, view: None) -> Part:
    """Has a view and writes down what it shows; `looks` is called whenever it shows something else."""

    async def part(client: Client) -> None:
        view = await client.trunkline.watch(watched.service, selector=watched.selector, timeout_s=60.0)
        client.view = view

        def saw(change: Change) -> None:
            _saw(client, view, watched, change)
            looks(client, view)

        view.listen(saw)
        await client.leaving.wait()

    return part


def _saw(client: Client, view: View, watched: Watched, change: Change) -> None:
    kind: Literal["snapshot", "changes", "bookmark"]
    upserted: Sequence[RegisteredInstance] = ()
    removed: Sequence[RegisteredInstance] = ()
    if isinstance(change, Reset):
        kind, upserted = "snapshot", change.instances
    elif isinstance(change, Updated):
        kind, upserted, removed = "changes", (*change.added, *change.changed), change.removed
    elif isinstance(change, Fresh):
        kind = "bookmark"
    else:
        return
    shown = {(r.instance.service, r.instance.id): r.modified_revision for r in view.instances}
    watched.seen.append(
        Seen(
            kind=kind,
            revision=view.revision,
            view=shown,
            upserted={(r.instance.service, r.instance.id): r.modified_revision for r in upserted},
            removed=frozenset((r.instance.service, r.instance.id) for r in removed),
        )
    )
    client.history.note("view", client.name, kind, view.revision, len(shown))


TOPICS = ("order.placed", "order.paid.late", "stock.low")


def _event(client: Client, number: int) -> Event:
    topic = choose(client.rng, TOPICS)
    size = choose(client.rng, (1, 20, 200, 3_000))
    return Event(id=f"{client.name}-{number}", type=topic, data=client.rng.bytes(size), key=f"k{client.rng.below(4)}")


def publisher(*, every_s: tuple[float, float]) -> Part:
    """Publishes one request after the other, some of them twice."""

    async def part(client: Client) -> None:
        number = 0
        while await client.rest(*every_s):
            count = choose(client.rng, (1, 1, 2, 5))
            events = [_event(client, number + place) for place in range(count)]
            number += count
            try:
                await client.trunkline.publish(events)
                if happens(client.rng, 15):
                    await client.trunkline.publish(events[: 1 + client.rng.below(count)])
            except TrunklineError as error:
                client.history.note("client", client.name, "not published", type(error).__name__)

    return part


def twins(*, every_s: tuple[float, float]) -> Part:
    """Publishes each event twice at the same time, as one who did not wait long enough for the first answer."""

    async def part(client: Client) -> None:
        number = 0
        while await client.rest(*every_s):
            events = [_event(client, number)]
            number += 1
            both = (client.trunkline.publish(events), client.trunkline.publish(events))
            await asyncio.gather(*both, return_exceptions=True)

    return part


def pipeliner(*, every_s: tuple[float, float]) -> Part:
    """Publishes without waiting for each answer."""

    async def part(client: Client) -> None:
        number = 0
        answers: list[asyncio.Future[Any]] = []
        async with client.trunkline.publisher(in_flight_max=100) as publisher:
            while await client.rest(*every_s):
                for _ in range(choose(client.rng, (1, 3, 10))):
                    answers.append(await publisher.send(_event(client, number)))
                    number += 1
        await asyncio.gather(*answers, return_exceptions=True)

    return part


def producer(*, every_s: tuple[float, float]) -> Part:
    """The same, with numbers; another publisher of the role when one has ended."""

    async def part(client: Client) -> None:
        role, _, _ = client.name.rpartition(".")
        number = 0
        answers: list[asyncio.Future[Any]] = []
        while not client.leaving.is_set():
            async with client.trunkline.publisher(in_flight_max=100, producer=role) as publisher:
                while not publisher.closed and await client.rest(*every_s):
                    with suppress(OutOfOrderSequence):
                        for _ in range(choose(client.rng, (1, 3, 10))):
                            answers.append(await publisher.send(_event(client, number)))
                            number += 1
        await asyncio.gather(*answers, return_exceptions=True)

    return part


def consumer(
    name: str,
    *,
    filters: tuple[str, ...],
    calm: Callable[[], bool],
    ordering: Literal["parallel", "keyed"] = "parallel",
) -> Part:
    """Handles a durable subscription's deliveries: acknowledges most, refuses some, forgets some, until all is calm."""

    async def part(client: Client) -> None:
        subscription = client.trunkline.subscribe(
            name, filters=filters, start="earliest", ack_deadline_s=2.0, credit=32, ordering=ordering
        )

        async def handle(delivery: Delivery) -> None:
            await asyncio.sleep(between(client.rng, 0.0, 0.05))
            chance = client.rng.below(100)
            if calm() or chance < 85:
                delivery.ack()
                client.history.handled[name].add((delivery.incarnation, delivery.offset))
            elif chance < 95:
                delivery.nack(between(client.rng, 0.0, 0.5))
            else:
                await asyncio.sleep(3.0)  # longer than the deadline: it comes again
                delivery.ack()
                client.history.handled[name].add((delivery.incarnation, delivery.offset))

        await consume_until_leaving(client, subscription, handle)

    return part


async def consume_until_leaving(
    client: Client, subscription: Subscription, handle: Callable[[Delivery], Awaitable[None]]
) -> None:
    """Handle deliveries until the subscription ends or the client is to leave."""
    consuming = asyncio.get_running_loop().create_task(subscription.consume(handle, concurrency=8))
    leaving = asyncio.get_running_loop().create_task(client.leaving.wait())
    try:
        await asyncio.wait([consuming, leaving], return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
    subscription.close()
    await consuming


def puller(name: str) -> Part:
    """Fetches a durable subscription's deliveries."""

    async def part(client: Client) -> None:
        opened = client.trunkline.subscribe(name, start="earliest", ack_deadline_s=2.0, credit=1)
        await opened.opened()
        opened.close()
        while await client.rest(0.0, 0.3):
            try:
                async with await client.trunkline.fetch(name, max_events=20, wait_s=0.5) as fetched:
                    for delivery in fetched:
                        client.history.note("fetched", name, delivery.offset, delivery.attempt)
                        if happens(client.rng, 90):
                            delivery.ack()
                            client.history.handled[name].add((0, delivery.offset))
            except TrunklineError as error:
                client.history.note("client", client.name, "not fetched", type(error).__name__)

    return part


@dataclass(eq=False)
class Heard:
    """What an ephemeral subscription was given, in order."""

    name: str
    offsets: list[int]
    acknowledges: bool


def listener(heard: Heard) -> Part:
    """An ephemeral subscription from the stream's beginning."""

    async def part(client: Client) -> None:
        subscription = client.trunkline.subscribe(start="earliest", acknowledge=heard.acknowledges, credit=64)
        reading = asyncio.get_running_loop().create_task(_read(client, subscription, heard))
        await client.leaving.wait()
        subscription.close()
        await reading

    return part


async def _read(client: Client, subscription: Any, heard: Heard) -> None:
    async with subscription:
        while (delivery := await subscription.next()) is not None:
            heard.offsets.append(delivery.offset)
            client.history.note("heard", heard.name, delivery.offset)
            if heard.acknowledges:
                delivery.ack()
            if happens(client.rng, 2):
                await asyncio.sleep(between(client.rng, 0.0, 1.0))


ANY = Selector()


def glance(watched: Watched) -> Part:
    """Opens a view, looks at it for a moment, and goes."""

    async def part(client: Client) -> None:
        client.history.watches.append(watched)
        view = await client.trunkline.watch(watched.service, selector=watched.selector)
        view.listen(lambda change: _saw(client, view, watched, change))
        await client.rest(0.1, 2.0)

    return part


def sip() -> Part:
    """Opens a subscription, takes a few deliveries, and goes."""

    async def part(client: Client) -> None:
        async with client.trunkline.subscribe(acknowledge=False, credit=8) as subscription:
            try:
                async with asyncio.timeout(between(client.rng, 0.1, 2.0)):
                    while await subscription.next() is not None:
                        pass
            except TimeoutError:
                pass

    return part


def impostor(targets: Callable[[], list[str]]) -> Part:
    """Tries to register what somebody else has registered; where that works, keeps it for a moment."""

    async def part(client: Client) -> None:
        while await client.rest(0.2, 2.0):
            keys = targets()
            if not keys:
                continue
            _, _, service, instance_id = choose(client.rng, keys).split("/", 3)
            try:
                registration = await client.trunkline.register(service, id=instance_id, port=666, drain_on_exit=False)
                await client.rest(0.0, 1.0)
                await registration.close()
            except TrunklineError as error:
                client.history.note("impostor", instance_id, type(error).__name__)

    return part
