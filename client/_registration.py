"""An instance's registration: made, kept alive, made again when it was lost, drained and ended."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from trunkline.api import convert
from trunkline.api.v1.registry_pb2 import (
    DeregisterRequest,
    DeregisterResponse,
    DrainRequest,
    DrainResponse,
    LostLease,
    RegisterRequest,
    RegisterResponse,
    RegistrationRef,
)
from trunkline.core.errors import InstanceAlive, InvalidArgument, LeaseNotFound, TrunklineError
from trunkline.core.model import Declared, Instance

from ._backoff import Backoff
from ._edge import Edge
from ._lease import LeaseKeeper
from ._link import Link
from ._options import ClientOptions
from ._tasks import Tasks

log = logging.getLogger("trunkline.client")

LEASE_SECRET_BYTES = 16
REGISTER_AGAIN_WITHIN_S = 1.0
"""After a lost lease the first attempt comes at a random time within so long: many lose theirs together."""
FAREWELL_S = 2.0
"""How long leaving tries to reach a control plane that is away; after it the lease lapses by itself."""

GIVEN_TO_OTHERS = frozenset({LostLease.REASON_DEREGISTERED, LostLease.REASON_TAKEN_OVER})
"""Losses that were somebody's decision: registering again would fight it."""


@dataclass(frozen=True, slots=True)
class LateClient:
    """A watcher that had not told that it applied a revision."""

    client: str
    applied_revision: int
    late_by_s: float


@dataclass(frozen=True, slots=True)
class Drained:
    """What came of a drain."""

    revision: int
    """At which the instance stopped being routed to."""
    complete: bool
    """Every watcher that could route to the instance has applied it."""
    late: tuple[LateClient, ...]
    """Those who had not at the limit."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How a registration is held."""

    ttl_ms: int
    take_over: bool
    drain_on_exit: bool
    drain_limit_s: float


