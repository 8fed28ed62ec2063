"""What holds for a service: its own policy over the namespace's, with the shares of the last release.

When that is over, its shares stay, so that no version gets calls that no release gave any, until somebody says otherwise:
by destinations in a policy that were written later. Other changes of a policy are no such word, even if old destinations
stand in it. Made when it is first asked for, and anew when a record touched it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol, overload

from trunkline.api.policies import destination_to, key_source_to, merged, policy_from
from trunkline.api.v1.policy_pb2 import EffectivePolicy, TrafficPolicy
from trunkline.core.policy import Destination, KeySource, Policy
from trunkline.core.records import Record

from .fold import PoliciesFold, PolicyEntity

EFFECTIVE_MAX = 20_000
"""Services whose effective policy is kept; when there are more, all are made anew."""
NOW = 1 << 64
"""After every revision that there is."""
TOUCHING = ("policy.", "release.")
"""Topics of the records that change what holds; their keys are `x/<namespace>/<service>`."""


class ReleaseShares(Protocol):
    """What a release says of a service's split."""

    @property
    def destinations(self) -> Sequence[Destination]:
        """In place of the policy's; none when the release leaves the split alone."""

    @property
    def sticky_on(self) -> KeySource | None:
        """In place of the policy's, unless None."""

    @property
    def revision(self) -> int:
        """Of the last change of these shares; a release that is over keeps its last: what holds never gets older."""

    @property
    def settled(self) -> bool:
        """The release is over."""


class Shares(Protocol):
    """The releases, as far as they decide who gets calls."""

    def split_of(self, namespace: str, service: str) -> ReleaseShares | None:
        """None when the service never had a release."""

    def services(self, namespace: str) -> Iterable[str]:
        """Those of a namespace for which `split_of` has anything to say."""


class NoShares:
    """There are no releases."""

    def split_of(self, namespace: str, service: str) -> ReleaseShares | None:
        return None

    def services(self, namespace: str) -> Iterable[str]:
        return ()


class Effective:
    """What holds for one service. Immutable; merging and encoding are done when they are asked for."""

    def __init__(
        self,
        namespace: str,
        service: str,
        *,
        own: TrafficPolicy | None,
        default: TrafficPolicy | None,
        shares: ReleaseShares | None,
        revision: int,
    ) -> None:
        self.namespace = namespace
        self.service = service
        self.revision = revision
        """Of the last change to any of it; 0 when there was none."""
        self._own = own
        self._default = default
        self._shares = shares

    @cached_property
    def message(self) -> TrafficPolicy:
        """All sections. Not to be changed."""
        message = merged(self._own, self._default)
        message.namespace, message.service = self.namespace, self.service
        shares = self._shares
        if shares is not None and shares.destinations:
            del message.split.destinations[:]
            message.split.destinations.extend(map(destination_to, shares.destinations))
            if shares.sticky_on is not None:
                message.split.sticky_on.CopyFrom(key_source_to(shares.sticky_on))
        return message

    @cached_property
    def policy(self) -> Policy:
        """The same as values."""
        return policy_from(self.message, self.revision)

    @cached_property
    def encoded(self) -> bytes:
        """A serialized EffectivePolicy."""
        effective = EffectivePolicy(service=self.service, policy=self.message, revision=self.revision)
        return effective.SerializeToString(deterministic=True)


def destinations_differ(one: TrafficPolicy | None, other: TrafficPolicy | None) -> bool:
    """Whether two policies of one service, or none, would split calls differently."""
    return _destinations(one) != _destinations(other)


def _destinations(policy: TrafficPolicy | None) -> list[Any]:
    return [] if policy is None else list(policy.split.destinations)


def _made(
    namespace: str,
    service: str,
    own: PolicyEntity | None,
    default: PolicyEntity | None,
    shares: ReleaseShares | None,
) -> Effective:
    known = [one.revision for one in (own, default, shares) if one is not None]
    return Effective(
        namespace,
        service,
        own=None if own is None else own.policy,
        default=None if default is None else default.policy,
        shares=_unless_replaced(shares, own, default),
        revision=max(known, default=0),
    )


def _unless_replaced(
    shares: ReleaseShares | None, own: PolicyEntity | None, default: PolicyEntity | None
) -> ReleaseShares | None:
    """The shares of a release; None when it is over and the policies' destinations were written later."""
    splits = own is not None and own.policy is not None and own.policy.HasField("split")
    holds = own if splits else default
    if shares is None or not shares.settled or holds is None or not _destinations(holds.policy):
        return shares
    return None if holds.destinations_revision > shares.revision else shares


class AsOf(Sequence[Effective]):
    """What holds for all services of a namespace of which anything was said, as of when this was made."""

    def __init__(self, policies: EffectivePolicies, namespace: str) -> None:
        self._policies = policies
        self._namespace = namespace
        self._services = policies.named(namespace)
        self._known = dict(policies.fold.of_namespace(namespace))
        shares = policies.shares
        self._shares = {service: shares.split_of(namespace, service) for service in shares.services(namespace)}
        self._changes = policies.changes

    def __len__(self) -> int:
        return len(self._services)

    @overload
    def __getitem__(self, at: int) -> Effective: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[Effective]: ...

    def __getitem__(self, at: int | slice) -> Effective | Sequence[Effective]:
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(len(self)))]
        service = self._services[at]
        if self._policies.changes == self._changes:
            return self._policies.get(self._namespace, service)  # which keeps it
        own = self._known.get(service) if service else None
        return _made(self._namespace, service, own, self._known.get(""), self._shares.get(service))


