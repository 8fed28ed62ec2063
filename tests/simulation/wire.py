"""Reads along in the simulated network: which operations are under way, what was asked, and what was answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message
from simulation.history import (
    AckedDrain,
    AckedEvent,
    AckedRegistration,
    AckedRemoval,
    Delivered,
    History,
    Redelivery,
    Scheduled,
    Sought,
)
from simulation.network import Pipe
from simulation.server import ServerCall
from simulation.virtual import Host

from trunkline.api.v1 import events_pb2, registry_pb2, schedules_pb2, traffic_pb2
from trunkline.api.v1.discovery_pb2 import WatchRequest
from trunkline.core.token import ControlToken


@dataclass(eq=False)
class Operation:
    """Something that a client has asked for and not been answered yet."""

    name: str
    host: Host | None
    call: ServerCall | None = None
    over: bool = False

    @property
    def under_way(self) -> bool:
        """Whether it is still being done."""
        return not self.over and not (self.call is not None and self.call.to_client.broken)


@dataclass(eq=False)
class _OpenWatch:
    """A watch that the server knows of."""

    service: str
    opened_s: float
    acked: int


@dataclass(eq=False)
class _Seen:
    """What is known of one call."""

    consumer: str
    """The client, and which of its calls this is."""
    request: Any = None
    asked: Sought | Redelivery | None = None
    operations: list[Operation] = field(default_factory=list)
    sent: dict[int, Any] = field(default_factory=dict)
    opened: dict[int, events_pb2.OpenSubscription] = field(default_factory=dict)
    incarnations: dict[int, int] = field(default_factory=dict)
    watches: dict[int, _OpenWatch] = field(default_factory=dict)
    drain_began_s: float = 0.0


UNARY: dict[str, tuple[str, type[Message], type[Message]]] = {
    "Register": ("register", registry_pb2.RegisterRequest, registry_pb2.RegisterResponse),
    "Deregister": ("deregister", registry_pb2.DeregisterRequest, registry_pb2.DeregisterResponse),
    "Drain": ("drain", registry_pb2.DrainRequest, registry_pb2.DrainResponse),
    "Publish": ("publish", events_pb2.PublishRequest, events_pb2.PublishResponse),
    "Fetch": ("fetch", events_pb2.FetchRequest, events_pb2.FetchResponse),
    "SeekSubscription": ("seek", events_pb2.SeekSubscriptionRequest, events_pb2.SeekSubscriptionResponse),
    "RedeliverEvents": ("redeliver", events_pb2.RedeliverEventsRequest, events_pb2.RedeliverEventsResponse),
    "CreateSchedule": ("schedule", schedules_pb2.CreateScheduleRequest, schedules_pb2.CreateScheduleResponse),
    "DeleteSchedule": ("unschedule", schedules_pb2.DeleteScheduleRequest, schedules_pb2.DeleteScheduleResponse),
    "ApplyPolicy": ("apply policy", traffic_pb2.ApplyPolicyRequest, traffic_pb2.ApplyPolicyResponse),
    "DeletePolicy": ("delete policy", traffic_pb2.DeletePolicyRequest, traffic_pb2.DeletePolicyResponse),
    "RollBackPolicy": ("roll back policy", traffic_pb2.RollBackPolicyRequest, traffic_pb2.RollBackPolicyResponse),
}


class Wire:
    """`on_operation` is told when the server's machine has got a request."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.on_operation: list[Callable[[Operation], None]] = []
        self.service_of: dict[int, str] = {}
        self._watching: list[ServerCall] = []
        self._calls = 0

    def arrived(self, pipe: Pipe, message: Any) -> None:
        """See Network.on_arrived."""
        call: ServerCall = pipe.call
        if call.seen is None:
            self._calls += 1
            call.seen = _Seen(f"{call.client.name}#{self._calls}")
        name = call.method.rsplit("/", 1)[1]
        if pipe is call.to_server:
            if isinstance(message, bytes):
                self._request(name, call, call.seen, message)
        elif message[0] == "message":
            for operation in call.seen.operations:
                operation.over = True
            call.seen.operations.clear()
            self._response(name, call, call.seen, message[1])
        else:
            self.history.note("answered", call.client.name, name, message[1].name)

    def taken(self, pipe: Pipe, message: Any, at_s: float) -> None:
        """See Network.on_taken. A keep-alive counts from when it came, if it is taken at all; a watch or a drain from when
        it is taken: a server that stands still knows of neither."""
        call: ServerCall = pipe.call
        if pipe is not call.to_server or not isinstance(message, bytes):
            return
        name = call.method.rsplit("/", 1)[1]
        if name == "KeepAlive":
            for lease_id in registry_pb2.KeepAliveRequest.FromString(message).lease_ids:
                self.history.heard[lease_id].append(at_s)
        elif name == "Watch":
            self._watch_taken(call, call.seen, WatchRequest.FromString(message))
        elif name == "Drain":
            call.seen.drain_began_s = asyncio.get_running_loop().time()

    def _watch_taken(self, call: ServerCall, seen: _Seen, request: WatchRequest) -> None:
        if not request.HasField("open") or request.open.selector.version:
            return
        if not seen.watches:
            self._watching.append(call)
        token = request.open.resume_token
        acked = ControlToken.decode(token).revision if token else -1
        now_s = asyncio.get_running_loop().time()
        seen.watches[request.open.watch_id] = _OpenWatch(request.open.service, now_s, acked)

    def _begin(self, name: str, call: ServerCall) -> None:
        operation = Operation(name, call.client, call)
        call.seen.operations.append(operation)
        for listener in list(self.on_operation):
            listener(operation)

    # Requests.

    def _request(self, name: str, call: ServerCall, seen: _Seen, data: bytes) -> None:
        if name in UNARY:
            operation, request, _ = UNARY[name]
            seen.request = request.FromString(data)
            if name == "Publish":
                self._sent(seen.request.events)
            seen.asked = self._asked(name, seen.request)
            self._begin(operation, call)
        elif name == "PublishStream":
            publish = events_pb2.PublishStreamRequest.FromString(data)
            seen.sent[publish.sequence] = publish
            self._sent(publish.events)
            self._begin("publish_stream", call)
        elif name == "KeepAlive":
            self._begin("keep_alive", call)
        elif name == "Watch":
            self._watch_request(call, seen, WatchRequest.FromString(data))
        elif name == "Subscribe":
            self._subscribe_request(call, seen, events_pb2.SubscribeRequest.FromString(data))

    def _asked(self, name: str, request: Any) -> Sought | Redelivery | None:
        """What an operator wants; whether it is answered is seen later."""
        now_s = asyncio.get_running_loop().time()
        if name == "SeekSubscription":
            offset = {"earliest": 0, "offset": request.to.offset}.get(request.to.WhichOneof("start"))
            self.history.seeks.append(Sought(now_s, request.subscription, offset))
            return self.history.seeks[-1]
        if name == "RedeliverEvents":
            self.history.redeliveries.append(Redelivery(now_s, request.subscription, tuple(request.offsets)))
            return self.history.redeliveries[-1]
        return None

    def _sent(self, events: Iterable[events_pb2.CloudEvent]) -> None:
        for event in events:
            self.history.sent[event.source, event.id] = event

    def _watch_request(self, call: ServerCall, seen: _Seen, request: WatchRequest) -> None:
        command = request.WhichOneof("command")
        if command == "open":
            self._begin("watch", call)
        elif command == "acknowledge":
            watch = seen.watches.get(request.acknowledge.watch_id)
            if watch is not None:
                watch.acked = max(watch.acked, request.acknowledge.revision)
            self._begin("watch_ack", call)
        elif command == "cancel":
            seen.watches.pop(request.cancel.watch_id, None)

    def _judge_drain(self, seen: _Seen, answer: registry_pb2.DrainResponse) -> None:
        """A drain that says it is complete: whoever watched when it began has applied it, or is gone."""
        service = self.service_of.get(seen.request.registration.lease_id)
        self._watching = [call for call in self._watching if not (call.to_client.broken or call.finished)]
        for call in self._watching:
            for watch in call.seen.watches.values():
                concerned = watch.service in ("", service) and watch.opened_s < seen.drain_began_s
                if concerned and watch.acked < answer.drained_revision:
                    what = f"{call.client.name} has applied {watch.acked} of {answer.drained_revision}"
                    self.history.breaks("drained means not routed to", what)

    def _subscribe_request(self, call: ServerCall, seen: _Seen, request: events_pb2.SubscribeRequest) -> None:
        if request.HasField("open"):
            seen.opened[request.open.subscription_id] = request.open
            self._begin("subscribe", call)
        if request.HasField("close"):
            opened = seen.opened.get(request.close.subscription_id)
            if opened is not None:
                self.history.closed_clean.add((opened.name, seen.consumer))
        if request.acknowledgements:
            self._begin("ack", call)

    # Responses.

    def _response(self, name: str, call: ServerCall, seen: _Seen, data: bytes) -> None:
        now_s = asyncio.get_running_loop().time()
        if name == "PublishStream":
            answer = events_pb2.PublishStreamResponse.FromString(data)
            request = seen.sent.pop(answer.sequence)
            if not answer.HasField("error"):
                self._published(now_s, request, answer)
        elif name == "Subscribe":
            self._delivered(now_s, call, seen, events_pb2.SubscribeResponse.FromString(data))
        elif name in UNARY:
            reply: Any = UNARY[name][2].FromString(data)
            self._answered(name, now_s, seen.request, reply)
            if isinstance(seen.asked, Sought):
                seen.asked.answered = True
            elif isinstance(seen.asked, Redelivery):
                seen.asked.again = tuple(set(seen.asked.offsets) - {*reply.not_kept, *reply.not_done})
            if name == "Drain" and reply.complete:
                self._judge_drain(seen, reply)

    def _answered(self, name: str, now_s: float, request: Any, answer: Any) -> None:
        history = self.history
        history.note("answer", name)
        if name == "Register":
            instance = request.instance
            key = f"instance/{instance.namespace}/{instance.service}/{instance.id}"
            self.service_of[answer.lease_id] = instance.service
            history.ttl_s[answer.lease_id] = answer.ttl.ToMilliseconds() / 1_000
            history.heard[answer.lease_id].append(now_s)
            history.registrations.append(
                AckedRegistration(key, answer.lease_id, answer.modified_revision, answer.changed)
            )
        elif name == "Deregister" and answer.changed and request.registration.lease_id:
            history.removals.append(AckedRemoval(request.registration.lease_id, answer.header.revision))
        elif name == "Drain":
            history.drains.append(AckedDrain(request.registration.lease_id, answer.drained_revision))
        elif name == "CreateSchedule":
            made = answer.schedule.schedule
            history.scheduled.setdefault(made.name, Scheduled(now_s, made))
        elif name == "Publish":
            self._published(now_s, request, answer)

    def _published(self, now_s: float, request: Any, answer: Any) -> None:
        events = iter(request.events)
        for run in answer.published:
            for offset in range(run.offset, run.offset + run.count):
                self.history.events.append(
                    AckedEvent(
                        now_s, request.stream or "events", answer.incarnation, offset, run.duplicate, next(events)
                    )
                )
                self.history.note("acked", offset, run.duplicate)

    def _delivered(self, now_s: float, call: ServerCall, seen: _Seen, answer: events_pb2.SubscribeResponse) -> None:
        notices = events_pb2.SubscriptionNotice
        for notice in answer.notices:
            if notice.kind in (notices.KIND_OPENED, notices.KIND_GAP):
                seen.incarnations[notice.subscription_id] = notice.incarnation
        for delivery in answer.deliveries:
            opened = seen.opened[delivery.subscription_id]
            self.history.deliveries.append(
                Delivered(
                    now_s,
                    opened.stream or "events",
                    opened.name,
                    seen.consumer,
                    seen.incarnations.get(delivery.subscription_id, 0),
                    delivery.offset,
                    delivery.attempt,
                    delivery.event,
                )
            )
            self.history.note("delivered", opened.name, call.client.name, delivery.offset, delivery.attempt)
