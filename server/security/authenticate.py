"""From a call's credentials to its principal."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Protocol

from trunkline.core.clock import Clock
from trunkline.core.errors import Unauthenticated

from .config import CertificateGrant, Grant, SecurityConfig, TokenGrant
from .principal import NOBODY, Principal, Role, Via
from .tokens_fold import Token, TokensFold, token_key

TOKEN_PREFIX = "tl"
_LOOPBACK = ("ipv4:127.", "ipv6:[::1]", "ipv6:%5B::1%5D", "ipv6:[::ffff:127.", "ipv6:%5B::ffff:127.", "unix:")
_NO_HASH = bytes(32)
_ANYBODY = Principal(name="anybody", role=Role.ADMIN, via=Via.INSECURE)
_LOCAL = Principal(name="loopback", role=Role.ADMIN, via=Via.LOOPBACK)


class Peer(Protocol):
    """What is asked of a call's context."""

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]] | None: ...
    def auth_context(self) -> Mapping[str, Sequence[bytes]]: ...
    def peer(self) -> str: ...


class Authenticator:
    """Makes principals. `loopback_is_open` says whether calls from this machine need no credentials."""

    def __init__(self, config: SecurityConfig, tokens: TokensFold, clock: Clock, *, loopback_is_open: bool) -> None:
        self._config = config
        self._tokens = tokens
        self._clock = clock
        self._loopback_is_open = loopback_is_open
        self._configured = {token.key: token for token in map(_configured_token, config.tokens)}
        self._verified: dict[str, Token] = {}

    def principal(self, peer: Peer) -> Principal:
        """The caller: by token, else by certificate, else by where it is. NOBODY if by none.

        Unauthenticated when credentials are shown that are not good; they are never passed over for lesser ones.
        """
        for key, value in peer.invocation_metadata() or ():
            if key == "authorization":
                return self._of_token(value)
        if self._config.certificates:
            identity = identity_of(peer.auth_context())
            if identity:
                return self._of_certificate(identity)
        if self._config.insecure:
            return _ANYBODY
        if self._loopback_is_open and peer.peer().startswith(_LOOPBACK):
            return _LOCAL
        return NOBODY

    def _of_token(self, header: str | bytes) -> Principal:
        scheme, _, text = str(header).partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated("the metadata `authorization` must be `Bearer <token>`")
        token = self._verified.get(text)
        # A token that was revoked or made anew since is another object or none.
        if token is None or self._known(token.key) is not token:
            token = self._verify(text)
        if token.expires_at_ns and self._clock.time_ns() >= token.expires_at_ns:
            raise Unauthenticated(f"the token {token.id} has expired", token=token.id)
        return token.principal

    def _known(self, key: str) -> Token | None:
        return self._tokens.get(key) or self._configured.get(key)

    def _verify(self, text: str) -> Token:
        self._verified.pop(text, None)
        prefix, _, rest = text.partition("_")
        token_id, _, secret = rest.partition("_")
        token = self._known(token_key(token_id)) if prefix == TOKEN_PREFIX else None
        expected = _NO_HASH if token is None else token.secret_hash
        right = hmac.compare_digest(hash_of(secret), expected)
        if token is None or not right:
            raise Unauthenticated("the token is not known: it was never made here, was revoked, or is damaged")
        while len(self._verified) >= self._config.verified_tokens_max:
            del self._verified[next(iter(self._verified))]
        self._verified[text] = token
        return token

    def _of_certificate(self, identity: str) -> Principal:
        for grant in self._config.certificates:
            if _fits(grant, identity):
                return _granted(f"certificate/{identity}", grant, Via.CERTIFICATE)
        raise Unauthenticated(f"the certificate of {identity!r} is granted nothing here", identity=identity)


def hash_of(secret: str) -> bytes:
    """What is stored of a token's secret. A secret has 256 random bits, so one round of SHA-256 cannot be searched."""
    return hashlib.sha256(secret.encode()).digest()


def identity_of(auth_context: Mapping[str, Sequence[bytes]]) -> str:
    """A client certificate's SPIFFE URI, or its common name; empty without a certificate."""
    for name in auth_context.get("x509_subject_alternative_name", ()):
        if name.startswith(b"spiffe://"):
            return name.decode()
    names = auth_context.get("x509_common_name", ())
    return names[0].decode() if names else ""


def _fits(grant: CertificateGrant, identity: str) -> bool:
    if grant.identity.endswith("*"):
        return identity.startswith(grant.identity[:-1])
    return identity == grant.identity


def _granted(name: str, grant: Grant, via: Via) -> Principal:
    return Principal(
        name=name,
        role=Role[grant.role.upper()],
        namespaces=frozenset(grant.namespaces),
        topic_filters=grant.topic_filters,
        via=via,
    )


def _configured_token(grant: TokenGrant) -> Token:
    return Token(
        id=grant.id,
        principal=_granted(token_key(grant.id), grant, Via.TOKEN),
        description="from the configuration",
        created_at_ns=0,
        expires_at_ns=0,
        secret_hash=bytes.fromhex(grant.secret_sha256),
    )
