"""The servers that the transport tests share: one for each transport and module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from interop.conformance.cases import TRANSPORTS
from interop.conformance.harness import Interop, interop_server, need_transport


@pytest.fixture(scope="module", params=TRANSPORTS)
def interop(request: pytest.FixtureRequest) -> Iterator[Interop]:
    """A running server of the test service, on each transport in turn."""
    need_transport(request.param)
    with interop_server(request.param) as server:
        yield server
