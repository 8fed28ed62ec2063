"""Releases of a real server process: both faces of the SDK, outcomes over gRPC, the command line, tokens, and SIGKILL."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from integration.faces import threaded
from integration.processes import Server, serving, trunkline
from integration.test_client_security import init

from trunkline.api.v1 import discovery_pb2
from trunkline.client import (
    BackoffOptions,
    ClientOptions,
    GateVerdict,
    Release,
    ReleaseGate,
    ReleasePhase,
    ReleaseStep,
    Tls,
    Trunkline,
    connect,
    connect_sync,
)
from trunkline.core.errors import InvalidArgument, PermissionDenied, ReleaseEnded, ReleaseNotFound, ReleaseRunning

OPTIONS = ClientOptions(backoff=BackoffOptions(initial_backoff_s=0.1, max_backoff_s=1))
OLD, NEW = "1.4.0", "2.0.0"
STEPS = [ReleaseStep(percent=percent, hold_s=1) for percent in (10, 50, 100)]
BASELINE = "<2.0.0 || >=3.0.0-0"


def often(folder: Path) -> tuple[str, str]:
    """Options of a server that looks often."""
    path = folder / "often.toml"
    path.write_text("[releases]\nlook_interval_s = 0.1\n")
    return "--config", str(path)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with serving(folder, *often(folder)) as running:
        yield running


@pytest.fixture(params=["async", "blocking"])
async def client(request: pytest.FixtureRequest, server: Server) -> AsyncIterator[Any]:
    given: dict[str, Any] = {"namespace": f"sdk-{request.param}", "options": OPTIONS}
    dialled = connect(server.address, **given)
    if request.param == "blocking":
        dialled = threaded(connect_sync(server.address, **given))
    async with dialled as connected:
        yield connected


@asynccontextmanager
async def called(
    address: str, service: str, *, namespace: str, failing: float = 0, bucket: int = 20
) -> AsyncIterator[Trunkline]:
    """A service of two versions, and callers that report their calls, dealt out as its release says. Of the calls to the
    new version `failing` fail, and the others' latencies lie in `bucket`."""
    async with connect(address, namespace=namespace, options=OPTIONS) as client:
        for version in (OLD, NEW):
            await client.register(service, port=8080, host="127.0.0.1", version=version, drain_on_exit=False)
        calling = asyncio.create_task(_call(client, service, failing, bucket))
        try:
            yield client
        finally:
            calling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await calling


async def _call(client: Trunkline, service: str, failing: float, bucket: int) -> None:
    while True:
        percent = 0
        with contextlib.suppress(ReleaseNotFound):
            percent = (await client.get_release(service)).percent
        request = discovery_pb2.ReportOutcomesRequest(namespace=client.namespace, caller="shop")
        failed = round(2 * percent * failing)
        for version, calls, code, where in (
            (NEW, 2 * percent - failed, 0, bucket), (NEW, failed, 14, 5), (OLD, 200 - 2 * percent, 0, 20),
        ):  # fmt: skip
            if calls:
                row = request.outcomes.add(service=service, version=version, status_code=code, count=calls)
                row.latency_buckets[where] = calls
        await client.call(lambda stubs: stubs.discovery.ReportOutcomes, request, discovery_pb2.ReportOutcomesResponse)
        await asyncio.sleep(0.05)


async def until(client: Any, service: str, wanted: Callable[[Release], bool]) -> Release:
    async with asyncio.timeout(30):
        while True:
            found: Release = await client.get_release(service)
            if wanted(found):
                return found
            await asyncio.sleep(0.05)


async def test_a_canary_goes_all_the_way(client: Any, server: Server) -> None:
    async with called(server.address, "good", namespace=client.namespace):
        with pytest.raises(ReleaseNotFound):
            await client.get_release("good")
        started = await client.start_release("good", "^2", steps=STEPS, reason="fast and new")
        assert (started.phase, started.percent, started.baseline) == (ReleasePhase.RUNNING, 10, BASELINE)
        assert (started.author, started.reason, started.steps) == ("loopback", "fast and new", tuple(STEPS))
        with pytest.raises(ReleaseRunning):
            await client.start_release("good", "^1")
        done = await until(client, "good", lambda one: one.phase is not ReleasePhase.RUNNING)
        assert (done.phase, done.percent, done.step, done.author) == (ReleasePhase.COMPLETED, 100, 2, "trunkline")
        assert done.gate is not None
        assert done.gate.verdict is GateVerdict.GOOD
        assert done.gate.released.calls > 100
        assert [one.service for one in await client.releases()] == ["good"]
        with pytest.raises(ReleaseEnded):
            await client.promote_release("good")
        aborted = await client.abort_release("good", reason="a customer complains")
        assert (aborted.phase, aborted.percent, aborted.reason) == (ReleasePhase.ABORTED, 0, "a customer complains")


@pytest.mark.parametrize(("failing", "bucket"), [(0.3, 20), (0, 45)], ids=["failing", "slow"])
async def test_a_worse_one_goes_back(server: Server, failing: float, bucket: int) -> None:
    namespace = f"worse-{bucket}"
    async with called(server.address, "bad", namespace=namespace, failing=failing, bucket=bucket) as client:
        gate = ReleaseGate(minimum_calls=200, max_latency_increase_percent=100)
        await client.start_release("bad", "^2", steps=STEPS, gate=gate)
        done = await until(client, "bad", lambda one: one.phase is not ReleasePhase.RUNNING)
        assert (done.phase, done.percent, done.author) == (ReleasePhase.ROLLED_BACK, 0, "trunkline")
        assert done.gate is not None
        assert done.gate.verdict is GateVerdict.WORSE
        assert done.gate.released.calls >= 200
        types: list[str] = []
        async with client.subscribe(
            filters=("trunkline.release.*",), stream="changes", start="earliest", acknowledge=False
        ) as told:
            async with asyncio.timeout(20):
                while "trunkline.release.rolled_back" not in types:
                    delivery = await told.next()
                    assert delivery is not None
                    event = delivery.event
                    types.append(event.type)
        assert types[0] == "trunkline.release.started"
        assert (event.subject, event.json_data()["gate"]["verdict"]) == ("bad", "VERDICT_WORSE")


