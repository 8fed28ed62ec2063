"""What a webhook is configured with, and what is refused of it before anything is kept."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field

from yarl import URL

from trunkline.api import convert
from trunkline.api.v1 import events_pb2
from trunkline.core.errors import InvalidArgument, NotSupported
from trunkline.server.addresses import AddressRules, parsed

TIMEOUT_MS = 10_000
CONCURRENCY = 10
SLOT_WAIT_MS = 10_000
"""How long a delivery waits for its turn among all webhooks before it is given back."""
ANSWER_GRACE_MS = 5_000
LOCALHOST = "localhost"
_Mode = events_pb2.Webhook


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSettings:
    """A webhook's configuration."""

    url: str
    structured: bool = False
    timeout_ms: int = TIMEOUT_MS
    concurrency: int = CONCURRENCY
    secret: bytes = field(default=b"", repr=False)
    """Empty: requests are not signed."""

    @classmethod
    def of(cls, config: events_pb2.Webhook) -> WebhookSettings:
        """What a message asks for, which may be a record's: nothing is refused here."""
        return cls(
            url=config.url,
            structured=config.mode == _Mode.MODE_STRUCTURED,
            timeout_ms=convert.ms_from(config, "timeout", TIMEOUT_MS),
            concurrency=config.concurrency or CONCURRENCY,
            secret=config.secret,
        )

    def message(self) -> events_pb2.Webhook:
        """The message that asks for all of this, for the journal: the secret stands in it."""
        return events_pb2.Webhook(
            url=self.url,
            mode=_Mode.MODE_STRUCTURED if self.structured else _Mode.MODE_BINARY,
            timeout=convert.ms_to(self.timeout_ms),
            concurrency=self.concurrency,
            secret=self.secret,
        )

    def shown(self) -> events_pb2.Webhook:
        """The same for everybody else: of the secret only that there is one."""
        message = self.message()
        message.ClearField("secret")
        message.signed = bool(self.secret)
        return message

    @property
    def deadline_ms(self) -> int:
        """The shortest time to acknowledge in that a request never outlives."""
        return SLOT_WAIT_MS + self.timeout_ms + ANSWER_GRACE_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhooksConfig:
    """Webhooks: the server as a client of other people's endpoints."""

    enabled: bool = True
    """Deliver to webhooks; without it none can be made, and those there are wait."""
    allowed_networks: tuple[str, ...] = ()
    """Networks that may be called, such as "10.0.0.0/8"; none means every one that is not forbidden."""
    allow_plain_http: bool = False
    """Take http:// for other hosts than loopback, too: everybody on the way reads the events."""
    ca: str = ""
    """PEM file of authorities that are trusted besides the system's; empty for none."""
    concurrent_max: int = 256
    """Requests at a time, over all webhooks."""
    connect_timeout_s: float = 5.0
    """How long resolving, connecting and TLS may take of a request's timeout."""
    stop_grace_s: float = 5.0
    """How long open requests may take to end when the server stops."""

    def __post_init__(self) -> None:
        if self.concurrent_max < 1:
            raise ValueError("concurrent_max must be at least 1")
        self.rules()  # ValueError names what is no network
        self.trust()

    def trust(self) -> ssl.SSLContext:
        """Whose certificates are believed. ValueError when `ca` holds none."""
        context = ssl.create_default_context()
        try:
            if self.ca:
                context.load_verify_locations(self.ca)
        except OSError as error:  # ssl.SSLError is one
            raise ValueError(f"ca: {self.ca} holds no certificates: {error.strerror or error}") from error
        return context

    def rules(self) -> AddressRules:
        """Which addresses may be called."""
        return AddressRules(self.allowed_networks, deed="called")


def check(webhook: WebhookSettings, config: WebhooksConfig) -> None:
    """InvalidArgument for what can be seen to be wrong, NotSupported where webhooks are switched off.

    What a name resolves to is seen when it is called.
    """
    if not config.enabled:
        raise NotSupported("webhooks are switched off here: [events.webhooks] enabled")
    refusal = refusal_of(webhook.url, config)
    if refusal is not None:
        raise InvalidArgument.of("config.webhook.url", refusal, _without_password(webhook.url))


def refusal_of(text: str, config: WebhooksConfig) -> str | None:
    """What speaks against a URL, as far as it can be told without resolving its name."""
    url = parsed_url(text)
    if url is None:
        return "must be an https:// or http:// URL with a host"
    if url.user is not None or url.password is not None:
        return "must not hold a user or a password: requests are signed instead"
    if url.fragment or "#" in text:
        return "must not have a fragment"
    host = url.host or ""
    address = parsed(host)
    refusal = None if address is None else config.rules().why_not(host)
    if refusal is not None:
        return f"must lead to an allowed address: {refusal}"
    is_loopback = host == LOCALHOST if address is None else address.is_loopback
    if url.scheme == "http" and not (is_loopback or config.allow_plain_http):
        return "must be https:// unless it leads to loopback"
    return None


def parsed_url(text: str) -> URL | None:
    """A URL as it is called; None for what is none."""
    if not text.isascii() or not text.isprintable() or " " in text:
        return None
    try:
        url = URL(text)
        return url if url.scheme in ("http", "https") and url.host and url.port else None
    except ValueError:
        return None


def _without_password(text: str) -> str:
    """For a refusal, which others may read."""
    scheme, separator, rest = text.rpartition("@")
    return f"...@{rest}" if separator and scheme else text
