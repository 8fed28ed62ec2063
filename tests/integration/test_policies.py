"""Policies of a real server process: both faces of the SDK, plain gRPC, the command line, tokens, and SIGKILL."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from integration.faces import threaded
from integration.processes import TRUNKLINE, Server, serving, trunkline
from integration.test_client_security import init

from trunkline.api.status import DETAILS_KEY, error_from
from trunkline.api.v1 import policy_pb2, traffic_pb2, traffic_pb2_grpc
from trunkline.client import BackoffOptions, ClientOptions, Tls, connect, connect_sync
from trunkline.core.errors import (
    BlastRadius,
    InvalidArgument,
    PermissionDenied,
    PolicyNotFound,
    RevisionMismatch,
    TrunklineError,
)

OPTIONS = ClientOptions(backoff=BackoffOptions(initial_backoff_s=0.1, max_backoff_s=1))
CART = """
service: cart
load_balancing: {algorithm: maglev, hash_on: {header: x-user}}
retry: {max_attempts: 3, per_try_timeout: 250ms}
timeout: 1s
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(params=["async", "blocking"])
async def client(request: pytest.FixtureRequest, server: Server) -> AsyncIterator[Any]:
    given: dict[str, Any] = {"namespace": f"sdk-{request.param}", "options": OPTIONS, "name": "tests"}
    dialled = connect(server.address, **given)
    if request.param == "blocking":
        dialled = threaded(connect_sync(server.address, **given))
    async with dialled as connected:
        yield connected


async def test_a_policy_from_its_first_word_to_its_last(client: Any) -> None:
    view = await client.watch("cart")
    assert view.policy.revision == 0
    made = await client.apply_policy(CART, reason="as agreed", expected_revision=0)
    assert (made.changed, made.policy.author, made.policy.reason) == (True, "loopback", "as agreed")
    assert await client.wait_until_applied(made.revision, "cart", limit_s=5) == ()
    assert view.policy.revision == made.revision
    assert view.policy.load_balancing.algorithm.name == "MAGLEV"
    assert not (await client.apply_policy(CART)).changed
    with pytest.raises(RevisionMismatch):
        await client.apply_policy(CART, expected_revision=0)
    with pytest.raises(InvalidArgument) as refused:
        await client.apply_policy("service: cart\nretry: {max_attempts: 1}\ntimeout: 0s")
    assert [violation.field for violation in refused.value.violations] == ["policy.timeout"]

    default = await client.apply_policy("timeout: 5s\nlimits: {max_requests: 9}")
    await client.wait_until_applied(default.revision, limit_s=5)
    assert (view.policy.timeout_ns, view.policy.limits.max_requests) == (10**9, 9)
    state = await client.get_policy("cart")
    assert (state.own.revision, state.policy.revision) == (made.revision, default.revision)
    assert state.policy == view.policy
    assert [one.policy.service for one in await client.list_policies()] == ["", "cart"]

    gone = await client.delete_policy("cart", reason="enough")
    await client.wait_until_applied(gone.revision, "cart", limit_s=5)
    assert view.policy.timeout_ns == 5 * 10**9
    with pytest.raises(PolicyNotFound):
        await client.delete_policy("cart")
    back = await client.roll_back_policy("cart")
    assert back.policy.policy == made.policy.policy
    changes = await client.policy_changes("cart")
    assert [one.policy is None for one in changes] == [False, True, False]
    assert [one.reason for one in changes[1:]] == ["enough", "as agreed"]
    await client.delete_policy("", force=True)


async def test_what_takes_away_too_much_is_refused(client: Any) -> None:
    for n, version in enumerate(("1.0.0", "1.0.0", "1.0.0", "2.0.0")):
        await client.register("wide", host="10.0.0.7", port=8_000 + n, id=f"wide-{n}", version=version)
    split = "service: wide\nsplit: {destinations: [{version: 2.x, weight: 1}]}"
    with pytest.raises(BlastRadius) as refused:
        await client.apply_policy(split)
    assert refused.value.fields["share"] == "75"
    tried = await client.apply_policy(split, dry_run=True, max_capacity_removed_percent=75)
    assert [(one.service, one.capacity_removed_percent) for one in tried.blast_radius] == [("wide", 75)]
    assert (await client.get_policy("wide")).own is None
    assert (await client.apply_policy(split, force=True)).changed


