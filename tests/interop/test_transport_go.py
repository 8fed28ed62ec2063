"""grpc-go's own interoperability client against each transport."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from interop.conformance.cases import GRPC_GO, GRPC_GO_TLS
from interop.conformance.harness import Interop, judged
from interop.conformance.programs import go_tool, run

pytestmark = pytest.mark.timeout(420)  # the compiler

CLIENT = "google.golang.org/grpc/interop/client"
LOAD_AWARE = '-service_config_json={"loadBalancingConfig": [{"test_backend_metrics_load_balancer": {}}]}'
"""The client's own policy, which reads load reports."""
OPTIONS = {
    "rpc_soak": ("-soak_iterations=50",),
    "channel_soak": ("-soak_iterations=30",),
    "orca_per_rpc": (LOAD_AWARE,),
    "orca_oob": (LOAD_AWARE,),
}


@pytest.fixture(scope="module")
def client() -> Path:
    return go_tool(CLIENT)


def test_every_case_of_the_client_is_run_or_left_out(client: Path) -> None:
    said = subprocess.run([client, "-help"], capture_output=True, text=True, check=False, timeout=20).stderr
    cases = set(re.findall(r"^\s+(\w+)\s?: ", said.partition("-test_case")[2], re.M))
    assert len(cases) > 20
    assert cases - GRPC_GO.cases.keys() == GRPC_GO.left_out.keys()


@pytest.mark.parametrize("case", GRPC_GO.cases)
def test_grpc_go(client: Path, interop: Interop, case: str) -> None:
    with judged(GRPC_GO, interop, case) as address:
        call(client, address, case)


@pytest.mark.parametrize("case", GRPC_GO_TLS.cases)
def test_grpc_go_over_tls(client: Path, interop: Interop, authority: Any, case: str) -> None:
    with judged(GRPC_GO_TLS, interop, case) as address:
        call(
            client,
            address,
            case,
            "-use_tls",
            "-use_test_ca",
            f"-ca_file={authority.authority}",
            "-server_host_override=localhost",
        )


def call(client: Path, address: str, case: str, *more: str) -> None:
    host, _, port = address.rpartition(":")
    where = (f"-server_host={host}", f"-server_port={port}", f"-test_case={case}", *more)
    run(client, *where, *OPTIONS.get(case, ()), cwd=client.parent, timeout_s=40)
