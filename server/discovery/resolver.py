"""Answers to Resolve, encoded once for each service and selector until the service changes."""

from __future__ import annotations

from collections.abc import Iterable

from trunkline.core.model import RegisteredInstance
from trunkline.core.selector import Selector

from ..registry.changes import RegistryChange
from . import wire
from .registry_view import RegistryView

ANSWERS_MAX = 10_000
"""Encoded answers that are kept; when there are more, all are forgotten."""
ANSWER_BYTES_MAX = 64 * 1024 * 1024
"""Their size in all."""


def matching(registry: RegistryView, namespace: str, service: str, selector: Selector) -> list[RegisteredInstance]:
    """The instances of a service that a selector means, ordered by id; none when there is no such service."""
    state = registry.service(namespace, service)
    if state is None:
        return []
    found = [registered for registered in state.instances.values() if selector.matches(registered)]
    found.sort(key=lambda registered: registered.instance.id)
    return found


class Resolver:
    """Gives ResolveResponses without their header, as bytes."""

    def __init__(
        self,
        registry: RegistryView,
        encoded: wire.EncodedInstances,
        *,
        answers_max: int = ANSWERS_MAX,
        answer_bytes_max: int = ANSWER_BYTES_MAX,
    ) -> None:
        self._registry = registry
        self._encoded = encoded
        self._answers_max = answers_max
        self._answer_bytes_max = answer_bytes_max
        self._kept: dict[tuple[str, str], dict[object, bytes]] = {}
        self._answers = 0
        self.bytes = 0
        """Size of the answers that are kept."""

    def resolve(self, namespace: str, service: str, key: object, selector: Selector) -> bytes:
        """The body of an answer. `key` stands for the selector: equal keys for the same one."""
        kept = self.kept(namespace, service, key)
        if kept is not None:
            return kept
        instances = matching(self._registry, namespace, service, selector)
        body = wire.resolved(map(self._encoded.get, instances))
        if self._registry.service(namespace, service) is not None:  # any name can be asked for
            self._keep(namespace, service, key, body)
        return body

    def kept(self, namespace: str, service: str, key: object) -> bytes | None:
        """The body of an answer, if it has been given since the service last changed."""
        of_service = self._kept.get((namespace, service))
        return None if of_service is None else of_service.get(key)

    def _keep(self, namespace: str, service: str, key: object, body: bytes) -> None:
        if self._answers >= self._answers_max or self.bytes + len(body) > self._answer_bytes_max:
            self._kept.clear()
            self._answers = self.bytes = 0
            if len(body) > self._answer_bytes_max:
                return
        self._kept.setdefault((namespace, service), {})[key] = body
        self._answers += 1
        self.bytes += len(body)

    def apply(self, changes: Iterable[RegistryChange]) -> None:
        """These instances changed: forget what was said of their services."""
        for change in changes:
            of_service = self._kept.pop((change.namespace, change.service), None)
            if of_service:
                self._answers -= len(of_service)
                self.bytes -= sum(map(len, of_service.values()))
