"""Parts of a service: what subsets and ranges of versions take. Pure.

Instances that no destination can tell apart are one group: a service has thousands of instances and few versions, and a
split that names many destinations compares each of them with the versions, not with the instances.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, count

from trunkline.core.model import NO_LABELS, RegisteredInstance, Status
from trunkline.core.policy import Destination, Subset
from trunkline.core.selector import Selector
from trunkline.core.work import Work, at_once, is_full, pieces

WHATEVER = frozenset(Status)


class Parts:
    """Instances by their places in a sequence."""

    def __init__(self, instances: Sequence[RegisteredInstance], subsets: Iterable[Subset]) -> None:
        self._instances = instances
        self._subsets = {subset.name: subset for subset in subsets}
        self._groups: Sequence[Sequence[int]] | None = None

    @property
    def groups(self) -> Sequence[Sequence[int]]:
        """Places, in order; each group lies in a part wholly or not at all."""
        return at_once(self.grouping())

    def grouping(self) -> Work[Sequence[Sequence[int]]]:
        """See `groups`."""
        if self._groups is None:
            keys = sorted({key for subset in self._subsets.values() for key in subset.labels})
            groups: defaultdict[object, list[int]] = defaultdict(list)
            places = count()
            for some in pieces(self._instances):
                for alike, place in zip(_alike(some, keys), places, strict=False):
                    groups[alike].append(place)
                if is_full(some):
                    yield
            self._groups = list(groups.values())
        return self._groups

    def takes(self, destination: Destination | None) -> Callable[[RegisteredInstance], bool]:
        """Whether an instance lies in a part; in that of a subset that is not there nothing does. None takes all."""
        if destination is None:
            return lambda _: True
        version, labels = destination.version, NO_LABELS
        if destination.subset:
            subset = self._subsets.get(destination.subset)
            if subset is None:
                return lambda _: False
            version, labels = subset.version, subset.labels
        return Selector(version=version, labels=labels, statuses=WHATEVER).matches

    def groups_of(self, destination: Destination | None) -> list[int]:
        """Numbers of the groups that lie in a part."""
        if destination is None:
            return list(range(len(self.groups)))
        takes, instances = self.takes(destination), self._instances
        return [number for number, group in enumerate(self.groups) if takes(instances[group[0]])]

    def places_of(self, destination: Destination | None) -> list[int]:
        """Places of the instances of a part, in order."""
        groups = [self.groups[number] for number in self.groups_of(destination)]
        if len(groups) == 1:
            return list(groups[0])
        return sorted(chain.from_iterable(groups))


def _alike(instances: Sequence[RegisteredInstance], keys: Sequence[str]) -> Iterable[object]:
    """Of each instance, what is the same for those that no destination tells apart."""
    if not keys:
        return [one.instance.version for one in instances]
    if len(keys) == 1:  # as subsets mostly are
        [key] = keys
        return [(one.instance.version, one.instance.labels.get(key)) for one in instances]
    return [(one.instance.version, *map(one.instance.labels.get, keys)) for one in instances]
