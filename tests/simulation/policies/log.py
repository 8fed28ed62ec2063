"""What was asked and told of policies, for the judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from trunkline.api.v1.policy_pb2 import EffectivePolicy, TrafficPolicy
from trunkline.core.policy import Policy

APPLY = "apply"
DELETE = "delete"
ROLL_BACK = "roll back"


@dataclass(eq=False, kw_only=True)
class Asked:
    """A change that somebody asked for; its reason names it, in its record as well."""

    reason: str
    kind: str
    service: str
    """Empty for the namespace's."""
    policy: TrafficPolicy | None = None
    """To be applied."""
    expected: int | None = None
    to: int = 0
    """The revision to go back to; 0 for before the last change."""
    dry_run: bool = False
    refused: str = ""
    """By what, for good."""
    answered: bool = False
    changed: bool = False
    revision: int = 0
    """At which the change is in force, the answer says."""


class Past(NamedTuple):
    """One change, as the history that somebody read has it."""

    revision: int
    policy: TrafficPolicy | None
    reason: str


class ReadHistory(NamedTuple):
    """Somebody read the changes of a policy, newest first."""

    service: str
    at_least: int
    """The reader had been answered this revision before."""
    changes: Sequence[Past]


class ReadPolicy(NamedTuple):
    """Somebody read what holds for a service."""

    service: str
    at_least: int
    own_revision: int
    """0 when it has none."""
    effective: TrafficPolicy
    revision: int


class Held(NamedTuple):
    """What a watch holds of one service."""

    revision: int
    content: EffectivePolicy | Policy


class Shown(NamedTuple):
    """A watch after one event that it took in."""

    revision: int
    policies: Mapping[str, Held]
    """By service; "" is what holds for all that are not named, in a watch of the namespace."""


@dataclass(eq=False)
class Telling:
    """What one watch showed from its opening on."""

    name: str
    service: str
    """Empty when it watches the namespace."""
    before: Mapping[str, Held] | None = None
    """What it held at the token that it was resumed from; None without one."""
    shown: list[Shown] = field(default_factory=list)


class Log:
    """Of one world."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.histories: list[ReadHistory] = []
        self.policies: list[ReadPolicy] = []
        self.tellings: list[Telling] = []
        self.answered_revision = 0
        """The newest at which anybody was told that a change is in force."""

    def answers(self, asked: Asked, *, changed: bool, revision: int) -> None:
        """Somebody is answered."""
        asked.answered, asked.changed, asked.revision = True, changed, revision
        self.answered_revision = max(self.answered_revision, revision)
