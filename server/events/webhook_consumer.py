"""One webhook: a consumer of its subscription that makes a request of each delivery. Credit is what its endpoint may have."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from yarl import URL

from trunkline.api import convert
from trunkline.api.v1 import events_pb2
from trunkline.core.clock import Clock, Rng
from trunkline.core.errors import TrunklineError

from .delivery import Delivery
from .feed import Feed
from .tasks import Tasks
from .webhook_health import EndpointHealth
from .webhook_outcome import Outcome, Result, Verdict, outcome_of
from .webhook_request import Request, request_of
from .webhook_settings import SLOT_WAIT_MS, WebhookSettings
from .webhook_slots import Slots

log = logging.getLogger(__name__)

CLIENT = "webhook"
"""What stands in the list of a subscription's consumers."""
JOIN_AGAIN_S = 1.0
"""After the subscription's stream could not be read."""
LOG_INTERVAL_NS = 60_000_000_000
"""Between two lines about the same endpoint that fails."""
_Ack = events_pb2.Acknowledgement


class Sender(Protocol):
    """The HTTP client."""

    async def post(self, url: URL, request: Request, *, timeout_s: float) -> Result:
        """Send an event; what the endpoint said."""

    async def probe(self, url: URL, *, timeout_s: float) -> Result:
        """Ask whether anybody is there."""


