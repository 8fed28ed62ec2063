"""What watches and discovery need of the registry's fold: the state of a service, and which services there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from trunkline.core.model import RegisteredInstance


class ServiceView(Protocol):
    """The instances of one service, and those that went lately."""

    @property
    def instances(self) -> dict[str, RegisteredInstance]:
        """By id, ordered by `modified_revision`, oldest change first. Values are immutable."""

    @property
    def versions(self) -> Mapping[str, int]:
        """How many instances have each; the empty one among them."""

    @property
    def tombstones(self) -> dict[str, int]:
        """Ids that went, with the revision at which they did, oldest first."""

    @property
    def floor(self) -> int:
        """Removals at or before this revision may be missing from `tombstones`."""


class RegistryView(Protocol):
    """The registry as it is now."""

    def service(self, namespace: str, service: str) -> ServiceView | None:
        """None when nothing is known of it: it has no instances, and its tombstones are gone."""

    def services(self, namespace: str) -> Iterable[str]:
        """Names of the services of a namespace that `service` answers for."""

    @property
    def floor(self) -> int:
        """Removals at or before this revision may have been forgotten together with their service."""

    def namespaces(self) -> Iterable[str]:
        """Names of the namespaces that have services."""


def last_change(state: ServiceView) -> int:
    """The revision of the newest change that a service's state still shows; its floor when it shows none."""
    last = state.floor
    for instance in reversed(state.instances.values()):
        last = max(last, instance.modified_revision)
        break
    for revision in reversed(state.tombstones.values()):
        last = max(last, revision)
        break
    return last
