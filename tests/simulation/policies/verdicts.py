"""What is demanded of policies, as functions of plain values: each line that they give is a broken promise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from simulation.policies.log import APPLY, DELETE, Asked, Held, ReadHistory, ReadPolicy, Shown, Telling
from simulation.policies.model import Change, Model
from simulation.policies.sayings import SERVICES, contradictions, sections_of

from trunkline.core.policy import Policy


def broke_acknowledged_is_kept(asked: Sequence[Asked], model: Model) -> Iterator[str]:
    """What was answered stands in the journal once, by the revision that was told, and says what was asked for."""
    for one in asked:
        made = model.by_reason.get(one.reason, ())
        if one.dry_run or one.refused:
            yield from (f"{one.reason} is made at {change.revision}, it was to change nothing" for change in made)
            continue
        if len(made) > 1:
            yield f"{one.reason} is made {len(made)} times"
        if one.answered and one.changed != bool(made):
            yield f"{one.reason} was answered: changed is {one.changed}; it is made {len(made)} times"
        for change in made:
            if one.answered and change.revision > one.revision:
                yield f"{one.reason} is made at {change.revision}, told was {one.revision}"
            yield from _as_asked(one, change, model)


def _as_asked(one: Asked, change: Change, model: Model) -> Iterator[str]:
    if change.service != one.service:
        yield f"{one.reason} is made of {change.service!r}"
    if one.kind == APPLY:
        wanted = [one.policy]
    elif one.kind == DELETE:
        wanted = [None]
    elif one.to:
        wanted = [model.own(one.service, one.to)]
    else:
        earlier = [before.policy for before in model.of(one.service) if before.revision < change.revision]
        wanted = [None, *earlier]
    if change.policy not in wanted:
        yield f"{one.reason} ({one.kind}) made something else at {change.revision}"


def broke_expectations(asked: Sequence[Asked], model: Model) -> Iterator[str]:
    """A change that was made against a revision stands right behind that one."""
    for one in asked:
        for change in model.by_reason.get(one.reason, ()) if one.expected is not None else ():
            before = model.last(one.service, change.revision - 1)
            revision = 0 if before is None or before.policy is None else before.revision
            if revision != one.expected:
                yield f"{one.reason} was made against {one.expected} and stands behind {revision}"


def broke_no_contradiction(model: Model) -> Iterator[str]:
    """Whatever holds for all services together makes sense, at every revision."""
    for change in model.changes:
        held = {service: model.sections(service, change.revision) for service in SERVICES}
        for what in contradictions(held):
            yield f"{what} since {change.revision} ({change.reason})"


def broke_changes_change(model: Model) -> Iterator[str]:
    """Each change makes a difference to its policy."""
    for service in {change.service for change in model.changes}:
        for before, after in pairwise([None, *model.of(service)]):
            assert after is not None
            if after.policy == (None if before is None else before.policy):
                yield f"{after.reason} changes nothing at {after.revision}"


def broke_history(histories: Sequence[ReadHistory], model: Model) -> Iterator[str]:
    """What is read of the past are the changes there were, without a gap, those that were answered before among them."""
    for read in histories:
        newest = max((past.revision for past in read.changes), default=0)
        last = model.last(read.service, read.at_least)
        if last is not None and newest < last.revision:
            yield f"the history of {read.service!r} ends at {newest}, {last.revision} had been answered"
        there = [(one.revision, one.policy, one.reason) for one in model.of(read.service) if one.revision <= newest]
        if [tuple(past) for past in reversed(read.changes)] != there:
            told = [past.revision for past in reversed(read.changes)]
            yield f"the history of {read.service!r} tells {told}, there were {[one[0] for one in there]}"


def broke_reads(reads: Sequence[ReadPolicy], model: Model) -> Iterator[str]:
    """What is read of a service is what held at the revision that it bears, and not older than what was answered."""
    for read in reads:
        changed = model.changed(read.service, read.at_least)
        if read.revision < changed:
            yield f"{read.service!r} is read as of {read.revision}, {changed} had been answered"
        own = model.last(read.service, read.revision)
        own_revision = 0 if own is None or own.policy is None else own.revision
        if read.own_revision != own_revision and read.own_revision <= read.revision:
            yield f"{read.service!r}'s own is read as of {read.own_revision}, it was {own_revision} at {read.revision}"
        if model.changed(read.service, read.revision) != read.revision:
            yield f"{read.service!r} is read as of {read.revision}, when nothing changed"
        elif sections_of(read.effective) != model.sections(read.service, read.revision):
            yield f"{read.service!r} is read as of {read.revision}, and was something else"


# Watches.


def _scope(telling: Telling, model: Model, revision: int) -> list[str]:
    """Whom a watch must hold by name at a revision."""
    services = [telling.service] if telling.service else sorted(model.named(revision))
    return [service for service in services if model.changed(service, revision)]


def broke_told_whole(telling: Telling, model: Model) -> Iterator[str]:
    """Each policy that a watch shows is all that held for its service at the revision that it bears."""
    known: dict[tuple[str, int], Held] = {}
    for shown in telling.shown:
        for service, held in shown.policies.items():
            truth = known.get((service, held.revision))
            if truth is None:
                as_values = isinstance(held.content, Policy)
                truth = known[service, held.revision] = model.held(service, held.revision, as_values=as_values)
            if held != truth:
                yield f"at {shown.revision} {service!r} is shown as of {held.revision}: {held.content}, it was {truth}"


def broke_told_all(telling: Telling, model: Model) -> Iterator[str]:
    """After each event a watch shows nothing that is older than what held at the event's revision, and leaves nobody out."""
    for shown in telling.shown:
        for service in _scope(telling, model, shown.revision):
            held, changed = shown.policies.get(service), model.changed(service, shown.revision)
            if held is None or held.revision < changed:
                told = "not shown" if held is None else f"shown as of {held.revision}"
                yield f"at {shown.revision} {service!r} is {told}, it changed at {changed}"


def broke_never_older(telling: Telling) -> Iterator[str]:
    """What a watch shows of a service never gets older, nor does it vanish."""
    steps = [shown.policies for shown in telling.shown]
    if telling.before is not None:
        steps.insert(0, telling.before)
    for before, after in pairwise(steps):
        yield from (f"{what}, in watch {telling.name}" for what in _older(before, after))


def _older(before: Mapping[str, Held], after: Mapping[str, Held]) -> Iterator[str]:
    for service, held in before.items():
        now = after.get(service)
        if now is None or now.revision < held.revision:
            yield f"{service!r} is shown as of {now and now.revision} after {held.revision}"


def broke_ends_right(telling: Telling, model: Model, end: int) -> Iterator[str]:
    """A watch that stands to the end shows at last exactly what holds."""
    last = telling.shown[-1] if telling.shown else Shown(0, {})
    told = {service: held.revision for service, held in last.policies.items()}
    truth = {service: model.changed(service, end) for service in _scope(telling, model, end)}
    if told != truth:
        yield f"watch {telling.name} of {telling.service!r} ends with {told}, what holds is {truth}"
