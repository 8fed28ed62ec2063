"""Publishing over HTTP: a request in, scanned and kept exactly as one of gRPC's Publish, its outcome out."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from aiohttp import HttpVersion11, hdrs, web

from trunkline.api.v1 import common_pb2, events_pb2
from trunkline.core.errors import DeadlineExceeded, Internal, InvalidArgument, LimitExceeded, TrunklineError

from ..chain.gate import House
from ..chain.metrics import MethodStats
from ..events.publishing import Publishing
from ..events.service import may_publish
from ..journal.batch import frame_head
from ..journal.control.sequencer import Origin
from .admission import Admitted, admit
from .answers import NOTHING_PUBLISHED, Answer, published, refused
from .binding import read_events
from .bodies import Bodies
from .config import HttpConfig
from .refused import Refused

log = logging.getLogger(__name__)

PATH: Final = "/v1/namespaces/{namespace}/streams/{stream}/events"
SLICE_BYTES: Final = 128 << 10
"""Read between two looks at the loop."""
EVENT_COST_BYTES: Final = 2 << 10
"""What an event takes to read beside its bytes."""
_CANCELLED: Final = "cancelled"


class Ingestion:
    """Answers POST requests to PATH. `house` holds what gRPC's calls are let in by."""

    def __init__(self, house: House, publishing: Publishing, config: HttpConfig) -> None:
        self.stats = MethodStats("http", "publish", config.requests_in_flight_max)
        self.bodies = Bodies(config)
        self._house = house
        self._publishing = publishing

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Serve PATH. The body of who waits for a "100 Continue" is asked for by `publish`, once it is wanted."""
        router.add_post(PATH, self.publish, expect_handler=_leave)

    async def publish(self, request: web.Request) -> web.Response:
        """Answer one request, whatever comes of it."""
        stats, now_ns = self.stats, self._house.clock.now_ns
        begun_ns, code = now_ns(), _CANCELLED
        stats.started += 1
        stats.in_flight += 1
        try:
            answer = await self._answer(request)
            code = str(answer.status)
        finally:
            stats.finish(code, now_ns() - begun_ns)
        response = web.Response(
            status=answer.status, headers=answer.headers, body=answer.body, content_type="application/json"
        )
        if not request.content.is_eof():
            response.force_close()  # the rest of the body is not the next request
        return response

    async def _answer(self, request: web.Request) -> Answer:
        try:
            if self.stats.in_flight > self.stats.in_flight_max:
                raise LimitExceeded("http.requests_in_flight_max", self.stats.in_flight_max)
            admitted = admit(request, self._house)
            self.bodies.check_length(admitted.mode, request.content_length or 0)
            await _ask_for_body(request)
            async with self.bodies.whole(request.content.iter_any(), admitted.mode) as body:
                return await self._publish(admitted, await _framed(admitted, request.raw_headers, body))
        except Refused as refusal:
            return refused(refusal.error, refusal.status)
        except TrunklineError as error:
            return refused(error)
        except (ConnectionError, web.RequestPayloadError) as error:
            return refused(InvalidArgument.of("body", "must come whole", type(error).__name__))
        except Exception as error:
            log.error("publish over HTTP failed", exc_info=error)
            return refused(Internal("the publish failed; the server's log says why"))

    async def _publish(self, admitted: Admitted, data: bytes) -> Answer:
        """Publish a serialized PublishRequest; an empty batch (HTTP binding, 3.3.2) asks for nothing."""
        if not data:
            return NOTHING_PUBLISHED
        limit_ms = self._house.config.call_deadline_ms_default
        principal = admitted.principal
        try:
            async with asyncio.timeout(limit_ms / 1_000):
                return published(
                    await self._publishing.publish(data, Origin(author=principal.name), may_publish(principal))
                )
        except TimeoutError:
            raise DeadlineExceeded(f"not durable within {limit_ms} ms: repeat it with the same ids") from None


async def _framed(admitted: Admitted, headers: tuple[tuple[bytes, bytes], ...], body: bytes) -> bytes:
    """A request's events as a serialized PublishRequest, read a slice at a time; empty if there are none."""
    head = events_pb2.PublishRequest(
        namespace=admitted.namespace,
        stream=admitted.stream,
        require_sync=common_pb2.Sync.ValueType(admitted.require_sync),
    )
    pieces = [head.SerializeToString()]
    read = 0
    for event in read_events(admitted.mode, headers, body):
        data = event.SerializeToString()
        pieces += (frame_head(len(data)), data)
        read += EVENT_COST_BYTES + len(data)
        if read >= SLICE_BYTES:
            read = 0
            await asyncio.sleep(0)
    return b"".join(pieces) if len(pieces) > 1 else b""


async def _leave(_request: web.Request) -> None:
    """aiohttp's own would say "100 Continue" to everybody, before anything is known of the request."""


async def _ask_for_body(request: web.Request) -> None:
    """Tell a client that waits for it to send the body (RFC 9110, 10.1.1)."""
    if request.version >= HttpVersion11 and request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
