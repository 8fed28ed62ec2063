"""Certificates of one's own authority, and what TLS files are refused for."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from trunkline.core.errors import InvalidArgument
from trunkline.server.security.authority import (
    Certificate,
    make_authority,
    make_client_certificate,
    make_server_certificate,
    save_private,
)
from trunkline.server.security.config import TlsConfig
from trunkline.server.security.tls import server_context, server_credentials

NOW = datetime(2026, 1, 1, tzinfo=UTC)
AUTHORITY = make_authority("Trunkline of shop", now=NOW)


def names(certificate: Certificate) -> list[str]:
    parsed = x509.load_pem_x509_certificate(certificate.certificate)
    return [str(name.value) for name in parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value]


def test_a_server_certificate_is_signed_and_named() -> None:
    certificate = make_server_certificate(AUTHORITY, ["trunkline.example", "10.0.0.1", "::1"], now=NOW)
    parsed = x509.load_pem_x509_certificate(certificate.certificate)
    parsed.verify_directly_issued_by(x509.load_pem_x509_certificate(AUTHORITY.certificate))
    assert names(certificate) == ["trunkline.example", "10.0.0.1", "::1"]
    assert parsed.not_valid_before_utc <= NOW < parsed.not_valid_after_utc
    assert parsed.not_valid_after_utc - NOW <= timedelta(days=825)


def test_a_client_certificate_has_its_identity() -> None:
    assert names(make_client_certificate(AUTHORITY, "spiffe://shop/cart", now=NOW)) == ["spiffe://shop/cart"]
    parsed = x509.load_pem_x509_certificate(make_client_certificate(AUTHORITY, "operator", now=NOW).certificate)
    assert parsed.subject.rfc4514_string() == "CN=operator"


def test_every_key_is_another() -> None:
    other = make_authority("Trunkline of shop", now=NOW)
    assert other.key != AUTHORITY.key
    with pytest.raises(InvalidSignature):
        x509.load_pem_x509_certificate(
            make_client_certificate(other, "a", now=NOW).certificate
        ).verify_directly_issued_by(x509.load_pem_x509_certificate(AUTHORITY.certificate))


def test_private_files_are_the_owners_and_are_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "ca.key"
    save_private(path, b"secret")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        save_private(path, b"other")
    assert path.read_bytes() == b"secret"


def files(folder: Path, **contents: bytes) -> dict[str, Path]:
    paths = {}
    for name, content in contents.items():
        paths[name] = folder / name
        paths[name].write_bytes(content)
    return paths


def test_good_files(tmp_path: Path) -> None:
    server = make_server_certificate(AUTHORITY, ["localhost"], now=NOW)
    paths = files(tmp_path, certificate=server.certificate, key=server.key, client_authority=AUTHORITY.certificate)
    assert server_context(TlsConfig(**paths)).verify_mode.name == "CERT_REQUIRED"
    del paths["client_authority"]
    assert server_context(TlsConfig(**paths)).verify_mode.name == "CERT_NONE"


@pytest.mark.parametrize("field", ["certificate", "key", "client_authority"])
@pytest.mark.parametrize("fault", ["missing", "other"])
def test_bad_files_are_named_in_one_line(tmp_path: Path, field: str, fault: str) -> None:
    server = make_server_certificate(AUTHORITY, ["localhost"], now=NOW)
    paths = files(tmp_path, certificate=server.certificate, key=server.key, client_authority=AUTHORITY.certificate)
    if fault == "missing":
        paths[field].unlink()
    elif field == "client_authority":
        paths[field].write_bytes(b"no certificate")
    else:
        paths[field].write_bytes(getattr(make_server_certificate(AUTHORITY, ["localhost"], now=NOW), field))
    with pytest.raises(InvalidArgument) as refused:
        server_credentials(TlsConfig(**paths))
    assert "\n" not in str(refused.value)
    expected = field if fault == "missing" or field == "client_authority" else "key"
    assert refused.value.violations[0].field == f"tls.{expected}"
