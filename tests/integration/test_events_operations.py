"""What people do to subscriptions: dead letters and redrive, seek, copies, replay, explain; through SDK and command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from integration.processes import Server, serving, trunkline
from integration.waiting import until

from trunkline.api.v1 import events_pb2
from trunkline.client import BackoffOptions, ClientOptions, Delivery, Event, SubscriptionOptions, Trunkline, connect
from trunkline.core.errors import InvalidArgument, PositionOutOfRange, SubscriptionNotFound

OPTIONS = ClientOptions(backoff=BackoffOptions(initial_backoff_s=0.05, max_backoff_s=0.5))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


def run(server: Server, namespace: str, *arguments: str) -> list[dict[str, Any]]:
    done = trunkline("-n", namespace, "--json", *arguments, address=server.address)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


async def take(subscription: Any, count: int) -> list[Delivery]:
    async with asyncio.timeout(20):
        return [await subscription.next() for _ in range(count)]


async def redelivered(client: Trunkline, namespace: str, offsets: list[int]) -> events_pb2.RedeliverEventsResponse:
    return await client.call(
        lambda stubs: stubs.events.RedeliverEvents,
        events_pb2.RedeliverEventsRequest(namespace=namespace, subscription="billing", offsets=offsets),
        events_pb2.RedeliverEventsResponse,
    )


async def test_what_fails_goes_to_the_dead_letters_and_is_redriven_to_its_subscription_alone(server: Server) -> None:
    run(server, "dead", "streams", "create", "letters")
    async with connect(server.address, namespace="dead", options=OPTIONS) as client:
        options: Any = {"max_deliveries": 2, "dead_letter_stream": "letters", "backoff_s": [0.01]}
        broken, done = True, []

        async def handle(delivery: Delivery) -> None:
            if broken and delivery.event.type != "order.fine":
                raise ValueError(f"cannot take {delivery.event.id}")
            done.append(delivery.event.id)

        subscription = client.subscribe("billing", start="earliest", **options)
        other = client.subscribe("audit", start="earliest")
        consuming = asyncio.ensure_future(subscription.consume(handle, concurrency=4, nack_delay_s=None))
        kinds = ["order.fine", "order.odd", "order.odd", "mail.odd"]
        await client.publish([Event(type=kind, id=f"e{n}", key=f"k{n}") for n, kind in enumerate(kinds)])
        letters = await take(client.subscribe(stream="letters", start="earliest"), 3)
        assert [one.event.type for one in letters] == kinds[1:]
        assert str(letters[0].event.attributes["dlreason"]).endswith("ValueError: cannot take e1")
        assert letters[0].event.key == "k1"
        assert [one.event.id for one in await take(other, 4)] == ["e0", "e1", "e2", "e3"]
        (status,) = run(server, "dead", "status")
        assert "EVENTS_DEAD_LETTERED" in json.dumps(status)

        broken = False
        arguments = ("redrive", "billing", "--dead-letters", "letters")
        first = await asyncio.to_thread(run, server, "dead", *arguments, "--filter", "order.*", "--limit", "1")
        assert first == [{"redriven": 1, "not_kept": 0, "left": 0}]
        second = await asyncio.to_thread(run, server, "dead", *arguments, "--filter", "mail.*")
        assert second == [{"redriven": 1, "not_kept": 0, "left": 1}]
        third = await asyncio.to_thread(run, server, "dead", *arguments, "--reason", "e2", "--rate", "50")
        assert third == [{"redriven": 1, "not_kept": 0, "left": 0}]
        assert await asyncio.to_thread(run, server, "dead", *arguments) == [{"redriven": 0, "not_kept": 0, "left": 0}]
        await until(lambda: len(done) == 4)
        assert done[0] == "e0"
        assert sorted(done[1:]) == ["e1", "e2", "e3"]
        assert other.in_hand == 4, "another subscription was given something twice"
        subscription.close()
        await consuming


async def test_set_aside_events_are_redriven_by_reason(server: Server) -> None:
    async with connect(server.address, namespace="aside", options=OPTIONS) as client:
        async with client.subscribe("billing", start="earliest") as subscription:
            await client.publish([Event(type="order.placed", id=f"e{n}") for n in range(250)])
            for delivery in await take(subscription, 250):
                delivery.term("timeout" if delivery.offset % 2 else "nonsense")
        listed = run(server, "aside", "subscriptions", "set-aside", "billing")
        assert [row["offset"] for row in listed[:2]] == ["0", "1"]
        done = run(server, "aside", "redrive", "billing", "--reason", "timeout")
        assert done == [{"redriven": 125}]
        async with client.subscribe("billing") as subscription:
            again = await take(subscription, 125)
            assert all(delivery.offset % 2 for delivery in again)
            assert {delivery.attempt for delivery in again} == {1}
            for delivery in again:
                delivery.ack()
        found = await redelivered(client, "aside", [1, 2, 250])
        assert (found.redelivered, list(found.not_kept), list(found.not_done)) == (2, [250], [])


async def test_a_live_subscription_is_moved_and_what_it_has_in_hand_says_nothing_any_more(server: Server) -> None:
    async with connect(server.address, namespace="moved", options=OPTIONS) as client:
        subscription = client.subscribe("billing", start="earliest")
        await client.publish([Event(type="order.placed", id=f"e{n}") for n in range(10)])
        before = await take(subscription, 10)
        for delivery in before[:9]:
            delivery.ack()
        await until_floor(client, "moved", 9)
        assert await client.seek("billing", 3) == 9
        after = await take(subscription, 7)
        assert [(one.offset, one.attempt) for one in after] == [(offset, 1) for offset in range(3, 10)]
        before[9].ack()  # of the place before
        for delivery in after[:6]:
            delivery.ack()
        await until_floor(client, "moved", 9)  # 10 if it had counted
        assert run(server, "moved", "seek", "billing", "latest") == [{"moved": "billing", "stood_at": 9}]
        await client.publish(Event(type="order.placed", id="last"))
        assert [one.offset for one in await take(subscription, 1)] == [10]
        with pytest.raises(PositionOutOfRange):
            await client.seek("billing", 99)
        with pytest.raises(SubscriptionNotFound):
            await client.seek("nobody", "earliest")


async def until_floor(client: Trunkline, namespace: str, floor: int) -> None:
    async with asyncio.timeout(20):
        while True:
            listed = await client.call(
                lambda stubs: stubs.events.ListSubscriptions,
                events_pb2.ListSubscriptionsRequest(namespace=namespace),
                events_pb2.ListSubscriptionsResponse,
            )
            if [one.floor for one in listed.subscriptions] == [floor]:
                return
            await asyncio.sleep(0.02)


async def test_acknowledgements_are_told_apart_and_kept_before_they_are_answered(tmp_path: Path) -> None:
    with serving(tmp_path) as first:
        async with connect(first.address, options=OPTIONS) as client:
            await client.publish([Event(type="t", id=str(n)) for n in range(4)])
            config = events_pb2.SubscriptionConfig(start=events_pb2.StartPosition(earliest=True))
            await client.call(
                lambda stubs: stubs.events.CreateSubscription,
                events_pb2.CreateSubscriptionRequest(namespace="default", name="billing", config=config),
                events_pb2.CreateSubscriptionResponse,
            )
            await client.fetch("billing", max_events=3)
            words = [
                events_pb2.Acknowledgement(outcome=events_pb2.Acknowledgement.OUTCOME_ACK, offsets=[0, 0, 2, 3, 77])
            ]
            answer = await client.call(
                lambda stubs: stubs.events.Acknowledge,
                events_pb2.AcknowledgeRequest(
                    namespace="default", subscription="billing", acknowledgements=words, sync=True
                ),
                events_pb2.AcknowledgeResponse,
            )
            assert [list(answer.late), list(answer.repeated_offsets), list(answer.never_sent)] == [[], [0], [3, 77]]
            assert answer.not_open == [0, 3, 77]
            first.kill()
    with serving(tmp_path) as second:
        async with connect(second.address, options=OPTIONS) as client:
            again = await client.fetch("billing", wait_s=5)
            assert [delivery.offset for delivery in again] == [1, 3]


async def test_a_stream_and_a_subscription_change_beneath_their_consumers_and_a_kill_keeps_it(tmp_path: Path) -> None:
    with serving(tmp_path) as first:
        async with connect(first.address, options=OPTIONS) as client:
            await client.publish([Event(type="order.placed", id=f"e{n}") for n in range(4)])
            options: SubscriptionOptions = {"start": "earliest", "max_in_flight": 1, "filters": ["order.>"]}
            async with client.subscribe("billing", **options) as subscription:
                (delivery,) = await take(subscription, 1)
                await client.update_subscription("billing", max_in_flight=3, backoff_s=[0.5])
                more = await take(subscription, 2)
                assert [one.offset for one in (delivery, *more)] == [0, 1, 2]
                delivery.ack()
                assert (await take(subscription, 1))[0].offset == 3
            with pytest.raises(InvalidArgument, match="ordering"):
                await client.update_subscription("billing", ordering="keyed")
            (changed,) = run(first, "default", "subscriptions", "update", "billing", "--max-deliveries", "4")
            assert changed == {"updated": "billing"}
            (stream,) = run(first, "default", "streams", "update", "events", "--max-age", "3600", "--max-records", "50")
            assert (stream["max_age"], stream["max_records"]) == ("3600s", "50")
            (stream,) = run(first, "default", "streams", "update", "events", "--max-age", "0")
            assert ("max_age" in stream, stream["max_records"]) == (False, "50")
            (stream,) = run(first, "default", "streams", "update", "events", "--compact", "--min-lag", "5")
            assert (stream["compaction"]["min_lag"], stream["max_records"]) == ("5s", "50")
        first.kill()
    with serving(tmp_path) as second:
        async with connect(second.address, options=OPTIONS) as client:
            (shown,) = run(second, "default", "subscriptions", "list")
            config = shown["config"]
            assert (config["max_in_flight"], config["max_deliveries"], config["backoff"]) == (3, 4, ["0.500s"])
            assert config["filters"] == ["order.>"]
            (stream,) = [one for one in run(second, "default", "streams", "list") if one["name"] == "events"]
            assert (stream.get("max_age"), stream["max_records"]) == (None, "50")
            async with client.subscribe("billing") as subscription:  # however it is configured
                assert {one.offset for one in await take(subscription, 3)} == {1, 2, 3}


async def test_a_copy_begins_where_the_other_stands_or_where_it_is_told_to(server: Server) -> None:
    async with connect(server.address, namespace="copied", options=OPTIONS) as client:
        await client.publish([Event(type="order.placed", id=f"e{n}") for n in range(5)])
        await client.publish(Event(type="else", id="e5"))
        where = {"exact": {"type": "order.placed"}}
        async with client.subscribe("billing", start="earliest", attribute_filters=[where]) as subscription:
            for delivery in (await take(subscription, 5))[:3]:
                delivery.ack()
        (copy,) = run(server, "copied", "subscriptions", "create", "sandbox", "--copy-of", "billing")
        assert (copy["floor"], copy["created"]) == ("3", True)
        assert copy["config"]["attribute_filters"] == [{"exact": {"attributes": {"type": "order.placed"}}}]
        run(server, "copied", "subscriptions", "create", "whole", "--copy-of", "billing", "--start", "earliest")
        async with (
            client.subscribe("sandbox", attribute_filters=[where]) as one,
            client.subscribe("whole", attribute_filters=[where]) as other,
        ):
            assert [delivery.offset for delivery in await take(one, 2)] == [3, 4]
            batch = await other.next_batch(10, within_s=1)
            assert [delivery.offset for delivery in batch] == [0, 1, 2, 3, 4]
        refused = trunkline(
            "-n",
            "copied",
            "subscriptions",
            "create",
            "x",
            "--copy-of",
            "billing",
            "--filter",
            "a",
            address=server.address,
        )
        assert refused.returncode == 2
        assert "copy_of" in refused.stderr


async def test_a_part_of_a_stream_is_replayed_into_another_in_its_own_time(server: Server) -> None:
    run(server, "replayed", "streams", "create", "sandbox")
    async with connect(server.address, namespace="replayed", options=OPTIONS) as client:
        for n in range(4):
            await client.publish(Event(type="order.placed" if n != 2 else "noise", id=f"e{n}"))
            await asyncio.sleep(0.4)
        between = datetime.now(UTC).isoformat()
        await client.publish(Event(type="order.placed", id="late"))
        shown = run(server, "replayed", "replay", "order.>", "--from", "1", "--to", between)
        assert [row["id"] for row in shown] == ["e1", "e3"]
        began = asyncio.get_running_loop().time()
        into = ("replay", "order.>", "--into", "sandbox", "--speed", "0.5")
        done = await asyncio.to_thread(run, server, "replayed", *into)
        assert done == [{"replayed": 4, "from": "events", "into": "sandbox"}]
        assert asyncio.get_running_loop().time() - began > 2 * 1.6
        again = await asyncio.to_thread(run, server, "replayed", "replay", "--into", "sandbox", "--to", "2")
        assert again[0]["replayed"] == 2
        kept = run(server, "replayed", "tail", "--stream", "sandbox", "--no-follow")
        assert [row["id"] for row in kept] == ["e0", "e1", "e3", "late"]
        last = run(
            server, "replayed", "tail", "--last", "2", "--no-follow", "--where", '{"not": {"exact": {"id": "late"}}}'
        )
        assert [row["id"] for row in last] == ["e3"]


async def test_explain_says_why_nothing_comes(server: Server) -> None:
    run(server, "why", "subscriptions", "create", "billing", "--filter", "order.>", "--start", "earliest")
    async with connect(server.address, namespace="why", name="worker-7", options=OPTIONS) as client:
        await client.publish([Event(type="order.placed", id=f"e{n}") for n in range(3)])
        (told,) = run(server, "why", "explain", "subscription", "billing")
        assert [finding["cause"] for finding in told["findings"]] == ["CAUSE_NO_CONSUMERS"]
        assert told["subscription"]["lag"] == "3"
        async with client.subscribe("billing", filters=["order.>"], credit=2) as subscription:
            await take(subscription, 2)
            (told,) = run(server, "why", "explain", "subscription", "billing")
            assert [finding["cause"] for finding in told["findings"]] == ["CAUSE_NO_CREDIT"]
            assert "2 at worker-7" in told["findings"][0]["message"]
            assert told["subscription"]["in_flight_by_consumer"] == {"worker-7": 2}
    people = trunkline("-n", "why", "explain", "subscription", "billing", address=server.address)
    assert "no consumers" in people.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("seek", "billing", "yesterday"), "an offset"),
        (("seek", "billing", "2026-01-01T00:00:00"), "zone"),
        (("replay", "--speed", "0"), "--speed"),
        (("replay", "--speed", "fast"), "--speed"),
        (("replay", "--into", "events"), "--into"),
        (("tail", "--where", "nonsense"), "--where"),
        (("tail", "--where", '{"equals": {}}'), "attribute_filters"),
        (("tail", "--where", '{"exact": {"A": "b"}}'), "attribute_filters[0].exact"),
        (("subscriptions", "create", "x", "--dead-letter-stream", "events"), "dead_letter_stream"),
        (("subscriptions", "create", "x", "--backoff", "100000"), "backoff[0]"),
        (("subscriptions", "update", "x"), "nothing to change"),
        (("streams", "update", "x"), "nothing to change"),
        (("webhooks", "update", "x"), "nothing to change"),
        (("webhooks", "update", "x", "--timeout", "3"), "with a webhook"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(server: Server, arguments: tuple[str, ...], words: str) -> None:
    done = trunkline(*arguments, address=server.address)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
