"""Writes to the customer when an order is billed: the only consumer of the subscription `mailer`."""

import argparse
import asyncio
import signal

from examples.shop.diary import Diary
from trunkline.client import Delivery, connect


async def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--control", default="127.0.0.1:7400")
    arguments.add_argument("--id", required=True)
    options = arguments.parse_args()
    diary = Diary(options.id)

    async with connect(options.control, namespace="shop", name=options.id) as trunkline:

        async def write(delivery: Delivery) -> None:
            diary.write("mailed", event=delivery.event.json_data()["order"], attempt=delivery.attempt)

        subscription = trunkline.subscribe("mailer", filters=["shop.order.billed"], start="earliest", credit=32)
        consuming = asyncio.create_task(subscription.consume(write, concurrency=16))
        for name in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(name, consuming.cancel)
        await asyncio.wait([consuming])


if __name__ == "__main__":
    asyncio.run(main())
