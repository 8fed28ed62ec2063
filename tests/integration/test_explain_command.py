"""`trunkline explain pick` against a server that answers from a registry and a policy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result

from reference.registry_facts import Journal, instance
from trunkline.api.v1 import common_pb2, traffic_pb2, traffic_pb2_grpc
from trunkline.cli._main import group
from trunkline.core.clock import ManualClock
from trunkline.core.model import Declared, Endpoint, Locality
from trunkline.core.policy import Destination, LocalityPreference, Policy, Split
from trunkline.core.work import at_once
from trunkline.server.discovery.explain import Explain
from trunkline.server.registry.fold import RegistryFold


class Said:
    """One policy for everything."""

    policy = Policy(
        locality=LocalityPreference(),
        split=Split(destinations=(Destination(version="^1", weight=1),)),
        revision=12,
    )

    def effective(self, namespace: str, service: str) -> Policy:
        return self.policy


class Traffic(traffic_pb2_grpc.TrafficServiceServicer):
    """Answers ExplainPick and nothing else."""

    def __init__(self, explain: Explain) -> None:
        self._explain = explain

    def ExplainPick(self, request: traffic_pb2.ExplainPickRequest, context: Any) -> traffic_pb2.ExplainPickResponse:
        return at_once(self._explain.explain(request))


@pytest.fixture
def address() -> Iterator[str]:
    fold, journal = RegistryFold(), Journal()
    for number, (name, version, zone) in enumerate((("a", "1.0.0", "z1"), ("b", "1.1.0", "z2"), ("c", "2.0.0", "z1"))):
        declared = instance(
            name, version=version, locality=Locality(zone=zone), endpoints=(Endpoint("10.0.0.1", 80 + number),)
        )
        fold.apply(journal.registered(declared, lease_id=number + 1))
    fold.apply(journal.declared("instance/default/orders/c", Declared.DEGRADED))
    explain = Explain(fold, Said(), ManualClock(), common_pb2.ResponseHeader)
    server = grpc.server(ThreadPoolExecutor(1))
    traffic_pb2_grpc.add_TrafficServiceServicer_to_server(Traffic(explain), server)  # type: ignore[abstract]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


def run(address: str, *arguments: str) -> Result:
    return CliRunner().invoke(group, ["--address", address, *arguments])


def test_the_table_says_who_and_why(address: str) -> None:
    result = run(address, "explain", "pick", "orders", "--zone", "z2", "--metadata", "a=b", "--seed", "3")
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    assert "winner b" in lines
    assert "destination version ^1 (by chance, 1 of 1)" in lines
    assert "policy revision 12" in lines
    assert "ID ADDRESS VERSION STATUS ZONE WEIGHT SHARE CALLS FAILED P99 CALLERS LEFT OUT BY" in lines
    assert "a 10.0.0.1:80 1.0.0 SERVING z1 0 0.0 % locality (nearer ones get all calls)" in lines
    assert "b 10.0.0.1:81 1.1.0 SERVING z2 100 100.0 %" in lines
    assert "c 10.0.0.1:82 2.0.0 DEGRADED z1 0 0.0 % split (not of version ^1)" in lines


def test_as_json_and_with_nobody_left(address: str) -> None:
    result = run(address, "--json", "explain", "pick", "orders", "--version", "^2")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.output)
    assert answer["winner"] == "c", "the split's destination has nobody whom the selector means"
    assert [[one["rule"] for one in candidate["exclusions"]] for candidate in answer["candidates"]] == [
        ["selector"],
        ["selector"],
        [],
    ]
    empty = run(address, "explain", "pick", "nothing")
    assert "none: nothing has no instances" in " ".join(empty.output.split())
    assert "no instances" in empty.output


def test_what_is_left_out_by_hand(address: str) -> None:
    result = run(address, "--json", "explain", "pick", "orders", "--ejected", "a", "--ejected", "b")
    answer = json.loads(result.output)
    assert answer["panic"]
    refused = run(address, "explain", "pick", "orders", "--metadata", "no pair")
    assert refused.exit_code == 2
    assert "KEY=VALUE" in refused.output