async def test_that_policies_change_is_seen_in_changes(client: Any) -> None:
    made = await client.apply_policy("service: seen\ntimeout: 1s")
    await client.apply_policy("timeout: 1s")
    await client.delete_policy("seen")
    await client.delete_policy()
    found: list[Any] = []
    options: dict[str, Any] = {"stream": "changes", "start": made.revision, "filters": ["trunkline.policy.*"]}
    async with client.subscribe(acknowledge=False, **options) as deliveries, asyncio.timeout(20):
        while len(found) < 4:
            found.append((await deliveries.next()).event)
    assert [(event.type.rpartition(".")[2], event.subject) for event in found] == [
        ("applied", "seen"), ("applied", ""), ("deleted", "seen"), ("deleted", ""),
    ]  # fmt: skip
    assert found[0].json_data()["author"] == "loopback"


async def refusal(call: Any) -> TrunklineError:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    details = next(value for key, value in failed.value.trailing_metadata() or () if key == DETAILS_KEY)
    assert isinstance(details, bytes)
    return error_from(failed.value.code().name, failed.value.details() or "", details)


async def test_plain_grpc_and_a_look_at_the_past(server: Server) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = traffic_pb2_grpc.TrafficServiceStub(channel)
        policy = policy_pb2.TrafficPolicy(namespace="plain", service="cart", limits=policy_pb2.Limits(max_requests=1))
        request = traffic_pb2.ApplyPolicyRequest(policy=policy, request_id="one")
        first = await stub.ApplyPolicy(request)
        assert await stub.ApplyPolicy(request) == first
        request.policy.limits.max_requests = 2
        again = await stub.ApplyPolicy(request)
        assert again.policy.revision > first.policy.revision, "another request, though of the same id"
        asked = traffic_pb2.GetPolicyRequest(namespace="plain", service="cart", revision=first.policy.revision)
        past = await stub.GetPolicy(asked)
        assert (past.own, past.HasField("effective")) == (first.policy, False)
        asked.revision = first.policy.revision - 1
        assert not (await stub.GetPolicy(asked)).HasField("own")
        everywhere = await stub.ListPolicies(traffic_pb2.ListPoliciesRequest())
        assert again.policy in everywhere.policies
        wrong = traffic_pb2.ApplyPolicyRequest(policy=policy_pb2.TrafficPolicy(namespace="plain", service="UP"))
        error = await refusal(stub.ApplyPolicy(wrong))
        assert isinstance(error, InvalidArgument)
        assert error.violations[0].field == "policy.service"
        explained = await stub.ExplainPick(traffic_pb2.ExplainPickRequest(namespace="plain", service="cart"))
        assert (explained.reason, explained.policy_revision) == ("cart has no instances", again.policy.revision)


