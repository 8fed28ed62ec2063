"""Whatever is written, in pieces and beside each other, is in the files as if one had written after the other."""

from __future__ import annotations

import os
import select
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.server.journal.files.write_threads import WriteThreads

FILES = 3
pieces = st.lists(st.binary(max_size=40), max_size=6)
writes = st.lists(st.tuples(st.integers(0, FILES - 1), st.integers(0, 50), pieces, st.booleans()), max_size=12)


def until_done(threads: WriteThreads, tickets: set[int]) -> list[tuple[int, int, int, bool]]:
    """What became of them."""
    found: list[tuple[int, int, int, bool]] = []
    while {ticket for ticket, *_ in found} != tickets:
        assert select.select([threads.fileno()], [], [], 10)[0], "told"
        found += threads.done()
    return found


@given(asked=writes, count_max=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_files_are_as_written(
    asked: list[tuple[int, int, list[bytes], bool]], count_max: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder: Path = tmp_path_factory.mktemp("writes")
    files = [os.open(folder / str(index), os.O_RDWR | os.O_CREAT) for index in range(FILES)]
    expected = [bytearray() for _ in files]
    threads = WriteThreads(count_max, "property")
    try:
        for turn in range(0, len(asked), FILES):
            under_way: dict[int, int] = {}
            for file, offset, data, sync in {one[0]: one for one in asked[turn : turn + FILES]}.values():
                ticket = threads.submit(files[file], list(data), offset, sync)
                whole = b"".join(data)
                under_way[ticket] = len(whole)
                if whole:
                    expected[file].extend(bytes(max(0, offset + len(whole) - len(expected[file]))))
                    expected[file][offset : offset + len(whole)] = whole
            found = until_done(threads, set(under_way))
            assert sorted(found) == [(ticket, 0, size, False) for ticket, size in sorted(under_way.items())]
        assert [(folder / str(index)).read_bytes() for index in range(FILES)] == expected
    finally:
        threads.shutdown()
        for fd in files:
            os.close(fd)


def test_what_goes_wrong_is_told_of_the_one_it_went_wrong_with() -> None:
    threads = WriteThreads(2, "property")
    with open("/dev/full", "wb") as full, open("/dev/null", "wb") as null:
        on_full = threads.submit(full.fileno(), [b"abc"], 0, False)
        on_null = threads.submit(null.fileno(), [b"abc"], 0, False)
        unsynced = threads.submit(null.fileno(), [b"ab", b"c"], 0, True)
        closed = threads.submit(-1, [b"abc"], 0, True)
        found = until_done(threads, {on_full, on_null, unsynced, closed})
    errors = {ticket: (os.strerror(error), written, in_sync) for ticket, error, written, in_sync in found}
    assert errors == {
        on_full: ("No space left on device", 0, False),
        on_null: ("Success", 3, False),
        unsynced: ("Invalid argument", 3, True),
        closed: ("Bad file descriptor", 0, False),
    }
    threads.shutdown()
    with pytest.raises(RuntimeError, match="shut down"):
        threads.submit(-1, [b""], 0, False)
