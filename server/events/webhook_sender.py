"""The HTTP client of webhooks. What it connects to was checked: every address that a name resolves to, and the one used."""

from __future__ import annotations

import asyncio
import errno
import io
import socket
from contextlib import suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from trunkline.server.addresses import parsed

from .webhook_outcome import Answer, Result, Silence
from .webhook_request import USER_AGENT, Request
from .webhook_settings import WebhooksConfig

RESPONSE_BYTES_MAX = 64 << 10
"""Read of an answer's body, so that its connection can be used again; with more it is closed."""
BODY_S_MAX = 1.0
"""How long that may take: the status has said everything."""
KEEP_ALIVE_S = 4.0
"""Idle connections are kept for less than the 5 s after which common servers close theirs."""
DNS_CACHE_S = 10
REASON_CHARS_MAX = 200

assert KEEP_ALIVE_S < 5


@dataclass(slots=True)
class _Trail:
    """How far a request came."""

    was_sent: bool = False
    was_kept: bool = False
    """Its connection was used before."""


class RefusedAddressError(OSError):
    """The endpoint's address must not be called."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EACCES, reason)


class _Checked(AbstractResolver):
    """Resolves names, and gives nothing when any of the addresses is refused; opens sockets to checked addresses only."""

    def __init__(self, config: WebhooksConfig, *, loopback_only: bool) -> None:
        self._rules = config.rules()
        self._loopback_only = loopback_only
        self._inner = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        for one in found:
            self._check(one["host"])
        return found

    async def close(self) -> None:
        await self._inner.close()

    def open_socket(self, info: Any) -> socket.socket:
        """aiohttp's socket factory: the last place at which an address is seen, literal ones included."""
        family, kind, protocol, _, address = info
        self._check(str(address[0]))
        return socket.socket(family, kind, protocol)

    def _check(self, text: str) -> None:
        refusal = self._rules.why_not(text)
        address = parsed(text)
        assert address is not None
        if refusal is None and self._loopback_only and not address.is_loopback:
            refusal = f"{text} is called with https:// only"
        if refusal is not None:
            raise RefusedAddressError(refusal)


class HttpSender:
    """All webhooks share it. Redirects are not followed, cookies not kept, proxies not used."""

    def __init__(self, config: WebhooksConfig) -> None:
        self._config = config
        self._trust = config.trust()
        plain = _Checked(config, loopback_only=not config.allow_plain_http)
        self._sessions = {"http": self._session(plain), "https": self._session(_Checked(config, loopback_only=False))}

    def _session(self, checked: _Checked) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            resolver=checked,
            socket_factory=checked.open_socket,
            ttl_dns_cache=DNS_CACHE_S,
            limit=0,  # the slots of all webhooks are the bound
            keepalive_timeout=KEEP_ALIVE_S,
            ssl=self._trust,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("Content-Type", "Accept", "Accept-Encoding"),
            trace_configs=[_tracing()],
        )

    async def post(self, url: URL, request: Request, *, timeout_s: float) -> Result:
        """Send an event; what the endpoint said."""
        return await self._call("POST", url, request, timeout_s)

    async def probe(self, url: URL, *, timeout_s: float) -> Result:
        """Ask whether anybody is there, without an event: any answer says so."""
        return await self._call("OPTIONS", url, Request({"User-Agent": USER_AGENT}, b""), timeout_s)

    async def close(self) -> None:
        """Close every connection."""
        for session in self._sessions.values():
            await session.close()

    async def _call(self, method: str, url: URL, request: Request, timeout_s: float) -> Result:
        trail = _Trail()
        try:
            async with self._sessions[url.scheme].request(
                method,
                url,
                data=io.BytesIO(request.body) if method == "POST" else None,  # what is long is written in parts
                headers=request.headers,
                allow_redirects=False,
                timeout=self._timeout(timeout_s),
                trace_request_ctx=trail,
            ) as response:
                await _discard(response)
                return Answer(response.status, response.headers.get("Retry-After", ""))
        except TimeoutError:
            what = "no answer" if trail.was_sent else "no connection"
            return Silence(f"{what} within {timeout_s:g} s", was_sent=trail.was_sent)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Silence(_reason(error), was_sent=trail.was_sent, was_stale=_is_stale(error, trail))

    def _timeout(self, timeout_s: float) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(total=timeout_s, connect=min(timeout_s, self._config.connect_timeout_s))


def _tracing() -> aiohttp.TraceConfig:
    tracing = aiohttp.TraceConfig()

    async def sent(_session: aiohttp.ClientSession, context: SimpleNamespace, _parameters: object) -> None:
        context.trace_request_ctx.was_sent = True

    async def kept(_session: aiohttp.ClientSession, context: SimpleNamespace, _parameters: object) -> None:
        context.trace_request_ctx.was_kept = True

    tracing.on_request_headers_sent.append(sent)
    tracing.on_connection_reuseconn.append(kept)
    return tracing


async def _discard(response: aiohttp.ClientResponse) -> None:
    """Read what is left of an answer, so that its connection can be used again; one with too much is closed."""
    left = RESPONSE_BYTES_MAX
    with suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(BODY_S_MAX):
            while left > 0 and (piece := await response.content.readany()):
                left -= len(piece)


def _is_stale(error: Exception, trail: _Trail) -> bool:
    """An endpoint may close an idle connection in the moment in which it is used: that says nothing of the event."""
    broken_off = isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | ConnectionError)
    return trail.was_kept and broken_off


def _reason(error: Exception) -> str:
    inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(inner, RefusedAddressError):
        return str(inner.strerror)[:REASON_CHARS_MAX]
    return (str(error) or type(error).__name__)[:REASON_CHARS_MAX]
