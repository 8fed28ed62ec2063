"""XXH64 against known values and the xxhash package."""

from __future__ import annotations

import pytest
import xxhash
from hypothesis import example, given
from hypothesis import strategies as st

from reference import hashing as reference
from trunkline.core.hashing import xxh64


@pytest.mark.parametrize(
    ("data", "seed", "hash"),
    [
        # From https://github.com/cespare/xxhash, xxhash_test.go.
        (b"", 0, 0xEF46DB3751D8E999),
        (b"a", 0, 0xD24EC4F1A98C6E5B),
        (b"as", 0, 0x1C330FB2D66BE179),
        (b"asd", 0, 0x631C37CE72A97393),
        (b"asdf", 0, 0x415872F599CEA71E),
        (b"Call me Ishmael. Some years ago--never mind how long precisely-", 0, 0x02A2E85470D6FD96),
        # From https://github.com/envoyproxy/envoy, test/common/common/hash_test.cc.
        (b"foo", 0, 3728699739546630719),
        (b"bar", 0, 5234164152756840025),
        (b"foo\nbar", 0, 8917841378505826757),
        (b"lyft", 0, 4400747396090729504),
    ],
)
def test_known_hashes(data: bytes, seed: int, hash: int) -> None:
    assert xxh64(data, seed) == hash


@example(bytes(range(31)), 1)
@example(bytes(range(32)), 1)
@example(bytes(range(200)), 2**64 - 1)
@given(data=st.binary(max_size=200), seed=st.integers(0, 2**64 - 1))
def test_agrees_with_the_package_and_the_specification(data: bytes, seed: int) -> None:
    assert xxh64(data, seed) == xxhash.xxh64_intdigest(data, seed) == reference.xxh64(data, seed)


def test_every_length_up_to_some_stripes() -> None:
    data = bytes(7 * number % 256 for number in range(300))
    for size in range(300):
        assert xxh64(data[:size]) == xxhash.xxh64_intdigest(data[:size])


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_refuses_a_seed_out_of_range(seed: int) -> None:
    for hash_of in (xxh64, reference.xxh64):
        with pytest.raises(OverflowError):
            hash_of(b"", seed)


@pytest.mark.parametrize("data", [None, "text", 1, bytearray(b"x")])
def test_refuses_what_is_not_bytes(data: object) -> None:
    with pytest.raises(TypeError):
        xxh64(data)  # type: ignore[arg-type]
