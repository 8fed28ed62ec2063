"""Metadata between the wire and the shape that grpcio gives it.

Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md (Custom-Metadata, Status-Message).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from typing import NamedTuple

Headers = list[tuple[bytes, bytes]]
Metadata = Iterable[tuple[str, str | bytes]]

_BINARY = "-bin"
_KEY = re.compile(r"[0-9a-z_.-]+")
_VALUE = re.compile(r"[\x20-\x7e]*")
_ESCAPED = re.compile(rb"[^\x20-\x24\x26-\x7e]")
_RESERVED = "grpc-"


class Metadatum(NamedTuple):
    """One pair; the value is bytes if the key ends in -bin."""

    key: str
    value: str | bytes


class MalformedMetadata(ValueError):
    """A peer's metadata breaks the rules."""


def decoded(headers: Headers) -> tuple[Metadatum, ...]:
    """What a handler sees. MalformedMetadata."""
    found: list[Metadatum] = []
    for name, value in headers:
        key = name.decode("latin-1")
        if key.endswith(_BINARY):
            # Several values under one key may come joined.
            found.extend(Metadatum(key, _from_base64(key, part)) for part in value.split(b","))
        else:
            found.append(Metadatum(key, value.decode("latin-1")))
    return tuple(found)


def encoded(metadata: Metadata) -> Headers:
    """As headers. ValueError for a key or value that cannot be sent, TypeError for what is neither text nor bytes."""
    found = []
    for key, value in metadata:
        name = key.lower()
        is_free = _KEY.fullmatch(name) and not name.startswith(_RESERVED)
        if not is_free and name != "grpc-status-details-bin":
            raise ValueError(f"metadata key {key!r} cannot be sent")
        if name.endswith(_BINARY):
            if not isinstance(value, bytes):
                raise TypeError(f"metadata {key!r} must be bytes, not {type(value).__name__}")
            found.append((name.encode(), base64.b64encode(value).rstrip(b"=")))
            continue
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        if not _VALUE.fullmatch(text):
            raise ValueError(f"metadata {key!r} has a character that cannot be sent")
        found.append((name.encode(), text.encode()))
    return found


def percent_encoded(text: str) -> bytes:
    """A status message for the header grpc-message."""
    return _ESCAPED.sub(lambda found: b"%%%02X" % found[0][0], text.encode("utf-8", "replace"))


def _from_base64(key: str, value: bytes) -> bytes:
    try:
        return base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except binascii.Error as error:
        raise MalformedMetadata(f"metadata {key} is not base64") from error
