"""What watches need of traffic policies: what holds for a service, and what changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

EVERY_SERVICE = ""


class HeldPolicy(Protocol):
    """What holds for one service. Immutable."""

    @property
    def service(self) -> str:
        """EVERY_SERVICE for what holds where nothing else is said."""

    @property
    def revision(self) -> int:
        """Of the last change; 0 when nothing was ever said."""

    @property
    def encoded(self) -> bytes:
        """A serialized EffectivePolicy."""


class PolicyView(Protocol):
    """The policies as they are now."""

    @property
    def floor(self) -> int:
        """That something was deleted at or before this revision may have been forgotten."""

    def get(self, namespace: str, service: str) -> HeldPolicy:
        """What holds for a service."""

    def named(self, namespace: str) -> Sequence[str]:
        """The services of which anything was said, EVERY_SERVICE among them."""

    def count(self, namespace: str) -> int:
        """How many are `named`."""

    def of_all(self, namespace: str) -> Sequence[HeldPolicy]:
        """What holds now for those that are `named`. A namespace has thousands: each is made when it is asked for."""

    def changed_after(self, namespace: str, revision: int) -> Sequence[str]:
        """Those of the `named` for which something else holds since a revision."""

    def last_change(self, namespace: str, service: str) -> int:
        """No change of a service's policy, or of any of the namespace for EVERY_SERVICE, is later than this."""

    def take_touched(self) -> Sequence[tuple[str, str]]:
        """Namespaces and services of which anything changed since this was last asked; EVERY_SERVICE for all."""


class _Nothing:
    service = EVERY_SERVICE
    revision = 0
    encoded = b""


class NoPolicies:
    """Where nobody has said anything."""

    floor = 0

    def get(self, namespace: str, service: str) -> HeldPolicy:
        return _NOTHING

    def named(self, namespace: str) -> Sequence[str]:
        return ()

    def count(self, namespace: str) -> int:
        return 0

    def of_all(self, namespace: str) -> Sequence[HeldPolicy]:
        return ()

    def changed_after(self, namespace: str, revision: int) -> Sequence[str]:
        return ()

    def last_change(self, namespace: str, service: str) -> int:
        return 0

    def take_touched(self) -> Sequence[tuple[str, str]]:
        return ()


_NOTHING = _Nothing()


def policies_of(view: PolicyView, namespace: str, service: str) -> Sequence[HeldPolicy]:
    """What a watch of a service, or of a namespace when it is empty, is told from the beginning."""
    if not service:
        return view.of_all(namespace)
    held = view.get(namespace, service)
    return [held] if held.revision else []


def policies_since(
    view: PolicyView, namespace: str, service: str, revision: int, *, most: int
) -> Sequence[HeldPolicy] | None:
    """Those that changed after a revision; None when that is not known any more, or when they are more than `most`."""
    if revision < view.floor:
        return None
    if revision >= view.last_change(namespace, service):
        return []
    if service:
        return policies_of(view, namespace, service)
    if view.floor and view.get(namespace, EVERY_SERVICE).revision > revision:
        return None  # see policies_touched
    changed = view.changed_after(namespace, revision)
    return None if len(changed) > most else [view.get(namespace, one) for one in changed]


def policies_touched(
    view: PolicyView, namespace: str, service: str, touched: Sequence[str], *, most: int
) -> Sequence[HeldPolicy] | None:
    """Those that a watch is told when these services were touched; None when it has to start over, as it has when what
    holds for more than `most` services is different now.

    A client of a whole namespace may hold what was told of a service that is forgotten by now: when what holds for all
    others changes, that is different, too.

    Told is what holds now, which may be newer than the step that touched it: the later step tells it again.
    """
    if not touched:
        return []
    if service:
        return [view.get(namespace, service)]
    if EVERY_SERVICE not in touched:
        return [view.get(namespace, one) for one in dict.fromkeys(touched)]
    if view.floor or view.count(namespace) > most:
        return None
    return policies_of(view, namespace, "")
