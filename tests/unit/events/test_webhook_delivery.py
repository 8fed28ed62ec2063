"""Webhooks on the whole bus in virtual time: outages of an hour, pauses, order, ends. The endpoint is a function."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any
from zlib import crc32

import pytest
from yarl import URL

from reference.events_world import BY, World, event, publish_request
from reference.registry_world import virtual
from trunkline.api.v1 import events_pb2
from trunkline.core.errors import InvalidArgument, SubscriptionExists, TrunklineError
from trunkline.server.events.delivery import Delivery
from trunkline.server.events.feed import Feed
from trunkline.server.events.operations import set_aside
from trunkline.server.events.webhook_consumer import WebhookConsumer
from trunkline.server.events.webhook_outcome import Answer, Result, Silence
from trunkline.server.events.webhook_request import Request
from trunkline.server.events.webhook_slots import Slots

URL_TEXT = "https://hooks.example/in"
REFUSED = Silence("connection refused", was_sent=False)
LATE = Silence("no answer", was_sent=True)


class Endpoint:
    """Answers as it is told, and remembers what it was sent."""

    def __init__(self, says: Callable[[str, int], Result] = lambda _id, _attempt: Answer(200)) -> None:
        self.says = says
        self.probe_says: Result = Answer(405)
        self.takes_s = 0.01
        self.sent: list[tuple[float, str, int]] = []
        """When, which, and the attempt."""
        self.taken: Counter[str] = Counter()
        self.probes: list[float] = []
        self.open = 0
        self.open_max = 0
        self.is_closed = False

    async def post(self, url: URL, request: Request, *, timeout_s: float) -> Result:
        assert str(url) == URL_TEXT
        name, attempt = request.headers["ce-id"], int(request.headers["trunkline-attempt"])
        self.sent.append((asyncio.get_running_loop().time(), name, attempt))
        self.open += 1
        self.open_max = max(self.open_max, self.open)
        try:
            await asyncio.sleep(self.takes_s)
        finally:
            self.open -= 1
        said = self.says(name, attempt)
        if isinstance(said, Answer) and said.status == 200:
            self.taken[name] += 1
        return said

    async def probe(self, url: URL, *, timeout_s: float) -> Result:
        self.probes.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.takes_s)
        return self.probe_says

    async def close(self) -> None:
        self.is_closed = True


def config(**more: Any) -> events_pb2.SubscriptionConfig:
    start = events_pb2.StartPosition(earliest=True)
    made = events_pb2.SubscriptionConfig(start=start, webhook=events_pb2.Webhook(url=URL_TEXT))
    made.MergeFrom(events_pb2.SubscriptionConfig(**more))
    return made


async def create(world: World, name: str = "billing", **more: Any) -> Feed:
    stream = await world.bus.streams.get("shop", "events", BY)
    feed, _ = await world.bus.subscriptions.create(stream, name, config(**more), BY)
    return feed


async def publish(world: World, count: int, *, keys: int = 0) -> list[str]:
    ids = [str(n) for n in range(count)]
    events = [event(one, key=f"k{int(one) % keys}" if keys else "") for one in ids]
    await world.publishing.publish(publish_request(events), BY, lambda _: None)
    return ids


async def until(condition: Callable[[], bool], *, seconds: float = 10.0) -> None:
    """Wait for what must come, in virtual time."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + seconds
    while not condition():
        assert loop.time() < deadline_s, "it did not come"
        await asyncio.sleep(0.05)


def shown(world: World) -> events_pb2.SubscriptionState:
    [state] = world.bus.subscriptions.states("shop", "")
    return state


def test_every_event_is_sent_once_and_no_more_than_its_concurrency_at_a_time() -> None:
    async def main() -> None:
        endpoint = Endpoint()
        world = World(sender=endpoint)
        async with world.running():
            await create(world)
            ids = await publish(world, 300)
            await until(lambda: shown(world).floor == 300)
            assert endpoint.taken == Counter(ids)
            assert endpoint.open_max == 10
            state = shown(world)
            assert list(state.consumers) == ["webhook"]
            assert (state.webhook.last_status, state.webhook.last_error) == (200, "")
            assert world.bus.metrics()["webhook_acknowledged_total"] == 300
        assert endpoint.is_closed

    virtual(main)


