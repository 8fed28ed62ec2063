"""A certificate authority of one's own, and certificates by it: what a second machine needs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS = 3_650
CERTIFICATE_DAYS = 825
"""What most clients accept at most."""
CLOCK_SKEW = timedelta(minutes=5)
"""Certificates begin this much earlier, for machines whose clocks are behind."""


class Certificate(NamedTuple):
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes


def make_authority(name: str, *, now: datetime) -> Certificate:
    """A self-signed authority with a random key. `now` has a time zone."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _begun(name, key.public_key(), now, days=AUTHORITY_DAYS)
        .issuer_name(_name(name))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
    )
    return _signed(builder, key, key)


def make_server_certificate(authority: Certificate, hosts: Iterable[str], *, now: datetime) -> Certificate:
    """A certificate for a server that is reached by these host names and addresses; the first is its common name."""
    names = [_alternative(host) for host in hosts]
    assert names, "a server has a name"
    return _issue(authority, str(names[0].value), names, ExtendedKeyUsageOID.SERVER_AUTH, now)


def make_client_certificate(authority: Certificate, identity: str, *, now: datetime) -> Certificate:
    """A certificate for a client: `identity` is a spiffe:// URI or a name."""
    names: list[x509.GeneralName] = []
    if identity.startswith("spiffe://"):
        names.append(x509.UniformResourceIdentifier(identity))
    return _issue(authority, identity.rpartition("/")[2][:64], names, ExtendedKeyUsageOID.CLIENT_AUTH, now)


def save_private(path: Path, data: bytes) -> None:
    """Write a new file that only its owner can read. FileExistsError if it is there: nothing secret is overwritten."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)


def _issue(
    authority: Certificate,
    common_name: str,
    names: list[x509.GeneralName],
    purpose: x509.ObjectIdentifier,
    now: datetime,
) -> Certificate:
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    issuer_key = serialization.load_pem_private_key(authority.key, password=None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _begun(common_name, key.public_key(), now, days=CERTIFICATE_DAYS)
        .issuer_name(issuer.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _signed(builder, key, issuer_key)


def _begun(name: str, key: ec.EllipticCurvePublicKey, now: datetime, *, days: int) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _signed(
    builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey, by: ec.EllipticCurvePrivateKey
) -> Certificate:
    certificate = builder.sign(by, hashes.SHA256())
    return Certificate(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
