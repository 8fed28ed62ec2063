"""Resume tokens come back as they were, and nothing else comes back."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.core.errors import TokenForeign, TokenMalformed
from trunkline.core.token import TOKEN_BYTES, ControlToken, EventToken

numbers = st.integers(0, 2**64 - 1)
journals = st.binary(min_size=16, max_size=16).map(bytes.hex)
tokens = st.builds(ControlToken, journals, numbers, numbers, numbers) | st.builds(
    EventToken, journals, numbers, numbers, numbers
)


@given(token=tokens)
def test_a_token_comes_back(token: ControlToken | EventToken) -> None:
    data = token.encode()
    assert len(data) == TOKEN_BYTES
    assert type(token).decode(data) == token


@given(token=tokens)
def test_the_other_kind_is_foreign(token: ControlToken | EventToken) -> None:
    other = EventToken if isinstance(token, ControlToken) else ControlToken
    with pytest.raises(TokenForeign):
        other.decode(token.encode())


@given(token=tokens, at=st.integers(0, TOKEN_BYTES - 1), flip=st.integers(1, 255))
def test_a_changed_byte_is_found(token: ControlToken | EventToken, at: int, flip: int) -> None:
    data = bytearray(token.encode())
    data[at] ^= flip
    with pytest.raises(TokenMalformed):
        type(token).decode(bytes(data))


@given(token=tokens, size=st.integers(0, TOKEN_BYTES - 1))
def test_a_cut_or_grown_token_is_found(token: ControlToken | EventToken, size: int) -> None:
    data = token.encode()
    for wrong in (data[:size], data + b"\x00"):
        with pytest.raises(TokenMalformed):
            type(token).decode(wrong)


@given(data=st.binary(max_size=60))
def test_any_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(TokenMalformed):
        ControlToken.decode(data)


def test_a_newer_form_is_not_guessed_at() -> None:
    body = struct.pack(">BB16sQQQ", 1, 2, bytes(16), 1, 1, 1)
    with pytest.raises(TokenMalformed, match="form 2"):
        ControlToken.decode(body + zlib.crc32(body).to_bytes(4, "big"))


def test_the_form_does_not_change() -> None:
    token = EventToken("00112233445566778899aabbccddeeff", stream=1, incarnation=2, offset=3)
    body = "02010011223344556677" + "8899aabbccddeeff" + "0000000000000001" + "0000000000000002" + "0000000000000003"
    assert token.encode()[:-4].hex() == body


@pytest.mark.parametrize(
    ("journal_id", "revision"), [("ab", 0), ("AB" * 16, 0), ("zz" * 16, 0), ("ab" * 16, -1), ("ab" * 16, 2**64)]
)
def test_a_token_that_could_not_come_back_is_not_made(journal_id: str, revision: int) -> None:
    with pytest.raises(ValueError, match=r"."):
        ControlToken(journal_id, 1, revision, 1)
