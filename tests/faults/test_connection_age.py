"""Connections that have lived long enough, or have nothing to do, are ended in order: notice first, then GOAWAY, then the end
of the calls that are open (RFC 9113, 6.8). The peers here are sockets that see each frame."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from faults.hostile import POUR, Peer, Victim
from fuzz import frames
from fuzz.frames import Frame
from integration.echo_server import SAY

AGE_MS, GRACE_MS, IDLE_MS = 600, 1_500, 500
EVERYTHING = 2**31 - 1
"""The last stream that a notice names: all are still taken."""
BOUND_S = 5.0
SAY_PATH = SAY.encode()


@pytest.fixture(scope="module")
def ageing() -> Iterator[Victim]:
    server = Victim({"connection_age_ms_max": AGE_MS, "connection_age_grace_ms": GRACE_MS})
    yield server
    server.stop()


@pytest.fixture(scope="module")
def idle() -> Iterator[Victim]:
    server = Victim({"connection_idle_ms_max": IDLE_MS})
    yield server
    server.stop()


def last_stream(goaway: Frame) -> int:
    return int.from_bytes(goaway.payload[:4])


def noticed(peer: Peer) -> Frame:
    """Wait for the notice; the ping that comes with it."""
    found: list[Frame] = []
    deadline = time.monotonic() + BOUND_S
    while not any(frame.kind == frames.PING and not frame.flags & frames.ACK for frame in found):
        assert time.monotonic() < deadline
        found += peer.received(BOUND_S)
    [goaway] = [frame for frame in found if frame.kind == frames.GOAWAY]
    assert (last_stream(goaway), goaway.number) == (EVERYTHING, 0)
    return next(frame for frame in found if frame.kind == frames.PING)


def answer(ping: Frame) -> bytes:
    return frames.frame(frames.PING, frames.ACK, payload=ping.payload)


def ends(heard: list[Frame]) -> set[int]:
    """The streams whose response came to its end."""
    return {frame.stream_id for frame in heard if frame.kind == frames.HEADERS and frame.flags & frames.END_STREAM}


def test_calls_that_are_open_when_a_connection_is_old_end_first(ageing: Victim) -> None:
    began = time.monotonic()
    with Peer(ageing.port) as peer:
        peer.send(frames.call(1, SAY_PATH, b"slow 1.2"))
        ping = noticed(peer)
        assert time.monotonic() - began > 0.9 * AGE_MS / 1_000
        peer.send(frames.call(3, SAY_PATH, b"on its way when the notice came"))
        peer.send(answer(ping))
        heard = peer.heard(BOUND_S)
    [goaway] = [frame for frame in heard if frame.kind == frames.GOAWAY]
    assert (last_stream(goaway), goaway.number) == (3, 0)
    assert ends(heard) == {1, 3}
    assert time.monotonic() - began < (AGE_MS + GRACE_MS) / 1_000 + 2


def test_calls_that_take_longer_than_the_grace_are_cut(ageing: Victim) -> None:
    began = time.monotonic()
    with Peer(ageing.port) as peer:
        peer.send(frames.call(1, SAY_PATH, b"slow 30"))
        peer.send(answer(noticed(peer)))
        heard = peer.heard(BOUND_S)
    assert ends(heard) == set()
    assert time.monotonic() - began > (0.9 * AGE_MS + GRACE_MS) / 1_000


def test_a_peer_that_does_not_answer_the_notice_is_told_to_go_nevertheless(ageing: Victim) -> None:
    with Peer(ageing.port) as peer:
        peer.send(frames.call(1, SAY_PATH, b"slow 0.1"))
        noticed(peer)
        heard = peer.heard(BOUND_S)
    assert [last_stream(frame) for frame in heard if frame.kind == frames.GOAWAY] == [1]


def test_a_connection_without_calls_is_ended_and_one_with_a_call_is_not(idle: Victim) -> None:
    with Peer(idle.port) as busy, Peer(idle.port) as peer:
        busy.send(frames.call(1, SAY_PATH, b"slow 2"))
        peer.send(frames.call(1, SAY_PATH, b"hello"))
        peer.awaited(frames.DATA)
        told = time.monotonic()
        peer.send(answer(noticed(peer)))
        heard = peer.heard(BOUND_S)
        assert [last_stream(frame) for frame in heard if frame.kind == frames.GOAWAY] == [1]
        assert time.monotonic() - told > 0.9 * IDLE_MS / 1_000
        seen: list[Frame] = []
        while not any(frame.kind == frames.DATA for frame in seen):
            seen += busy.received(BOUND_S)
            assert not busy.is_closed
        assert not any(frame.kind == frames.GOAWAY for frame in seen), "a call is no idleness"


def test_both_are_off_unless_asked_for() -> None:
    server = Victim({})
    try:
        with Peer(server.port) as peer:
            deadline = time.monotonic() + 3 * IDLE_MS / 1_000
            while time.monotonic() < deadline:
                assert not any(frame.kind == frames.GOAWAY for frame in peer.received(0.1))
            assert server.state().connections == 1
    finally:
        server.stop()


def test_a_server_that_stops_at_once_still_tells_those_who_read() -> None:
    server = Victim({})
    with Peer(server.port) as peer:
        windows = frames.window_update(0, 1 << 30) + frames.settings((frames.INITIAL_WINDOW_SIZE, (1 << 31) - 1))
        peer.send(windows + frames.call(1, POUR.encode(), b"") + frames.call(3, SAY_PATH, b"slow 30"))
        time.sleep(0.5)  # more waits for this peer by now than the kernel takes
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        heard = peer.heard(BOUND_S)
        stopping.join(BOUND_S)
        assert not stopping.is_alive()
    assert ends(heard) == {1, 3}
    assert [last_stream(frame) for frame in heard if frame.kind == frames.GOAWAY] == [EVERYTHING, 3]


def test_a_server_that_stops_at_once_does_not_wait_for_those_who_do_not_read() -> None:
    server = Victim({})
    with Peer(server.port) as peer:
        windows = frames.window_update(0, 1 << 30) + frames.settings((frames.INITIAL_WINDOW_SIZE, (1 << 31) - 1))
        peer.send(windows + frames.call(1, POUR.encode(), b""))
        time.sleep(0.5)
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < BOUND_S
