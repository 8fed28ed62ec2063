"""Every policy of this installation: changed, shown, and taken back to what it was."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from trunkline.api.journal.v1 import control_pb2
from trunkline.api.policies import check_policy
from trunkline.api.v1.policy_pb2 import TrafficPolicy
from trunkline.core.errors import (
    InvalidArgument,
    PolicyNotFound,
    RevisionCompacted,
    RevisionInFuture,
    Violation,
    WriteConflict,
)
from trunkline.core.model import RegisteredInstance
from trunkline.core.records import Record
from trunkline.server.journal.control.fold import Decide
from trunkline.server.journal.control.sequencer import Origin, Written
from trunkline.server.journal.log import Log

from ..slices import in_slices
from .blast_radius import Limits, Radius, radius_of, refuse_beyond
from .config import TrafficConfig
from .decision import Decision, name_of
from .effective import EffectivePolicies, Shares
from .fold import POLICY_APPLIED, PoliciesFold, PolicyEntity

ATTEMPTS_MAX = 5
"""Times that a change is judged anew because something else changed meanwhile."""
CHANGES_DEFAULT = 100
PAGE_DEFAULT = 1_000
"""Policies."""
ANSWER_BYTES = 2 * 1024 * 1024
"""With so many bytes of policies an answer is full: a client in another language takes 4 MiB."""
NO_MORE_THAN_HALF = Limits()


class ServiceView(Protocol):
    """The instances of one service."""

    @property
    def instances(self) -> dict[str, RegisteredInstance]: ...


class RegistryView(Protocol):
    """The registry as it is now."""

    def service(self, namespace: str, service: str) -> ServiceView | None: ...

    def services(self, namespace: str) -> Iterable[str]: ...


class Writer(Protocol):
    """The sequencer, from here."""

    revision: int

    async def write(self, decide: Decide, origin: Origin, *, deadline_ns: int | None = None) -> Written: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How a change is to be made."""

    expected: int | None = None
    """The revision that it was made against; 0 for "there was none", None for any."""
    dry_run: bool = False
    force: bool = False
    limits: Limits = NO_MORE_THAN_HALF


class Changed(NamedTuple):
    """What a change came to."""

    entity: PolicyEntity | None
    """As it is kept now, or would be; None when there is none."""
    changed: bool
    radii: Sequence[Radius] = ()
    """Of the services that are touched and have instances, those that lose most first."""


class PastChange(NamedTuple):
    """One change of a policy."""

    policy: TrafficPolicy | None
    record: Record