async def test_sigkill_in_the_middle_and_it_goes_on(tmp_path: Path) -> None:
    with serving(tmp_path, *often(tmp_path)) as server:
        async with called(server.address, "orders", namespace="kill") as client:
            await client.start_release("orders", "^2", steps=STEPS)
            for percent in (10, 50, 100):
                seen = await until(client, "orders", lambda one, percent=percent: one.percent >= percent)  # type: ignore[misc]
                server.kill()
                server.start()
                again = await client.get_release("orders")
                assert again.step >= seen.step
                assert again.started_at == seen.started_at
            done = await until(client, "orders", lambda one: one.phase is not ReleasePhase.RUNNING)
            assert done.phase is ReleasePhase.COMPLETED
            server.kill()
            server.start()
            assert await client.get_release("orders") == done


async def test_what_is_refused_names_the_field(client: Any, server: Server) -> None:
    for version, steps, field in (("^2", STEPS, "release.version"), ("^2", [101], "release.steps[0].percent")):
        with pytest.raises(InvalidArgument) as refused:
            await client.start_release("nobody", version, steps=steps)
        assert [violation.field for violation in refused.value.violations] == [field]


async def test_the_command_line(server: Server) -> None:
    def run(*arguments: str) -> Any:
        done = trunkline("--json", "-n", "cli", "release", *arguments, address=server.address)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    async with called(server.address, "cart", namespace="cli") as client:
        run_ = asyncio.to_thread
        started = await run_(
            run, "start", "cart", "^2", "--steps", "5m:90s,25m,100", "--hold", "2m", "--reason", "new year",
            "--minimum-calls", "10", "--max-success-rate-drop", "0.5", "--no-data-after", "1h", "--sticky-header", "user",
        )  # fmt: skip
        assert (started["phase"], started["percent"], started["steps"]) == ("RUNNING", 5, "5m,25m,100")
        await until(client, "cart", lambda one: one.gate is not None and one.gate.verdict is GateVerdict.GOOD)
        kept = await client.get_release("cart")
        assert [(step.hold_s, step.manual) for step in kept.steps] == [(90, True), (120, True), (120, False)]
        assert (await run_(run, "promote", "cart", "--reason", "looks good"))["percent"] == 25
        assert (await run_(run, "pause", "cart"))["phase"] == "PAUSED"
        assert (await run_(run, "resume", "cart"))["phase"] == "RUNNING"
        text = await run_(trunkline, "-n", "cli", "release", "status", "cart", address=server.address)
        assert "SUCCESS RATE" in text.stdout
        assert {"RUNNING", "5m,25m,100", "100.00%"} <= set(text.stdout.split())
        listed = await run_(trunkline, "-n", "cli", "release", "list", address=server.address)
        assert "RUNNING" in listed.stdout
        assert (await run_(run, "abort", "cart"))["phase"] == "ABORTED"
        wrong = await run_(trunkline, "release", "start", "cart", "^2", "--steps", "five", address=server.address)
        assert (wrong.returncode, "--steps" in wrong.stderr) == (2, True)


async def test_buckets_that_do_not_add_up_are_refused(server: Server) -> None:
    request = discovery_pb2.ReportOutcomesRequest(namespace="default")
    request.outcomes.add(service="orders", count=5).latency_buckets[3] = 4
    async with connect(server.address, options=OPTIONS) as client:
        with pytest.raises(InvalidArgument) as refused:
            await client.call(
                lambda stubs: stubs.discovery.ReportOutcomes, request, discovery_pb2.ReportOutcomesResponse
            )
    assert [violation.field for violation in refused.value.violations] == ["outcomes[0].latency_buckets"]


async def test_who_may(tmp_path: Path) -> None:
    admin = init(tmp_path / "control")
    ca = tmp_path / "control" / "ca.pem"
    with serving(tmp_path, "--config", str(tmp_path / "control" / "trunkline.toml")) as server:

        def dial(role: str, *options: str) -> Any:
            as_admin = ("--ca", str(ca), "--token", admin, "--json", "token", "create", "--role", role)
            made = json.loads(trunkline(*as_admin, *options, address=server.address).stdout)
            return connect(server.address, tls=Tls.from_files(ca=ca), token=made["secret"], namespace="shop")

        async with dial("reader") as reader, dial("service") as service, dial("admin") as owner:
            for version in (OLD, NEW):
                await service.register("orders", port=8080, host="10.0.0.1", version=version)
            for who in (reader, service):
                with pytest.raises(PermissionDenied):
                    await who.start_release("orders", "^2")
            started = await owner.start_release("orders", "^2")
            assert started.author.startswith("token/")
            assert await reader.get_release("orders") == started
            for who in (reader, service):
                with pytest.raises(PermissionDenied):
                    await who.promote_release("orders")
            async with dial("reader", "--for-namespace", "other") as other:
                with pytest.raises(PermissionDenied):
                    await other.get_release("orders", namespace="shop")
                assert await other.releases(namespace="other") == ()
