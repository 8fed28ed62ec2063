"""Mistakes that show where policies are changed and watched."""

from __future__ import annotations

from functools import partial

from simulation.mutants.mutant import CLIENT, DISCOVERY, POLICIES, TRAFFIC, Mutant

_Mutant = partial(Mutant, world=POLICIES)

POLICY_MUTANTS = (
    # Changes.
    _Mutant(
        "a change that was made against an older policy is made",
        f"{TRAFFIC}.decision",
        "        if self._expected is not None and self._expected != revision:\n",
        "        if self._expected is not None and self._expected > revision:\n",
    ),
    _Mutant(
        "a service's policy need not fit to the namespace's",
        f"{TRAFFIC}.decision",
        "            check_policy(self.policy, default if self.service else None)\n",
        "            check_policy(self.policy, self.policy if self.service else None)\n",
    ),
    _Mutant(
        "a namespace's policy need not fit to what is on its way",
        f"{TRAFFIC}.decision",
        '        if not self.service and view.pending(policy_key(self.namespace, "")):\n',
        "        if False:\n",
    ),
    _Mutant(
        "what was judged is not looked at again",
        f"{TRAFFIC}.decision",
        "        if self.judged != basis:\n",
        "        if self.judged is None:\n",
    ),
    _Mutant(
        "a namespace's policy is not held against its services' own",
        f"{TRAFFIC}.traffic",
        "            await self._check_others(decision)\n",
        "            pass\n",
    ),
    _Mutant(
        "what is taken back is what was before that",
        f"{TRAFFIC}.traffic",
        "bisect_right(known.revisions, revision)",
        "bisect_right(known.revisions, revision - 1)",
    ),
    _Mutant(
        "a dry run is made",
        f"{TRAFFIC}.traffic",
        "            if wish.dry_run:\n",
        "            if wish.dry_run and not wish.force:\n",
    ),
    _Mutant(
        "who applies a policy that is deleted right then is told of no revision",
        f"{CLIENT}._policy_calls",
        '        kept = answer.policy if answer.HasField("policy") else None  # somebody else\'s',
        "        kept = answer.policy  # somebody else's",
    ),
    # What is kept.
    _Mutant(
        "of a policy's past a snapshot keeps the last",
        f"{TRAFFIC}.fold",
        "            revisions=entity.revisions,\n",
        "            revisions=entity.revisions[-1:],\n",
        faults=("kill", "restart", "power cut"),
    ),
    _Mutant(
        "a snapshot keeps nothing of those that were deleted",
        f"{TRAFFIC}.fold",
        "        for entity in sorted(found, key=lambda one: one.revision):",
        "        for entity in sorted((one for one in found if one.policy), key=lambda one: one.revision):",
        faults=("kill", "restart", "power cut"),
    ),
    # What holds.
    _Mutant(
        "what holds for services outlives a change of the namespace's policy",
        f"{TRAFFIC}.effective",
        "            self._count -= len(self._kept.pop(namespace, {}))\n",
        '            self._count -= self._kept.get(namespace, {}).pop("", None) is not None\n',
    ),
    _Mutant(
        "what holds bears the revision of the service's own policy",
        f"{TRAFFIC}.effective",
        "    known = [one.revision for one in (own, default, shares) if one is not None]\n",
        "    known = [one.revision for one in (own or default, shares) if one is not None]\n",
    ),
    _Mutant(
        "when a namespace's policy changed last is not noted",
        f"{TRAFFIC}.effective",
        "                    self._last[namespace] = record.offset\n",
        "                    self._last[namespace] += not service\n",
    ),
    # Telling it.
    _Mutant(
        "who resumes is told of no policy",
        f"{DISCOVERY}.policy_view",
        "    changed = view.changed_after(namespace, revision)\n",
        "    changed: list[str] = []\n",
    ),
    _Mutant(
        "a snapshot of a namespace tells what holds for all others alone",
        f"{DISCOVERY}.policy_view",
        "    if not service:\n        return view.of_all(namespace)\n",
        "",
    ),
    _Mutant(
        "a change of a namespace's policy is told by its own name alone",
        f"{DISCOVERY}.policy_view",
        "    if EVERY_SERVICE not in touched:\n",
        "    if True:\n",
    ),
    _Mutant(
        "services' own watches are not told of a namespace's policy",
        f"{DISCOVERY}.watch_groups",
        "        if service:\n            return [*self.of_service",
        "        if True:\n            return [*self.of_service",
    ),
)
