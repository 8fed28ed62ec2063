"""Who is let in before a body is read: by address, by credentials, by what the server is ready for."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from trunkline.core.clock import ManualClock
from trunkline.core.errors import NotReady, PermissionDenied, Unauthenticated
from trunkline.server.chain.config import ChainConfig
from trunkline.server.chain.gate import House
from trunkline.server.chain.readiness import Readiness
from trunkline.server.ingestion.admission import HttpPeer, admit
from trunkline.server.ingestion.binding import Mode
from trunkline.server.security.authenticate import Authenticator
from trunkline.server.security.config import SecurityConfig
from trunkline.server.security.principal import Via
from trunkline.server.security.tokens_fold import TokensFold


def house(*, ready: bool = True, insecure: bool = False) -> House:
    readiness, clock = Readiness(), ManualClock()
    if ready:
        readiness.open()
    config = SecurityConfig(insecure=insecure)
    authenticator = Authenticator(config, TokensFold(), clock, loopback_is_open=True)
    return House(authenticator=authenticator, readiness=readiness, clock=clock, config=ChainConfig())


def request(peername: object = ("127.0.0.1", 5), **headers: str) -> web.Request:
    transport = Mock()
    transport.get_extra_info = lambda name, default=None: {"peername": peername}.get(name, default)
    match_info = {"namespace": "shop", "stream": "events"}
    return make_mocked_request(
        "POST", "/?require_sync=written", headers=headers, transport=transport, match_info=match_info
    )


@pytest.mark.parametrize(
    ("peername", "peer", "is_here"),
    [
        (("127.0.0.1", 5), "ipv4:127.0.0.1:5", True),
        (("127.8.8.8", 5), "ipv4:127.8.8.8:5", True),
        (("::1", 5, 0, 0), "ipv6:[::1]:5", True),
        (("::ffff:127.0.0.1", 5, 0, 0), "ipv6:[::ffff:127.0.0.1]:5", True),
        (("10.0.0.1", 5), "ipv4:10.0.0.1:5", False),
        (("::ffff:10.0.0.1", 5, 0, 0), "ipv6:[::ffff:10.0.0.1]:5", False),
        (("fe80::1%eth0", 5, 0, 2), "ipv6:[fe80::1%eth0]:5", False),
        (None, "unknown", False),
    ],
)
def test_the_machine_that_a_request_comes_from(peername: object, peer: str, is_here: bool) -> None:
    asked = request(peername, **{"X-Forwarded-For": "127.0.0.1"})
    assert HttpPeer(asked).peer() == peer
    if is_here:
        admitted = admit(asked, house())
        assert (admitted.principal.via, admitted.mode) == (Via.LOOPBACK, Mode.BINARY)
        assert (admitted.namespace, admitted.stream, admitted.require_sync) == ("shop", "events", 2)
    else:
        with pytest.raises(Unauthenticated):
            admit(asked, house())


def test_nobody_is_let_in_before_the_server_is_ready() -> None:
    with pytest.raises(NotReady):
        admit(request(), house(ready=False))


def test_pages_are_kept_out_of_servers_that_take_anybody() -> None:
    assert admit(request(("10.0.0.1", 5)), house(insecure=True)).principal.via is Via.INSECURE
    with pytest.raises(PermissionDenied, match="web pages"):
        admit(request(("10.0.0.1", 5), Origin="http://page.example"), house(insecure=True))
