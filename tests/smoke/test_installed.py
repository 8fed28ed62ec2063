"""What a user gets who installs the wheel: nothing of a checkout may be importable when this runs."""

from __future__ import annotations

import importlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points, files, version
from pathlib import Path

import pytest

from trunkline.core.errors import NotSupported

SCRIPTS = Path(sys.executable).parent
READY = re.compile(rb"is ready: gRPC on (\S+)")

NEED_EXTRAS = {"trunkline.client.outbox._postgres": r"trunkline\[postgres\]"}
"""Modules that say which extra they need."""

pytestmark = pytest.mark.skipif(
    "SMOKE_TESTS" not in os.environ, reason="runs against the installed wheel: `make smoke`"
)


def installed() -> list[str]:
    found = files("trunkline")
    assert found is not None
    return [str(path) for path in found]


def trunkline(*arguments: str, address: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **({"TRUNKLINE_ADDRESS": address} if address else {})}
    return subprocess.run(
        [SCRIPTS / "trunkline", *arguments], capture_output=True, text=True, timeout=60, env=environment
    )


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    data = tmp_path_factory.mktemp("data")
    with subprocess.Popen(
        [SCRIPTS / "trunkline", "serve", "--listen", "127.0.0.1:0", "--http-listen", "", "--data", data],
        stdout=subprocess.PIPE,
    ) as server:
        assert server.stdout is not None
        found = READY.search(server.stdout.readline())
        assert found, "the server said something else"
        yield found[1].decode().rstrip(",")
        server.terminate()
        assert server.wait(20) == 0


def test_it_is_not_a_checkout() -> None:
    for name in ("trunkline.core", "trunkline.api", "trunkline.client", "trunkline.server"):
        (where,) = importlib.import_module(name).__path__
        assert Path(where).is_relative_to(sys.prefix), f"{name} comes from {where}"


def test_every_portion_is_there_and_typed() -> None:
    names = installed()
    for portion in ("api", "cli", "client", "core", "server"):
        assert f"trunkline/{portion}/py.typed" in names
    assert [name for name in names if name.endswith(".proto")], "the contract"
    assert "trunkline/api/v1/registry_pb2.pyi" in names
    assert "trunkline/api/v1/registry_pb2_grpc.py" in names


def test_every_module_imports() -> None:
    modules = [
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in installed()
        if name.startswith("trunkline/") and name.endswith(".py")
    ]
    assert len(modules) > 100
    for module in modules:
        if module in NEED_EXTRAS:
            with pytest.raises(NotSupported, match=NEED_EXTRAS[module]):
                importlib.import_module(module)
        elif not module.endswith("__main__"):
            importlib.import_module(module)


def test_every_stub_has_its_compiled_module() -> None:
    of_ours = re.compile(r"trunkline/(?:core|server)/[\w/]+\.pyi")
    stubs = {name.removesuffix(".pyi") for name in installed() if of_ours.fullmatch(name)}
    compiled = {name.split(".")[0] for name in installed() if name.endswith(".so")}
    assert stubs == compiled
    for name in compiled:
        assert importlib.import_module(name.replace("/", ".")).__file__


def test_nothing_that_is_not_for_users_is_there() -> None:
    foreign = [
        name for name in installed() if re.search(r"(^|/)(tests|bench|examples)/|node_modules|\.c$|\.pyx$", name)
    ]
    assert not foreign
    tops = {name.split("/")[0] for name in installed() if not name.startswith("..")}
    # The last holds libnghttp2, which the wheel brings.
    assert tops == {"trunkline", f"trunkline-{version('trunkline')}.dist-info", "trunkline.libs"}


def test_the_native_transport_is_there() -> None:
    from trunkline.core.http2 import LIBRARY
    from trunkline.server.transport.choice import kind_of
    from trunkline.server.transport.config import TransportConfig

    assert re.fullmatch(r"1\.\d+\.\d+", LIBRARY)
    assert kind_of(TransportConfig()) == "native"
    with open("/proc/self/maps") as maps:
        used = {line.split()[-1] for line in maps if "libnghttp2" in line}
    assert used
    assert all("trunkline.libs" in path for path in used), used


def test_the_commands_of_the_server_are_found() -> None:
    commands = {entry.name: entry.load() for entry in entry_points(group="trunkline.commands")}
    assert {"serve", "journal", "init"} <= commands.keys()
    said = trunkline("--help").stdout
    assert all(name in said for name in commands)


def test_it_says_its_version() -> None:
    assert version("trunkline") in trunkline("--version").stdout


def test_register_publish_subscribe_and_doctor(address: str) -> None:
    again = [str(SCRIPTS / "trunkline"), "--json", "resolve", "cart"]
    done = trunkline("register", "cart", "--port", "8080", "--version", "1.4.0", "--", *again, address=address)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["endpoints"] == ["127.0.0.1:8080"]
    done = trunkline("--json", "publish", "order.placed", '{"id": 7}', "--key", "7", address=address)
    assert json.loads(done.stdout)["durability"] == "FSYNCED", done.stderr
    done = trunkline("--json", "subscribe", "order.>", "--from-start", "--count", "1", address=address)
    assert json.loads(done.stdout)["data"] == '{"id": 7}', done.stderr
    done = trunkline("doctor", address=address)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_contract_is_exported(tmp_path: Path) -> None:
    assert trunkline("protos", "export", str(tmp_path)).returncode == 0
    assert (tmp_path / "trunkline/api/v1/registry.proto").exists()


def test_a_taken_port_is_one_line(address: str, tmp_path: Path) -> None:
    done = trunkline("serve", "--listen", address, "--http-listen", "", "--data", str(tmp_path / "other"))
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert address.rpartition(":")[2] in done.stderr


PROGRAM = """
from __future__ import annotations

import asyncio

from trunkline.client import Delivery, Event, Published, View, connect, connect_sync
from trunkline.core.errors import TrunklineError
from trunkline.core.selector import Selector


async def main() -> list[str]:
    async with connect("ADDRESS", namespace="typed") as trunkline:
        await trunkline.register("cart", port=8080, version="1.4.0", labels={"team": "x"}, ttl_s=5)
        view: View = await trunkline.watch("cart", selector=Selector())
        published: Published = await trunkline.publish(Event.json(type="cart.opened", data={"id": 7}))
        seen: list[str] = [instance.instance.id for instance in view.instances]

        async def handle(delivery: Delivery) -> None:
            seen.append(delivery.event.type)

        subscription = trunkline.subscribe("billing", filters=["cart.*"], start="earliest")
        consuming = asyncio.create_task(subscription.consume(handle, concurrency=2))
        while len(seen) < 2:
            await asyncio.sleep(0.01)
        subscription.close()
        await consuming
        try:
            await trunkline.register("Not A Name", port=1)
        except TrunklineError as error:
            seen.append(error.code)
        seen.append(str(published.offsets[0]))
        return seen


def blocking() -> int:
    with connect_sync("ADDRESS", namespace="typed") as trunkline:
        published = trunkline.publish(Event(type="cart.closed"))
        return published.offsets[0]


print(asyncio.run(main())[1:], blocking())
"""


def test_a_users_program_runs_and_is_typed(address: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.replace("ADDRESS", address))
    done = subprocess.run([sys.executable, "-W", "error", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "['cart.opened', 'INVALID_ARGUMENT', '0'] 1\n", done.stderr
    pytest.importorskip("mypy", reason="mypy is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache", program],
        capture_output=True, text=True, timeout=240, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_health_is_served(address: str) -> None:
    with socket.create_connection(tuple(address.rsplit(":", 1)), timeout=5):  # type: ignore[arg-type]
        pass
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(address) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
