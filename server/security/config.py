"""What an operator says of security."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

RoleName = Literal["reader", "service", "admin"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """PEM files of a listener."""

    certificate: Path
    """The server's certificate and those between it and its authority."""
    key: Path
    """Its private key."""
    client_authority: Path | None = None
    """Given: clients must show a certificate of this authority (mutual TLS)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What one credential allows."""

    role: RoleName
    """What its holder may do; each role may do what the one before may."""
    namespaces: tuple[str, ...] = ()
    """Empty means every namespace."""
    topic_filters: tuple[str, ...] = ()
    """Empty means every topic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateGrant(Grant):
    """What a client certificate allows."""

    identity: str
    """Its SPIFFE URI, or its common name if it has none; a final `*` stands for any rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenGrant(Grant):
    """A token that the configuration knows, not the journal: the first admin's."""

    id: str
    """The second part of the token: tl_<id>_<secret>."""
    secret_sha256: str
    """SHA-256 of the third part, in hexadecimal. The secret itself stands nowhere."""

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-fA-F]{64}", self.secret_sha256):
            raise ValueError("secret_sha256 must be 64 hexadecimal digits")


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityConfig:
    """Who may call. Nothing here has a secret default."""

    insecure: bool = False
    """Take calls without TLS and without credentials on any address, as admin. For networks that nobody else is in."""
    loopback_without_credentials: bool | None = None
    """Take calls from this machine without credentials, as admin: for development. None: only while every listener is
    on loopback, because a proxy on this machine would lend that right to the world."""
    certificates: tuple[CertificateGrant, ...] = ()
    """The first whose identity fits counts; a certificate that none fits allows nothing."""
    tokens: tuple[TokenGrant, ...] = ()
    """Tokens beside those made by `trunkline token create`."""
    verified_tokens_max: int = 1_024
    """Tokens that are remembered as verified, so that their hash is not computed at each call."""
