"""Who changes policies: one after the other and at once, with and without an expectation, wrongly as well."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from simulation.chance import choose, happens
from simulation.clients import Client, Part
from simulation.policies.log import APPLY, DELETE, ROLL_BACK, Asked, Log, Past, ReadHistory, ReadPolicy
from simulation.policies.sayings import NAMED, saying

from trunkline.client._policies import AppliedPolicy
from trunkline.core.errors import BlastRadius, InvalidArgument, PolicyNotFound, RevisionMismatch, TrunklineError

REFUSALS = (BlastRadius, InvalidArgument, PolicyNotFound, RevisionMismatch)
"""What says for good that nothing was changed. Behind anything else the change may be made."""
KINDS = (APPLY, APPLY, APPLY, DELETE, ROLL_BACK)
AT_ONCE = (1, 1, 2, 3)


def owner(log: Log, quiet: Callable[[], bool]) -> Part:
    """Changes policies and reads them, until all is quiet."""

    async def part(client: Client) -> None:
        number = 0
        while await client.rest(0.1, 0.7):
            if quiet():
                continue
            count = choose(client.rng, AT_ONCE)
            asking = [_change(client, log, f"{client.name}-{number + at}") for at in range(count)]
            number += count
            for error in await asyncio.gather(*asking, return_exceptions=True):
                if error is not None and not isinstance(error, TrunklineError):
                    raise error
            await _read(client, log, choose(client.rng, NAMED))

    return part


async def _change(client: Client, log: Log, reason: str) -> None:
    asked = await _wish(client, log, reason)
    log.asked.append(asked)
    try:
        applied = await _ask(client, asked)
    except TrunklineError as error:
        asked.refused = type(error).__name__ if isinstance(error, REFUSALS) else ""
        client.history.note("policy", reason, asked.kind, asked.service, type(error).__name__)
        return
    log.answers(asked, changed=applied.changed, revision=applied.revision)
    client.history.note("policy", reason, asked.kind, asked.service, applied.changed, applied.revision)


async def _wish(client: Client, log: Log, reason: str) -> Asked:
    rng = client.rng
    asked = Asked(reason=reason, kind=choose(rng, KINDS), service=choose(rng, NAMED), dry_run=happens(rng, 5))
    if asked.kind == APPLY:
        asked.policy = saying(rng, asked.service)
    if asked.kind == ROLL_BACK:
        known = [one.revision for one in log.asked if one.service == asked.service and one.changed]
        asked.to = choose(rng, known) if known and happens(rng, 60) else 0
    elif happens(rng, 50):
        asked.expected = await _expected(client, log, asked.service)
    return asked


async def _expected(client: Client, log: Log, service: str) -> int:
    """The revision that there is now, or, of one who has not looked for long, one that there was."""
    known = [one.revision for one in log.asked if one.service == service and one.changed]
    if known and happens(client.rng, 30):
        return choose(client.rng, known)
    own = (await client.trunkline.get_policy(service)).own
    return 0 if own is None else own.revision


async def _ask(client: Client, asked: Asked) -> AppliedPolicy:
    trunkline, force = client.trunkline, happens(client.rng, 60)
    if asked.kind == ROLL_BACK:
        return await trunkline.roll_back_policy(
            asked.service, to=asked.to, reason=asked.reason, dry_run=asked.dry_run, force=force
        )
    if asked.kind == DELETE:
        return await trunkline.delete_policy(
            asked.service, reason=asked.reason, expected_revision=asked.expected, dry_run=asked.dry_run, force=force
        )
    assert asked.policy is not None
    return await trunkline.apply_policy(
        asked.policy, reason=asked.reason, expected_revision=asked.expected, dry_run=asked.dry_run, force=force
    )


async def _read(client: Client, log: Log, service: str) -> None:
    at_least = log.answered_revision
    try:
        state = await client.trunkline.get_policy(service)
        changes = await client.trunkline.policy_changes(service, max_changes=1_000)
    except TrunklineError as error:
        client.history.note("client", client.name, "did not read", type(error).__name__)
        return
    own = 0 if state.own is None else state.own.revision
    log.policies.append(ReadPolicy(service, at_least, own, state.effective, state.policy.revision))
    past = [Past(one.revision, one.policy, one.reason) for one in changes]
    log.histories.append(ReadHistory(service, at_least, past))
