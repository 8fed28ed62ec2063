"""The HTTP listener beside the gRPC one: /metrics for Prometheus, /healthz for whoever restarts processes."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from trunkline.core.errors import InvalidArgument

REQUEST_BYTES_MAX = 64 * 1024


class HttpListener:
    """Serves what needs no gRPC. `ready` says whether the control plane has caught up."""

    def __init__(self, address: str, *, metrics: CollectorRegistry, ready: Callable[[], bool]) -> None:
        host, _, port = address.rpartition(":")
        self._host = host.strip("[]")
        self._port = int(port)
        self._metrics = metrics
        self._ready = ready
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Listen; returns the address with the port that was bound. InvalidArgument when it is taken."""
        app = web.Application(client_max_size=REQUEST_BYTES_MAX)
        app.router.add_get("/metrics", self._serve_metrics)
        app.router.add_get("/healthz", self._serve_health)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            address = f"{self._host}:{self._port}"
            raise InvalidArgument.of("http_listen", error.strerror or "cannot be bound", address) from error
        return f"{self._host}:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Stop listening and end what is open."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve_metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._metrics), headers={"Content-Type": content_type})

    async def _serve_health(self, _request: web.Request) -> web.Response:
        if self._ready():
            return web.json_response({"status": "SERVING"})
        return web.json_response({"status": "NOT_SERVING"}, status=503)
