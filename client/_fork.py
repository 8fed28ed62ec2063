"""After os.fork() the child's gRPC has no threads and shares the parent's sockets: everything is refused there."""

from __future__ import annotations

import os

_generation = 0


def _in_child() -> None:
    global _generation
    _generation += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


class ForkedProcess(RuntimeError):
    """A connection was used in a child process that os.fork() made. Connect again there, or fork before connecting."""

    def __init__(self) -> None:
        super().__init__(
            "this Trunkline connection belongs to the parent process; gRPC does not survive os.fork(): "
            "call connect() in the child, or use the multiprocessing start method 'spawn' or 'forkserver'"
        )


class ForkGuard:
    """Remembers the process it was made in."""

    __slots__ = ("_made_in",)

    def __init__(self) -> None:
        self._made_in = _generation

    @property
    def forked(self) -> bool:
        """Whether this is a child of the process that made it."""
        return self._made_in != _generation

    def check(self) -> None:
        """Raise ForkedProcess in a child."""
        if self._made_in != _generation:
            raise ForkedProcess
