"""The registry's state of one service and of one namespace: what the fold keeps beside the entries themselves."""

from __future__ import annotations

from collections import OrderedDict

from trunkline.core.model import RegisteredInstance
from trunkline.core.registered import Entry

from .status import SERVES


class ServiceState:
    """The instances of one service, and those that went lately. Readers must not change it."""

    __slots__ = ("floor", "instances", "lapsed", "name", "namespace", "serving", "tombstones", "versions")

    def __init__(self, namespace: str, name: str, *, floor: int) -> None:
        self.namespace = namespace
        self.name = name
        self.instances: dict[str, RegisteredInstance] = {}
        """By id, ordered by modified_revision."""
        self.versions: dict[str, int] = {}
        """How many instances have each; the empty one among them."""
        self.tombstones: OrderedDict[str, int] = OrderedDict()
        """Ids that went and did not come back, with the revision at which they did, oldest first."""
        self.floor = floor
        """Removals at or before this revision may be missing from `tombstones`."""
        self.serving = 0
        """How many are SERVING or DEGRADED, and their leases have not lapsed."""
        self.lapsed = 0
        """How many are kept although their lease has lapsed."""

    def count(self, entry: Entry, by: int) -> None:
        """An entry came (+1) or went (-1)."""
        version = entry.registered.instance.version
        self.versions[version] = left = self.versions.get(version, 0) + by
        if not left:
            del self.versions[version]
        if entry.lease.lapsed_revision is not None:
            self.lapsed += by  # whatever an operator's override makes of it
        elif entry.registered.status in SERVES:
            self.serving += by


class NamespaceState:
    """The services of one namespace."""

    __slots__ = ("instances", "lapsed", "name", "services")

    def __init__(self, name: str) -> None:
        self.name = name
        self.services: dict[str, ServiceState] = {}
        self.instances = 0
        """How many instances, and so leases, it has."""
        self.lapsed = 0
        """How many of the leases have lapsed."""
