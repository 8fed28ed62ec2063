"""Errors in the log of the shipped code break a promise, too."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from simulation.history import History

from trunkline.core.errors import TrunklineError


class Errors(logging.Handler):
    """Takes what the shipped code logs about errors that are none of ours."""

    def __init__(self, history: History) -> None:
        super().__init__(logging.ERROR)
        self._history = history

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not isinstance(error, TrunklineError):
            self._history.breaks("no unexpected error", f"{record.getMessage()}: {error!r}")


@contextlib.contextmanager
def listening(history: History) -> Iterator[None]:
    """Errors in the log break a promise, too."""
    handler, logger = Errors(history), logging.getLogger("trunkline")
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])  # which also forgets what is remembered of each level
        logger.propagate = before[1]