class WebhookConsumer:
    """`start`, then `stop` or the subscription's end. See consumer.Consumer."""

    client = CLIENT

    def __init__(
        self,
        feed: Feed,
        url: URL,
        settings: WebhookSettings,
        sender: Sender,
        slots: Slots,
        tasks: Tasks,
        clock: Clock,
        rng: Rng,
        *,
        consumer_ids: Callable[[], int],
        on_end: Callable[[WebhookConsumer], None],
    ) -> None:
        self.id = 0
        self.feed = feed
        self.health = EndpointHealth(settings.concurrency, rng)
        self.acknowledged = 0
        self.failed = 0
        self._settings = settings
        self._url = url
        self._subscription = feed.key.partition("/")[2]
        self._sender = sender
        self._slots = slots
        self._tasks = tasks
        self._clock = clock
        self._rng = rng
        self._consumer_ids = consumer_ids
        self._on_end = on_end
        self.deliveries: dict[asyncio.Task[None], Delivery] = {}
        """Requests that are open, or wait for their turn among all webhooks."""
        self._timer: asyncio.TimerHandle | None = None
        self._is_joined = False
        self._is_stopping = False
        self._is_probing = False
        self._logged_ns = -LOG_INTERVAL_NS

    # Its life.

    def start(self) -> None:
        """Begin to deliver; again after the stream could not be read."""
        self._timer = None
        if self._is_stopping or self.feed.is_closed:
            return
        self.id = self._consumer_ids()
        self._is_joined = True
        self.feed.join(self, 0)
        self._go_on()

    def stop(self) -> None:
        """Take no more; open requests go on."""
        self._is_stopping = True
        self._disarm()
        if self._is_joined:
            self.feed.wake()

    def configure(self, url: URL, settings: WebhookSettings) -> None:
        """Send what comes next there, as to an endpoint of which nothing is known. One that was paused is tried at once."""
        if settings == self._settings:
            return
        self._url, self._settings = url, settings
        self.health = EndpointHealth(settings.concurrency, self._rng)
        self._disarm()
        if not self._is_joined:
            self.start()
        self._go_on()

    def leave(self) -> None:
        """The subscription has no webhook any more: others may have its events."""
        self._is_stopping = True
        if self._is_joined:
            self.feed.leave(self.id, clean=True)
        self.end(None)

    # The consumer.

    @property
    def ready(self) -> bool:
        if self._is_stopping or self.health.room(self._clock.now_ns(), len(self.deliveries)) == 0:
            return False
        return self._slots.is_free_for(self.feed)

    def put(self, delivery: Delivery, suffix: bytes) -> None:
        self._slots.reserve()
        task = self._tasks.spawn(self._deliver(delivery, suffix), f"webhook {self._subscription}")
        self.deliveries[task] = delivery
        task.add_done_callback(self._delivered)

    def send(self) -> None:
        """Each is on its way already."""

    def flush(self) -> None:
        """The same."""

    def gap(self, old: tuple[int, int], new: tuple[int, int]) -> None:
        log.warning("webhook missed events", extra={"subscription": self._subscription, "from": old, "to": new})

    def end(self, error: TrunklineError | None) -> None:
        """The subscription is gone; or its stream cannot be read, or has another history: then it comes again."""
        self._is_joined = False
        self._disarm()
        self._slots.forget(self.feed)
        for task in self.deliveries:
            task.cancel()
        if self.feed.is_closed or self._is_stopping:
            self._on_end(self)
        else:
            self._timer = asyncio.get_running_loop().call_later(JOIN_AGAIN_S, self.start)

    # Delivering.

    async def _deliver(self, delivery: Delivery, suffix: bytes) -> None:
        """One attempt, when it is its turn; what waits for that for too long is given back."""
        try:
            async with asyncio.timeout(SLOT_WAIT_MS / 1_000):
                await self._slots.turn()
        except TimeoutError:
            self.feed.give_back(delivery)
            return
        try:
            await self._attempt(delivery, suffix)
        finally:
            self._slots.end_turn()

    def _delivered(self, task: asyncio.Task[None]) -> None:
        """An attempt that was broken off does not count. It may not even have begun, so nobody else can tell."""
        delivery = self.deliveries.pop(task)
        if task.cancelled():
            self.feed.give_back(delivery)
        self._slots.release()
        self._go_on()

    async def _attempt(self, delivery: Delivery, suffix: bytes) -> None:
        if not self.feed.state.holds(delivery):
            return
        try:
            event = events_pb2.Delivery.FromString(suffix).event
            time_ns = self._clock.time_ns()
            request = request_of(
                event, self._settings, subscription=self._subscription, attempt=delivery.attempt, time_ns=time_ns
            )
        except ValueError as error:
            self._settle(delivery, _Ack.OUTCOME_TERM, reason=f"it cannot be a request: {error}"[:1_024])
            return
        result = await self._sender.post(self._url, request, timeout_s=self._settings.timeout_ms / 1_000)
        outcome = outcome_of(result, attempt=delivery.attempt, chance=self._rng.random(), time_ns=self._clock.time_ns())
        self._take(delivery, result, outcome)

    def _take(self, delivery: Delivery, result: Result, outcome: Outcome) -> None:
        """What became of the event, and what is known of the endpoint now."""
        if outcome.verdict is Verdict.DONE:
            self.acknowledged += 1
            self.health.succeeded(result)
            self._settle(delivery, _Ack.OUTCOME_ACK)
            return
        self.failed += 1
        self.health.failed(result, outcome, self._clock.now_ns())
        self._log_failure()
        if outcome.verdict is Verdict.AGAIN:
            why = f"its endpoint did not take it: {outcome.error}"
            self._settle(delivery, _Ack.OUTCOME_NACK, delay_ns=outcome.delay_ns, reason=why)
        else:
            self.feed.give_back(delivery)

    def _settle(self, delivery: Delivery, outcome: int, *, delay_ns: int = 0, reason: str = "") -> None:
        self.feed.settle(outcome, [delivery.offset], delivery.consumer, delay_ns=delay_ns, reason=reason)

    def _log_failure(self) -> None:
        now_ns = self._clock.now_ns()
        if now_ns - self._logged_ns >= LOG_INTERVAL_NS:
            self._logged_ns = now_ns
            log.warning(
                "webhook fails",
                extra={
                    "subscription": self._subscription,
                    "reason": self.health.last_error,
                    "in_a_row": self.health.failures,
                },
            )

    # Going on.

    def _go_on(self) -> None:
        """Let the endpoint have as much as it may; come again when its pause is over."""
        if not self._is_joined or self._is_stopping:
            return
        health, now_ns = self.health, self._clock.now_ns()
        self.feed.set_credit(self.id, health.room(now_ns, len(self.deliveries)))
        left_ns = max(0, health.paused_until_ns - now_ns)
        if (left_ns or health.is_held) and self._timer is None and not self._is_probing:
            wait_s = -(-left_ns // 1_000_000) / 1_000  # whole milliseconds, not too early
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self.health.is_held and self._clock.now_ns() >= self.health.paused_until_ns:
            self._is_probing = True
            self._tasks.spawn(self._probe(), f"webhook {self._subscription}: probe")
        else:
            self._go_on()

    async def _probe(self) -> None:
        try:
            result = await self._sender.probe(self._url, timeout_s=self._settings.timeout_ms / 1_000)
        finally:
            self._is_probing = False
        self.health.probed(result, self._clock.now_ns())
        self._go_on()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Showing.

    def state(self) -> events_pb2.WebhookState:
        """For people."""
        health = self.health
        shown = events_pb2.WebhookState(
            last_status=health.last_status,
            last_error=health.last_error,
            consecutive_failures=health.failures,
        )
        left_ns = health.paused_until_ns - self._clock.now_ns()
        if left_ns > 0:
            shown.paused_until.CopyFrom(convert.time_ns_to(self._clock.time_ns() + left_ns))
        return shown
