"""Requests that are sent again: what is kept, what holds the writer up, and when it is too much."""

from __future__ import annotations

import asyncio

import pytest

from trunkline.client._request_buffer import CallOver, RequestBuffer


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_each_reader_begins_with_the_first_and_the_one_before_it_ends() -> None:
    buffer = RequestBuffer()
    first = buffer.requests()
    writing = asyncio.ensure_future(buffer.put(b"1"))
    assert await anext(first) == b"1"
    await turns()
    assert not writing.done(), "it is handed on when the next is asked for"
    waiting = asyncio.ensure_future(anext(first, None))
    await writing
    second = buffer.requests()
    again = asyncio.ensure_future(anext(second))
    assert await again == b"1"
    assert await waiting is None
    buffer.end()
    assert [one async for one in second] == []


async def test_the_writer_waits_for_the_present_reader() -> None:
    buffer = RequestBuffer()
    writing = asyncio.ensure_future(buffer.put(b"1"))
    reader = buffer.requests()
    assert await anext(reader) == b"1"
    buffer.rewind()  # the attempt failed before the request was handed on
    assert [one async for one in reader] == []
    await turns()
    assert not writing.done()
    buffer.end()
    assert [one async for one in buffer.requests()] == [b"1"]
    await writing


async def test_what_is_too_much_is_let_go_as_it_is_sent() -> None:
    buffer = RequestBuffer(limit_bytes=10)
    reader = buffer.requests()
    got = []

    async def read() -> None:
        async for one in reader:
            got.append(one)

    reading = asyncio.ensure_future(read())
    for index in range(10):
        assert buffer.overflowed == (index > 2)
        await buffer.put(b"%d..." % index)
        assert buffer.kept_bytes <= 15
    buffer.end()
    await reading
    assert got == [b"%d..." % index for index in range(10)]
    with pytest.raises(AssertionError):
        await anext(buffer.requests())


async def test_what_grew_too_much_between_attempts_is_still_whole() -> None:
    buffer = RequestBuffer(limit_bytes=4)
    reader = buffer.requests()
    writing = asyncio.ensure_future(buffer.put(b"123"))
    assert await anext(reader) == b"123"
    waiting = asyncio.ensure_future(anext(reader, None))
    await writing
    buffer.rewind()
    assert await waiting is None
    more = asyncio.ensure_future(buffer.put(b"456"))
    await turns()
    assert buffer.overflowed
    buffer.end()
    assert [one async for one in buffer.requests()] == [b"123", b"456"]
    await more
    assert buffer.kept_bytes == 0


async def test_the_end_of_the_call_is_told_to_all() -> None:
    buffer = RequestBuffer()
    reader = buffer.requests()
    waiting = asyncio.ensure_future(anext(reader, None))
    writing = asyncio.ensure_future(buffer.put(b"1"))
    assert await waiting == b"1"
    buffer.close()
    with pytest.raises(CallOver):
        await writing
    with pytest.raises(CallOver):
        await buffer.put(b"2")
    assert [one async for one in reader] == []
