"""Mistakes in gates and releases."""

from __future__ import annotations

from .mutant import TRAFFIC, Mutant

GATE = "tests/property/test_release_gate.py"
FOLD = "tests/property/test_release_fold.py"
PLANE = "tests/unit/traffic/test_releases.py"

RELEASES = (
    Mutant(
        "a gate is as sure as one look allows",
        f"{TRAFFIC}.confidence",
        "limit = mixture + math.log(alpha)",
        "limit = _log_likelihood(successes, failures, successes / trials) + math.log(alpha)",
        test=f"{GATE}::test_they_are_wrong_at_any_of_many_looks_no_more_often_than_they_say",
    ),
    Mutant(
        "a gate takes no share of the error for each bound",
        f"{TRAFFIC}.release_gate",
        "/ 10_000 / looks / BOUNDS",
        "/ 10_000 * 60",
        test=f"{GATE}::test_one_that_is_just_tolerable_is_called_worse_no_more_often_than_its_quarter_of_the_error",
    ),
    Mutant(
        "no data passes",
        f"{TRAFFIC}.release",
        "if judgement.verdict is Verdict.GOOD:",
        "if judgement.verdict is not Verdict.WORSE:",
        test=f"{FOLD}::test_what_happens_by_itself",
    ),
    Mutant(
        "a release goes back to nobody",
        f"{TRAFFIC}.release_rules",
        "(one for one in _ways_back(release) if callable_in(instances, one))",
        "(one for one in _ways_back(release))",
        test=f"{PLANE}::test_it_pauses_when_there_is_nothing_to_go_back_to",
    ),
    Mutant(
        "two control planes take a step each",
        f"{TRAFFIC}.release_runner",
        "if found is None or found.revision != release.revision:",
        "if found is None:",
        test="tests/simulation/test_two_planes_release.py",
    ),
    Mutant(
        "a version that has all calls is compared with nothing",
        f"{TRAFFIC}.release_watch",
        "if release.percent == ALL and",
        "if False and",
        test=f"{PLANE}::test_a_good_version_goes_up_step_by_step_and_gets_all_calls",
    ),
    Mutant(
        "a hold begins anew with each start",
        f"{TRAFFIC}.release_watch",
        "behind_ns = min(max(0, behind_ns), release.at.hold_ns)",
        "behind_ns = 0",
        test=f"{PLANE}::test_a_restart_goes_on_where_it_was",
    ),
    Mutant(
        "calls that failed at once count as fast ones",
        f"{TRAFFIC}.outcomes",
        "if reported.status_code not in FAILURES and",
        "if",
        test="tests/unit/traffic/test_server_outcomes.py",
    ),
)
