"""One connection: between the event loop's transport and the HTTP/2 session."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote

import grpc

from trunkline.core.http2 import BAD_PREFACE, Session
from trunkline.core.http2_stream import TIMEOUT_MALFORMED_NS, Stream

from .call import Call
from .compression import KNOWN
from .metadata import MalformedMetadata, Metadatum, decoded, percent_encoded
from .refusals import HTTP_1_ANSWER, looks_like_http_1, refusal_headers
from .routes import UNSERVED

if TYPE_CHECKING:
    from .server import NativeServer

log = logging.getLogger(__name__)

FLUSH_BYTES: Final = 256 * 1024
"""Given to the transport at once; above twice as much unsent it says to pause."""
_NOTICE: Final = b"trunklin"
Code = grpc.StatusCode


class Connection(asyncio.Protocol):
    """Feeds the session, begins calls, and writes once per turn of the loop what they produced."""

    __slots__ = (  # ten thousand of them are visited in turn: what lies together is fetched together
        "_headers",
        "_index",
        "_is_paused",
        "_leaving_pings",
        "_metadata",
        "_pings_due",
        "_transport",
        "auth_context",
        "begun_s",
        "called_s",
        "closing_s",
        "ended_s",
        "heard_s",
        "is_flushing",
        "leave_at_s",
        "loop",
        "peer",
        "pinged_s",
        "server",
        "session",
    )

    def __init__(self, server: NativeServer, index: int) -> None:
        self.server = server
        self.loop = server.loop
        self.session: Session
        self.peer = ""
        self.heard_s = self.called_s = self.begun_s = 0.0
        self.pinged_s = 0.0
        self.closing_s = 0.0
        self.ended_s = 0.0
        """When the first of the calls had ended that the keeper has not looked at."""
        self.leave_at_s = float("inf")
        self.auth_context: Mapping[str, Sequence[bytes]] = {}
        self._index = index
        self._transport: asyncio.Transport
        self._pings_due = 0
        self._is_paused = False
        self.is_flushing = False
        """It will be written to when this turn of the loop is over."""
        self._leaving_pings = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._metadata: tuple[Metadatum, ...] = ()

    # The event loop's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by class
        self.session = Session(self.server.limits, self.server.budget)
        self.begun_s = self.heard_s = self.called_s = self.loop.time()
        self._transport.set_write_buffer_limits(high=2 * FLUSH_BYTES)
        self.peer = peer_name(transport.get_extra_info("peername"), self._index)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            self.auth_context = auth_context_of(tls)
            if tls.selected_alpn_protocol() != "h2":
                self.server.counts.refused += 1
                self._transport.abort()  # RFC 9113, 3.2: without ALPN "h2" the peer does not speak HTTP/2
                return
            self.want_flush()  # else the peer may speak HTTP/1, and what it is told must not be preceded by frames
        self.server.connected(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.disconnected(self)
        for stream in self.session.close():
            if stream.call is not None:
                stream.call.gone()
                stream.call = None

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self.flush()

    def data_received(self, data: bytes) -> None:
        session, now_s = self.session, self.loop.time()
        self.is_flushing = True  # what this produces is written at the end of it
        self.heard_s = now_s
        changed = session.receive(data, int(now_s * 1e9))
        if session.error:
            self._hang_up(data)
            return
        for stream in changed:
            call = stream.call
            if call is None:
                if not stream.is_closed and not stream.is_finished:
                    self._begin(stream, now_s)
            else:
                call.changed()
                if stream.is_closed:
                    stream.call = None
        if session.pings_answered != self._pings_due:
            self._pings_due = session.pings_answered
            self._pong()
        self.flush()

    def eof_received(self) -> bool:
        return False

    # The calls' side.

    def want_flush(self) -> None:
        """Write what there is to write, once, when this turn of the loop is over."""
        if not self.is_flushing:
            self.is_flushing = True
            self.server.flush_soon(self)

    def metadata_of(self, stream: Stream) -> tuple[Metadatum, ...]:
        """A stream's metadata, decoded once for calls in a row that bear the same. MalformedMetadata."""
        if stream.headers != self._headers or not self._metadata:
            self._metadata = decoded(stream.headers)
            self._headers = stream.headers
        return self._metadata

    def _begin(self, stream: Stream, now_s: float) -> None:
        self.called_s = now_s
        server = self.server
        if stream.is_plain and server.is_open and len(server.tasks) < server.calls_max:
            self._route(stream, now_s)
        else:
            self._look_closer(stream, now_s)

    def _look_closer(self, stream: Stream, now_s: float) -> None:
        """Refuse what cannot be served, and say why."""
        server = self.server
        if stream.headers_too_large:  # and so some that would tell what it is were not kept
            self._refuse(stream, Code.RESOURCE_EXHAUSTED, "received metadata size exceeds the limit")
            return
        refused = refusal_headers(stream)
        if refused is not None:
            stream.refuse(refused)
            self.want_flush()
        elif stream.timeout_ns == TIMEOUT_MALFORMED_NS:
            self._refuse(stream, Code.INTERNAL, "grpc-timeout is not 1 to 8 digits and a unit")
        elif stream.encoding is not None and stream.encoding not in KNOWN:
            self._refuse(stream, Code.UNIMPLEMENTED, f"compression {stream.encoding.decode('latin-1')!r} is not known")
        elif not server.is_open:
            self._refuse(stream, Code.UNAVAILABLE, "the server is stopping")
        elif len(server.tasks) >= server.calls_max:
            self._refuse(stream, Code.RESOURCE_EXHAUSTED, "Concurrent RPCs limit exceeded!")
        else:
            self._route(stream, now_s)

    def _route(self, stream: Stream, now_s: float) -> None:
        server = self.server
        try:
            route = server.routes.find(stream.path, lambda: self.metadata_of(stream))
        except MalformedMetadata as error:
            self._refuse(stream, Code.INTERNAL, str(error))
            return
        except Exception as error:
            log.error("a generic handler failed", exc_info=error)
            self._refuse(stream, Code.UNKNOWN, f"Unexpected {type(error)}: {error}")
            return
        if route is None:
            self._refuse(stream, Code.UNIMPLEMENTED, UNSERVED)
            return
        timeout_ns = stream.timeout_ns
        call = Call(self, stream, route, None if timeout_ns < 0 else now_s + timeout_ns / 1e9)
        stream.call = call
        call.begin()

    def _refuse(self, stream: Stream, code: Code, details: str) -> None:
        """Answer without a handler."""
        stream.finish([(b"grpc-status", b"%d" % code.value[0]), (b"grpc-message", percent_encoded(details))])
        self.want_flush()

    # Writing.

    def flush(self) -> None:
        """Write what the session has."""
        self.is_flushing = False
        session = self.session
        if not self._is_paused:
            data = session.send(FLUSH_BYTES)
            if data:
                self._transport.write(data)
            if session.is_quiet:
                return
        self._see_to_the_rest()

    def _see_to_the_rest(self) -> None:
        """Write on, let streams go on that have room, close what is over."""
        session = self.session
        while not self._is_paused:
            data = session.send(FLUSH_BYTES)
            if not data:
                break
            self._transport.write(data)
            if len(data) < FLUSH_BYTES and not session.wants_write:
                break
        for stream in session.relieved():
            if stream.call is not None:
                stream.call.relieved()
        if session.cut_by:
            if not self.closing_s:
                self.server.cut(session.cut_by)
            self.close()
        elif session.is_over or (session.is_leaving and not session.streams):
            self.close()

    def close(self) -> None:
        """Close when the peer has taken what was sent."""
        if not self.closing_s:
            self.closing_s = self.loop.time()
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def _hang_up(self, data: bytes) -> None:
        """What came cannot be answered in HTTP/2."""
        if self.session.error == BAD_PREFACE and looks_like_http_1(data):
            self._transport.write(HTTP_1_ANSWER)
        else:
            self.flush()
        self.server.counts.refused += 1
        self.close()

    # Its end, and whether it is still there.

    def ping(self) -> None:
        """Ask whether the peer is there."""
        self.pinged_s = self.loop.time()
        self.session.ping(_NOTICE)
        self.want_flush()

    def drain(self) -> None:
        """Ask the peer to go elsewhere: notice first, so that calls on their way are still taken, then GOAWAY."""
        if not self._leaving_pings and not self.session.is_leaving:
            self._leaving_pings = self.session.pings_answered + 1
            self.session.give_notice()
            self.ping()

    def leave(self) -> None:
        """Take no more calls; close when those that are open have ended."""
        self.session.leave()
        self.want_flush()

    def tell(self, limit: str) -> None:
        """Tell a limit it went over, and close."""
        self.session.cut(limit)
        self.want_flush()

    def _pong(self) -> None:
        self.pinged_s = 0.0
        if self._leaving_pings and self.session.pings_answered >= self._leaving_pings:
            self.leave()


def peer_name(address: Any, index: int) -> str:
    """An address as grpcio writes it; unix sockets, which have none, get a number each."""
    if not isinstance(address, tuple):
        return f"unix:{index}"
    host, port = address[0], address[1]
    if ":" in host:
        return f"ipv6:{quote(f'[{host}]', safe='')}:{port}".replace("%3A", ":")
    return f"ipv4:{host}:{port}"


def auth_context_of(tls: ssl.SSLObject) -> dict[str, Sequence[bytes]]:
    """Properties of a TLS connection and its client's certificate, under grpcio's names."""
    found: dict[str, Sequence[bytes]] = {"transport_security_type": [b"ssl"]}
    certificate: Any = tls.getpeercert()
    if not certificate:
        return found
    names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    others = [value for _, value in certificate.get("subjectAltName", ())]
    if names:
        found["x509_common_name"] = [name.encode() for name in names]
    if others:
        found["x509_subject_alternative_name"] = [name.encode() for name in others]
    der = tls.getpeercert(binary_form=True)
    if der is not None:
        found["x509_pem_cert"] = [ssl.DER_cert_to_PEM_cert(der).encode()]
    return found
