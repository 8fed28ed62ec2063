"""Reading an instance, beside asking protobuf for one field after the other."""

from __future__ import annotations

from typing import Any

from bench.load.world import World, instance
from bench.micro.timing import FULL, QUICK, each, row
from trunkline.api import convert
from trunkline.core.instances import read_instance
from trunkline.core.model import Declared, Endpoint, Instance, Locality

Row = dict[str, Any]


def rows(quick: bool) -> list[Row]:
    """In nanoseconds an instance."""
    message = convert.instance_to(instance(World(), 1))
    data = message.SerializeToString()

    def by_fields() -> Instance:
        return Instance(
            namespace=message.namespace,
            service=message.service,
            id=message.id,
            endpoints=tuple([Endpoint(one.host, one.port, one.protocol) for one in message.endpoints]),
            version=message.version,
            weight=message.weight,
            locality=Locality(message.locality.region, message.locality.zone, message.locality.sub_zone),
            labels=dict(message.labels),
            declared=Declared(message.declared),
        )

    assert read_instance(data, convert.health_check_of) == by_fields()
    plan = QUICK if quick else FULL
    peer = "protobuf, one field after the other"
    return [
        row(
            "wire",
            "an instance from its bytes",
            plan,
            each(lambda: read_instance(data, convert.health_check_of)),
            peer,
            each(by_fields),
        ),
        row(
            "wire",
            "an instance from its message",
            plan,
            each(lambda: convert.instance_from(message)),
            peer,
            each(by_fields),
        ),
    ]
