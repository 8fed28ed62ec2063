"""Publish requests for differential tests: well-formed, slightly wrong, and hostile, from a seeded generator."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

Maker = Callable[[Random], bytes]

TEXTS = ["orders.created", "a", "events", "/shop", "1.0", "topic", "partitionkey", "subject", "", "ä.ö.€.😀", "x" * 20]
BAD_TEXTS = [
    *(b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\xe2\x80\x8b"),
    *(b"a..b", b".", b"a b", b"*", b"a.>", b"A", b"x" * 300, b".".join([b"w"] * 17)),
]
NUMBERS = [0, 1, 2, 3, 4, 127, 128, 2**31, 2**32 + 1, 2**63, 2**64 - 1]


def varint(rng: Random, value: int, *, bytes_max: int = 10) -> bytes:
    """Mostly the shortest encoding, sometimes a longer one, seldom one that is too long."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    if rng.random() < 0.01:
        out[-1] |= 0x80
        out += b"\x80" * rng.randrange(max(1, bytes_max - len(out) + 1)) + bytes(
            [rng.choice([0, 0, 0, 0, 0, 0, 1, 0x7F])]
        )
    return bytes(out)


def tag(rng: Random, number: int, wire_type: int) -> bytes:
    """A field's tag."""
    return varint(rng, number << 3 | wire_type, bytes_max=5)


def delimited(rng: Random, number: int, value: bytes) -> bytes:
    """A field of bytes, seldom with a length that is not its own."""
    size = len(value)
    if rng.random() < 0.002:
        size = rng.choice([0, size + 1, max(0, size - 1), 2**31 - 1, 2**31, 2**32])
    return tag(rng, number, 2) + varint(rng, size, bytes_max=5) + value


def number(rng: Random, field: int) -> bytes:
    """A field that is a varint."""
    return tag(rng, field, 0) + varint(rng, rng.choice(NUMBERS))


def text(rng: Random, good: str) -> bytes:
    """Mostly what fits, else something else."""
    chance = rng.random()
    if chance < 0.99:
        return good.encode()
    return rng.choice(BAD_TEXTS) if chance < 0.995 else rng.choice(TEXTS).encode()


def unknown(rng: Random, field: int | None = None, depth: int = 0) -> bytes:
    """A field that the contract does not know, or one it knows with another wire type."""
    field = field or rng.choice([9, 10, 14, 16, 1000, 2**29 - 1, 1, 2, 5, 15])
    match rng.randrange(6):
        case 0:
            return number(rng, field)
        case 1:
            return tag(rng, field, 1) + rng.randbytes(8)
        case 2:
            return tag(rng, field, 5) + rng.randbytes(4)
        case 3:
            return delimited(rng, field, rng.randbytes(rng.randrange(4)))
        case 4 if depth < 3:
            inner = b"".join(unknown(rng, depth=depth + 1) for _ in range(rng.randrange(3)))
            return tag(rng, field, 3) + inner + tag(rng, field if rng.random() < 0.97 else 1, 4)
        case _:
            levels = rng.choice([1, 2, 3, 95, 96, 97, 98, 99, 100, 101])
            return tag(rng, field, 3) * levels + tag(rng, field, 4) * levels


def message(rng: Random, parts: list[bytes], strange: float) -> bytes:
    """The fields in order, with what `strange` says is added, dropped, repeated, or moved."""
    if rng.random() < strange:
        parts.insert(rng.randrange(len(parts) + 1), unknown(rng))
    if parts and rng.random() < strange * 0.3:
        parts.append(rng.choice(parts))
    if parts and rng.random() < strange * 0.3:
        parts.pop(rng.randrange(len(parts)))
    if rng.random() < strange * 0.5:
        rng.shuffle(parts)
    if rng.random() < strange * 0.05:
        parts.append(
            rng.choice([b"\x00", b"\x07", b"\x0c", b"\x7c", b"\x06\x01", b"\x80\x80\x80\x80\x10", b"\x02\x00"])
        )
    return b"".join(parts)


def attribute_value(rng: Random, strange: float, *, string: str) -> bytes:
    """A CloudEventAttributeValue."""
    makers: list[Maker] = [
        lambda r: number(r, 1),
        lambda r: number(r, 2),
        lambda r: delimited(r, 4, r.randbytes(3)),
        lambda r: delimited(r, 5, text(r, "http://a/")),
        lambda r: delimited(r, 6, text(r, "b")),
        lambda r: delimited(r, 7, message(r, [number(r, 1), number(r, 2)], strange)),
        lambda r: b"",
    ]
    plain = rng.random() < 0.7
    return message(rng, [delimited(rng, 3, text(rng, string)) if plain else rng.choice(makers)(rng)], strange * 0.5)


