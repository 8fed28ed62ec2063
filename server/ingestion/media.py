"""Media types, as far as the binding looks at them (RFC 2045, 5.1)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEDIA_TYPE = re.compile(rf"({_TOKEN}/{_TOKEN})[ \t]*(;[\x20-\x7e\t]*)?")
_CHARSET = re.compile(rf';[ \t]*charset[ \t]*=[ \t]*"?({_TOKEN})"?', re.I)
_UNICODE = frozenset({"", "utf-8", "utf8", "us-ascii"})
"""Charsets whose text is UTF-8; empty: none is named."""


class MediaType(NamedTuple):
    """What a media type says."""

    name: str
    """Type and subtype in lower case."""
    charset: str
    """In lower case; empty if it is not said."""

    @property
    def is_json(self) -> bool:
        """Whether it declares JSON: */json or */*+json (CloudEvents' JSON format, 3.1.1)."""
        subtype = self.name.partition("/")[2]
        return subtype == "json" or subtype.endswith("+json")

    @property
    def is_unicode(self) -> bool:
        """Whether text of it is UTF-8, as far as it says."""
        return self.charset in _UNICODE

    @property
    def is_text(self) -> bool:
        """Whether it declares text that is UTF-8, as far as it says."""
        return (self.is_json or self.name.startswith("text/")) and self.is_unicode


JSON = MediaType("application/json", "")
KNOWN_MAX: Final = 256
"""Media types that are remembered: a publisher's events mostly have the same."""


@lru_cache(KNOWN_MAX)
def media_type(text: str) -> MediaType | None:
    """What a media type says; None if it is none."""
    found = _MEDIA_TYPE.fullmatch(text)
    if found is None:
        return None
    charset = _CHARSET.search(found[2] or "")
    return MediaType(found[1].lower(), "" if charset is None else charset[1].lower())
