"""What may be listened on."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from trunkline.core.errors import InvalidArgument
from trunkline.server.security.config import SecurityConfig, TlsConfig
from trunkline.server.security.listener import check_listener, is_loopback, loopback_is_open

TLS = TlsConfig(certificate=Path("c"), key=Path("k"))
LOCAL = ["127.0.0.1:7400", "127.5.5.5:0", "[::1]:7400", "localhost:7400", "unix:/run/trunkline.sock"]
FAR = ["0.0.0.0:7400", "[::]:7400", "10.0.0.1:7400", "trunkline.example:7400", "[::ffff:10.0.0.1]:1"]


@pytest.mark.parametrize("address", LOCAL)
def test_loopback_needs_nothing(address: str) -> None:
    assert is_loopback(address)
    check_listener(address, None, insecure=False)


@pytest.mark.parametrize("address", FAR)
def test_other_addresses_need_tls_or_insecure(address: str) -> None:
    assert not is_loopback(address)
    with pytest.raises(InvalidArgument) as refused:
        check_listener(address, None, insecure=False)
    assert "\n" not in str(refused.value)
    assert "--insecure" in str(refused.value)
    assert address in str(refused.value)
    check_listener(address, TLS, insecure=False)
    check_listener(address, None, insecure=True)


@pytest.mark.parametrize(
    "address", ["", "7400", ":7400", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "a:65536", "unix:", "a:-1"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(InvalidArgument, match="HOST:PORT or unix:PATH"):
        check_listener(address, TLS, insecure=True)


@pytest.mark.parametrize(
    ("choice", "addresses", "expected"),
    [(None, LOCAL, True), (None, [*LOCAL, FAR[0]], False), (True, FAR, True), (False, LOCAL, False)],
)
def test_loopback_without_credentials(
    choice: bool | None, addresses: list[str], expected: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert loopback_is_open(SecurityConfig(loopback_without_credentials=choice), addresses) is expected
    assert ("development" in caplog.text) is expected


def test_insecure_is_said_aloud(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        loopback_is_open(SecurityConfig(insecure=True), FAR)
    assert "insecure" in caplog.text
