"""Which services there are, in pages."""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from trunkline.core.errors import InvalidArgument
from trunkline.core.model import Status

from .registry_view import RegistryView

SLICE_INSTANCES = 5_000
"""Instances counted before the loop gets its turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSummary:
    """One service, counted."""

    namespace: str
    service: str
    counts: Mapping[Status, int]
    versions: Sequence[str]
    """Those that its instances have, sorted."""


@dataclass(frozen=True, slots=True)
class ServicePage:
    """Services in the order of namespace and name."""

    services: Sequence[ServiceSummary]
    next_page_token: str
    """Empty on the last page."""


class Catalogue:
    """Reads the registry as it goes along: each summary is of one moment, a page of several."""

    def __init__(self, registry: RegistryView) -> None:
        self._registry = registry

    async def page(
        self, namespace: str, *, page_size: int, page_token: str, sees: Callable[[str], bool]
    ) -> ServicePage:
        """A page of the services of a namespace, or of all that the caller sees when it is empty.

        Raises InvalidArgument when the token is none of ours.
        """
        after = _position(page_token)
        names = heapq.nsmallest(page_size + 1, self._names(namespace, after, sees))
        services: list[ServiceSummary] = []
        counted = 0
        for of_namespace, service in names[:page_size]:
            summary = self._summary(of_namespace, service)
            services.append(summary)
            counted += 10 + sum(summary.counts.values())
            if counted >= SLICE_INSTANCES:
                counted = 0
                await asyncio.sleep(0)
        token = "/".join(names[page_size - 1]) if len(names) > page_size else ""
        return ServicePage(services, token)

    def _names(self, namespace: str, after: tuple[str, str], sees: Callable[[str], bool]) -> Iterator[tuple[str, str]]:
        for of_namespace in [namespace] if namespace else list(self._registry.namespaces()):
            if not sees(of_namespace):
                continue
            for service in self._registry.services(of_namespace):
                if (of_namespace, service) > after:
                    state = self._registry.service(of_namespace, service)
                    if state is not None and state.instances:
                        yield of_namespace, service

    def _summary(self, namespace: str, service: str) -> ServiceSummary:
        state = self._registry.service(namespace, service)
        instances = () if state is None else state.instances.values()
        counts = Counter(registered.status for registered in instances)
        versions = set() if state is None else state.versions.keys() - {""}
        return ServiceSummary(
            namespace=namespace, service=service, counts=dict(sorted(counts.items())), versions=sorted(versions)
        )


def _position(page_token: str) -> tuple[str, str]:
    if not page_token:
        return ("", "")
    namespace, slash, service = page_token.partition("/")
    if not (namespace and slash and service) or "/" in service:
        raise InvalidArgument.of("page_token", "the next_page_token of an earlier answer", page_token)
    return namespace, service
