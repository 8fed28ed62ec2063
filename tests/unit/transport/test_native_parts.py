"""The native transport's parts by themselves: metadata, compression, deadlines, sockets, first steps, the choice."""

from __future__ import annotations

import asyncio
import socket
import sys
import zlib
from pathlib import Path
from typing import Any

import async_solipsism
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.core.errors import InvalidArgument
from trunkline.server import eager
from trunkline.server.transport.choice import kind_of, native_lacks
from trunkline.server.transport.config import TransportConfig
from trunkline.server.transport.native.compression import TooLong, compressed, decompressed
from trunkline.server.transport.native.deadlines import TICKS_PER_S, Deadlines
from trunkline.server.transport.native.metadata import MalformedMetadata, decoded, encoded, percent_encoded
from trunkline.server.transport.native.sockets import Taken, listen

keys = st.from_regex(r"x-[a-z0-9_.-]{1,10}", fullmatch=True).filter(lambda key: not key.endswith("-bin"))
texts = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)


@given(
    st.lists(
        st.one_of(st.tuples(keys, texts), st.tuples(keys.map(lambda key: f"{key}-bin"), st.binary(max_size=20))),
        max_size=6,
    )
)
def test_metadata_comes_back_as_it_went(metadata: list[tuple[str, Any]]) -> None:
    assert list(decoded(encoded(metadata))) == metadata


@pytest.mark.parametrize(
    ("key", "value"),
    [("x a", "1"), ("ü", "1"), ("", "1"), ("x", "a\nb"), ("x", "ü"), ("grpc-timeout", "1S"), (":path", "/")],
)
def test_metadata_that_cannot_be_sent_is_refused(key: str, value: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be sent"):
        encoded([(key, value)])


def test_binary_metadata_is_bytes_padded_or_not_and_may_come_joined() -> None:
    with pytest.raises(TypeError):
        encoded([("x-bin", "text")])
    assert [value for _, value in decoded([(b"x-bin", b"AAE=,AAE,")])] == [b"\0\1", b"\0\1", b""]
    with pytest.raises(MalformedMetadata):
        decoded([(b"x-bin", b"?")])


@pytest.mark.parametrize(
    ("text", "wire"),
    [("plain", b"plain"), ("50 %", b"50 %25"), ("ü\n", b"%C3%BC%0A"), ("\ud800", b"?"), ("", b"")],
)
def test_messages_of_a_status_are_percent_encoded(text: str, wire: bytes) -> None:
    assert percent_encoded(text) == wire


@given(st.sampled_from([b"gzip", b"deflate"]), st.binary(max_size=2_000))
def test_what_is_compressed_comes_back(encoding: bytes, message: bytes) -> None:
    assert decompressed(encoding, compressed(encoding, message), 2_000) == message


def test_a_bomb_is_noticed_before_it_goes_off() -> None:
    bomb = compressed(b"gzip", bytes(50_000_000))
    assert len(bomb) < 60_000
    with pytest.raises(TooLong):
        decompressed(b"gzip", bomb, 1_000)


@pytest.mark.parametrize(
    "data",
    [b"", b"junk", zlib.compress(b"x" * 100)[:-5], zlib.compress(b"x") + b"more", zlib.compress(b"x", wbits=31)],
)
def test_what_is_no_whole_stream_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"message"):
        decompressed(b"deflate", data, 1_000)
    with pytest.raises(ValueError, match="names no compression"):
        decompressed(b"identity", data, 1_000)


