"""One instance of the order service: reserves at the inventory, then tells the world. `--id orders-1 --version 1.0.0`."""

import argparse
import asyncio
import signal

import grpc

from examples.shop.diary import Diary
from examples.shop.stubs import messages, services
from trunkline.client import Event, SentCall, connect


class Orders(services.OrdersServicer):
    def __init__(self, name, version, inventory, trunkline, diary: Diary) -> None:
        self._name = name
        self._version = version
        self._inventory = services.InventoryStub(inventory)
        self._trunkline = trunkline
        self._diary = diary

    async def Place(self, request, context):
        try:
            reserved = await self._inventory.Reserve(
                messages.ReserveRequest(order_id=request.order_id, item=request.item), timeout=5
            )
        except grpc.aio.AioRpcError as error:
            # It may or may not have been reserved: whoever places the order decides whether to try again.
            await context.abort(error.code(), f"inventory: {error.details()}")
        self._diary.write("called", instance=reserved.inventory_instance)
        placed = Event.json(
            type="shop.order.placed",
            id=request.order_id,
            source="/shop/orders",
            key=request.order_id,
            data={"order": request.order_id, "version": self._version},
        )
        # Until it is acknowledged this may be repeated: the id says that it is the same order. The control plane may be
        # away for a while; the order waits for it.
        await self._trunkline.publish(placed, timeout_s=20)
        self._diary.write("published", event=request.order_id)
        return messages.PlaceReply(orders_instance=self._name, inventory_instance=reserved.inventory_instance)


async def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--control", default="127.0.0.1:7400")
    arguments.add_argument("--id", required=True)
    arguments.add_argument("--version", default="1.0.0")
    options = arguments.parse_args()

    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)

    diary = Diary(options.id)
    async with connect(options.control, namespace="shop", name=options.id) as trunkline:

        def called(call: SentCall) -> None:
            code = call.code.name if call.code else "CANCELLED"
            diary.write("attempt", instance=call.instance.instance.id, code=code, sent=call.sent_ns / 1e9)

        inventory = await trunkline.channel("inventory", load_balancing="round_robin", on_call=called)
        server = grpc.aio.server()
        orders = Orders(options.id, options.version, inventory, trunkline, diary)
        services.add_OrdersServicer_to_server(orders, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with await trunkline.register(
            "orders", id=options.id, host="127.0.0.1", port=port, version=options.version, ttl_s=3
        ):
            await stop.wait()
        await server.stop(grace=5)


if __name__ == "__main__":
    asyncio.run(main())