class Traffic:
    """Told of every group of control records by `on_records`."""

    def __init__(
        self,
        fold: PoliciesFold,
        registry: RegistryView,
        writer: Writer,
        control: Log,
        config: TrafficConfig,
        *,
        shares: Shares | None = None,
    ) -> None:
        self.policies = EffectivePolicies(fold, shares)
        """What holds for each service."""
        self._fold = fold
        self._registry = registry
        self._writer = writer
        self._control = control
        self._config = config

    def on_records(self, records: Iterable[Record]) -> None:
        """Records of control were folded."""
        self.policies.on_records(records)

    def metrics(self) -> dict[str, float]:
        """Counts by name."""
        return {"policies": len(self._fold), "effective_policies": len(self.policies)}

    # Changing.

    async def apply(
        self, policy: TrafficPolicy, wish: Wish, origin: Origin, *, deadline_ns: int | None = None
    ) -> Changed:
        """Keep a policy in place of the one there was.

        Raises InvalidArgument, RevisionMismatch, BlastRadius, LimitExceeded and what the sequencer raises.
        """
        return await self._make(policy.namespace, policy.service, policy, wish, origin, deadline_ns)

    async def delete(
        self, namespace: str, service: str, wish: Wish, origin: Origin, *, deadline_ns: int | None = None
    ) -> Changed:
        """Keep none. Raises PolicyNotFound, and what `apply` does."""
        return await self._make(namespace, service, None, wish, origin, deadline_ns, must_exist=True)

    async def roll_back(
        self, namespace: str, service: str, to: int, wish: Wish, origin: Origin, *, deadline_ns: int | None = None
    ) -> Changed:
        """Keep what there was at a revision; 0 stands for before the last change.

        Raises PolicyNotFound (there never was one), RevisionInFuture, RevisionCompacted, and what `apply` does.
        """
        known = self._fold.known(namespace, service)
        if known is None:
            raise PolicyNotFound(f"there never was a policy of {name_of(namespace, service)}", service=service)
        if not to:
            to = known.revisions[-2] if len(known.revisions) > 1 else known.revision - 1
        policy = await self.at(namespace, service, to)
        if not origin.reason:
            origin = origin._replace(reason=f"back to revision {to}")
        return await self._make(namespace, service, policy, wish, origin, deadline_ns)

    async def _make(
        self,
        namespace: str,
        service: str,
        policy: TrafficPolicy | None,
        wish: Wish,
        origin: Origin,
        deadline_ns: int | None,
        *,
        must_exist: bool = False,
    ) -> Changed:
        decision = Decision(
            self._fold, self._config, namespace, service, policy,
            expected=wish.expected, must_exist=must_exist, forced=wish.force,
        )  # fmt: skip
        radii: Sequence[Radius] = ()
        for _ in range(ATTEMPTS_MAX):
            if wish.dry_run:
                would_change = bool(decision(_Durable(self._fold, self._writer.revision)))
                if decision.unjudged is None:
                    return Changed(self._supposed(decision), would_change, radii)
            else:
                written = await self._writer.write(decision, origin, deadline_ns=deadline_ns)
                if written.repeated or decision.unjudged is None:
                    known = self._fold.known(namespace, service)
                    changed = known is not None and written.revision in known.revisions
                    changed = changed if written.repeated else bool(written.records)
                    return Changed(known if known is not None and known.policy is not None else None, changed, radii)
            basis = decision.unjudged
            radii = await self._judge(decision, wish)
            decision.judged = basis
        raise WriteConflict("other policies kept changing while this change was judged")

    def _supposed(self, decision: Decision) -> PolicyEntity | None:
        """What a dry run would have kept."""
        known = self._fold.known(decision.namespace, decision.service)
        if decision.policy is None:
            return None
        return PolicyEntity(
            namespace=decision.namespace,
            service=decision.service,
            policy=decision.policy,
            revisions=(0 if known is None or known.policy is None else known.revision,),
            time_ns=0 if known is None else known.time_ns,
            author="" if known is None else known.author,
            reason="" if known is None else known.reason,
        )

    async def _judge(self, decision: Decision, wish: Wish) -> list[Radius]:
        """Look at what the change does to services. Raises InvalidArgument, BlastRadius."""
        if not decision.service:
            await self._check_others(decision)
        radii: list[Radius] = []
        namespace, changed = decision.namespace, decision.service
        for service in [changed] if changed else sorted(self._registry.services(namespace)):
            state = self._registry.service(namespace, service)
            if state is None or not state.instances:
                continue
            before = self.policies.get(namespace, service)
            after = self.policies.supposed(namespace, service, changed=changed, policy=decision.policy)
            if before.message != after.message:
                work = radius_of(service, list(state.instances.values()), before.policy, after.policy)
                radii.append(await in_slices(work))
            await asyncio.sleep(0)
        radii.sort(key=lambda radius: (-radius.worst, radius.service))
        if not wish.force:
            refuse_beyond(radii, wish.limits)
        return radii

    async def _check_others(self, decision: Decision) -> None:
        """A namespace's policy must not take away what its services' own policies speak of, or contradict them."""
        others = [one for one in self._fold.of_namespace(decision.namespace).values() if one.service]
        for other in others:
            if other.policy is None:
                continue
            try:
                check_policy(other.policy, decision.policy)
            except InvalidArgument as refused:
                raise InvalidArgument(
                    *(Violation(f"{other.service}: {v.field}", v.rule, v.value) for v in refused.violations)
                ) from None
            await asyncio.sleep(0)

    # Showing.

    def own(self, namespace: str, service: str) -> PolicyEntity | None:
        """The policy of a service, or of a namespace, itself."""
        known = self._fold.known(namespace, service)
        return None if known is None or known.policy is None else known

    def page(
        self, namespace: str, *, page_size: int = 0, page_token: str = "", sees: Callable[[str], bool] = lambda _: True
    ) -> tuple[list[PolicyEntity], str]:
        """Those of a namespace, or of all when it is empty, by namespace and service; and the token of what comes next.

        InvalidArgument when the token is none of ours.
        """
        after, page_size = _position(page_token), page_size or PAGE_DEFAULT
        found: list[PolicyEntity] = []
        size = 0
        for one in filter(sees, [namespace] if namespace else self._fold.namespaces()):
            of_namespace = self._fold.of_namespace(one)
            for service in sorted(of_namespace) if after is None or one >= after[0] else ():
                policy = of_namespace[service].policy
                if policy is None or (after is not None and (one, service) <= after):
                    continue
                if len(found) >= page_size or size >= ANSWER_BYTES:
                    return found, f"{found[-1].namespace}/{found[-1].service}"
                found.append(of_namespace[service])
                size += policy.ByteSize()
        return found, ""

    async def changes(self, namespace: str, service: str, *, max_changes: int) -> tuple[list[PastChange], bool]:
        """The last changes of a policy, newest first, and whether there were more."""
        known = self._fold.known(namespace, service)
        if known is None:
            return [], self._fold.floor > 0
        max_changes = max_changes or CHANGES_DEFAULT
        found: list[PastChange] = []
        size = 0
        for revision in reversed(known.revisions[-max_changes:]):
            if revision < self._control.first_offset or size >= ANSWER_BYTES:
                return found, True
            record = await self._record(revision)
            size += len(record.body)
            found.append(_past(record))
        return found, known.truncated or len(known.revisions) > len(found)

    async def at(self, namespace: str, service: str, revision: int) -> TrafficPolicy | None:
        """A policy as it was at a revision. Raises RevisionInFuture, RevisionCompacted."""
        change = await self.change_at(namespace, service, revision)
        return None if change is None else change.policy

    async def change_at(self, namespace: str, service: str, revision: int) -> PastChange | None:
        """The change by which a policy was what it was at a revision; None when there had been none."""
        if revision > self._writer.revision:
            raise RevisionInFuture(f"revision {revision} is asked for, control is at {self._writer.revision}")
        known = self._fold.known(namespace, service)
        index = 0 if known is None else bisect_right(known.revisions, revision)
        if not index:
            if (known is None and revision <= self._fold.floor) or (known is not None and known.truncated):
                raise RevisionCompacted(f"the policy of revision {revision} is not known any more")
            return None
        assert known is not None
        return _past(await self._record(known.revisions[index - 1]))

    async def _record(self, revision: int) -> Record:
        if revision < self._control.first_offset:
            raise RevisionCompacted(f"control's history is kept from revision {self._control.first_offset} on")
        block = (await self._control.read(revision, max_bytes=1))[0]
        return block.record(revision - block.base_offset)


class _Durable:
    """What a dry run is decided against."""

    def __init__(self, fold: PoliciesFold, revision: int) -> None:
        self.revision = revision
        self._fold = fold

    def get(self, key: str) -> Any | None:
        return self._fold.get(key)

    def pending(self, prefix: str) -> Sequence[str]:
        return ()


def _position(page_token: str) -> tuple[str, str] | None:
    if not page_token:
        return None
    namespace, slash, service = page_token.partition("/")
    if not (namespace and slash) or "/" in service:
        raise InvalidArgument.of("page_token", "the next_page_token of an earlier answer", page_token)
    return namespace, service


def _past(record: Record) -> PastChange:
    policy = control_pb2.PolicyApplied.FromString(record.body).policy if record.topic == POLICY_APPLIED else None
    return PastChange(policy, record)
