"""Credentials over real sockets: tokens, certificates, loopback, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from integration.chain_server import Running, refusal, register_request, running
from integration.transports import with_tls

from trunkline.api.journal.v1 import control_pb2
from trunkline.api.v1 import admin_pb2, discovery_pb2, registry_pb2
from trunkline.core.errors import PermissionDenied, Unauthenticated
from trunkline.core.records import Record
from trunkline.server.security.authority import (
    Certificate,
    make_authority,
    make_client_certificate,
    make_server_certificate,
)
from trunkline.server.security.config import CertificateGrant, SecurityConfig, TlsConfig
from trunkline.server.security.principal import Role, Via
from trunkline.server.security.tokens import new_secret
from trunkline.server.security.tokens_fold import TOKEN_CREATED, TOKEN_REVOKED, token_key

EACH_TRANSPORT = True

NOW = datetime.now(UTC)


def add_token(server: Running, token_id: str, role: admin_pb2.Role.ValueType, **fields: object) -> str:
    """Make a token as the journal would have it."""
    secret = new_secret(token_id, bytes)
    body = control_pb2.TokenCreated(
        token=admin_pb2.Token(id=token_id, role=role, **fields),  # type: ignore[arg-type]
        secret_hash=secret.hash,
    )
    server.tokens.apply(
        Record(offset=1, time_ns=1, topic=TOKEN_CREATED, key=token_key(token_id), body=body.SerializeToString())
    )
    return secret.token


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


async def test_a_token_makes_the_principal() -> None:
    async with running(loopback_is_open=False) as server:
        token = add_token(server, "svc", admin_pb2.ROLE_SERVICE, namespaces=["shop"])
        await server.registry_stub.Register(register_request(), metadata=bearer(token))
        [principal] = server.registry.principals
        assert (principal.name, principal.role, principal.via) == ("token/svc", Role.SERVICE, Via.TOKEN)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await server.registry_stub.Register(register_request(namespace="other"), metadata=bearer(token))
        assert failed.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert isinstance(refusal(failed.value), PermissionDenied)


async def test_a_reader_may_not_register_but_resolve() -> None:
    async with running(loopback_is_open=False) as server:
        metadata = bearer(add_token(server, "r", admin_pb2.ROLE_READER))
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await server.registry_stub.Register(register_request(), metadata=metadata)
        assert failed.value.code() is grpc.StatusCode.PERMISSION_DENIED
        await server.discovery_stub.Resolve(
            discovery_pb2.ResolveRequest(namespace="shop", service="cart"), metadata=metadata
        )


async def test_a_request_that_was_answered_to_one_is_still_refused_to_another() -> None:
    async with running(loopback_is_open=False) as server:
        shop, office = (
            bearer(add_token(server, name, admin_pb2.ROLE_READER, namespaces=[name])) for name in ("shop", "office")
        )
        request = discovery_pb2.ResolveRequest(namespace="shop", service="cart")
        for _ in range(3):
            await server.discovery_stub.Resolve(request, metadata=shop)
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await server.discovery_stub.Resolve(request, metadata=office)
            assert failed.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_by_name_a_registration_is_an_operators() -> None:
    async with running(loopback_is_open=False) as server:
        metadata = bearer(add_token(server, "svc", admin_pb2.ROLE_SERVICE))
        named = registry_pb2.RegistrationRef(namespace="shop", service="cart", instance_id="c")
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await server.registry_stub.Deregister(registry_pb2.DeregisterRequest(registration=named), metadata=metadata)
        assert failed.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_without_credentials_nothing_but_health_is_answered() -> None:
    async with running(loopback_is_open=False) as server:
        for call in (
            server.registry_stub.Register(register_request()),
            server.registry_stub.Register(registry_pb2.RegisterRequest()),  # not even told what is wrong with it
        ):
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await call
            assert isinstance(refusal(failed.value), Unauthenticated)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await server.registry_stub.KeepAlive().read()
        assert failed.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("header", ["Bearer tl_svc_wrong", "Bearer ", "Basic dXNlcjpwdw==", "Bearer tl_other_x", "x"])
async def test_bad_credentials_are_not_passed_over_for_loopback(header: str) -> None:
    async with running(loopback_is_open=True) as server:
        add_token(server, "svc", admin_pb2.ROLE_SERVICE)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await server.registry_stub.Register(register_request(), metadata=(("authorization", header),))
        assert isinstance(refusal(failed.value), Unauthenticated)


async def test_a_revoked_token_ends_at_once_although_it_was_remembered() -> None:
    async with running(loopback_is_open=False) as server:
        metadata = bearer(add_token(server, "svc", admin_pb2.ROLE_SERVICE))
        await server.registry_stub.Register(register_request(), metadata=metadata)
        server.tokens.apply(Record(offset=2, time_ns=2, topic=TOKEN_REVOKED, key=token_key("svc"), body=b""))
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await server.registry_stub.Register(register_request(), metadata=metadata)
        assert isinstance(refusal(failed.value), Unauthenticated)


def write(folder: Path, name: str, certificate: Certificate) -> tuple[Path, Path]:
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    paths[0].write_bytes(certificate.certificate)
    paths[1].write_bytes(certificate.key)
    return paths


async def test_tls_with_a_token(tmp_path: Path) -> None:
    authority = make_authority("Trunkline test", now=NOW)
    certificate, key = write(tmp_path, "server", make_server_certificate(authority, ["127.0.0.1"], now=NOW))
    listener = with_tls(TlsConfig(certificate=certificate, key=key))
    credentials = grpc.ssl_channel_credentials(authority.certificate)
    async with running(loopback_is_open=False, listener=listener, channel_credentials=credentials) as server:
        metadata = bearer(add_token(server, "svc", admin_pb2.ROLE_SERVICE))
        assert (await server.registry_stub.Register(register_request(), metadata=metadata)).lease_id == 7
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await server.registry_stub.Register(register_request())
        assert failed.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("identity", "role"),
    [("spiffe://shop.example/cart", Role.SERVICE), ("operator", Role.ADMIN), ("stranger", None)],
)
async def test_mutual_tls_makes_the_principal(tmp_path: Path, identity: str, role: Role | None) -> None:
    authority = make_authority("Trunkline test", now=NOW)
    certificate, key = write(tmp_path, "server", make_server_certificate(authority, ["127.0.0.1"], now=NOW))
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    tls = TlsConfig(certificate=certificate, key=key, client_authority=tmp_path / "ca.pem")
    client = make_client_certificate(authority, identity, now=NOW)
    security = SecurityConfig(
        certificates=(
            CertificateGrant(identity="spiffe://shop.example/*", role="service", namespaces=("shop",)),
            CertificateGrant(identity="operator", role="admin"),
        )
    )
    async with running(
        security=security,
        loopback_is_open=True,
        listener=with_tls(tls),
        channel_credentials=grpc.ssl_channel_credentials(authority.certificate, client.key, client.certificate),
    ) as server:
        if role is None:
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await server.registry_stub.Register(register_request())
            assert isinstance(refusal(failed.value), Unauthenticated)
            return
        await server.registry_stub.Register(register_request())
        [principal] = server.registry.principals
        assert (principal.name, principal.role) == (f"certificate/{identity}", role)


async def test_mutual_tls_refuses_clients_of_other_authorities(tmp_path: Path) -> None:
    authority, other = make_authority("Trunkline test", now=NOW), make_authority("Other", now=NOW)
    certificate, key = write(tmp_path, "server", make_server_certificate(authority, ["127.0.0.1"], now=NOW))
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    tls = TlsConfig(certificate=certificate, key=key, client_authority=tmp_path / "ca.pem")
    client = make_client_certificate(other, "operator", now=NOW)
    async with running(
        listener=with_tls(tls),
        channel_credentials=grpc.ssl_channel_credentials(authority.certificate, client.key, client.certificate),
    ) as server:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await server.registry_stub.Register(register_request())
        assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
