"""What is true of policies: the records of the journal, folded plainly."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from simulation.clients import NAMESPACE
from simulation.policies.log import Held
from simulation.policies.sayings import Sections, sections_of
from simulation.truth import Journal

from trunkline.api.journal.v1 import control_pb2
from trunkline.api.policies import policy_from
from trunkline.api.v1.policy_pb2 import EffectivePolicy, TrafficPolicy

KEY = f"policy/{NAMESPACE}/"


class Change(NamedTuple):
    """A record of a policy."""

    revision: int
    service: str
    policy: TrafficPolicy | None
    """None: it was deleted."""
    reason: str


class Model:
    """Every change of every policy of the namespace, in order."""

    def __init__(self, changes: Sequence[Change]) -> None:
        self.changes = changes
        self.by_reason: dict[str, list[Change]] = defaultdict(list)
        self._of: dict[str, list[Change]] = defaultdict(list)
        for change in changes:
            self.by_reason[change.reason].append(change)
            self._of[change.service].append(change)

    def of(self, service: str) -> Sequence[Change]:
        """The changes of one policy."""
        return self._of.get(service, ())

    def last(self, service: str, revision: int) -> Change | None:
        """The last change of a policy up to a revision."""
        changes = self.of(service)
        at = bisect_right(changes, revision, key=lambda change: change.revision)
        return changes[at - 1] if at else None

    def own(self, service: str, revision: int) -> TrafficPolicy | None:
        """A policy as it was at a revision."""
        last = self.last(service, revision)
        return None if last is None else last.policy

    def named(self, revision: int) -> set[str]:
        """Of whom anything had been said."""
        return {change.service for change in self.changes if change.revision <= revision}

    def sections(self, service: str, revision: int) -> Sections:
        """What held for a service: its own sections, and those of the namespace that it has not."""
        return {**sections_of(self.own("", revision)), **sections_of(self.own(service, revision))}

    def changed(self, service: str, revision: int) -> int:
        """When that had last changed; 0 for never."""
        parts = (self.last("", revision), self.last(service, revision))
        return max((part.revision for part in parts if part is not None), default=0)

    def held(self, service: str, revision: int, *, as_values: bool) -> Held:
        """The same as a watch shows it."""
        policy = TrafficPolicy(namespace=NAMESPACE, service=service, **self.sections(service, revision))
        changed = self.changed(service, revision)
        if as_values:
            return Held(changed, policy_from(policy, changed))
        return Held(changed, EffectivePolicy(service=service, policy=policy, revision=changed))


def model_of(journal: Journal) -> Model:
    """Of what was read back."""
    skipped = set(journal.skipped)
    changes = []
    for revision, record in sorted(journal.records.items()):
        if record.key.startswith(KEY) and revision not in skipped:
            policy = None
            if record.topic == "policy.applied":
                policy = control_pb2.PolicyApplied.FromString(record.body).policy
            changes.append(Change(revision, record.key.removeprefix(KEY), policy, record.reason))
    return Model(changes)
