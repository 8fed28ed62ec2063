"""RegistryService on grpc.aio. Requests are checked and callers known before they come here."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from functools import lru_cache
from typing import Any, Final, Protocol

import grpc

from trunkline.api import convert
from trunkline.api.v1 import common_pb2, registry_pb2
from trunkline.api.v1.registry_pb2_grpc import RegistryServiceServicer
from trunkline.core.model import TTL_MS_DEFAULT, Registration
from trunkline.core.registrations import write_registered
from trunkline.server.chain.call import deadline_ns_of, principal_of
from trunkline.server.journal.control.requests import request_id_by
from trunkline.server.journal.control.sequencer import Origin

from .entity import InstanceKey
from .lost import LostReason
from .registry import Late, Reference, Registry

DRAIN_LIMIT_MS_DEFAULT: Final = 30_000

Context = grpc.aio.ServicerContext[Any, Any]


class Headers(Protocol):
    """Makes the head of an answer."""

    def message(self) -> common_pb2.ResponseHeader:
        """As a message."""

    def encoded(self) -> bytes:
        """As the first field of an answer, whole."""


class RegistryService(RegistryServiceServicer):
    """Thin: converts, asks the registry, converts back."""

    def __init__(self, registry: Registry, headers: Headers) -> None:
        self._registry = registry
        self._headers = headers
        self._header = headers.message

    async def Register(  # type: ignore[override]
        self, request: registry_pb2.RegisterRequest | Registration, context: Context
    ) -> bytes:
        wanted = request if isinstance(request, Registration) else _registration_from(request)
        registered = await self._registry.register(
            wanted, _on_behalf_of(principal_of(context).name), deadline_ns=deadline_ns_of(context)
        )
        answer = write_registered(registered.lease_id, registered.modified_revision, registered.changed)
        return self._headers.encoded() + answer + _granted(registered.ttl_ms)

    async def KeepAlive(  # type: ignore[override]
        self, requests: AsyncIterable[registry_pb2.KeepAliveRequest | list[int]], context: Any
    ) -> None:
        await context.answer_each(requests, self._keep_alive)

    async def KeepAliveOnce(self, request: registry_pb2.KeepAliveOnceRequest, context: Context) -> bytes:  # type: ignore[override]
        return self._keep_alive(request)

    def _keep_alive(
        self, request: registry_pb2.KeepAliveRequest | registry_pb2.KeepAliveOnceRequest | list[int]
    ) -> bytes:
        kept = self._registry.keep_alive(request if isinstance(request, list) else request.lease_ids)
        answer = _all_kept(kept.renewed, kept.next_within_ms) if not kept.lost else _kept(*kept)
        return self._headers.encoded() + answer

    async def Deregister(
        self, request: registry_pb2.DeregisterRequest, context: Context
    ) -> registry_pb2.DeregisterResponse:
        changed = await self._registry.deregister(
            _reference_from(request.registration),
            _origin(context, request),
            deadline_ns=deadline_ns_of(context),
        )
        return registry_pb2.DeregisterResponse(header=self._header(), changed=changed)

    async def Drain(self, request: registry_pb2.DrainRequest, context: Context) -> registry_pb2.DrainResponse:
        drained = await self._registry.drain(
            _reference_from(request.registration),
            _origin(context, request),
            limit_ns=convert.ms_from(request, "limit", DRAIN_LIMIT_MS_DEFAULT) * 1_000_000,
            deadline_ns=deadline_ns_of(context),
        )
        return registry_pb2.DrainResponse(
            header=self._header(),
            drained_revision=drained.revision,
            complete=drained.complete,
            late=map(_late_to, drained.late),
        )

    async def SetOverride(
        self, request: registry_pb2.SetOverrideRequest, context: Context
    ) -> registry_pb2.SetOverrideResponse:
        registered = await self._registry.set_override(
            InstanceKey(request.namespace, request.service, request.instance_id),
            convert.status_from(request.status),
            _origin(context, request),
            if_revision=request.if_revision,
            deadline_ns=deadline_ns_of(context),
        )
        return registry_pb2.SetOverrideResponse(header=self._header(), instance=convert.registered_to(registered))


@lru_cache(maxsize=256)
def _on_behalf_of(name: str) -> Origin:
    """Of a write that says no more than who makes it: most have it in common."""
    return Origin(author=name)


def _origin(context: Context, request: Any) -> Origin:
    author = principal_of(context).name
    return Origin(author=author, reason=request.reason, request_id=request_id_by(author, request))


def _reference_from(reference: registry_pb2.RegistrationRef) -> Reference:
    return Reference(
        namespace=reference.namespace,
        lease_id=reference.lease_id,
        service=reference.service,
        instance_id=reference.instance_id,
    )


def _kept(renewed: int, lost: Iterable[tuple[int, LostReason]], next_within_ms: int) -> bytes:
    """A KeepAliveResponse without its header. KeepAliveOnceResponse has the same fields."""
    return registry_pb2.KeepAliveResponse(
        renewed=renewed, lost=_lost_to(lost), next_within=convert.ms_to(next_within_ms)
    ).SerializeToString()


def _registration_from(request: registry_pb2.RegisterRequest) -> Registration:
    return Registration(
        convert.instance_from(request.instance),
        request.lease_secret,
        convert.ms_from(request, "ttl", TTL_MS_DEFAULT),
        request.take_over,
    )


@lru_cache(maxsize=256)
def _granted(ttl_ms: int) -> bytes:
    """The part of a RegisterResponse that many have in common."""
    return registry_pb2.RegisterResponse(ttl=convert.ms_to(ttl_ms)).SerializeToString()


@lru_cache(maxsize=256)
def _all_kept(renewed: int, next_within_ms: int) -> bytes:
    """What almost every answer says."""
    return _kept(renewed, (), next_within_ms)


def _lost_to(lost: Iterable[tuple[int, LostReason]]) -> Iterable[registry_pb2.LostLease]:
    return [
        registry_pb2.LostLease(lease_id=lease_id, reason=registry_pb2.LostLease.Reason.ValueType(reason))
        for lease_id, reason in lost
    ]


def _late_to(late: Late) -> common_pb2.LateWatcher:
    return common_pb2.LateWatcher(
        client=late.client,
        applied_revision=late.applied_revision,
        late_by=convert.ms_to(late.late_by_ns // 1_000_000),
    )
