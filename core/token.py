"""Resume tokens: where a stream of answers may be taken up again. Opaque to clients.

A token has one binary form: kind, version of the form, journal, three 64-bit numbers, crc32. The checksum finds
accidents (a token that was cut or altered), not attacks: a token grants nothing, and what it names is checked when it
is used.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import astuple, dataclass
from typing import ClassVar, Self

from trunkline.core.errors import TokenForeign, TokenMalformed

_FORM_VERSION = 1
_BODY = struct.Struct(">BB16sQQQ")
_CHECKSUM = struct.Struct(">I")

TOKEN_BYTES = _BODY.size + _CHECKSUM.size
"""Length of every token of this form."""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: ClassVar[int]

    journal_id: str
    """32 lower-case hexadecimal digits."""

    def __post_init__(self) -> None:
        if len(self.journal_id) != 32 or bytes.fromhex(self.journal_id).hex() != self.journal_id:
            raise ValueError(f"not a journal id: {self.journal_id!r}")
        for number in astuple(self)[1:]:
            if not 0 <= number < 1 << 64:
                raise ValueError(f"not an unsigned integer of 64 bits: {number}")

    def encode(self) -> bytes:
        """The token as clients keep it, `TOKEN_BYTES` long."""
        journal_id, *numbers = astuple(self)
        body = _BODY.pack(self.kind, _FORM_VERSION, bytes.fromhex(journal_id), *numbers)
        return body + _CHECKSUM.pack(zlib.crc32(body))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The token that `encode` gave.

        Raises TokenMalformed when it was not made by Trunkline or was damaged, TokenForeign when it is of another kind.
        """
        if len(data) != TOKEN_BYTES:
            raise TokenMalformed(f"a resume token has {TOKEN_BYTES} bytes, this one {len(data)}")
        body = data[: _BODY.size]
        if _CHECKSUM.unpack_from(data, _BODY.size) != (zlib.crc32(body),):
            raise TokenMalformed("the resume token is damaged: its checksum does not fit")
        kind, version, journal, *numbers = _BODY.unpack(body)
        if version != _FORM_VERSION:
            raise TokenMalformed(f"the resume token has form {version}; this program knows {_FORM_VERSION}")
        if kind != cls.kind:
            raise TokenForeign("the resume token is of another kind of stream")
        return cls(journal.hex(), *numbers)


@dataclass(frozen=True, slots=True)
class ControlToken(_Token):
    """Where a watch of control stands."""

    kind: ClassVar[int] = 1

    incarnation: int
    """Of the control stream."""
    revision: int
    """The last one that the client has been given."""
    scope: int
    """Hash of what is watched: a token of one watch says nothing about another."""


@dataclass(frozen=True, slots=True)
class EventToken(_Token):
    """Where a subscription of one stream stands."""

    kind: ClassVar[int] = 2

    stream: int
    """Hash of the stream's name."""
    incarnation: int
    """Of the stream."""
    offset: int
    """The next one to be delivered."""
