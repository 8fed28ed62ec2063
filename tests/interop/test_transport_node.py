"""A program on grpc-js, gRPC for Node, against each transport."""

from __future__ import annotations

from pathlib import Path

import pytest
from interop.conformance.cases import GRPC_JS
from interop.conformance.harness import Interop, judged
from interop.conformance.messages import PROTOS
from interop.conformance.programs import node_program, run

pytestmark = pytest.mark.timeout(180)  # the package registry


@pytest.fixture(scope="module")
def client() -> Path:
    return node_program("client.js")


def say(client: Path, *arguments: str) -> str:
    return run("node", client, *arguments, cwd=client.parent, timeout_s=40, CONFORMANCE_PROTOS=str(PROTOS))


def test_every_case_is_known(client: Path) -> None:
    assert set(say(client).split()) == GRPC_JS.cases.keys()


@pytest.mark.parametrize("case", GRPC_JS.cases)
def test_grpc_js(client: Path, interop: Interop, case: str) -> None:
    with judged(GRPC_JS, interop, case) as address:
        say(client, address, case)
