"""Who calls, and what that allows: principals, what they do to what, and one function that says no."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final, NamedTuple

from trunkline.core.errors import PermissionDenied, Unauthenticated


class Role(IntEnum):
    """Each may do what the one before may. Values are the contract's Role."""

    READER = 1
    SERVICE = 2
    ADMIN = 3


class Via(StrEnum):
    """What a principal was made of."""

    TOKEN = "token"
    CERTIFICATE = "certificate"
    LOOPBACK = "loopback"
    INSECURE = "insecure"
    NOTHING = "nothing"


class Verb(StrEnum):
    """What a call does."""

    PROBE = "probe the health of"
    READ = "read"
    REGISTER = "register in"
    REPORT = "report outcomes to"
    PUBLISH = "publish to"
    CONSUME = "consume from"
    ADMINISTER = "administer"


ROLE_NEEDED: Final[dict[Verb, Role | None]] = {
    Verb.PROBE: None,  # whoever restarts processes has no token
    Verb.READ: Role.READER,
    Verb.REGISTER: Role.SERVICE,
    Verb.REPORT: Role.SERVICE,
    Verb.PUBLISH: Role.SERVICE,
    Verb.CONSUME: Role.SERVICE,
    Verb.ADMINISTER: Role.ADMIN,
}
"""The least role for each verb; None lets everybody."""

EVERY_NAMESPACE: Final = "*"
EVERY_TOPIC: Final = (">",)


class Resource(NamedTuple):
    """What a call does something to."""

    namespace: str | None = None
    """None: of no namespace, or one that is looked at later. EVERY_NAMESPACE: of all."""
    topics: Sequence[str] = ()
    """Topics or filters, all of which must be allowed. None of them: no events are touched."""


ANY: Final = Resource()
"""No condition beyond the role."""
EVERYTHING: Final = Resource(EVERY_NAMESPACE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """On whose behalf a call is made."""

    name: str
    """Stands in records as their author: "token/<id>", "certificate/<identity>", "loopback"."""
    role: Role | None
    """None: nobody we know."""
    namespaces: frozenset[str] = frozenset()
    """Empty means every namespace."""
    topic_filters: tuple[str, ...] = ()
    """Topics that it may publish and read; empty means all."""
    via: Via
    may_everything: bool = field(init=False)
    """Whether `authorize` lets it do anything to anything, so that it need not be asked."""

    def __post_init__(self) -> None:
        unlimited = self.role is Role.ADMIN and not self.namespaces and not self.topic_filters
        object.__setattr__(self, "may_everything", unlimited)

    def may(self, verb: Verb) -> bool:
        """Whether its role is enough for this, somewhere."""
        needed = ROLE_NEEDED[verb]
        return needed is None or (self.role is not None and self.role >= needed)

    def sees(self, namespace: str) -> bool:
        """Whether it may touch this namespace at all."""
        return not self.namespaces or namespace in self.namespaces

    def may_touch(self, topic: str) -> bool:
        """Whether it may publish or read this topic, or everything that this filter takes."""
        return not self.topic_filters or any(covers(allowed, topic) for allowed in self.topic_filters)


NOBODY: Final = Principal(name="nobody", role=None, via=Via.NOTHING)


def authorize(principal: Principal, verb: Verb, resource: Resource) -> None:
    """The one place that decides: returns if the principal may, raises Unauthenticated or PermissionDenied if not."""
    needed = ROLE_NEEDED[verb]
    if needed is None:
        return
    if principal.role is None:
        raise Unauthenticated("the call has no credentials: send the metadata `authorization: Bearer <token>`")
    if principal.role < needed:
        raise _denied(principal, verb, resource, f"it needs the role {needed.name.lower()}")
    namespace = resource.namespace
    if namespace is not None and principal.namespaces and namespace not in principal.namespaces:
        raise _denied(principal, verb, resource, "it is limited to other namespaces")
    if principal.topic_filters:
        for topic in resource.topics:
            if not principal.may_touch(topic):
                raise _denied(principal, verb, resource, f"its topics do not include {topic!r}")


def covers(allowed: str, wanted: str) -> bool:
    """Whether every topic that `wanted` (a topic or a filter) takes is taken by the filter `allowed`."""
    ours, theirs = allowed.split("."), wanted.split(".")
    for index, word in enumerate(ours):
        if index == len(theirs):
            return False
        if word == ">":
            return True
        if theirs[index] == ">" or (word != "*" and word != theirs[index]):
            return False
    return len(ours) == len(theirs)


def _denied(principal: Principal, verb: Verb, resource: Resource, why: str) -> PermissionDenied:
    role = "nobody" if principal.role is None else principal.role.name.lower()
    what = {None: "this server", EVERY_NAMESPACE: "every namespace"}.get(
        resource.namespace, f"namespace {resource.namespace!r}"
    )
    return PermissionDenied(
        f"{principal.name} ({role}) may not {verb} {what}: {why}", principal=principal.name, verb=verb.name
    )
