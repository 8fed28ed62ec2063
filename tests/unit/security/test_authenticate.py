"""From credentials to principals, without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from trunkline.api.journal.v1 import control_pb2
from trunkline.api.v1 import admin_pb2
from trunkline.core.clock import ManualClock
from trunkline.core.errors import Unauthenticated
from trunkline.core.records import Record
from trunkline.server.security.authenticate import Authenticator, hash_of, identity_of
from trunkline.server.security.config import CertificateGrant, SecurityConfig, TokenGrant
from trunkline.server.security.principal import NOBODY, Role, Via
from trunkline.server.security.tokens import new_secret
from trunkline.server.security.tokens_fold import TOKEN_CREATED, TokensFold, token_key


class Peer:
    """A call's context."""

    def __init__(
        self,
        token: str = "",
        *,
        certificate: Mapping[str, Sequence[bytes]] | None = None,
        peer: str = "ipv4:10.0.0.1:5",
    ) -> None:
        self._metadata = (("user-agent", "x"), *((("authorization", f"Bearer {token}"),) if token else ()))
        self._certificate = certificate or {}
        self._peer = peer

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]]:
        return self._metadata

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        return self._certificate

    def peer(self) -> str:
        return self._peer


def fold_with(
    token_id: str, secret_hash: bytes, *, fold: TokensFold | None = None, expires_at_s: int = 0
) -> TokensFold:
    fold = TokensFold() if fold is None else fold
    token = admin_pb2.Token(id=token_id, role=admin_pb2.ROLE_SERVICE)
    if expires_at_s:
        token.expires_at.seconds = expires_at_s
    body = control_pb2.TokenCreated(token=token, secret_hash=secret_hash).SerializeToString()
    fold.apply(Record(offset=1, time_ns=1, topic=TOKEN_CREATED, key=token_key(token_id), body=body))
    return fold


def authenticator(
    fold: TokensFold, *, config: SecurityConfig | None = None, clock: ManualClock | None = None, loopback: bool = False
) -> Authenticator:
    return Authenticator(config or SecurityConfig(), fold, clock or ManualClock(), loopback_is_open=loopback)


SECRET = new_secret("svc", bytes)


def test_a_token_expires_while_it_is_remembered() -> None:
    clock = ManualClock(epoch_ns=0)
    who = authenticator(fold_with("svc", SECRET.hash, expires_at_s=10), clock=clock)
    clock.advance(9_999_999_999)
    assert who.principal(Peer(SECRET.token)).name == "token/svc"
    clock.advance(1)
    with pytest.raises(Unauthenticated, match="expired"):
        who.principal(Peer(SECRET.token))


def test_a_token_made_anew_ends_the_old_secret() -> None:
    fold = fold_with("svc", SECRET.hash)
    who = authenticator(fold)
    who.principal(Peer(SECRET.token))
    newer = new_secret("svc", lambda n: b"n" * n)
    fold_with("svc", newer.hash, fold=fold)
    assert who.principal(Peer(newer.token)).role is Role.SERVICE
    with pytest.raises(Unauthenticated):
        who.principal(Peer(SECRET.token))


def test_remembered_tokens_are_bounded() -> None:
    fold, secrets = TokensFold(), []
    for index in range(10):
        secrets.append(new_secret(f"t{index}", lambda n, i=index: bytes([i]) * n))  # type: ignore[misc]
        fold_with(f"t{index}", secrets[-1].hash, fold=fold)
    who = authenticator(fold, config=SecurityConfig(verified_tokens_max=3))
    for _ in range(2):
        for index, secret in enumerate(secrets):
            assert who.principal(Peer(secret.token)).name == f"token/t{index}"
    assert len(who._verified) == 3


@pytest.mark.parametrize(
    "text",
    [
        "tl_svc_",
        "tl_svc",
        "tl__",
        "_svc_x",
        "tl_svc_" + "A" * 43 + "x",
        SECRET.token[:-1],
        "xx" + SECRET.token[2:],
        "tl",
    ],
)
def test_wrong_tokens(text: str) -> None:
    assert text != SECRET.token
    with pytest.raises(Unauthenticated):
        authenticator(fold_with("svc", SECRET.hash), loopback=True).principal(Peer(text, peer="unix:"))


