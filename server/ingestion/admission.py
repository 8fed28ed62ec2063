"""What is decided about a request before its body is read: by whom it is, whether that one may publish, and in what form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from aiohttp import hdrs, web
from multidict import MultiMapping

from trunkline.core.errors import InvalidArgument, PermissionDenied
from trunkline.core.model import Sync

from ..chain.gate import House
from ..security.principal import Principal, Resource, Verb, Via, authorize
from .binding import Mode, mode_of
from .refused import Refused

REQUIRE_SYNC: Final = "require_sync"
_IDENTITY: Final = frozenset({"", "identity"})


class Admitted(NamedTuple):
    """A publish that may go on."""

    principal: Principal
    mode: Mode
    namespace: str
    stream: str
    require_sync: int


def admit(request: web.Request, house: House) -> Admitted:
    """Let a request in. NotReady, Unauthenticated, PermissionDenied, InvalidArgument, Refused (415)."""
    if not house.readiness.is_open:
        raise house.readiness.refusal()
    principal = house.authenticator.principal(HttpPeer(request))
    namespace, stream = request.match_info["namespace"], request.match_info["stream"]
    authorize(principal, Verb.PUBLISH, Resource(namespace))
    _refuse_pages(principal, request.headers)
    encoding = ", ".join(request.headers.getall(hdrs.CONTENT_ENCODING, ()))
    if encoding not in _IDENTITY:
        raise Refused(415, InvalidArgument.of("content-encoding", "none", encoding))
    return Admitted(principal, mode_of(request.raw_headers), namespace, stream, _sync_from(request.query))


def _refuse_pages(principal: Principal, headers: Mapping[str, str]) -> None:
    """PermissionDenied for what a web page sends, unless it shows a token.

    A browser lets any page POST to any address, that of a developer's control plane on this machine included, and there
    being on this machine is credential enough (cross-site request forgery). It says so itself: every POST of a page bears
    `Origin`, and no script can leave it away. A token is another thing: the page must have been given it.
    """
    if hdrs.ORIGIN in headers and principal.via is not Via.TOKEN:
        raise PermissionDenied(
            f"requests of web pages need a token: this one has the header {hdrs.ORIGIN}",
            principal=principal.name,
            verb=Verb.PUBLISH.name,
        )


def _sync_from(query: MultiMapping[str]) -> int:
    """What `require_sync=fsynced` asks for; 0 asks for nothing."""
    wanted = 0
    for name, value in query.items():
        if name != REQUIRE_SYNC or wanted:
            raise InvalidArgument.of("query", f"{REQUIRE_SYNC} at most, once", name)
        if value.upper() not in Sync.__members__:
            raise InvalidArgument.of(REQUIRE_SYNC, f"one of {', '.join(Sync.__members__).lower()}", value)
        wanted = Sync[value.upper()]
    return wanted


class HttpPeer:
    """A request as the authenticator sees a call: its credentials, and the machine that it comes from."""

    def __init__(self, request: web.Request) -> None:
        self._request = request

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]]:
        """Every `Authorization` header."""
        return [("authorization", value) for value in self._request.headers.getall(hdrs.AUTHORIZATION, ())]

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """Nothing: the listener has no TLS, and so no certificates."""
        return {}

    def peer(self) -> str:
        """The other end's address, as gRPC writes it; what proxies say of their clients counts for nothing."""
        transport = self._request.transport
        name = None if transport is None else transport.get_extra_info("peername")
        if not isinstance(name, tuple):
            return "unknown"
        host, port = name[:2]
        return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
