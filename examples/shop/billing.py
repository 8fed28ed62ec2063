"""One consumer of the subscription `billing`: bills each placed order. Start as many as you like; they share the work."""

import argparse
import asyncio
import signal

from examples.shop.diary import Diary
from trunkline.client import Delivery, Event, connect


async def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--control", default="127.0.0.1:7400")
    arguments.add_argument("--id", required=True)
    options = arguments.parse_args()
    diary = Diary(options.id)

    async with connect(options.control, namespace="shop", name=options.id) as trunkline:

        async def bill(delivery: Delivery) -> None:
            order = delivery.event.id
            diary.write("billing", event=order, attempt=delivery.attempt)
            await asyncio.sleep(0.05)  # the bank answers
            billed = Event.json(
                type="shop.order.billed", id=f"bill-{order}", source="/shop/billing", key=order, data={"order": order}
            )
            await trunkline.publish(billed, timeout_s=20)
            diary.write("billed", event=order)  # returning acknowledges

        subscription = trunkline.subscribe("billing", filters=["shop.order.placed"], start="earliest", credit=32)
        consuming = asyncio.create_task(subscription.consume(bill, concurrency=16))
        for name in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(name, consuming.cancel)
        await asyncio.wait([consuming])


if __name__ == "__main__":
    asyncio.run(main())
