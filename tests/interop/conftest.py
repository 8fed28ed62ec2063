"""The servers that the transport tests share: one for each transport and module."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest
from interop.conformance.cases import TRANSPORTS
from interop.conformance.harness import Interop, interop_server, need_transport

from trunkline.server.security.authority import make_authority, make_server_certificate


class Authority(NamedTuple):
    """Files of an authority and of a server's certificate, for localhost."""

    authority: Path
    certificate: Path
    key: Path


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """One that nobody knows unless told."""
    made, now = Authority(*(tmp_path_factory.mktemp("tls") / name for name in Authority._fields)), datetime.now(UTC)
    trusted = make_authority("interop", now=now)
    server = make_server_certificate(trusted, ["localhost"], now=now)
    for path, data in zip(made, (trusted.certificate, server.certificate, server.key), strict=True):
        path.write_bytes(data)
    return made


@pytest.fixture(scope="module", params=TRANSPORTS)
def interop(request: pytest.FixtureRequest, authority: Authority) -> Iterator[Interop]:
    """A running server of the test service, on each transport in turn."""
    need_transport(request.param)
    with interop_server(request.param, "--tls", str(authority.certificate), str(authority.key)) as server:
        yield server
