"""One Watch stream: its requests become commands to the hub, and its end closes its watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable

from trunkline.api import convert
from trunkline.api.v1 import discovery_pb2
from trunkline.core.errors import InvalidArgument, TrunklineError

from .watch import EventSink, WatchConnection
from .watch_hub import WatchHub, WatchOrder

Allow = Callable[[str], None]
"""Raises PermissionDenied when the caller may not read a namespace."""


async def serve_watches(
    hub: WatchHub, requests: AsyncIterable[discovery_pb2.WatchRequest], sink: EventSink, *, client: str, allow: Allow
) -> None:
    """Carry out what a client asks until it goes.

    A client that only closes its side goes on being told, as far as its credit reaches: it cannot acknowledge any more.
    Raises LimitExceeded when there are too many streams.
    """
    connection = hub.connect(sink, client)
    try:
        async for request in requests:
            _carry_out(hub, connection, request, allow)
        if connection.watches:
            await asyncio.get_running_loop().create_future()  # until the call is cancelled
    finally:
        hub.disconnect(connection)


def _carry_out(hub: WatchHub, connection: WatchConnection, request: discovery_pb2.WatchRequest, allow: Allow) -> None:
    match request.WhichOneof("command"):
        case "acknowledge":
            hub.acknowledge(connection, request.acknowledge.watch_id, request.acknowledge.revision)
        case "open":
            _open(hub, connection, request.open, allow)
        case "cancel":
            hub.cancel(connection, request.cancel.watch_id)
        case "credit":
            hub.set_credit(connection, request.credit.watch_id, request.credit.credit)
        case _:
            raise InvalidArgument.of("command", "one of open, acknowledge, cancel, credit", "nothing")


def _open(hub: WatchHub, connection: WatchConnection, order: discovery_pb2.OpenWatch, allow: Allow) -> None:
    try:
        allow(order.namespace)
        selector = convert.selector_from(order.selector)
    except TrunklineError as refusal:
        hub.refuse(connection, order.watch_id, refusal)
        return
    hub.open(
        connection,
        WatchOrder(
            watch_id=order.watch_id,
            namespace=order.namespace,
            service=order.service,
            selector=selector,
            resume_token=order.resume_token,
            credit=order.credit,
            client=order.client,
        ),
    )