@pytest.mark.parametrize(
    ("down", "probe"),
    [
        pytest.param(REFUSED, REFUSED, id="refuses connections"),
        pytest.param(LATE, LATE, id="takes connections and says nothing"),
        pytest.param(LATE, REFUSED, id="dies while it works"),
    ],
)
def test_an_hour_without_an_answer_sets_nothing_aside_and_loses_nothing(down: Result, probe: Result) -> None:
    async def main() -> None:
        endpoint = Endpoint()
        world = World(sender=endpoint)
        async with world.running() as bus:
            await create(world)
            endpoint.says, endpoint.probe_says = (lambda _id, _attempt: down), probe
            ids = await publish(world, 500)
            await asyncio.sleep(3_600)
            state = shown(world)
            assert state.set_aside == 0
            assert state.webhook.last_error
            assert state.webhook.paused_until.seconds > 0
            assert [alarm.name for alarm in bus.alarms()] == ["WEBHOOK_FAILING"]
            assert 60 <= len(endpoint.probes) <= 120, "a probe a minute"
            assert max((attempt for _, _, attempt in endpoint.sent), default=0) <= 10
            endpoint.says, endpoint.probe_says = (lambda _id, _attempt: Answer(200)), Answer(405)
            await until(lambda: shown(world).floor == 500, seconds=120)
            assert endpoint.taken == Counter(ids)
            assert bus.alarms() == []

    virtual(main)


def test_what_never_reached_the_endpoint_counts_as_no_attempt() -> None:
    async def main() -> None:
        endpoint = Endpoint(lambda _id, _attempt: REFUSED)
        world = World(sender=endpoint)
        async with world.running():
            await create(world, max_deliveries=1)
            await publish(world, 30)
            await asyncio.sleep(300)
            endpoint.says = lambda _id, _attempt: Answer(200)
            await until(lambda: shown(world).floor == 30, seconds=120)
            assert {attempt for _, _, attempt in endpoint.sent} == {1}
            assert shown(world).set_aside == 0

    virtual(main)


def test_who_is_held_is_sent_nothing_at_once_and_is_always_asked_again() -> None:
    async def main() -> None:
        endpoint = Endpoint(lambda _id, _attempt: REFUSED)
        endpoint.probe_says = REFUSED
        world = World(sender=endpoint)
        async with world.running() as bus:
            feed = await create(world)
            await publish(world, 1)
            await asyncio.sleep(100)
            assert len(endpoint.sent) == 1, "credit that is left is not used"
            endpoint.says, endpoint.probe_says = (lambda _id, _attempt: Answer(200)), Answer(200)
            await until(lambda: shown(world).floor == 1, seconds=70)
            webhook = bus.webhooks._by_key[feed.key]
            webhook.health.is_held = True  # as if its pause had run out before anybody looked
            webhook._go_on()
            await publish(world, 3)
            await until(lambda: shown(world).floor == 4)

    virtual(main)


def test_an_outage_with_answers_goes_one_at_a_time_and_does_not_spread() -> None:
    async def main() -> None:
        endpoint = Endpoint(lambda _id, _attempt: Answer(500))
        world = World(sender=endpoint)
        async with world.running():
            await create(world)
            await publish(world, 1_000)
            await asyncio.sleep(600)
            tried = Counter(name for _, name, _ in endpoint.sent)
            assert len(endpoint.sent) <= 10 + 25, "ten at once, then one at a time with pauses up to a minute"
            assert len(tried) <= 30
            endpoint.says = lambda _id, _attempt: Answer(200)
            await until(lambda: shown(world).floor == 1_000, seconds=180)
            assert shown(world).set_aside == 0

    virtual(main)


def test_an_event_that_is_always_refused_is_set_aside_and_the_others_go_on() -> None:
    async def main() -> None:
        endpoint = Endpoint(lambda name, _attempt: Answer(422 if name == "7" else 200))
        world = World(sender=endpoint)
        async with world.running():
            await create(world, max_deliveries=4)
            ids = await publish(world, 100)
            await until(lambda: shown(world).set_aside == 1, seconds=300)
            assert endpoint.taken == Counter(set(ids) - {"7"})
            assert [attempt for _, name, attempt in endpoint.sent if name == "7"] == [1, 2, 3, 4]
            stream = await world.bus.streams.get("shop", "events", BY)
            [aside] = await set_aside(stream, stream.feeds["billing"], max_events=0)
            assert aside.reason.endswith("its endpoint did not take it: 422 Unprocessable Entity")

    virtual(main)


def test_an_event_that_kills_its_endpoint_is_set_aside_though_one_at_a_time_is_asked_for() -> None:
    async def main() -> None:
        endpoint = Endpoint(lambda name, _attempt: LATE if name == "0" else Answer(200))
        world = World(sender=endpoint)
        async with world.running():
            await create(world, ordering=events_pb2.SubscriptionConfig.ORDERING_SEQUENTIAL)
            await publish(world, 20)
            await until(lambda: shown(world).set_aside == 1, seconds=3_600)
            await until(lambda: sum(endpoint.taken.values()) == 19, seconds=120)

    virtual(main)


