"""Publish and PublishStream: bytes in, scanned and authorized; bytes out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable
from functools import partial

from trunkline.api import convert
from trunkline.api.v1 import events_pb2
from trunkline.core.errors import TrunklineError
from trunkline.core.model import Sync
from trunkline.core.wire import Scan, scan_publish
from trunkline.server.journal.control.sequencer import Origin
from trunkline.server.journal.event_log import Published

from . import notices
from .outlet import Outlet
from .stream import EventStream
from .streams import Streams

IN_FLIGHT_MAX = 256
"""Publishes of one PublishStream that are not answered yet; the next is read when one is."""
IN_FLIGHT_BYTES_MAX = 16 << 20

Allow = Callable[[Scan], None]
"""Raises PermissionDenied unless the caller may publish these topics to this namespace."""


class Publishing:
    """Publishes to streams, one request or a stream of them.

    The answers to both have the same fields 1 to 4, and most of that is the same in one answer after the other.
    """

    def __init__(self, streams: Streams, header: Callable[[], bytes]) -> None:
        """`header` gives field 1 of an answer, encoded, tag included."""
        self._streams = streams
        self._header = header
        self._kept: tuple[int, Sync, int] | None = None
        self._encoded_kept = b""
        """Fields 2 and 3 for these: where, and how well."""

    async def publish(self, data: bytes, origin: Origin, allow: Allow) -> bytes:
        """Answer a PublishRequest."""
        scan = scan_publish(data, stream_request=False)
        stream = await self._stream(scan, origin, allow)
        return self._encoded(await _publish(scan, stream), events_pb2.PublishResponse())

    async def publish_stream(
        self, requests: AsyncIterable[bytes], outlet: Outlet, origin: Origin, allow: Allow
    ) -> None:
        """Answer PublishStreamRequests until there are no more; each when it is durable, whatever the order.

        A request that cannot be read ends the stream (InvalidArgument): its sequence is not known. Every other failure
        is the answer to one request.
        """
        room = Room(IN_FLIGHT_MAX, IN_FLIGHT_BYTES_MAX, outlet)
        async with asyncio.TaskGroup() as tasks:
            async for data in requests:
                scan = scan_publish(data, stream_request=True)
                await room.take(len(data))
                # Not in the task: what follows would pass a publish that waits for its stream to be made.
                stream = await self._stream_or_error(scan, origin, allow)
                task = tasks.create_task(self._answer(scan, stream, outlet))
                task.add_done_callback(partial(room.give_back, len(data)))

    async def _stream_or_error(self, scan: Scan, origin: Origin, allow: Allow) -> EventStream | TrunklineError:
        try:
            return await self._stream(scan, origin, allow)
        except TrunklineError as error:
            return error

    async def _answer(self, scan: Scan, stream: EventStream | TrunklineError, outlet: Outlet) -> None:
        response = events_pb2.PublishStreamResponse(sequence=scan.sequence)
        try:
            if isinstance(stream, TrunklineError):
                raise stream
            answer = self._encoded(await _publish(scan, stream), response)
        except TrunklineError as error:
            response.error.CopyFrom(notices.failure(error))
            answer = self._header() + response.SerializeToString()
        outlet.offer(answer)

    async def _stream(self, scan: Scan, origin: Origin, allow: Allow) -> EventStream:
        allow(scan)
        found = self._streams.peek(scan.namespace, scan.stream)
        return found if found is not None else await self._streams.get(scan.namespace, scan.stream, origin)

    def _encoded(
        self, published: Published, response: events_pb2.PublishResponse | events_pb2.PublishStreamResponse
    ) -> bytes:
        """The answer, and in it what the response says already."""
        kept = published.incarnation, published.sync, self._streams.promise.copies
        if kept != self._kept:
            same = events_pb2.PublishResponse(incarnation=kept[0], durability=convert.durability_to(*kept[1:]))
            self._kept, self._encoded_kept = kept, same.SerializeToString()
        for run in published.ranges:
            response.published.add(offset=run.offset, count=run.count, duplicate=run.duplicate)
        return b"".join([self._header(), self._encoded_kept, response.SerializeToString()])


def _publish(scan: Scan, stream: EventStream) -> Awaitable[Published]:
    return stream.publish(scan, require_sync=scan.require_sync, expected_offset=scan.expected_offset)


class Room:
    """How much may be in flight, by number and by bytes; none while the peer does not take its answers.

    One waits at a time: the reader of one stream.
    """

    def __init__(self, count_max: int, bytes_max: int, outlet: Outlet) -> None:
        self._count = count_max
        self._bytes = bytes_max
        self._outlet = outlet
        self._grown = asyncio.Event()
        outlet.on_ready(self._grown.set)

    async def take(self, size: int) -> None:
        """Wait until there is room for one more; by its bytes the last one may be too much."""
        while self._count <= 0 or self._bytes <= 0 or not self._outlet.ready:
            self._grown.clear()
            await self._grown.wait()
        self._count -= 1
        self._bytes -= size

    def give_back(self, size: int, _: object = None) -> None:
        """Something is done."""
        self._count += 1
        self._bytes += size
        self._grown.set()
