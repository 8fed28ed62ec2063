"""Several policies of one file: looked at and asked about as a whole before the first is kept, and how far it got."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from trunkline.api.policies import check_policy
from trunkline.api.rules import checker
from trunkline.api.v1.policy_pb2 import TrafficPolicy
from trunkline.client import AppliedPolicy, Trunkline
from trunkline.core.errors import BlastRadius, InvalidArgument, LimitExceeded, TrunklineError, Violation

EVERY_SERVICE = "*"
"""How the policy of a namespace is shown."""
MISTAKES_MAX = 100
"""Told of one file."""
MAYBE_DONE = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN"})
"""Statuses of errors that do not say that nothing was changed."""

_check_fields = checker(TrafficPolicy.DESCRIPTOR)


def name_of(policy: TrafficPolicy) -> str:
    """Whose policy it is, as it is shown."""
    return f"{policy.namespace}/{policy.service or EVERY_SERVICE}"


def look_at_all(policies: Sequence[TrafficPolicy], *, alone: bool = False) -> None:
    """InvalidArgument with the mistakes of all of them, as far as they can be known without a control plane.

    What a namespace's policy says is looked at if it is among them. Else there is none if they are `alone`, or the control
    plane knows it.
    """
    defaults = {one.namespace: one for one in policies if not one.service}
    found: list[Violation] = []
    for one in policies:
        try:
            _check_fields(one)
            if alone or one.namespace in defaults:
                check_policy(one, defaults.get(one.namespace) if one.service else None)
        except InvalidArgument as refused:
            found += _named(one, refused)
    if found:
        raise InvalidArgument(*found[:MISTAKES_MAX])


def _named(policy: TrafficPolicy, refused: InvalidArgument) -> list[Violation]:
    return [Violation(f"{name_of(policy)}: {v.field}", v.rule, v.value) for v in refused.violations]


async def ask_about_all(
    trunkline: Trunkline, policies: Sequence[TrafficPolicy], **options: Any
) -> list[AppliedPolicy | None]:
    """What the control plane would make of each, nothing changed. Raises what it would refuse, of all of them.

    None of one that it would refuse as things are, but that may rest on what those before it change.
    """
    answers: list[AppliedPolicy | None] = []
    wrong: list[Violation] = []
    others: list[TrunklineError] = []
    for index, one in enumerate(policies):
        answer = None
        try:
            answer = await trunkline.apply_policy(one, **{**options, "dry_run": True})
        except InvalidArgument as refused:
            if not _may_rest_on(one, policies[:index], refused):
                wrong += _named(one, refused)
        except (BlastRadius, LimitExceeded) as refused:
            if not _may_rest_on(one, policies[:index], refused):
                others.append(refused)
                click.echo(f"{name_of(one)}: {refused}", err=True)
        answers.append(answer)
    if wrong:
        raise InvalidArgument(*wrong[:MISTAKES_MAX])
    if others:
        raise others[0]
    return answers


def _may_rest_on(one: TrafficPolicy, before: Sequence[TrafficPolicy], refused: TrunklineError) -> bool:
    """Whether those that are applied before it may take away why it is refused."""
    changed = {other.service for other in before if other.namespace == one.namespace}
    if not one.service or "" in changed:
        return bool(changed)
    # Of other services' policies only the fallbacks matter.
    fields = [v.field for v in refused.violations] if isinstance(refused, InvalidArgument) else []
    return bool(changed) and "fallback.service" in fields


class Progress:
    """How far the policies of a file got."""

    def __init__(self, policies: Sequence[TrafficPolicy], say: Callable[[str], None]) -> None:
        self.begun = False
        """The control plane was asked to keep the first."""
        self.kept = 0
        self.waiting = False
        """For the callers of the last one that was kept."""
        self._names = list(map(name_of, policies))
        self._say = say

    def tell(self, error: Exception) -> None:
        """Which were kept, and which were not, when an error ended it."""
        left = self._names[self.kept :]
        self._say(f"kept: {', '.join(self._names[: self.kept]) or 'none'}")
        if not self.begun:
            return
        if left and not self.waiting:
            refused = isinstance(error, TrunklineError) and error.status not in MAYBE_DONE
            self._say(f"{'refused' if refused else 'not known'}: {left.pop(0)}")
        if left:
            self._say(f"not tried: {', '.join(left)}")