class EffectivePolicies:
    """Reads the folds; told of every group of records by `on_records`, before anybody asks again."""

    def __init__(self, fold: PoliciesFold, shares: Shares | None = None) -> None:
        self.fold = fold
        self.shares: Shares = NoShares() if shares is None else shares
        """The releases' fold; put in before the journal is read."""
        self._kept: dict[str, dict[str, Effective]] = {}
        self._count = 0
        self.changes = 0
        """How often something else has held since, anywhere."""
        self._touched: list[tuple[str, str]] = []
        self._last: dict[str, int] = {}
        """By namespace, the revision of the newest policy; of those that were asked for."""

    def __len__(self) -> int:
        return self._count

    def get(self, namespace: str, service: str) -> Effective:
        """What holds for a service; of a namespace's default, what it says, for an empty one."""
        of_namespace = self._kept.setdefault(namespace, {})
        found = of_namespace.get(service)
        if found is None:
            if self._count >= EFFECTIVE_MAX:
                self._kept.clear()
                self._count = 0
                of_namespace = self._kept.setdefault(namespace, {})
            own = self.fold.known(namespace, service) if service else None
            shares = self.shares.split_of(namespace, service) if service else None
            found = of_namespace[service] = _made(namespace, service, own, self.fold.known(namespace, ""), shares)
            self._count += 1
        return found

    def effective(self, namespace: str, service: str) -> Policy:
        """What holds, as values: the same until it changes."""
        return self.get(namespace, service).policy

    def supposed(self, namespace: str, service: str, *, changed: str, policy: TrafficPolicy | None) -> Effective:
        """What would hold for a service if the policy of `changed`, a service or "", were this one, or none."""
        known = {name: self.fold.known(namespace, name) for name in ("", service)}
        was = known[changed] or PolicyEntity(
            namespace=namespace, service=changed, policy=None, revisions=(0,), time_ns=0
        )
        since = NOW if destinations_differ(was.policy, policy) else was.destinations_revision
        known[changed] = replace(was, policy=policy, destinations_revision=since)
        own = known[service] if service else None
        return _made(namespace, service, own, known[""], self.shares.split_of(namespace, service))

    # What watches ask (trunkline.server.discovery.policy_view).

    @property
    def floor(self) -> int:
        """Deletions at or before this revision may have been forgotten."""
        return self.fold.floor

    def named(self, namespace: str) -> Sequence[str]:
        """The services of which anything was ever said, sorted; "" stands for what holds for all others."""
        return sorted({*self.fold.of_namespace(namespace), *self.shares.services(namespace)})

    def count(self, namespace: str) -> int:
        """How many are `named`."""
        return len(self.fold.of_namespace(namespace).keys() | self.shares.services(namespace))

    def of_all(self, namespace: str) -> Sequence[Effective]:
        """What holds now for those that are `named`; each is made when it is asked for."""
        return AsOf(self, namespace)

    def changed_after(self, namespace: str, revision: int) -> Sequence[str]:
        """Those of the `named` for which something else holds since a revision."""
        default = self.fold.known(namespace, "")
        if default is not None and default.revision > revision:
            return self.named(namespace)
        return sorted(service for service, last in self._revisions(namespace).items() if last > revision)

    def _revisions(self, namespace: str) -> dict[str, int]:
        """Of each that is named, of the last change of its own policy and shares."""
        found = {service: entity.revision for service, entity in self.fold.of_namespace(namespace).items()}
        for service in self.shares.services(namespace):
            shares = self.shares.split_of(namespace, service)
            if shares is not None:
                found[service] = max(found.get(service, 0), shares.revision)
        return found

    def last_change(self, namespace: str, service: str) -> int:
        """No change of a service's policy, or of any of the namespace when it is empty, is later than this."""
        if service:
            return max(self.fold.floor, self.get(namespace, service).revision)
        if namespace not in self._last:
            revisions = self._revisions(namespace)
            if not revisions:
                return self.fold.floor  # any name can be asked for
            self._last[namespace] = max(revisions.values())
        return max(self.fold.floor, self._last[namespace])

    def on_records(self, records: Iterable[Record]) -> None:
        """Records were folded."""
        for record in records:
            if not record.topic.startswith(TOUCHING):
                continue
            _, namespace, service = record.key.split("/", 2)
            self.changes += 1
            self._forget(namespace, service)
            # Not every record of a release changes what holds; one of a policy does, be it forgotten already.
            if record.topic.startswith("policy.") or self.get(namespace, service).revision >= record.offset:
                self._touched.append((namespace, service))
                if namespace in self._last:
                    self._last[namespace] = record.offset

    def _forget(self, namespace: str, service: str) -> None:
        if not service:
            self._count -= len(self._kept.pop(namespace, {}))
        elif self._kept.get(namespace, {}).pop(service, None) is not None:
            self._count -= 1

    def take_touched(self) -> Sequence[tuple[str, str]]:
        """Namespaces and services whose policy changed since this was last asked; "" for all of a namespace."""
        touched, self._touched = self._touched, []
        return touched