def test_retry_after_pauses_the_endpoint() -> None:
    async def main() -> None:
        endpoint = Endpoint(lambda _name, _attempt: Answer(429, "120"))
        world = World(sender=endpoint)
        async with world.running():
            await create(world)
            await publish(world, 50)
            await until(lambda: len(endpoint.sent) == 10)
            endpoint.says = lambda _name, _attempt: Answer(200)
            await until(lambda: shown(world).floor == 50, seconds=200)
            first = endpoint.sent[0][0]
            assert all(not 1 < at - first < 120 for at, _, _ in endpoint.sent)
            assert endpoint.sent[10][0] - first >= 120

    virtual(main)


def test_gone_is_asked_again_every_hour_and_costs_no_attempt() -> None:
    async def main() -> None:
        endpoint = Endpoint(lambda _name, _attempt: Answer(410))
        world = World(sender=endpoint)
        async with world.running():
            await create(world, max_deliveries=2)
            await publish(world, 20)
            await asyncio.sleep(2 * 3_600 + 60)
            assert len(endpoint.sent) == 10 + 2
            assert "gone" in shown(world).webhook.last_error
            endpoint.says = lambda _name, _attempt: Answer(200)
            await until(lambda: shown(world).floor == 20, seconds=3_700)

    virtual(main)


def test_events_of_a_key_come_in_order_through_failures() -> None:
    async def main() -> None:
        endpoint = Endpoint(lambda name, attempt: Answer(500 if crc32(f"{name} {attempt}".encode()) % 5 == 0 else 200))
        done: list[int] = []
        world = World(sender=endpoint)
        says = endpoint.says

        def tell(name: str, attempt: int) -> Result:
            said = says(name, attempt)
            done.extend([int(name)] if said == Answer(200) else [])
            return said

        endpoint.says = tell
        async with world.running():
            await create(world, ordering=events_pb2.SubscriptionConfig.ORDERING_KEYED)
            await publish(world, 200, keys=8)
            await until(lambda: shown(world).floor == 200, seconds=3_000)
        for key in range(8):
            lane = [number for number in done if number % 8 == key]
            assert lane == sorted(lane)
            assert len(lane) == 25

    virtual(main)


def test_a_server_that_stops_lets_open_requests_end_and_gives_the_rest_back_uncounted() -> None:
    async def main() -> None:
        endpoint = Endpoint()
        world = World(sender=endpoint)
        async with world.running():
            await create(world)
            endpoint.takes_s = 3.0
            await publish(world, 25)
            await until(lambda: endpoint.open == 10)
        assert sum(endpoint.taken.values()) == 10, "what was open has ended"
        endpoint.takes_s = 30.0
        async with world.running():
            await until(lambda: endpoint.open == 10)
        assert sum(endpoint.taken.values()) == 10, "what took longer than the grace was cut off"
        endpoint.takes_s = 0.01
        async with world.running():
            await until(lambda: shown(world).floor == 25)
        assert set(endpoint.taken.values()) == {1}
        assert {attempt for _, _, attempt in endpoint.sent} == {1}, "no attempt was counted twice"

    virtual(main)


def test_a_crash_repeats_what_was_open_and_loses_nothing() -> None:
    async def main() -> None:
        endpoint = Endpoint()
        world = World(sender=endpoint)
        async with world.running(crash=True):
            await create(world)
            ids = await publish(world, 100)
            await until(lambda: len(endpoint.taken) >= 40)
        async with world.running():
            await until(lambda: shown(world).floor == 100)
        assert endpoint.taken.keys() == set(ids)

    virtual(main)


def test_a_deleted_subscription_sends_nothing_more() -> None:
    async def main() -> None:
        endpoint = Endpoint()
        endpoint.takes_s = 5.0
        world = World(sender=endpoint)
        async with world.running() as bus:
            await create(world)
            await publish(world, 30)
            await until(lambda: endpoint.open == 10)
            await bus.subscriptions.delete("shop", "events", "billing", BY)
            await asyncio.sleep(1)
            assert endpoint.open == 0, "open requests are broken off"
            await asyncio.sleep(20)
            assert len(endpoint.sent) == 10
            assert bus.metrics()["webhooks"] == 0

    virtual(main)


