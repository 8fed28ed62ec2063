"""A server that stands still for longer than the ack deadline: what is in flight is not delivered to everybody again."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from integration.acknowledged import NAMESPACE, Plane, plain
from integration.processes import serving
from integration.waiting import until

from trunkline.api.v1 import events_pb2
from trunkline.client import Delivery, Event, connect

DEADLINE_S = 2.0
STOPPED_S = 2.5 * DEADLINE_S
EVENTS = 50


async def shown(plane: Plane) -> events_pb2.SubscriptionState:
    """The subscription as the server sees it."""
    request = events_pb2.ListSubscriptionsRequest(namespace=NAMESPACE)
    [state] = (await plane.events.ListSubscriptions(request, timeout=10)).subscriptions
    return state  # type: ignore[no-any-return]


async def test_a_stopped_server_redelivers_only_what_stays_unacknowledged(tmp_path: Path) -> None:
    got: list[Delivery] = []
    with serving(tmp_path) as server:
        async with plain(server.address) as plane, connect(server.address) as trunkline:
            subscription = trunkline.subscribe("billing", start="earliest", ack_deadline_s=DEADLINE_S)

            async def take() -> None:
                while (delivery := await subscription.next()) is not None:
                    got.append(delivery)

            taking = asyncio.create_task(take())
            await subscription.opened()
            await trunkline.publish([Event(type="shop.order.placed") for _ in range(EVENTS)])
            await until(lambda: len(got) == EVENTS)
            assert server.process is not None
            server.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(STOPPED_S)
            for delivery in got[:-1]:
                delivery.ack()
            await asyncio.sleep(0)  # they lie in the server's socket when it goes on
            server.process.send_signal(signal.SIGCONT)
            await asyncio.sleep(DEADLINE_S / 4)
            state = await shown(plane)
            assert (state.redelivered, state.in_flight) == (0, 1)
            async with asyncio.timeout(DEADLINE_S + 20):
                while not (state := await shown(plane)).redelivered:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            assert state.redelivered == 1, "the one that nobody acknowledged"
            subscription.close()
            await taking
