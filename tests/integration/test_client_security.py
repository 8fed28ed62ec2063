"""The SDK against a real server with TLS, tokens, roles and client certificates, on both faces."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest
from integration.processes import serving, trunkline

from trunkline.client import ClientOptions, Event, Tls, connect, connect_sync
from trunkline.core.errors import PermissionDenied, StreamNotFound, Unauthenticated, Unreachable
from trunkline.server.security.authority import Certificate, make_authority, make_client_certificate

QUICK = ClientOptions(timeout_s=1.5)


class Secured(NamedTuple):
    """A server made by `trunkline init`, and what its clients are given."""

    address: str
    tls: Tls
    service: str
    """A token."""
    reader: str


def init(folder: Path) -> str:
    """The admin's token."""
    done = trunkline("--json", "init", str(folder), "--host", "localhost", "--listen", "127.0.0.1:0")
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["admin token, shown only now"])


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    base = tmp_path_factory.mktemp("secured")
    folder = base / "control"
    admin = init(folder)
    with serving(base, "--config", str(folder / "trunkline.toml")) as server:
        as_admin = ("--ca", str(folder / "ca.pem"), "--token", admin, "--json")
        made = [
            json.loads(trunkline(*as_admin, "token", "create", "--role", role, address=server.address).stdout)
            for role in ("service", "reader")
        ]
        yield Secured(server.address, Tls.from_files(ca=folder / "ca.pem"), made[0]["secret"], made[1]["secret"])


async def test_a_service_registers_watches_and_publishes_over_tls(secured: Secured) -> None:
    async with connect(secured.address, tls=secured.tls, token=secured.service, namespace="tls") as trunkline:
        async with await trunkline.register("cart", host="10.0.0.7", port=80):
            view = await trunkline.watch("cart")
            assert [one.instance.endpoints[0].host for one in view.instances] == ["10.0.0.7"]
        published = await trunkline.publish(Event(type="order.placed", id="1"))
        async with trunkline.subscribe("billing", start="earliest") as deliveries:
            delivery = await asyncio.wait_for(deliveries.next(), 10)
            assert delivery is not None
            assert delivery.offset == published.events[0].offset
            delivery.ack()


def test_the_blocking_face_speaks_tls_as_well(secured: Secured) -> None:
    with connect_sync(secured.address, tls=secured.tls, token=secured.service, namespace="tls-sync") as trunkline:
        registration = trunkline.register("cart", host="10.0.0.8", port=80)
        assert len(trunkline.watch("cart").instances) == 1
        registration.close()


async def test_a_call_without_or_with_a_wrong_token_is_refused_at_once(secured: Secured) -> None:
    for token in (None, "tl_nobody_0000", secured.service[:-1] + ("a" if secured.service[-1] != "a" else "b")):
        async with connect(secured.address, tls=secured.tls, token=token) as trunkline:
            with pytest.raises(Unauthenticated):
                await asyncio.wait_for(trunkline.publish(Event(type="a")), 5)


async def test_a_server_of_another_authority_or_name_is_not_talked_to(secured: Secured) -> None:
    other = make_authority("other", now=datetime.now(UTC)).certificate
    wrong = Tls(ca=secured.tls.ca, server_name="elsewhere.example")
    for tls in (Tls(ca=other), wrong, None):
        async with connect(secured.address, tls=tls, token=secured.service, options=QUICK, insecure=True) as trunkline:
            with pytest.raises(Unreachable):
                await trunkline.publish(Event(type="a"))


async def test_a_reader_reads_and_makes_nothing(secured: Secured) -> None:
    async with (
        connect(secured.address, tls=secured.tls, token=secured.reader, namespace="quiet") as reader,
        connect(secured.address, tls=secured.tls, token=secured.service, namespace="quiet") as service,
    ):
        with pytest.raises(PermissionDenied):
            await reader.publish(Event(type="a"))
        early = reader.subscribe(start="earliest")
        with pytest.raises(StreamNotFound):
            await asyncio.wait_for(early.next(), 10)
        await service.publish(Event(type="a", id="1"))
        async with reader.subscribe(start="earliest") as deliveries:
            delivery = await asyncio.wait_for(deliveries.next(), 10)
            assert delivery is not None
            assert delivery.event.id == "1"
        allowed = reader.subscribe(start="earliest")
        assert await asyncio.wait_for(allowed.next(), 10) is not None
        durable = reader.subscribe("mine")
        with pytest.raises(PermissionDenied):
            await asyncio.wait_for(durable.next(), 10)
        await service.publish(Event(type="a", id="2"))  # what is not allowed ends alone
        delivery = await asyncio.wait_for(allowed.next(), 10)
        assert delivery is not None
        assert delivery.event.id == "2"


GRANT = """
[[security.certificates]]
identity = "spiffe://shop/*"
role = "service"
namespaces = ["shop"]
"""


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    base = tmp_path_factory.mktemp("mutual")
    folder = base / "control"
    init(folder)
    settings = folder / "trunkline.toml"
    text = settings.read_text().replace("[tls]\n", f'[tls]\nclient_authority = "{folder}/ca.pem"\n') + GRANT
    settings.write_text(text)
    with serving(base, "--config", str(settings)) as server:
        yield server.address, folder


def tls_of(folder: Path, identity: str) -> Tls:
    """What a client of this identity connects with."""
    ca = (folder / "ca.pem").read_bytes()
    issued = make_client_certificate(Certificate(ca, (folder / "ca.key").read_bytes()), identity, now=datetime.now(UTC))
    return Tls(ca=ca, certificate=issued.certificate, key=issued.key)


async def test_a_certificate_is_enough_and_no_more_than_it_grants(mutual: tuple[str, Path]) -> None:
    address, folder = mutual
    async with connect(address, tls=tls_of(folder, "spiffe://shop/billing"), namespace="shop") as trunkline:
        assert (await trunkline.publish(Event(type="order.paid"))).events
        with pytest.raises(PermissionDenied):
            await trunkline.publish(Event(type="order.paid"), namespace="other")
    async with connect(address, tls=tls_of(folder, "spiffe://bank/teller"), namespace="shop") as trunkline:
        with pytest.raises((PermissionDenied, Unauthenticated)):
            await trunkline.publish(Event(type="order.paid"))


async def test_without_a_certificate_there_is_no_connection(mutual: tuple[str, Path]) -> None:
    address, folder = mutual
    tls = Tls.from_files(ca=folder / "ca.pem")
    async with connect(address, tls=tls, namespace="shop", options=QUICK) as trunkline:
        with pytest.raises(Unreachable):
            await trunkline.publish(Event(type="order.paid"))
