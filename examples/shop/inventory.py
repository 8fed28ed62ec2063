"""One instance of the inventory: reserves items. Started as `python -m examples.shop.inventory --id inventory-1 --zone a`."""

import argparse
import asyncio
import signal

import grpc

from examples.shop.diary import Diary
from examples.shop.stubs import messages, services
from trunkline.client import connect


class Inventory(services.InventoryServicer):
    def __init__(self, name: str, diary: Diary) -> None:
        self._name = name
        self._diary = diary

    async def Reserve(self, request, context):
        self._diary.write("reserving", order=request.order_id)
        await asyncio.sleep(0.03)  # the warehouse answers
        self._diary.write("reserved", order=request.order_id)
        return messages.ReserveReply(inventory_instance=self._name)


async def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--control", default="127.0.0.1:7400")
    arguments.add_argument("--id", required=True)
    arguments.add_argument("--zone", default="a")
    arguments.add_argument("--version", default="1.0.0")
    options = arguments.parse_args()

    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)

    server = grpc.aio.server()
    services.add_InventoryServicer_to_server(Inventory(options.id, Diary(options.id)), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with connect(options.control, namespace="shop", name=options.id) as trunkline:
        async with await trunkline.register(
            "inventory",
            id=options.id,
            host="127.0.0.1",
            port=port,
            version=options.version,
            zone=options.zone,
            ttl_s=3,
        ):
            await stop.wait()
        # Deregistered, and every caller has told that it knows: what is still here is being finished.
        await server.stop(grace=5)


if __name__ == "__main__":
    asyncio.run(main())
