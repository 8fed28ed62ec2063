"""An event bus on the real sequencer and the memory engine, in virtual time, and clients of its Subscribe streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from trunkline.api.v1 import common_pb2, events_pb2
from trunkline.core.clock import Rng
from trunkline.core.model import Sync
from trunkline.core.settlements import read_settlement
from trunkline.server.events.bounds import DEFAULT, LookAhead
from trunkline.server.events.bus import BusConfig, EventBus
from trunkline.server.events.compaction import CompactionConfig
from trunkline.server.events.fold import EventsFold
from trunkline.server.events.publishing import Publishing
from trunkline.server.events.session import Session
from trunkline.server.events.streams import Promise
from trunkline.server.events.tasks import Tasks
from trunkline.server.journal.control.fold import Folds
from trunkline.server.journal.control.node import Control, ControlConfig
from trunkline.server.journal.control.sequencer import Origin
from trunkline.server.journal.memory import MemoryEngine

from .registry_world import LoopClock

BY = Origin(author="tests")
Notice = events_pb2.SubscriptionNotice
Ack = events_pb2.Acknowledgement
TOPIC = "shop.order.placed"


def event(id: str, *, topic: str = TOPIC, key: str = "", data: bytes = b"", source: str = "/tests") -> Any:
    """A CloudEvent."""
    made = events_pb2.CloudEvent(id=id, source=source, spec_version="1.0", type=topic, binary_data=data)
    if key:
        made.attributes["partitionkey"].ce_string = key
    return made


def publish_request(events: Iterable[Any], *, namespace: str = "shop", stream: str = "", **more: Any) -> bytes:
    """A serialized PublishRequest."""
    request = events_pb2.PublishRequest(namespace=namespace, stream=stream, events=events, **more)
    return request.SerializeToString()


class Client:
    """Takes what a session sends, as a Sink would: pieces, which it parses. `full` makes it not ready."""

    def __init__(self, everybody: list[events_pb2.Delivery]) -> None:
        self.everybody = everybody
        """What all clients of the world got, in the order in which it was sent."""
        self.ready = True
        self.deliveries: list[events_pb2.Delivery] = []
        self.notices: list[events_pb2.SubscriptionNotice] = []
        self.session: Session
        self._on_ready: list[Callable[[], None]] = []
        self._arrived = asyncio.Event()

    def offer(self, data: bytes | Iterable[bytes]) -> bool:
        whole = data if isinstance(data, bytes) else b"".join(data)
        response = events_pb2.SubscribeResponse.FromString(whole)
        self.deliveries.extend(response.deliveries)
        self.everybody.extend(response.deliveries)
        self.notices.extend(response.notices)
        self._arrived.set()
        return self.ready

    def flush(self) -> None:
        """It is there already."""

    def on_ready(self, callback: Callable[[], None]) -> None:
        self._on_ready.append(callback)

    def set_ready(self, ready: bool) -> None:
        self.ready = ready
        if ready:
            for callback in self._on_ready:
                callback()

    @property
    def offsets(self) -> list[int]:
        return [delivery.offset for delivery in self.deliveries]

    @property
    def attempts(self) -> list[tuple[int, int]]:
        return [(delivery.offset, delivery.attempt) for delivery in self.deliveries]

    def kinds(self) -> list[int]:
        return [notice.kind for notice in self.notices]

    async def until(self, condition: Callable[[], bool], *, seconds: float = 5.0) -> None:
        """Wait for what must come."""
        async with asyncio.timeout(seconds):
            while not condition():
                self._arrived.clear()
                await self._arrived.wait()

    async def received(self, count: int, *, seconds: float = 5.0) -> list[events_pb2.Delivery]:
        """The deliveries, when there are so many."""
        await self.until(lambda: len(self.deliveries) >= count, seconds=seconds)
        return self.deliveries

    async def handle(self, request: events_pb2.SubscribeRequest) -> None:
        """As the server takes what comes."""
        first = self.session.take(read_settlement(request.SerializeToString()) or request)
        if first is not None:
            await first

    async def open(self, *, subscription_id: int = 1, credit: int = 1_000, config: Any = None, **more: Any) -> None:
        request = events_pb2.SubscribeRequest()
        request.open.subscription_id = subscription_id
        request.open.namespace = more.pop("namespace", "shop")
        request.open.credit = credit
        if config is not None:
            request.open.config.CopyFrom(config)
        for name, value in more.items():
            setattr(request.open, name, value)
        await self.handle(request)

    async def settle(
        self, outcome: int, *offsets: int, subscription_id: int = 1, delay_s: float = 0, **more: Any
    ) -> None:
        one = Ack(subscription_id=subscription_id, outcome=Ack.Outcome.ValueType(outcome), offsets=offsets, **more)
        if delay_s:
            one.delay.FromNanoseconds(int(delay_s * 1e9))
        await self.handle(events_pb2.SubscribeRequest(acknowledgements=[one]))

    async def ack(self, *offsets: int, subscription_id: int = 1) -> None:
        await self.settle(Ack.OUTCOME_ACK, *offsets, subscription_id=subscription_id)

    async def give(self, credit: int, *, subscription_id: int = 1) -> None:
        credits = [events_pb2.AddCredit(subscription_id=subscription_id, credit=credit)]
        await self.handle(events_pb2.SubscribeRequest(credits=credits))

    async def close(self, *, subscription_id: int = 1) -> None:
        closing = events_pb2.CloseSubscription(subscription_id=subscription_id)
        await self.handle(events_pb2.SubscribeRequest(close=closing))


class World:
    """One control plane with nothing but an event bus. Its engine outlives restarts."""

    def __init__(
        self,
        *,
        seed: int = 1,
        offers: Sync = Sync.FSYNCED,
        sender: Any = None,
        look_ahead: LookAhead = DEFAULT,
        compaction: CompactionConfig | None = None,
    ) -> None:
        self.clock = LoopClock()
        self.rng = Rng(seed)
        self.offers = offers
        self.sender = sender
        self.look_ahead = look_ahead
        self.config = BusConfig(compaction=compaction or CompactionConfig())
        self.delivered: list[events_pb2.Delivery] = []
        self.engine = MemoryEngine(self.clock, self.rng, offers=offers)
        self.fold: EventsFold
        self.control: Control
        self.bus: EventBus
        self.publishing: Publishing

    @asynccontextmanager
    async def running(self, *, crash: bool = False) -> AsyncIterator[EventBus]:
        """From start to stop (or, with `crash`, to a sudden end); may be entered again."""
        self.fold = EventsFold()
        self.control = Control(self.engine, Folds([self.fold]), self.clock, ControlConfig(), program_version="0")
        await self.control.open()
        self.bus = EventBus(
            self.engine,
            self.fold,
            self.control.sequencer,
            self.clock,
            self.rng,
            self.config,
            Tasks(),
            promise=Promise(sync=self.offers),
            sender=None if self.sender is None else lambda _config: self.sender,
            look_ahead=self.look_ahead,
        )
        self.control.sequencer.on_group(lambda group: self.bus.on_records(group.applied))
        self.publishing = Publishing(self.bus.streams, self.encoded_header)
        journal = asyncio.create_task(self.control.run())
        await self.control.ready.wait()
        await self.bus.start(BY)
        work = asyncio.create_task(self.bus.run())
        try:
            yield self.bus
            assert not work.done(), work
            assert not journal.done(), journal
        finally:
            for task in (work, journal):
                task.cancel()
            await asyncio.gather(work, journal, return_exceptions=True)
            if not crash:
                await self.bus.stop()
            for stream in self.bus.streams.opened():
                stream.dispatcher.close()  # a process that is gone delivers nothing, though its log lives on here

    def encoded_header(self) -> bytes:
        return events_pb2.PublishResponse(header=self.header()).SerializeToString()

    def header(self) -> common_pb2.ResponseHeader:
        return common_pb2.ResponseHeader(
            journal_id=self.engine.journal_id, incarnation=1, revision=self.control.sequencer.revision
        )

    def connect(self) -> Client:
        client = Client(self.delivered)
        client.session = self.bus.open_session(client, BY, allow=lambda _request, _filters: None)
        return client

    def disconnect(self, client: Client, *, clean: bool = False) -> None:
        self.bus.close_session(client.session, clean=clean)

    async def publish(self, *ids: str, topic: str = TOPIC, stream: str = "", **more: Any) -> events_pb2.PublishResponse:
        events = [event(one, topic=topic) for one in ids]
        data = publish_request(events, stream=stream, **more)
        return events_pb2.PublishResponse.FromString(await self.publishing.publish(data, BY, lambda _: None))


def places(response: events_pb2.PublishResponse) -> Sequence[tuple[int, int, bool]]:
    """Where the events of a publish are."""
    return [(run.offset, run.count, run.duplicate) for run in response.published]
