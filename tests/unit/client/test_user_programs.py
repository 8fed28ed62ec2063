"""mypy strict passes on programs that users write, on both faces, and finds their mistakes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

ASYNC_PROGRAM = """
import asyncio
import sqlite3

from trunkline.api.v1 import discovery_pb2, discovery_pb2_grpc
from trunkline.client import Delivery, Event, Reset, Stale, Updated, connect
from trunkline.client.outbox import Outbox, Relay


async def price(request: Event) -> Event:
    return Event.json(type="price.told", data={"of": request.json_data()})


async def handle(delivery: Delivery) -> None:
    total: int = delivery.event.json_data()["total"]
    if total < 0:
        delivery.term("negative")


async def main() -> None:
    async with connect("127.0.0.1:7400", namespace="shop", token="t") as trunkline:
        async with await trunkline.register("orders", port=50051, labels={"team": "a"}, ttl_s=5) as registration:
            await registration.declare("degraded")
            name: str = registration.instance.id
        view = await trunkline.watch("orders")
        async for change in view.changes():
            match change:
                case Reset(revision, instances):
                    first: int = revision + len(instances)
                case Updated(added=added):
                    print(name, first, [one.instance.version for one in added])
                case Stale(reason=reason):
                    print(reason.upper())
        channel = await trunkline.channel("orders", load_balancing="least_request")
        stub: discovery_pb2_grpc.DiscoveryServiceAsyncStub = discovery_pb2_grpc.DiscoveryServiceStub(channel)
        answer = await stub.ListServices(discovery_pb2.ListServicesRequest(), timeout=1.0)
        print(answer.services[0].service)
        published = await trunkline.publish(Event(type="order.placed", data=b"1", key="customer-7"))
        offsets: tuple[int, ...] = published.offsets
        async with trunkline.publisher() as publisher:
            later = await publisher.send([Event.json(type="order.placed", data={"total": 1})])
            print((await later).durability.sync, offsets)
        async for delivery in trunkline.subscribe("billing", filters=["order.>"], start="earliest"):
            delivery.ack()
        told: str = (await trunkline.request(Event(type="price.wanted"), timeout_s=1)).json_data()["of"]
        await trunkline.serve_requests(["price.*"], price, name=told)
        waits: Event = Outbox(source="/shop").add(sqlite3.connect("shop.db"), Event(type="order.placed"))
        relay = Relay(trunkline, "sqlite:///shop.db", stream=waits.topic)
        await relay.run()
        print(relay.counts.published)
        await trunkline.subscribe("mail").consume(handle, concurrency=4)


asyncio.run(main())
"""

BLOCKING_PROGRAM = """
from trunkline.client import Event, SyncDelivery, connect_sync


def price(request: Event) -> Event:
    return Event(type="price.told")


def handle(delivery: SyncDelivery) -> None:
    delivery.nack(delay_s=1.0) if delivery.attempt == 1 else delivery.ack()


with connect_sync("127.0.0.1:7400", namespace="shop") as trunkline:
    with trunkline.register("orders", port=50051) as registration:
        registration.declare("serving")
        name: str = registration.id
    instances = trunkline.watch("orders").instances
    print(name, instances[0].instance.endpoints[0].address)
    offset: int = trunkline.publish(Event(type="order.placed")).offsets[0]
    with trunkline.publisher() as publisher:
        print(publisher.send(Event(type="order.placed")).result(timeout=offset).offsets)
    for delivery in trunkline.subscribe("billing"):
        delivery.ack()
    trunkline.subscribe("mail").consume(handle, concurrency=4)
    print(trunkline.request(Event(type="price.wanted")).data, trunkline.request_counts.dropped)
    trunkline.serve_requests(["price.*"], price, name="prices")
    with trunkline.chooser("web", protocol="http") as chooser, chooser.choose() as choice:
        print(choice.endpoint.address)
"""


def mypy(tmp_path: Path, program: str) -> str:
    source = tmp_path / "program.py"
    source.write_text(program)
    settings = tmp_path / "mypy.ini"
    packages = ROOT / "build" / "pkgroot"
    path = f"mypy_path = {packages}\n" if packages.is_dir() else ""
    # In the checkout mypy would report on the SDK itself, too; that is not what is asked here.
    sdk = "[mypy-trunkline.*]\nignore_errors = true\n"
    settings.write_text(f"[mypy]\nstrict = true\nnamespace_packages = true\nexplicit_package_bases = true\n{path}{sdk}")
    command = [sys.executable, "-m", "mypy", "--config-file", str(settings), "--cache-dir", str(tmp_path), str(source)]
    return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path).stdout


def test_an_async_program_is_typed(tmp_path: Path) -> None:
    assert "Success" in mypy(tmp_path, ASYNC_PROGRAM)


def test_a_blocking_program_is_typed(tmp_path: Path) -> None:
    assert "Success" in mypy(tmp_path, BLOCKING_PROGRAM)


def test_mistakes_are_found(tmp_path: Path) -> None:
    mistakes = [
        ('trunkline.register("orders", prot=50051)', "call-arg"),
        ('trunkline.watch("orders").instances[0].adress', "attr-defined"),
        ('trunkline.channel("orders", load_balancing="fastest")', "arg-type"),
        ("trunkline.publish(b'raw')", "arg-type"),
    ]
    lines = "".join(f"    {line}\n" for line, _ in mistakes)
    said = mypy(tmp_path, f'from trunkline.client import connect_sync\nwith connect_sync("a:1") as trunkline:\n{lines}')
    for (line, code), number in zip(mistakes, range(3, 99), strict=False):
        assert any(f":{number}:" in one and f"[{code}]" in one for one in said.splitlines()), f"{line}\n{said}"
