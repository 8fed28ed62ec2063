"""A pytest plugin (-p leaks): at the end of the run nothing of the native transport may be alive.

Objects are tracked by Python's collector, compiled classes too, so they are counted there, in the shipped build; bytes that
they still hold are said. What libnghttp2 holds is counted by its allocator.
"""

from __future__ import annotations

import gc
from collections import Counter

import pytest

from trunkline.core.framing import Inbox, Outbox
from trunkline.core.http2 import Session
from trunkline.core.http2_stream import Budget, Stream
from trunkline.core.nghttp2_memory import blocks
from trunkline.server.transport.config import TransportConfig
from trunkline.server.transport.native.call import Call
from trunkline.server.transport.native.connection import Connection
from trunkline.server.transport.native.server import NativeServer, limits_of

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
    counts["blocks of libnghttp2"] = blocks()
    return +counts


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run when anything is left; a test that failed may keep its own."""
    left = live_counts()
    if left and session.exitstatus == pytest.ExitCode.OK:
        print(f"\nalive at the end: {dict(left)}")  # noqa: T201
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def test_what_lives_is_counted() -> None:
    """Run by name (pytest tests/leaks.py): what is watched is seen."""
    assert not live_counts()
    session = Session(limits_of(TransportConfig()), Budget(1 << 20))
    assert live_counts()["blocks of libnghttp2"] > 5
    del session
    assert not live_counts()
    box = Outbox()
    box.push(b"four")
    assert live_counts()["Outbox"] >= 1
    assert live_counts()["bytes to send"] >= 9