def run(server: Server, *arguments: str, code: int = 0, given: str = "") -> str:
    """What a policy command says."""
    done = subprocess.run(
        [TRUNKLINE, "--address", server.address, "-n", "cli", "policy", *arguments],
        input=given, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout or done.stderr


def test_the_command_line_applies_and_shows(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "cart.yaml"
    file.write_text(CART)
    assert "+  max_attempts: 3" in run(server, "diff", str(file), code=1)
    assert "would change  True" in run(server, "apply", str(file), "--dry-run")
    assert "changed   True" in run(server, "apply", str(file), "--reason", "first", "--wait")
    assert run(server, "diff", str(file)) == ""
    for output in ("yaml", "json"):
        got = run(server, "get", "cart", "-o", output)
        assert "changed   False" in run(server, "apply", "-", given=got)
    assert "per_try_timeout: 250ms" in run(server, "get", "cart", "-o", "table", "--effective")
    assert "mail has none of its own" in run(server, "get", "mail", code=1)
    file.write_text(CART + "retires: 3\n")
    assert "retires: is no field here" in run(server, "apply", str(file), code=2)


def test_the_command_line_validates_without_a_server(tmp_path: Path) -> None:
    file = tmp_path / "cart.yaml"
    file.write_text(CART + "fallback: {subset: blue}\n---\nsubsets: [{name: blue}]\n")
    done = trunkline("policy", "validate", str(file), address="127.0.0.1:1")
    assert "valid     True" in done.stdout
    file.write_text(CART.replace("max_attempts: 3", "max_attempts: 1"))
    done = trunkline("policy", "validate", str(file), address="127.0.0.1:1")
    assert (done.returncode, "retry.max_attempts: must be at least 2" in done.stderr) == (2, True)


def test_the_command_line_goes_back(server: Server) -> None:
    both = "service: mail\ntimeout: 1s\n---\ntimeout: 5s\n"
    assert run(server, "apply", "-", given=both).count("changed") == 2
    assert "--expect" in run(server, "apply", "-", "--expect", "0", given=both, code=2)
    run(server, "delete", "mail", "--reason", "not used")
    history = run(server, "history", "mail")
    assert "(deleted)" in history
    assert "not used" in history
    assert "changed   True" in run(server, "rollback", "mail")
    assert run(server, "get", "mail") == "namespace: cli\nservice: mail\ntimeout: 1s\n"


def kept(server: Server, namespace: str) -> set[str]:
    rows = trunkline("--json", "-n", namespace, "policy", "list", address=server.address).stdout
    return {json.loads(row)["service"] for row in rows.splitlines()}


def documents(*policies: str, namespace: str) -> str:
    return "\n---\n".join(f"namespace: {namespace}\n{one}" for one in policies)


def test_of_several_policies_none_is_kept_when_one_is_wrong(server: Server) -> None:
    typo = documents(
        "service: early\ntimeout: 1s",
        "service: wrong\nretry: {max_attempts: 99}",
        "service: loop\nfallback: {service: loop}",
        namespace="several",
    )
    told = run(server, "apply", "-", given=typo, code=2)
    assert "kept: none\n" in told
    assert "several/wrong: retry.max_attempts: must be at most" in told
    assert "loop" not in told, "what may rest on other policies is asked for when all fields are right"
    text = documents("service: early\ntimeout: soon", "service: late\ntimout: 1s", namespace="several")
    told = run(server, "apply", "-", given=text, code=2)
    assert "timeout: must be a duration such as 250ms, 1.5s, 5m or 1h30m (line 3)" in told
    assert "timout: is no field here" in told, "both are told"
    run(server, "apply", "-", given="namespace: several\nservice: there\nfallback: {service: back}")
    clash = documents(
        "service: back\nfallback: {service: there}",
        "service: blue\nsplit: {destinations: [{subset: blue, weight: 1}]}",
        "service: early\ntimeout: 1s",
        namespace="several",
    )
    told = run(server, "apply", "-", given=clash, code=2)
    assert "several/back: fallback.service: must not lead back" in told, "only the control plane can know"
    assert "several/blue: split.destinations[0].subset: must be one of the subsets" in told
    assert "kept: none\n" in told
    assert kept(server, "several") == {"there"}


def test_of_several_policies_one_may_rest_on_those_before_it(server: Server) -> None:
    default = "subsets: [{name: blue}]"
    cart = "service: cart\nsplit: {destinations: [{subset: blue, weight: 1}]}"
    text = documents(default, cart, namespace="rest")
    told = run(server, "apply", "-", "--dry-run", given=text)
    assert "rest/*" in told
    assert "not known before those before it are applied" in told
    assert kept(server, "rest") == set()
    assert run(server, "apply", "-", given=text).count("changed   True") == 2
    run(server, "apply", "-", given="namespace: rest\nservice: a\nfallback: {service: b}")
    turned = documents("service: a\ntimeout: 1s", "service: b\nfallback: {service: a}", namespace="rest")
    assert run(server, "apply", "-", given=turned).count("changed   True") == 2, "the way is turned round"


def test_of_several_policies_those_before_a_refused_one_are_kept_and_it_is_said_which(server: Server) -> None:
    run(server, "apply", "-", given="namespace: part\nservice: x\nfallback: {service: y}")
    text = documents(
        "service: first\ntimeout: 1s",
        "service: y\nfallback: {service: x}",  # might have rested on the first
        "service: last\ntimeout: 1s",
        namespace="part",
    )
    told = run(server, "apply", "-", given=text, code=2)
    assert told.startswith("kept: part/first\nrefused: part/y\nnot tried: part/last\n")
    assert kept(server, "part") == {"first", "x"}


def _apply_and_wait(server: Server) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [TRUNKLINE, "--address", server.address, "-n", "late", "policy", "apply", "-", "--wait", "0.3"],
        input="service: cart\ntimeout: 1s\n", capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


async def test_the_command_line_names_who_is_late(server: Server) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        from trunkline.api.v1 import discovery_pb2, discovery_pb2_grpc

        watching = discovery_pb2_grpc.DiscoveryServiceStub(channel).Watch()
        order = discovery_pb2.OpenWatch(watch_id=1, namespace="late", service="cart", client="sleepy")
        await watching.write(discovery_pb2.WatchRequest(open=order))
        await watching.read()
        done = await asyncio.to_thread(_apply_and_wait, server)
        assert done.returncode == 1
        assert "late: sleepy" in done.stderr
        watching.cancel()


async def test_sigkill_loses_no_policy_and_a_watch_goes_on(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        async with connect(server.address, namespace="kill", options=OPTIONS) as client:
            view = await client.watch("cart")
            for n in range(1, 4):
                made = await client.apply_policy(f"service: cart\nlimits: {{max_requests: {n}}}")
                server.kill()
                server.start()
                await client.wait_until_applied(made.revision, "cart", limit_s=10)
                async with asyncio.timeout(20):
                    async for _ in view.changes():
                        if view.policy.revision >= made.revision:
                            break
                assert view.policy.limits.max_requests == n
            assert len(await client.policy_changes("cart")) == 3
            back = await client.roll_back_policy("cart", to=made.revision - 1)
            assert back.policy is not None
            assert back.policy.policy.limits.max_requests == 2


async def test_rights_are_by_role_and_namespace(tmp_path: Path) -> None:
    folder = tmp_path / "control"
    admin = init(folder)
    with serving(tmp_path, "--config", str(folder / "trunkline.toml")) as server:
        tls = Tls.from_files(ca=folder / "ca.pem")
        as_admin = ("--ca", str(folder / "ca.pem"), "--token", admin, "--json")
        secrets = {
            role: json.loads(
                trunkline(*as_admin, "token", "create", "--role", role, *more, address=server.address).stdout
            )["secret"]
            for role, more in (("service", ()), ("admin", ("--for-namespace", "mine")))
        }
        async with connect(server.address, tls=tls, token=secrets["service"], namespace="mine") as reader:
            with pytest.raises(PermissionDenied):
                await reader.apply_policy(CART)
            with pytest.raises(PermissionDenied):
                await reader.roll_back_policy("cart")
            assert await reader.list_policies() == ()
        async with connect(server.address, tls=tls, token=secrets["admin"], namespace="mine") as owner:
            made = await owner.apply_policy(CART)
            assert made.policy is not None
            assert made.policy.author.startswith("token/")
            for call in (owner.list_policies(namespace="other"), owner.delete_policy("cart", namespace="other")):
                with pytest.raises(PermissionDenied):
                    await call
            with pytest.raises(PermissionDenied):
                await owner.apply_policy("namespace: other\nservice: cart\ntimeout: 1s")
