"""The HTTP listener beside the gRPC one: events from whoever speaks HTTP, /metrics for Prometheus, /healthz for whoever
restarts processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from trunkline.core.errors import InvalidArgument

from .ingestion.config import HttpConfig
from .ingestion.ingestion import Ingestion
from .ingestion.metrics import HttpMetrics

LINGER_S: Final = 5.0
"""How long a client that was refused may go on sending its body, so that it reads why."""
_FULL: Final = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class HttpListener:
    """Serves what needs no gRPC. `ready` says whether the control plane has caught up."""

    def __init__(
        self,
        address: str,
        config: HttpConfig,
        *,
        ingestion: Ingestion,
        metrics: CollectorRegistry,
        ready: Callable[[], bool],
        stop_grace_s: float,
    ) -> None:
        host, _, port = address.rpartition(":")
        self._host = host.strip("[]")
        self._port = int(port)
        self._config = config
        self._ingestion = ingestion
        self._metrics = metrics
        self._ready = ready
        self._refused = 0
        self._listening: asyncio.Server | None = None
        self._runner = web.AppRunner(
            self._app(),
            access_log=None,
            handle_signals=False,
            shutdown_timeout=stop_grace_s,
            keepalive_timeout=config.idle_timeout_ms / 1_000,
            lingering_time=LINGER_S,
            # A few bytes could become gigabytes before anybody sees them; compressed bodies are refused.
            auto_decompress=False,
        )
        metrics.register(
            HttpMetrics(
                ingestion, config, connections=lambda: len(self._server().connections), refused=lambda: self._refused
            )
        )

    async def start(self) -> str:
        """Listen; returns the address with the port that was bound. InvalidArgument when it is taken."""
        await self._runner.setup()
        try:
            self._listening = await asyncio.get_running_loop().create_server(self._connected, self._host, self._port)
        except OSError as error:
            await self._runner.cleanup()
            address = f"{self._host}:{self._port}"
            raise InvalidArgument.of("http_listen", error.strerror or "cannot be bound", address) from error
        return f"{self._host}:{self._listening.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Stop listening and end what is open."""
        if self._listening is not None:
            self._listening.close()
        self._ingestion.bodies.end("the control plane is stopping")
        await self._runner.cleanup()

    def _app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/metrics", self._serve_metrics)
        app.router.add_get("/healthz", self._serve_health)
        self._ingestion.add_to(app.router)
        return app

    def _server(self) -> web.Server:
        assert self._runner.server is not None, "it is listening"
        return self._runner.server

    def _connected(self) -> asyncio.BaseProtocol:
        """What serves a new connection."""
        server = self._server()
        if len(server.connections) >= self._config.connections_max:
            self._refused += 1
            return _Full()
        return server()

    async def _serve_metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._metrics), headers={"Content-Type": content_type})

    async def _serve_health(self, _request: web.Request) -> web.Response:
        if self._ready():
            return web.json_response({"status": "SERVING"})
        return web.json_response({"status": "NOT_SERVING"}, status=503)


class _Full(asyncio.Protocol):
    """Tells one connection that there are too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        stream = cast("asyncio.WriteTransport", transport)
        stream.write(_FULL)
        stream.close()