class Registration:
    """One registered instance. Leave it with `async with` or `close()`: it is drained and then deregistered."""

    def __init__(
        self, link: Link, keeper: LeaseKeeper, tasks: Tasks, edge: Edge, *, instance: Instance, terms: Terms,
        options: ClientOptions,
    ) -> None:  # fmt: skip
        self._link = link
        self._keeper = keeper
        self._tasks = tasks
        self._edge = edge
        self._instance = instance
        self._terms = terms
        self._options = options
        self._secret = edge.entropy(LEASE_SECRET_BYTES)
        self._ttl_ms = terms.ttl_ms
        self._lease_id: int | None = None
        self._one_at_a_time = asyncio.Lock()
        self._ended = asyncio.Event()
        self._error: TrunklineError | None = None

    @property
    def instance(self) -> Instance:
        """What is declared."""
        return self._instance

    @property
    def id(self) -> str:
        """The instance's id, unique in its service."""
        return self._instance.id

    @property
    def lease_id(self) -> int | None:
        """None while the lease is lost and not yet had again. Whoever knows it may end the registration."""
        return self._lease_id

    @property
    def ttl_ms(self) -> int:
        """The TTL that was granted, in milliseconds."""
        return self._ttl_ms

    @property
    def error(self) -> TrunklineError | None:
        """Why the registration ended without `close()`."""
        return self._error

    @property
    def ended(self) -> bool:
        """It was closed, or somebody else ended it."""
        return self._ended.is_set()

    async def wait_ended(self) -> None:
        """Return when it is closed; raise `error` when somebody else ended it (deregistered it, or took the id
        over)."""
        await self._ended.wait()
        if self._error is not None:
            raise self._error

    async def declare(self, declared: Declared | str) -> None:
        """Say how the instance is: "starting", "serving" or "degraded". To leave, use `drain` or `close`."""
        wanted = declared_of(declared)
        async with self._one_at_a_time:
            self._check_open()
            self._instance = replace(self._instance, declared=wanted)
            await self._register(take_over=False)

    async def drain(self, *, limit_s: float | None = None) -> Drained:
        """Declare the instance draining; return when every watcher that could route to it has applied that.

        After `limit_s` seconds (the registration's `drain_limit_s` if None) it returns all the same and names who is
        late. Calls in flight go on; the lease is kept.
        """
        self._check_open()
        limit = self._terms.drain_limit_s if limit_s is None else limit_s
        answer = await self._link.call(
            lambda stubs: stubs.registry.Drain,
            DrainRequest(
                registration=self._ref(),
                limit=convert.ms_to(int(limit * 1_000)),
                request_id=self._edge.entropy(16).hex(),
                reason="leaving",
            ),
            DrainResponse,
            timeout_s=limit + self._options.timeout_s,
        )
        self._instance = replace(self._instance, declared=Declared.DRAINING)
        late = [
            LateClient(watcher.client, watcher.applied_revision, convert.ms_from(watcher, "late_by", 0) / 1_000)
            for watcher in answer.late
        ]
        return Drained(answer.drained_revision, answer.complete, tuple(late))

    async def close(self) -> None:
        """Drain (unless `drain_on_exit` was false), then deregister.

        Idempotent; an absent control plane is not waited for.
        """
        if self._ended.is_set():
            return
        try:
            if self._terms.drain_on_exit and self._lease_id is not None and self._link.last_error is None:
                drained = await self.drain()
                if not drained.complete:
                    log.warning("left before all watchers knew", extra={"late": [late.client for late in drained.late]})
            async with self._one_at_a_time:
                await self._deregister()
        except TrunklineError as error:
            log.warning("not deregistered; the lease will lapse", extra={"instance": self.id, "error": str(error)})
        finally:
            self._end(None)

    async def open(self) -> None:
        """Register for the first time; raises what the control plane refuses it with."""
        async with self._one_at_a_time:
            await self._register(take_over=self._terms.take_over)

    def lease_lost(self, reason: LostLease.Reason.ValueType) -> None:
        """The keeper was told that the lease is not there."""
        self._lease_id = None
        if reason in GIVEN_TO_OTHERS:
            self._end(LeaseNotFound(f"the registration of {self.id} was ended: {LostLease.Reason.Name(reason)}"))
            log.error("registration ended by somebody else", extra={"instance": self.id, "why": str(self._error)})
            return
        log.warning("lease lost: registering again", extra={"instance": self.id})
        self._tasks.spawn(self._register_again(), name=f"register {self.id} again")

    async def _register_again(self) -> None:
        backoff = Backoff(self._options.backoff, self._edge.rng)
        await asyncio.sleep(self._edge.rng.random() * min(REGISTER_AGAIN_WITHIN_S, self._ttl_ms / 10_000))
        while not self._ended.is_set():
            try:
                async with self._one_at_a_time:
                    if not self._ended.is_set():
                        await self._register(take_over=False)
                return
            except InstanceAlive as error:
                self._end(error)
                log.error("instance id taken by another holder", extra={"instance": self.id})
                return
            except TrunklineError as error:
                log.warning("not registered again yet", extra={"instance": self.id, "error": str(error)})
                await asyncio.sleep(backoff.next_s(limit_s=self._ttl_ms / 3_000))

    async def _register(self, *, take_over: bool) -> None:
        answer = await self._link.call(
            lambda stubs: stubs.registry.Register,
            RegisterRequest(
                instance=convert.instance_to(self._instance),
                lease_secret=self._secret,
                ttl=convert.ms_to(self._terms.ttl_ms),
                take_over=take_over,
            ),
            RegisterResponse,
        )
        self._ttl_ms = convert.ms_from(answer, "ttl", self._terms.ttl_ms)
        if answer.lease_id != self._lease_id:
            if self._lease_id is not None:
                self._keeper.forget(self._lease_id)
            self._lease_id = answer.lease_id
            self._keeper.keep(answer.lease_id, self)

    async def _deregister(self) -> None:
        if self._lease_id is None:
            return
        away = self._link.last_error is not None
        await self._link.call(
            lambda stubs: stubs.registry.Deregister,
            DeregisterRequest(registration=self._ref(), request_id=self._edge.entropy(16).hex(), reason="left"),
            DeregisterResponse,
            timeout_s=FAREWELL_S if away else self._options.timeout_s,
        )

    def _ref(self) -> RegistrationRef:
        instance = self._instance
        if self._lease_id is not None:
            return RegistrationRef(namespace=instance.namespace, lease_id=self._lease_id)
        return RegistrationRef(namespace=instance.namespace, service=instance.service, instance_id=instance.id)

    def _check_open(self) -> None:
        if self._error is not None:
            raise self._error
        if self._ended.is_set():
            raise LeaseNotFound(f"the registration of {self.id} is closed")

    def _end(self, error: TrunklineError | None) -> None:
        if not self._ended.is_set():
            self._error = error
            self._ended.set()
        if self._lease_id is not None:
            self._keeper.forget(self._lease_id)
            self._lease_id = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


def declared_of(declared: Declared | str) -> Declared:
    """What a caller may declare; draining has a call of its own."""
    try:
        wanted = Declared[declared.upper()] if isinstance(declared, str) else Declared(declared)
    except (KeyError, ValueError):
        wanted = Declared.DRAINING
    if wanted is Declared.DRAINING:
        raise InvalidArgument.of("declared", "starting, serving or degraded", declared)
    return wanted
