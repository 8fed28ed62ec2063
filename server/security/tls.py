"""TLS of the gRPC listener, from PEM files."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc

from trunkline.core.errors import InvalidArgument

from .config import TlsConfig


def server_context(config: TlsConfig) -> ssl.SSLContext:
    """An SSL context of these files. InvalidArgument, in one line, when one cannot be read or they do not fit."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    _read("tls.certificate", config.certificate)
    _read("tls.key", config.key)
    try:
        context.load_cert_chain(config.certificate, config.key, password="")
    except ssl.SSLError as error:
        raise InvalidArgument.of(
            "tls.key", f"does not fit tls.certificate ({error.reason})", str(config.key)
        ) from error
    if config.client_authority is not None:
        _read("tls.client_authority", config.client_authority)
        try:
            context.load_verify_locations(config.client_authority)
        except ssl.SSLError as error:
            rule = f"is no certificate in PEM ({error.reason})"
            raise InvalidArgument.of("tls.client_authority", rule, str(config.client_authority)) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def server_credentials(config: TlsConfig) -> grpc.ServerCredentials:
    """The same for grpcio, checked the same way first: grpcio itself would only say that it could not bind."""
    server_context(config)
    authority = None if config.client_authority is None else config.client_authority.read_bytes()
    return grpc.ssl_server_credentials(
        [(config.key.read_bytes(), config.certificate.read_bytes())],
        root_certificates=authority,
        require_client_auth=authority is not None,
    )


def _read(field: str, path: Path) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise InvalidArgument.of(field, f"cannot be read ({error.strerror})", str(path)) from error