def attribute(rng: Random, strange: float) -> bytes:
    """A map entry of CloudEvent.attributes."""
    name = rng.choice(["topic", "partitionkey", "subject", "time", f"x{rng.randrange(50)}"])
    value = attribute_value(rng, strange, string=rng.choice(["a.b", "c", "k" * rng.choice([1, 255, 256])]))
    return delimited(
        rng, 5, message(rng, [delimited(rng, 1, text(rng, name)), delimited(rng, 2, value)], strange * 0.3)
    )


def data(rng: Random, strange: float) -> bytes:
    """One member of CloudEvent.data."""
    match rng.randrange(3):
        case 0:
            return delimited(rng, 6, rng.randbytes(rng.randrange(9)))
        case 1:
            return delimited(rng, 7, text(rng, "ünï" * rng.randrange(9)))
        case _:
            return delimited(
                rng, 8, message(rng, [delimited(rng, 1, text(rng, "t/x")), delimited(rng, 2, b"\xff")], strange)
            )


def event(rng: Random, strange: float) -> bytes:
    """A CloudEvent."""
    parts = [
        delimited(rng, 1, text(rng, f"id-{rng.randrange(10)}")),
        delimited(
            rng, 2, text(rng, rng.choice(["/shop", "s" * rng.choice([1, 1024, 1025])] if strange > 0.2 else ["/a"]))
        ),
        delimited(rng, 3, text(rng, "1.0")),
        delimited(rng, 4, text(rng, rng.choice(["orders.created", "orders.paid", "t"]))),
    ]
    attributes = rng.choice([0, 0, 1, 1, 2, 3])
    if rng.random() < strange * 0.02:
        attributes = rng.choice([63, 64, 65, 70])
    parts += [attribute(rng, strange) for _ in range(attributes)]
    if rng.random() < 0.7:
        parts.append(data(rng, strange))
    return message(rng, parts, strange)


def producer(rng: Random) -> list[bytes]:
    """What a request says of its producer: mostly all of it, and seldom what is not allowed."""
    name = text(rng, rng.choice(["orders-7", "a/b:c@d_e.F", "p" * rng.choice([1, 127, 128])]))
    if rng.random() < 0.02:
        name = rng.choice([b"", b"p" * 129, b"a,b", b"a;b", b"[", b"`", b"{", b"a b", "ü".encode()])
    first = tag(rng, 8, 0) + varint(
        rng, rng.choice([1, 2, 2**62 - 1, 2**62, *([0, 2**62 + 1] * (rng.random() < 0.05))])
    )
    parts = [delimited(rng, 6, name), number(rng, 7), first]
    return parts if rng.random() < 0.97 else rng.sample(parts, rng.randrange(3))


def request(rng: Random) -> bytes:
    """A publish request; how strange it is is a matter of chance too."""
    strange = rng.choice([0.0, 0.02, 0.1, 0.3])
    parts = [delimited(rng, 1, text(rng, "shop"))]
    if rng.random() < 0.5:
        parts.append(delimited(rng, 2, text(rng, rng.choice(["events", "a.b-c", "x" * 63]))))
    if rng.random() < 0.3:
        parts.append(tag(rng, 3, 0) + varint(rng, rng.choice([0, 1, 2, 3, 3, *NUMBERS] if strange else [1, 3])))
    if rng.random() < 0.3:
        parts.append(number(rng, 4))
    if rng.random() < 0.3:
        parts.append(number(rng, 5))
    if rng.random() < 0.2:
        parts += producer(rng)
    parts += [delimited(rng, 15, event(rng, strange)) for _ in range(rng.choice([1, 1, 2, 3, 5]))]
    return message(rng, parts, strange * 0.5)


def mutated(rng: Random, raw: bytes) -> bytes:
    """The bytes with one to three accidents: a flip, a cut, an insertion, a copy, an exchange."""
    out = bytearray(raw)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        at, to = sorted((rng.randrange(len(out) + 1), rng.randrange(len(out) + 1)))
        match rng.choice([0, 0, 0, 0, 1, 2, 3, 4, 5]):
            case 0 if at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            case 1:
                del out[at : at + rng.randrange(1, 4)]
            case 2:
                out[at:at] = rng.randbytes(rng.randrange(1, 4))
            case 3:
                out[at:at] = out[at : min(to, at + 40)]
            case 4:
                middle = at + rng.randrange(40)
                out[at : middle + 40] = out[middle : middle + 40] + out[at:middle]
            case _:
                del out[to:]
    return bytes(out)