def test_an_unknown_id_costs_a_hash_too(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []

    def counting(secret: str) -> bytes:
        hashed.append(secret)
        return hash_of(secret)

    monkeypatch.setattr("trunkline.server.security.authenticate.hash_of", counting)
    with pytest.raises(Unauthenticated):
        authenticator(TokensFold()).principal(Peer("tl_nobody_x"))
    assert hashed == ["x"]


def test_a_token_of_the_configuration() -> None:
    grant = TokenGrant(id="first", secret_sha256=new_secret("first", bytes).hash.hex(), role="admin")
    who = authenticator(TokensFold(), config=SecurityConfig(tokens=(grant,)))
    found = who.principal(Peer(new_secret("first", bytes).token))
    assert (found.name, found.role, found.via) == ("token/first", Role.ADMIN, Via.TOKEN)


def test_a_hash_in_the_configuration_must_be_one() -> None:
    with pytest.raises(ValueError, match="64 hexadecimal"):
        TokenGrant(id="first", secret_sha256="secret", role="admin")


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        ("ipv4:127.0.0.1:5", True),
        ("ipv4:127.9.9.9:5", True),
        ("ipv6:%5B::1%5D:5", True),
        ("ipv6:[::1]:5", True),
        ("unix:/run/trunkline.sock", True),
        ("unix:", True),
        ("ipv4:10.0.0.1:5", False),
        ("ipv4:128.0.0.1:5", False),
        ("ipv6:[::2]:5", False),
        ("ipv6:[::1:2]:5", False),
    ],
)
def test_loopback(peer: str, local: bool) -> None:
    open_to_loopback = authenticator(TokensFold(), loopback=True)
    found = open_to_loopback.principal(Peer(peer=peer))
    assert (found.via is Via.LOOPBACK) is local
    assert (found is NOBODY) is not local
    assert authenticator(TokensFold(), loopback=False).principal(Peer(peer=peer)) is NOBODY


def test_insecure_takes_anybody() -> None:
    who = authenticator(TokensFold(), config=SecurityConfig(insecure=True))
    assert who.principal(Peer()).via is Via.INSECURE


CERTIFICATE = {"x509_common_name": [b"cart"], "x509_subject_alternative_name": [b"cart.example", b"spiffe://shop/cart"]}


def test_certificates() -> None:
    grants = (
        CertificateGrant(identity="spiffe://shop/cart", role="service", namespaces=("shop",), topic_filters=("a.>",)),
        CertificateGrant(identity="spiffe://shop/*", role="reader"),
    )
    who = authenticator(TokensFold(), config=SecurityConfig(certificates=grants), loopback=True)
    found = who.principal(Peer(certificate=CERTIFICATE))
    assert (found.name, found.role, found.via) == ("certificate/spiffe://shop/cart", Role.SERVICE, Via.CERTIFICATE)
    assert (found.namespaces, found.topic_filters) == (frozenset({"shop"}), ("a.>",))
    other = {"x509_subject_alternative_name": [b"spiffe://shop/mail"]}
    assert who.principal(Peer(certificate=other)).role is Role.READER
    with pytest.raises(Unauthenticated, match="granted nothing"):
        who.principal(Peer(certificate={"x509_common_name": [b"cart"]}, peer="ipv4:127.0.0.1:1"))
    assert who.principal(Peer()) is NOBODY


def test_a_token_counts_before_a_certificate() -> None:
    grants = (CertificateGrant(identity="*", role="reader"),)
    who = authenticator(fold_with("svc", SECRET.hash), config=SecurityConfig(certificates=grants))
    assert who.principal(Peer(SECRET.token, certificate=CERTIFICATE)).via is Via.TOKEN


def test_identity() -> None:
    assert identity_of(CERTIFICATE) == "spiffe://shop/cart"
    assert identity_of({"x509_common_name": [b"cart"]}) == "cart"
    assert identity_of({"transport_security_type": [b"ssl"]}) == ""
