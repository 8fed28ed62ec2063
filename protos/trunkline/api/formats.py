"""The forms of strings that rules.proto names: for each a test, how it is told to people, and the longest that passes.

Every form bounds the length, so that a field with a form needs no other limit.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Final, NamedTuple

import semantic_version

from trunkline.core.fanout import filter_is_valid, topic_is_valid
from trunkline.core.ranges import RANGE_BYTES_MAX, parse_range

from .v1 import rules_pb2

STREAM_CHARACTERS_MAX = 128
VERSION_CHARACTERS_MAX = 128
HOST_CHARACTERS_MAX = 253
ANSWERS_REMEMBERED_MAX = 4_096
"""Strings whose answer is kept for forms that are slow to test; each is short, see above."""

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST_NAME = re.compile(
    r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.?", re.I
)
# A name whose last label looks like a number is read as an IPv4 address by resolvers, "0" and "0x0" as 0.0.0.0.
_ENDS_IN_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?", re.I)
_STREAM = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")

Test = Callable[[str], object]
"""Takes a string; true when it has the form."""


class Form(NamedTuple):
    """One form of strings."""

    accepts: Test
    rule: str


def is_stream(text: str) -> bool:
    """DNS labels separated by dots."""
    return len(text) <= STREAM_CHARACTERS_MAX and _STREAM.fullmatch(text) is not None


@lru_cache(ANSWERS_REMEMBERED_MAX)
def _is_version(text: str) -> bool:
    # The library's patterns take a final newline and any Unicode digit.
    return text.isascii() and text.isprintable() and semantic_version.validate(text)


def is_version(text: str) -> bool:
    """A semantic version."""
    return len(text) <= VERSION_CHARACTERS_MAX and _is_version(text)


def is_version_range(text: str) -> bool:
    """A range of semantic versions in npm's syntax."""
    try:
        parse_range(text)
    except ValueError:
        return False
    return True


@lru_cache(ANSWERS_REMEMBERED_MAX)
def _is_host(text: str) -> bool:
    if ":" not in text and not _ENDS_IN_NUMBER.fullmatch(text):
        return _HOST_NAME.fullmatch(text) is not None
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:  # means something on one machine only
            return False
        address = address.ipv4_mapped or address
    return not address.is_unspecified


def is_host(text: str) -> bool:
    """A host name or an address that is not a wildcard."""
    return len(text) <= HOST_CHARACTERS_MAX and _is_host(text)


FORMS: Final[dict[int, Form]] = {
    rules_pb2.FORMAT_DNS_LABEL: Form(
        re.compile(_LABEL).fullmatch,
        "must be a DNS label: lower-case letters, digits and '-', at most 63 characters",
    ),
    rules_pb2.FORMAT_ID: Form(
        re.compile(r"[A-Za-z0-9._:@/-]{1,128}").fullmatch,
        "must consist of letters, digits and ._:@/-, at most 128 characters",
    ),
    rules_pb2.FORMAT_VERSION: Form(
        is_version, f"must be a semantic version such as 1.4.2, at most {VERSION_CHARACTERS_MAX} characters"
    ),
    rules_pb2.FORMAT_VERSION_RANGE: Form(
        is_version_range, f"must be a range of versions such as ^1.2, at most {RANGE_BYTES_MAX} characters"
    ),
    rules_pb2.FORMAT_TOPIC: Form(
        topic_is_valid, "must be words separated by dots, at most 256 bytes and 16 words, without white space, * and >"
    ),
    rules_pb2.FORMAT_TOPIC_FILTER: Form(
        filter_is_valid, "must be a topic in which * stands for one word and a final > for one or more"
    ),
    rules_pb2.FORMAT_HOST: Form(
        is_host,
        f"must be a host name or an address, not a wildcard, at most {HOST_CHARACTERS_MAX} characters",
    ),
    rules_pb2.FORMAT_LABEL_KEY: Form(
        re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}").fullmatch,
        "must consist of letters, digits and ._/-, begin with a letter or digit, at most 63 characters",
    ),
    rules_pb2.FORMAT_STREAM: Form(
        is_stream, f"must be DNS labels separated by dots, at most {STREAM_CHARACTERS_MAX} characters"
    ),
    rules_pb2.FORMAT_METADATA_KEY: Form(
        re.compile(r"(?!.*-bin$)[a-z0-9._-]{1,128}").fullmatch,
        "must be a metadata key: lower-case letters, digits and ._-, not ending in -bin, at most 128 characters",
    ),
}
"""By trunkline.api.v1.Format."""