class FakeCall:
    """Notes when it was expired."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.tick = 0
        self.expired_s: float | None = None
        self._loop = loop

    def expire(self) -> None:
        assert self.expired_s is None
        self.expired_s = self._loop.time()


milliseconds = st.integers(1, 50_000).map(lambda value: value / 1_000)


@given(st.lists(st.tuples(milliseconds, st.one_of(st.none(), milliseconds)), max_size=30))
def test_calls_expire_within_a_tick_of_their_deadline_unless_they_end(plan: list[tuple[float, float | None]]) -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        wheel = Deadlines(loop)
        calls: list[tuple[Any, float, float | None]] = []
        for due_s, ends_s in plan:
            call: Any = FakeCall(loop)
            wheel.begin(call, due_s)
            calls.append((call, due_s, ends_s))
            if ends_s is not None:
                loop.call_at(ends_s, wheel.end, call)
        await asyncio.sleep(60)
        for call, due_s, ends_s in calls:
            if ends_s is not None and ends_s < due_s:
                assert call.expired_s is None
            elif ends_s is None or ends_s > due_s + 2 / TICKS_PER_S:
                assert call.expired_s is not None
                assert due_s - 1e-6 <= call.expired_s <= due_s + 1 / TICKS_PER_S + 1e-3
        assert not wheel._calls
        assert not wheel._ticks

    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        runner.run(body())


def test_a_taken_port_and_a_bad_host_are_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as made:
        address = f"127.0.0.1:{made.getsockname()[1]}"
        with pytest.raises(Taken, match=address):
            listen(address, reuse_port=False)
    for address in ("nowhere.invalid:1", "203.0.113.1:1", "127.0.0.1:x"):
        with pytest.raises(Taken):
            listen(address, reuse_port=False)


def test_a_name_is_every_address_it_has_on_one_port() -> None:
    made = listen("localhost:0", reuse_port=False)
    try:
        assert len({one.getsockname()[1] for one in made}) == 1
        assert "127.0.0.1" in {one.getsockname()[0] for one in made}
    finally:
        for one in made:
            one.close()


def test_a_socket_file_that_nobody_has_is_taken_over_and_another_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    [first] = listen(f"unix:{path}", reuse_port=False)
    with pytest.raises(Taken):
        listen(f"unix:{path}", reuse_port=False)
    first.close()
    [second] = listen(f"unix:{path}", reuse_port=False)
    second.close()
    other = tmp_path / "other"
    other.write_text("mine")
    with pytest.raises(Taken):
        listen(f"unix:{other}", reuse_port=False)
    assert other.read_text() == "mine"


def started(*coroutines: Any) -> list[asyncio.Task[None]]:
    """Start them outside of any task; those that wait."""
    waiting: list[asyncio.Task[None]] = []

    async def body() -> None:
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def begin() -> None:
            for coroutine in coroutines:
                eager.start(loop, coroutine, waiting.append)
            done.set()

        loop.call_soon(begin)
        await done.wait()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(body())
    return waiting


def test_what_does_not_wait_never_becomes_a_task() -> None:
    steps: list[Any] = []

    async def at_once() -> None:
        steps.append(asyncio.current_task())

    assert started(at_once(), at_once()) == []
    assert len(steps) == 2
    assert steps[0] is not steps[1]


def test_who_waits_for_the_task_of_a_first_step_is_told_whether_or_not_it_goes_on() -> None:
    told: list[str] = []

    async def call(name: str, wait: bool) -> None:
        task = asyncio.current_task()
        assert task is not None
        assert not task.done()
        assert not task.cancelled()
        assert task.get_loop() is asyncio.get_running_loop()
        assert task.get_name()
        task.add_done_callback(lambda _: told.append(name))
        if wait:
            await asyncio.sleep(0.01)

    started(call("at once", False), call("later", True))
    assert told == ["at once", "later"]


def test_a_first_step_may_cancel_itself_and_sees_it_where_it_waits() -> None:
    seen: list[str] = []

    async def cancels() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        assert task.cancelling() == 1
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            seen.append("cancelled")
            assert task.uncancel() == 0
        await asyncio.sleep(0)
        seen.append("went on")

    [task] = started(cancels())
    assert seen == ["cancelled", "went on"]
    assert not task.cancelled()


@pytest.mark.parametrize("wait", ["future", "nothing"])
def test_a_cancellation_before_the_task_has_begun_reaches_the_coroutine(wait: str) -> None:
    seen: list[str] = []

    async def waits() -> None:
        try:
            await (asyncio.sleep(10) if wait == "future" else asyncio.sleep(0))
        finally:
            seen.append("cleaned up")

    async def body() -> None:
        loop = asyncio.get_running_loop()
        tasks: list[asyncio.Task[None]] = []

        def begin() -> None:
            eager.start(loop, waits(), tasks.append)
            tasks[0].cancel()

        loop.call_soon(begin)
        await asyncio.sleep(0)
        [task] = tasks
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(body())
    assert seen == ["cleaned up"]


def test_without_the_library_the_server_is_grpcs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kind_of(TransportConfig()) == "native"
    monkeypatch.setitem(sys.modules, "trunkline.core.http2", None)
    assert "libnghttp2" in native_lacks()
    assert kind_of(TransportConfig()) == "grpcio"
    with pytest.raises(InvalidArgument, match="libnghttp2"):
        kind_of(TransportConfig(kind="native"))
