"""The numbers that a producer gives its events, and what a refusal of them means. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto
from typing import Protocol

from trunkline.core.errors import OutcomeUnknown, OutOfOrderSequence, ProducerFenced, TrunklineError, UnknownProducer
from trunkline.core.sequences import FIRST_SEQUENCE, REQUESTS_REMEMBERED

from ._errors import is_transient

UNANSWERED_MAX = REQUESTS_REMEMBERED
"""Requests: the stream answers a repeat of so many with their offsets."""


class Numbered(Protocol):
    """A request that was given a number, or will be."""

    first_sequence: int
    """0 before it has one."""
    in_doubt: bool
    """It may have been published: what came of an attempt is not known."""

    @property
    def count(self) -> int: ...


class Verdict(Enum):
    """What to do about a refusal."""

    RESEND = auto()
    """All that is unanswered, in order, a little later."""
    BEGIN_ANEW = auto()
    """The stream has forgotten the producer and has nothing of what is unanswered: that gets numbers of a new epoch."""
    END = auto()
    """What comes behind the request would be refused, too."""


class Numbering:
    """One producer's epoch and next number."""

    def __init__(self, producer: str, epoch: int) -> None:
        self.producer = producer
        self.epoch = epoch
        self._next = FIRST_SEQUENCE

    def number(self, request: Numbered) -> None:
        """Give a request its number, unless it has one: called in the order of sending."""
        if request.first_sequence == 0:
            request.first_sequence = self._next
            self._next += request.count

    def begin_anew(self, unanswered: Iterable[Numbered]) -> None:
        """Go on in a new epoch; what is unanswered, in order, is numbered anew."""
        self.epoch += 1
        self._next = FIRST_SEQUENCE
        for request in unanswered:
            request.first_sequence = 0
            self.number(request)

    def verdict(self, request: Numbered, error: TrunklineError, *, is_first: bool) -> Verdict:
        """What a refusal means; `is_first` of the unanswered: what is behind it is refused on its account."""
        if isinstance(error, OutcomeUnknown):
            request.in_doubt = True
        if is_transient(error):
            return Verdict.RESEND
        if isinstance(error, UnknownProducer | OutOfOrderSequence):
            if not is_first:
                return Verdict.RESEND
            if isinstance(error, UnknownProducer) and not request.in_doubt:
                return Verdict.BEGIN_ANEW
        return Verdict.END


def after(error: TrunklineError) -> TrunklineError:
    """What those are told who come behind a request that failed with `error`."""
    if isinstance(error, ProducerFenced):
        return ProducerFenced(error.message, **error.fields)
    behind = OutOfOrderSequence(f"the producer ended, because a request before this one failed: {error.message}")
    behind.__cause__ = error
    return behind
