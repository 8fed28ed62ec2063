"""The process: real clocks, chance, disk and sockets, signals, listeners, and the order in which things start and stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trunkline.core.clock import Rng, SystemClock
from trunkline.core.errors import TrunklineError
from trunkline.core.model import Sync

from .admin.about import About
from .events.streams import Promise
from .handover import address_of, inherited, start_successor, when_unlocked
from .ingestion.config import HttpConfig
from .journal.engine import Engine
from .journal.files.real_disk import RealDisk
from .journal.files.segment_engine import SegmentEngine
from .journal.memory import MemoryEngine
from .plane import ControlPlane, PlaneConfig
from .security.config import TlsConfig
from .security.listener import check_listener, loopback_is_open
from .security.tls import server_context, server_credentials
from .transport.choice import kind_of, make_transport
from .transport.config import TransportConfig
from .transport.listener import Listener
from .transport.standard import StandardServices

if TYPE_CHECKING:
    from .http_listener import HttpListener
    from .transport.choice import Transport

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig(PlaneConfig):
    """One server: where it listens, where its data lies, and every part's configuration."""

    listen: str = "127.0.0.1:7400"
    """HOST:PORT or unix:PATH of the gRPC listener; port 0 takes a free one."""
    http_listen: str = "127.0.0.1:7401"
    """HOST:PORT of the HTTP listener; empty for none."""
    data: Path = Path("trunkline-data")
    """Folder of the journal."""
    engine: Literal["segments", "memory"] = "segments"
    """Where the journal is kept."""
    tls: TlsConfig | None = None
    stop_grace_s: float = 5.0
    """How long calls in flight may take to end when the server stops."""
    handover_timeout_s: float = 60.0
    """How long a server that was given its listening socket waits for the one before to let the journal go."""
    transport: TransportConfig = field(default_factory=TransportConfig)
    http: HttpConfig = field(default_factory=HttpConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """What the server says when it is ready."""

    version: str
    transport: str
    grpc: list[str]
    http: str
    data: str
    access: str


def run(config: ServerConfig, announce: Callable[[Announcement], None]) -> None:
    """Run a server on the event loop that suits its transport, until SIGTERM or SIGINT. Raises what App.run raises."""
    loop_factory = None
    if kind_of(config.transport) == "native":
        import uvloop

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(App(config).run(announce))


class App:
    """Runs one server until SIGTERM or SIGINT."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._stop = asyncio.Event()

    async def run(self, announce: Callable[[Announcement], None]) -> None:
        """Start, announce, serve until told to stop, stop in order. Raises what keeps it from starting or running."""
        config = self._config
        given = inherited(os.environ, os.getpid())
        if given is not None:
            config = self._config = replace(config, listen=address_of(given))
        check_listener(config.listen, config.tls, config.security.insecure)
        if config.http_listen:
            check_listener(config.http_listen, None, config.security.insecure)
        for name in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(name, self._stop.set)
        clock = SystemClock()
        rng = Rng(int.from_bytes(os.urandom(8), "little"))
        transport = make_transport(config.transport, [_listener(config, given)])
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, self._hand_over, transport)
        is_open = loopback_is_open(config.security, [config.listen])
        on_disk = config.engine == "segments"
        about = About(
            version=version("trunkline"),
            transport=transport.name,
            data_folder=str(config.data.resolve()) if on_disk else "",
            started_ns=clock.now_ns(),
        )
        disk = RealDisk()
        wait_s = config.handover_timeout_s if given is not None else 0.0
        engine = await when_unlocked(lambda: self._open_engine(disk, clock, rng), wait_s)
        plane = ControlPlane(
            engine,
            clock,
            rng,
            entropy=os.urandom,
            config=config,
            about=about,
            loopback_is_open=is_open,
            promise=Promise(sync=Sync.FSYNCED if on_disk else Sync.MEMORY),
        )
        try:
            with _without_collection():
                await plane.open()
            await self._serve(plane, transport, about, announce, access=_access(config, is_open))
        finally:
            await plane.close()
            await disk.shutdown()

    def _hand_over(self, transport: Transport) -> None:
        """Start a successor on our socket, and stop."""
        sockets = transport.sockets
        if len(sockets) != 1:
            log.error("no hand-over: the transport %s has no socket that could be given away", transport.name)
            return
        try:
            successor = start_successor(sockets[0], os.environ)
        except OSError as error:
            log.error("no hand-over: the successor did not start: %s", error)
            return
        log.warning("handing over to process %d", successor)
        self._stop.set()

    async def _open_engine(self, disk: RealDisk, clock: SystemClock, rng: Rng) -> Engine:
        if self._config.engine == "memory":
            return MemoryEngine(clock, rng)
        engine = SegmentEngine(str(self._config.data), disk, clock, rng)
        await engine.open()
        return engine

    async def _serve(
        self,
        plane: ControlPlane,
        transport: Transport,
        about: About,
        announce: Callable[[Announcement], None],
        *,
        access: str,
    ) -> None:
        services = plane.register(transport)
        if transport.collector is not None:
            plane.metrics.register(transport.collector)
        standard = StandardServices()
        await standard.register(plane.chain, services)
        running = asyncio.create_task(plane.run(), name="control plane")
        http: HttpListener | None = None
        try:
            await _first(plane.reached(), running)
            http = self._http(plane)
            http_address = await http.start() if http is not None else ""
            bound = await transport.start()
            await standard.set_serving(True, services)
            announce(
                Announcement(
                    version=about.version,
                    transport=about.transport,
                    grpc=bound,
                    http=http_address,
                    data=about.data_folder,
                    access=access,
                )
            )
            await _first(self._stop.wait(), running)
        finally:
            await standard.set_serving(False, services)
            plane.refuse("the control plane is stopping")
            await transport.stop(self._config.stop_grace_s)
            if http is not None:
                await http.stop()
            running.cancel()
            await asyncio.wait([running])
            # Not raised here: if it ended everything, `_first` has said why, in a form that people can read.
            if not running.cancelled() and (error := running.exception()) is not None:
                log.error("the control plane ended", exc_info=error)

    def _http(self, plane: ControlPlane) -> HttpListener | None:
        if not self._config.http_listen:
            return None
        # Its server takes a fifth of all imports: only for those who want it.
        from .http_listener import HttpListener
        from .ingestion.ingestion import Ingestion

        return HttpListener(
            self._config.http_listen,
            self._config.http,
            ingestion=Ingestion(plane.house, plane.publishing(), self._config.http),
            metrics=plane.metrics,
            ready=lambda: plane.readiness.is_open,
            stop_grace_s=self._config.stop_grace_s,
        )


GARBAGE_THRESHOLDS = (25_000, 16, 20)
"""Objects between looks for garbage, and looks of one kind between those of the next. Almost nothing here is garbage in
a cycle, and Python's 700 take a fifth of the time while registrations come fast."""


@contextmanager
def _without_collection() -> Iterator[None]:
    """Rebuild the state without looking for garbage, which takes half the time when it grows by millions of objects; then
    leave that state out of later looks, so that none of them holds the loop for long."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(*GARBAGE_THRESHOLDS)
        gc.enable()


def _listener(config: ServerConfig, given: socket.socket | None) -> Listener:
    if config.tls is None:
        return Listener(address=config.listen, inherited=given)
    if kind_of(config.transport) == "native":
        return Listener(address=config.listen, context=server_context(config.tls), inherited=given)
    return Listener(address=config.listen, credentials=server_credentials(config.tls))


def _access(config: ServerConfig, is_open: bool) -> str:
    if config.security.insecure:
        return "INSECURE: anybody who reaches it may do anything"
    if is_open:
        return "calls from this machine need no credentials: for development"
    return "calls need a token or a client certificate"


async def _first(wanted: Coroutine[Any, Any, object], running: asyncio.Task[None]) -> None:
    """Wait for `wanted`; if the control plane ends before, raise why."""
    waiting = asyncio.ensure_future(wanted)
    await asyncio.wait([waiting, running], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if running.done():
        raise _root_of(running.exception()) or RuntimeError("the control plane ended")


def _root_of(error: BaseException | None) -> BaseException | None:
    """The first TrunklineError in a group of errors, else the error itself."""
    if isinstance(error, BaseExceptionGroup):
        found = error.subgroup(TrunklineError)
        leaf: BaseException = found or error
        while isinstance(leaf, BaseExceptionGroup):
            leaf = leaf.exceptions[0]
        return leaf
    return error
