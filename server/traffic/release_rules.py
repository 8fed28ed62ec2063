"""What a release must be, beyond what the contract's rules say field by field, and what it returns to. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from trunkline.core.errors import InvalidArgument
from trunkline.core.model import RegisteredInstance
from trunkline.core.ranges import parse_range
from trunkline.core.selector import Selector
from trunkline.server.registry.status import SERVES

from .release import ReleaseEntity, ReleaseSpec

Instances = Sequence[RegisteredInstance]
"""All of a service."""


def callable_in(instances: Iterable[RegisteredInstance], version: str) -> list[RegisteredInstance]:
    """Instances of a range of versions that take calls by right: lapsed ones are no ground to stand on."""
    selector = Selector(version=version, statuses=SERVES)
    return [one for one in instances if selector.matches(one)]


def check_steps(spec: ReleaseSpec) -> None:
    """InvalidArgument when a step can never be over, or gives back what an earlier one gave."""
    before = 0
    for index, step in enumerate(spec.steps):
        if not step.percent and not step.manual:
            raise InvalidArgument.of(
                f"release.steps[{index}].percent", "above 0 unless manual: without calls the gate has no data", 0
            )
        if step.percent < before:
            raise InvalidArgument.of(
                f"release.steps[{index}].percent", f"at least that of the step before, {before}", step.percent
            )
        before = step.percent


def with_baseline(spec: ReleaseSpec, earlier: ReleaseEntity | None, instances: Instances) -> ReleaseSpec:
    """With what it returns to: what was named, else what the last release proved good, else all that is not released.

    InvalidArgument when either of the two has no instance that can be called, or both have the same one.
    """
    released = callable_in(instances, spec.version)
    if not released:
        raise InvalidArgument.of("release.version", "a range that an instance lies in that can be called", spec.version)
    if spec.named_baseline:
        found = callable_in(instances, spec.named_baseline)
        if not found:
            raise InvalidArgument.of(
                "release.baseline", "a range that an instance lies in that can be called", spec.named_baseline
            )
        ids = {one.instance.id for one in released}
        if shared := [one for one in found if one.instance.id in ids]:
            raise InvalidArgument.of(
                "release.baseline", "a range that takes no instance of release.version", shared[0].instance.version
            )
        return spec
    for baseline in _baselines(spec.version, "" if earlier is None else earlier.proven_now):
        if callable_in(instances, baseline):
            return replace(spec, baseline=baseline)
    raise InvalidArgument.of(
        "release.version", "a range outside of which an instance can be called, to return to", spec.version
    )


def _baselines(version: str, proven: str) -> Iterator[str]:
    """What may be returned to when nothing is named, best first."""
    try:
        others = parse_range(version).outside()
        if others is None:
            return
        if proven and (kept := parse_range(proven).both(others)) is not None:
            yield kept.text
        yield others.text
    except ValueError as error:
        raise InvalidArgument.of(
            "release.baseline", f"named, as all that is not released has no short name ({error})", version
        ) from None


def way_back(release: ReleaseEntity, instances: Instances) -> str | None:
    """The range that gets all calls when the release ends badly: its baseline, or, should that have nothing left that can
    be called, what was proven good before. None when that has not, either."""
    return next((one for one in _ways_back(release) if callable_in(instances, one)), None)


def _ways_back(release: ReleaseEntity) -> Iterator[str]:
    yield release.spec.baseline
    if not release.proven:
        return
    try:
        others = parse_range(release.spec.version).outside()
        kept = None if others is None else parse_range(release.proven).both(others)
    except ValueError:
        return  # a named baseline may stand beside a range whose outside is too long to be written
    if kept is not None:
        yield kept.text
