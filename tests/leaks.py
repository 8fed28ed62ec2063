"""A pytest plugin (-p leaks): at the end of the run nothing of the native transport may be alive.

All that could leak is tracked by Python's collector, compiled classes too, so it is counted there, in the shipped build.
What a compiled class holds in C goes when it goes; bytes that it still holds are said.
"""

from __future__ import annotations

import gc
from collections import Counter

import pytest

from trunkline.core.framing import Inbox, Outbox
from trunkline.core.http2 import Session
from trunkline.core.http2_stream import Stream
from trunkline.server.transport.native.call import Call
from trunkline.server.transport.native.connection import Connection
from trunkline.server.transport.native.server import NativeServer

WATCHED = (Inbox, Outbox, Session, Stream, Call, Connection, NativeServer)


def live_counts() -> Counter[str]:
    """How many there are of each watched class, and the bytes that those of core hold."""
    gc.collect()
    counts: Counter[str] = Counter()
    for found in gc.get_objects():
        if isinstance(found, WATCHED):
            counts[type(found).__name__] += 1
        if isinstance(found, Inbox):
            counts["bytes received"] += found.unread_bytes + found.partial_bytes
        elif isinstance(found, Outbox):
            counts["bytes to send"] += found.framed_bytes + found.piece_bytes
    return +counts


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run when anything is left; a test that failed may keep its own."""
    left = live_counts()
    if left and session.exitstatus == pytest.ExitCode.OK:
        print(f"\nalive at the end: {dict(left)}")  # noqa: T201
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def test_what_lives_is_counted() -> None:
    """Run by name (pytest tests/leaks.py): what is watched is seen by the collector."""
    box = Outbox()
    box.push(b"four")
    assert live_counts()["Outbox"] >= 1
    assert live_counts()["bytes to send"] >= 9
