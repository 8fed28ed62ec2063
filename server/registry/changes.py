"""What a record did to an instance, and all of it that one step of folding did.

The registry's fold makes these; watches, history and everything else that follows the registry read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from trunkline.core.model import RegisteredInstance


class RegistryChange(NamedTuple):
    """One instance before and after one record. `before` is None for a new one, `after` for one that went."""

    revision: int
    time_ns: int
    namespace: str
    service: str
    instance_id: str
    before: RegisteredInstance | None
    after: RegisteredInstance | None
    what: str
    """In a few words: "registered", "lease lapsed", "expired", "deregistered", ..."""
    author: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryStep:
    """What one group of records did to the registry. The fold is at `revision` when it is told."""

    revision: int
    """Of the group's last record, whatever that was about."""
    time_ns: int
    changes: Sequence[RegistryChange] = ()
    skipped: int = 0
    """Records that did not count; they are never shown, a bookmark covers them."""


class Transition(NamedTuple):
    """An instance before and after a whole step: several changes of one instance made one."""

    before: RegisteredInstance | None
    after: RegisteredInstance | None


def transitions(changes: Iterable[RegistryChange]) -> dict[tuple[str, str], dict[str, Transition]]:
    """Changes by (namespace, service) and instance id; an instance that came and went in one step is left out."""
    found: dict[tuple[str, str], dict[str, Transition]] = {}
    for change in changes:
        of_service = found.setdefault((change.namespace, change.service), {})
        earlier = of_service.pop(change.instance_id, None)
        before = change.before if earlier is None else earlier.before
        if before is not None or change.after is not None:
            of_service[change.instance_id] = Transition(before, change.after)
    return found
