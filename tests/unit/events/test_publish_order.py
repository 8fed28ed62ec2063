"""What one client publishes on one stream of requests is appended in the order in which it came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable

from reference.events_world import BY, World, event
from reference.registry_world import virtual
from trunkline.api.v1 import events_pb2


class Answers:
    """Takes what PublishStream answers."""

    ready = True

    def __init__(self) -> None:
        self.offsets: dict[int, int] = {}

    def offer(self, data: bytes | Iterable[bytes]) -> bool:
        whole = data if isinstance(data, bytes) else b"".join(data)
        answer = events_pb2.PublishStreamResponse.FromString(whole)
        assert not answer.HasField("error"), answer.error
        self.offsets[answer.sequence] = answer.published[0].offset
        return True

    def flush(self) -> None:
        """It is there already."""

    def on_ready(self, callback: Callable[[], None]) -> None:
        """It always is."""


def test_also_while_the_stream_is_being_made() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            answers = Answers()

            async def requests() -> AsyncIterator[bytes]:
                for number in range(40):
                    request = events_pb2.PublishStreamRequest(
                        namespace="shop", sequence=number + 1, events=[event(str(number))]
                    )
                    yield request.SerializeToString()
                    await asyncio.sleep(0)

            await world.publishing.publish_stream(requests(), answers, BY, lambda _: None)
            assert [answers.offsets[number + 1] for number in range(40)] == list(range(40))

    virtual(main)
