"""Which instances of a service are meant."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

from semantic_version import Version

from trunkline.core.errors import InvalidArgument
from trunkline.core.model import NO_LABELS, ROUTABLE, Locality, RegisteredInstance, Status
from trunkline.core.ranges import Precedence, VersionRange, parse_range, precedence

ANYWHERE = Locality()
"""No condition on the locality."""

VERDICTS_MAX = 1024
"""How many instance versions a selector remembers its verdict on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Every condition must hold. Parsed once, then matched against thousands of instances.

    Raises InvalidArgument when `version` is no range.
    """

    version: str = ""
    """A range of semantic versions, npm's syntax. Only the empty one takes instances without a version."""
    labels: Mapping[str, str] = field(default_factory=lambda: NO_LABELS, hash=False)
    """Labels that must be present with these values."""
    locality: Locality = ANYWHERE
    """Fields that are not empty must be equal."""
    statuses: frozenset[Status] = frozenset()
    """Empty takes what may be called: ROUTABLE."""
    _range: VersionRange | None = field(init=False, repr=False, compare=False)
    _verdicts: dict[str, bool] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "labels", MappingProxyType(dict(self.labels)))
        put(self, "statuses", frozenset(self.statuses))
        put(self, "_range", _range_of(self.version) if self.version else None)
        put(self, "_verdicts", {})

    def matches(self, registered: RegisteredInstance) -> bool:
        """Whether this instance is meant."""
        if registered.status not in (self.statuses or ROUTABLE):
            return False
        instance = registered.instance
        if not _lies_in(instance.locality, self.locality):
            return False
        for key, value in self.labels.items():
            if instance.labels.get(key) != value:
                return False
        return self._range is None or self._takes(instance.version)

    @property
    def only_statuses(self) -> bool:
        """Whether nothing but the status decides."""
        return self._range is None and not self.labels and self.locality == ANYWHERE

    def canonical(self) -> str:
        """A text that is the same for selectors written differently that mean the same, and for no others."""
        where = [self.locality.region, self.locality.zone, self.locality.sub_zone]
        return json.dumps(
            [
                None if self._range is None else self._range.text,
                sorted(self.labels.items()),
                where,
                sorted(self.statuses or ROUTABLE),
            ],
            ensure_ascii=False,
            separators=(",", ":"),
        )

    def _takes(self, version: str) -> bool:
        verdict = self._verdicts.get(version)
        if verdict is None:
            assert self._range is not None
            key = _key_of(version)
            verdict = key is not None and self._range.takes_key(key)
            if len(self._verdicts) >= VERDICTS_MAX:
                self._verdicts.clear()
            self._verdicts[version] = verdict
        return verdict


def _lies_in(locality: Locality, wanted: Locality) -> bool:
    return (
        wanted.region in ("", locality.region)
        and wanted.zone in ("", locality.zone)
        and wanted.sub_zone in ("", locality.sub_zone)
    )


def _range_of(text: str) -> VersionRange:
    try:
        return parse_range(text)
    except ValueError as error:
        raise InvalidArgument.of("selector.version", f"a range of semantic versions ({error})", text) from None


@lru_cache(maxsize=16_384)
def _key_of(text: str) -> Precedence | None:
    """What a version is compared by; None for the empty version and for one that is not semantic: no range takes it."""
    try:
        return precedence(Version(text))
    except ValueError:
        return None
