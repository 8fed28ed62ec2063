"""What the server sent to consumers, and what they said of it, each when it left or was taken at the server."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

from simulation.network import Network, Pipe
from simulation.node import Node
from simulation.server import ServerCall

from trunkline.api.v1 import events_pb2
from trunkline.api.v1.events_pb2 import Acknowledgement


class Sent(NamedTuple):
    """A delivery that left the server."""

    at_s: float
    wall_ns: int
    """What the server's clock said."""
    life: int
    """Which incarnation of the server sent it."""
    consumer: str
    offset: int
    attempt: int


class Said(NamedTuple):
    """A final word on a delivery, when the server took it."""

    at_s: float
    life: int
    consumer: str
    offset: int
    outcome: int
    """Of Acknowledgement."""


class DeliveryLog:
    """By subscription, in the order in which it happened."""

    def __init__(self, network: Network, node: Node) -> None:
        self.sent: dict[str, list[Sent]] = defaultdict(list)
        self.said: dict[str, list[Said]] = defaultdict(list)
        self.parked: dict[str, int] = defaultdict(int)
        """How often lanes of it were seen parked."""
        self.parked_last: dict[str, int] = {}
        self._node = node
        network.on_sent.append(self._sent)
        network.on_taken.append(self._taken)

    def _sent(self, pipe: Pipe, message: Any) -> None:
        call: ServerCall = pipe.call
        if pipe is not call.to_client or message[0] != "message" or not call.method.endswith("/Subscribe"):
            return
        now_s, wall_ns = asyncio.get_running_loop().time(), self._node.clock.time_ns()
        for one in events_pb2.SubscribeResponse.FromString(message[1]).deliveries:
            name = call.seen.opened[one.subscription_id].name
            sent = Sent(now_s, wall_ns, self._node.life, call.seen.consumer, one.offset, one.attempt)
            self.sent[name].append(sent)

    def _taken(self, pipe: Pipe, message: Any, at_s: float) -> None:
        call: ServerCall = pipe.call
        is_word = pipe is call.to_server and isinstance(message, bytes) and call.method.endswith("/Subscribe")
        if is_word:
            request = events_pb2.SubscribeRequest.FromString(message)
            for one in request.acknowledgements:
                if one.outcome != Acknowledgement.OUTCOME_PROGRESS and one.subscription_id in call.seen.opened:
                    self.said[call.seen.opened[one.subscription_id].name].extend(self._words(call, one))

    def _words(self, call: ServerCall, one: Acknowledgement) -> Iterator[Said]:
        now_s = asyncio.get_running_loop().time()
        for offset in one.offsets:
            yield Said(now_s, self._node.life, call.seen.consumer, offset, one.outcome)
