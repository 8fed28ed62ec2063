"""Every webhook of this server: begun with its subscription, ended with it, and what they share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from trunkline.api.v1 import events_pb2
from trunkline.core.clock import Clock, Rng

from .feed import Feed
from .fold import SubscriptionEntity
from .metrics import EventsAlarm
from .tasks import Tasks
from .webhook_consumer import Sender, WebhookConsumer
from .webhook_health import FAILURES_IN_A_ROW
from .webhook_settings import WebhooksConfig, WebhookSettings, check, parsed_url
from .webhook_slots import Slots

log = logging.getLogger(__name__)


class ClosableSender(Sender, Protocol):
    """What all webhooks send with."""

    async def close(self) -> None:
        """Close every connection."""


class Webhooks:
    """Nothing is sent before a subscription with a webhook is `begun`."""

    def __init__(
        self,
        config: WebhooksConfig,
        clock: Clock,
        rng: Rng,
        *,
        consumer_ids: Callable[[], int],
        sender: Callable[[WebhooksConfig], ClosableSender] | None = None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._rng = rng
        self._consumer_ids = consumer_ids
        self._make_sender = sender or _http_sender
        self._sender: ClosableSender | None = None
        self._tasks = Tasks()
        self._slots = Slots(config.concurrent_max)
        self._by_key: dict[str, WebhookConsumer] = {}
        self._acknowledged = 0
        self._failed = 0
        """Of those that are gone."""

    def check(self, settings: WebhookSettings) -> None:
        """InvalidArgument for a webhook that must not be, NotSupported where there are none."""
        check(settings, self._config)

    def begin(self, feed: Feed, settings: WebhookSettings) -> None:
        """A subscription with a webhook was opened."""
        if not self._config.enabled:
            return
        url = parsed_url(settings.url)
        if url is None:  # it was one when it was checked
            log.error("webhook not begun: its URL cannot be read", extra={"subscription": feed.key})
            return
        if self._sender is None:
            self._sender = self._make_sender(self._config)
        webhook = WebhookConsumer(
            feed,
            url,
            settings,
            self._sender,
            self._slots,
            self._tasks,
            self._clock,
            self._rng,
            consumer_ids=self._consumer_ids,
            on_end=self._ended,
        )
        self._by_key[feed.key] = webhook
        webhook.start()

    def change(self, feed: Feed, settings: WebhookSettings | None) -> None:
        """The subscription has this webhook now, or none. Requests that are open go on."""
        webhook = self._by_key.get(feed.key)
        if webhook is None:
            if settings is not None:
                self.begin(feed, settings)
            return
        url = None if settings is None else parsed_url(settings.url)
        if settings is None or url is None:
            webhook.leave()
        else:
            webhook.configure(url, settings)

    def _ended(self, webhook: WebhookConsumer) -> None:
        self._acknowledged += webhook.acknowledged
        self._failed += webhook.failed
        if self._by_key.get(webhook.feed.key) is webhook:
            del self._by_key[webhook.feed.key]

    # The end of the server.

    async def stop(self) -> None:
        """Take nothing more, and let open requests end within their grace; what is open then is given back uncounted."""
        for webhook in self._by_key.values():
            webhook.stop()
        open_requests = [task for webhook in self._by_key.values() for task in webhook.deliveries]
        if open_requests:
            await asyncio.wait(open_requests, timeout=self._config.stop_grace_s)
        await self._tasks.cancel()
        if self._sender is not None:
            await self._sender.close()

    # Showing.

    def state(self, entity: SubscriptionEntity) -> events_pb2.WebhookState | None:
        """How the endpoint of a subscription does; None if none is called."""
        webhook = self._by_key.get(entity.key)
        return None if webhook is None else webhook.state()

    def metrics(self) -> dict[str, float]:
        """Counts and gauges by name."""
        webhooks = self._by_key.values()
        return {
            "webhooks": len(webhooks),
            "webhooks_failing": sum(_is_failing(webhook) for webhook in webhooks),
            "webhook_requests": self._in_flight(),
            "webhook_acknowledged_total": self._acknowledged + sum(webhook.acknowledged for webhook in webhooks),
            "webhook_failed_total": self._failed + sum(webhook.failed for webhook in webhooks),
        }

    def alarms(self) -> list[EventsAlarm]:
        """WEBHOOK_FAILING of endpoints that fail again and again."""
        return [_alarm(webhook) for _, webhook in sorted(self._by_key.items()) if _is_failing(webhook)]

    def _in_flight(self) -> int:
        return sum(len(webhook.deliveries) for webhook in self._by_key.values())


def _is_failing(webhook: WebhookConsumer) -> bool:
    return webhook.health.failures >= FAILURES_IN_A_ROW or webhook.health.is_held


def _alarm(webhook: WebhookConsumer) -> EventsAlarm:
    _, namespace, stream, name = webhook.feed.key.split("/", 3)
    health = webhook.health
    return EventsAlarm(
        name="WEBHOOK_FAILING",
        namespace=namespace,
        subject=f"{stream}/{name}",
        message=f"its endpoint failed {health.failures} times in a row: {health.last_error}",
        since_ns=0,
    )


def _http_sender(config: WebhooksConfig) -> ClosableSender:
    from .webhook_sender import HttpSender  # an HTTP client takes long to import: only for those who have a webhook

    return HttpSender(config)
