"""What is demanded of a world of policies, besides what is demanded of every world."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from simulation import judge
from simulation.policies import verdicts
from simulation.policies.log import Log, Telling
from simulation.policies.model import model_of
from simulation.truth import Journal

if TYPE_CHECKING:
    from simulation.world import World


def _log(world: World) -> Log:
    assert isinstance(world.seen, Log)
    return world.seen


def _changes(world: World, journal: Journal) -> Iterator[str]:
    log, model = _log(world), model_of(journal)
    yield from verdicts.broke_acknowledged_is_kept(log.asked, model)
    yield from verdicts.broke_changes_change(model)


def _refusals(world: World, journal: Journal) -> Iterator[str]:
    log, model = _log(world), model_of(journal)
    yield from verdicts.broke_expectations(log.asked, model)
    yield from verdicts.broke_no_contradiction(model)


def _reads(world: World, journal: Journal) -> Iterator[str]:
    log, model = _log(world), model_of(journal)
    yield from verdicts.broke_history(log.histories, model)
    yield from verdicts.broke_reads(log.policies, model)


def _watches(world: World, journal: Journal) -> Iterator[str]:
    model = model_of(journal)
    for telling in _log(world).tellings:
        yield from verdicts.broke_told_whole(telling, model)
        yield from verdicts.broke_told_all(telling, model)
        yield from verdicts.broke_never_older(telling)


def _ends(world: World, journal: Journal) -> Iterator[str]:
    model = model_of(journal)
    end = model.changes[-1].revision if model.changes else 0
    last: dict[str, Telling] = {one.name: one for one in _log(world).tellings if one.name != "raw"}
    for telling in last.values():
        yield from verdicts.broke_ends_right(telling, model, end)


CHECKS = {
    **judge.CHECKS,
    "G1 a policy's change is kept": _changes,
    "a refused change changes nothing": _refusals,
    "policies are read as they are": _reads,
    "policies are told": _watches,
    "in the end what holds is shown": _ends,
}