def test_a_stream_that_cannot_be_read_for_a_while_is_taken_up_again() -> None:
    async def main() -> None:
        endpoint = Endpoint()
        world = World(sender=endpoint)
        async with world.running():
            feed = await create(world)
            feed.fail(TrunklineError("for a test"))
            await publish(world, 30)
            await until(lambda: shown(world).floor == 30)
            assert set(endpoint.taken.values()) == {1}

    virtual(main)


def test_what_waits_for_its_turn_is_not_sent_when_the_stream_moves_on_without_it() -> None:
    async def main() -> None:
        endpoint = Endpoint()
        endpoint.takes_s = 3.0
        world = World(sender=endpoint)
        async with world.running() as bus:
            bus.webhooks._slots = Slots(1)
            feed = await create(world)
            await publish(world, 3)
            await until(lambda: endpoint.open == 1)
            feed.move(feed.state.incarnation + 1, 3)
            await until(lambda: shown(world).floor == 3, seconds=60)
            assert endpoint.taken == {"0": 2, "1": 1, "2": 1}, "only what was on its way is sent again"

    virtual(main)


def test_deliveries_that_are_taken_back_before_they_begin_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        endpoint = Endpoint()
        world = World(sender=endpoint)
        async with world.running() as bus:
            slots = bus.webhooks._slots = Slots(3)
            await create(world, max_deliveries=1)
            put = WebhookConsumer.put
            lost: list[Delivery] = []

            def put_and_lose(self: WebhookConsumer, delivery: Delivery, suffix: bytes) -> None:
                put(self, delivery, suffix)
                if len(lost) < 7:
                    lost.append(delivery)
                    for task in self.deliveries:
                        task.cancel()

            monkeypatch.setattr(WebhookConsumer, "put", put_and_lose)
            await publish(world, 30)
            await until(lambda: shown(world).floor == 30)
            assert set(endpoint.taken.values()) == {1}
            await until(lambda: slots.reserved == 0)
            assert len(lost) == 7
            assert shown(world).set_aside == 0

    virtual(main)


def test_opening_again_needs_the_same_webhook() -> None:
    async def main() -> None:
        world = World(sender=Endpoint())
        async with world.running():
            secret = events_pb2.Webhook(url=URL_TEXT, secret=b"0123456789abcdef")
            await create(world, webhook=secret)
            await create(world, webhook=secret)
            for other in (
                events_pb2.Webhook(concurrency=3),
                events_pb2.Webhook(secret=b"0123456789abcdeF"),
                events_pb2.Webhook(url=URL_TEXT + "/2", secret=b"0123456789abcdef"),
            ):
                with pytest.raises(SubscriptionExists):
                    await create(world, webhook=other)
            with pytest.raises(InvalidArgument):
                await create(world, "evil", webhook=events_pb2.Webhook(url="http://169.254.169.254/"))
            assert shown(world).config.webhook.signed
            assert shown(world).config.webhook.secret == b""

    virtual(main)


def test_an_ephemeral_subscription_has_no_webhook() -> None:
    async def main() -> None:
        world = World(sender=Endpoint())
        async with world.running():
            client = world.connect()
            await client.open(config=config())
            [notice] = client.notices
            assert "only with a name" in notice.error.message

    virtual(main)


def test_all_webhooks_share_the_slots_and_none_waits_for_ever() -> None:
    async def main() -> None:
        endpoint = Endpoint()
        world = World(sender=endpoint)
        async with world.running() as bus:
            bus.webhooks._slots = Slots(3)
            for name in ("one", "two", "three", "four"):
                await create(world, name)
            await publish(world, 40)
            await until(lambda: all(state.floor == 40 for state in bus.subscriptions.states("shop", "")), seconds=60)
            assert endpoint.open_max == 3
            assert set(endpoint.taken.values()) == {4}

    virtual(main)


def test_who_is_turned_away_is_woken_one_after_the_other() -> None:
    async def main() -> None:
        woken: list[str] = []

        class One:
            def __init__(self, name: str) -> None:
                self.name = name

            def wake(self) -> None:
                woken.append(self.name)

        slots, waiters = Slots(1), [One("a"), One("b"), One("c")]
        slots.reserve()
        await slots.turn()
        assert not any(slots.is_free_for(waiter) for waiter in waiters)
        slots.end_turn()
        slots.release()
        assert woken == ["a"]
        assert slots.is_free_for(waiters[0]), "who takes nothing passes it on"
        assert woken == ["a", "b"]
        slots.forget(waiters[2])
        assert slots.is_free_for(waiters[1])
        assert woken == ["a", "b"]

    virtual(main)
