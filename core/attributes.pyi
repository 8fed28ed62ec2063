from array import array
from collections.abc import Iterable

def attribute_texts(
    payload: bytes | bytearray | memoryview,
    ends: array[int] | memoryview,
    indexes: Iterable[int],
    names: tuple[str, ...],
) -> list[tuple[str | None, ...]]: ...
