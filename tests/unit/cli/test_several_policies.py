"""What is said when only some of a file's policies were kept."""

from __future__ import annotations

import click
import pytest

from trunkline.api.policy_text import read_policies
from trunkline.cli._apply import Progress
from trunkline.core.errors import BlastRadius, DeadlineExceeded, OutcomeUnknown, Unreachable

POLICIES = read_policies("service: a\n---\ntimeout: 1s\n---\nservice: c", namespace="shop")


@pytest.mark.parametrize(
    ("error", "last"),
    [
        (BlastRadius("too much"), "refused: shop/*"),
        (OutcomeUnknown("maybe"), "not known: shop/*"),
        (Unreachable("gone"), "not known: shop/*"),
        (DeadlineExceeded("late"), "not known: shop/*"),
        (click.exceptions.Exit(130), "not known: shop/*"),
    ],
)
def test_what_an_error_says_of_the_one_that_was_under_way(error: Exception, last: str) -> None:
    said: list[str] = []
    progress = Progress(POLICIES, said.append)
    progress.begun, progress.kept = True, 1
    progress.tell(error)
    assert said == ["kept: shop/a", last, "not tried: shop/c"]


def test_what_was_kept_is_kept_when_waiting_for_callers_fails() -> None:
    said: list[str] = []
    progress = Progress(POLICIES, said.append)
    progress.begun, progress.kept, progress.waiting = True, 1, True
    progress.tell(Unreachable("gone"))
    assert said == ["kept: shop/a", "not tried: shop/*, shop/c"]


def test_before_the_first_nothing_is_kept() -> None:
    said: list[str] = []
    Progress(POLICIES, said.append).tell(BlastRadius("too much"))
    assert said == ["kept: none"]
