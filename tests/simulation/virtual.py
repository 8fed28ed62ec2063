"""Virtual time: an event loop whose clock jumps to the next timer, and the hosts whose code runs in it.

A host is a process on a machine of its own: it can be stalled (as by SIGSTOP: its timers do not fire and nothing reaches
it, while the rest of the world goes on) and killed (all its tasks end, none of its timers fires ever again). What runs
on which host is known from the context that asyncio carries along.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import math
import warnings
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import async_solipsism

from trunkline.core.clock import Clock

T = TypeVar("T")
EPOCH_NS = 1_800_000_000_000_000_000
"""What the clocks on the walls say when a history begins."""
HOST: contextvars.ContextVar[Host | None] = contextvars.ContextVar("host", default=None)
NOBODY = contextvars.Context()
"""Of what happens in the network: no host's stall or death holds it up."""


class SimTask(asyncio.Task[Any]):
    """A task whose hash is its number: sets of tasks have the same order in every run."""

    def __init__(self, number: int, *args: Any, **kwargs: Any) -> None:
        self._number = number
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._number


class SimFuture(asyncio.Future[Any]):
    """The same for futures."""

    def __init__(self, number: int, *, loop: asyncio.AbstractEventLoop) -> None:
        self._number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._number


class SimLoop(async_solipsism.EventLoop):  # type: ignore[misc]  # it has no types
    """Tasks and timers belong to hosts."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers = itertools.count(1)
        self.set_task_factory(self._make_task)

    def _make_task(self, loop: Any, coroutine: Any, context: contextvars.Context | None = None, **more: Any) -> SimTask:
        task = SimTask(next(self._numbers), coroutine, loop=loop, context=context, **more)
        host = context.get(HOST, None) if context is not None else HOST.get()
        if host is not None:
            host.began(task)
        return task

    def create_future(self) -> SimFuture:
        return SimFuture(next(self._numbers), loop=self)

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        host = HOST.get() if context is None else context.get(HOST, None)
        when = math.ceil(when * 1e6 - 0.001) / 1e6  # what the loop's clock can show
        if host is None:
            return super().call_at(when, callback, *args, context=context)  # type: ignore[no-any-return]
        fired = _Fired(host, callback, args)
        fired.handle = super().call_at(when, fired, context=context)
        return fired.handle


class _Fired:
    """A timer of a host: waits while the host is stalled, does nothing when it is dead."""

    __slots__ = ("args", "callback", "handle", "host")

    def __init__(self, host: Host, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.host = host
        self.callback = callback
        self.args = args
        self.handle: asyncio.TimerHandle

    def __call__(self) -> None:
        if not self.host.alive or self.handle.cancelled():
            return
        if self.host.stalled:
            self.host.deferred.append(self)
        else:
            self.callback(*self.args)


class Host:
    """One process. `on_resume` and `on_kill` are the network's."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.stalled = False
        self.stalled_s = 0.0
        """How long it has stood still altogether."""
        self.deferred: list[_Fired] = []
        self.on_resume: list[Callable[[], None]] = []
        self.on_kill: list[Callable[[], None]] = []
        self._tasks: dict[SimTask, None] = {}
        self._stalled_since = 0.0
        self._awake = asyncio.Event()
        self._awake.set()
        self._context = contextvars.Context()
        self._context.run(HOST.set, self)

    def run(self, work: Coroutine[Any, Any, T], *, name: str = "") -> asyncio.Task[T]:
        """A task on this host."""
        loop = asyncio.get_running_loop()
        return loop.create_task(work, name=name or self.name, context=self._context.copy())

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        """Call something as if from this host."""
        self._context.copy().run(function, *args)

    def began(self, task: SimTask) -> None:
        """A task was made on it."""
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(task, None), context=NOBODY)
        if not self.alive:
            task.cancel()

    async def awake(self) -> None:
        """Return when it is not stalled."""
        await self._awake.wait()

    def stall(self) -> None:
        """Stop it where it stands."""
        if self.alive and not self.stalled:
            self.stalled = True
            self._stalled_since = asyncio.get_running_loop().time()
            self._awake.clear()

    def resume(self) -> None:
        """Let it go on: the timers that are due fire at once, what waits in the network comes a little later."""
        if not self.stalled:
            return
        self.stalled = False
        self.stalled_s += asyncio.get_running_loop().time() - self._stalled_since
        self._awake.set()
        deferred, self.deferred = self.deferred, []
        for fired in deferred:
            asyncio.get_running_loop().call_soon(fired, context=self._context.copy())
        for callback in self.on_resume:
            callback()

    async def kill(self) -> None:
        """End it: nothing of it happens any more."""
        self.alive = False
        self.resume()
        callbacks, self.on_kill = self.on_kill, []
        for callback in callbacks:
            callback()
        for _ in range(100):
            tasks = [task for task in self._tasks if not task.done()]
            if not tasks:
                return
            for task in tasks:
                task.cancel()
            await asyncio.sleep(0)
        left = [task.get_name() for task in self._tasks]
        raise AssertionError(f"tasks of {self.name} do not end: {left}")


class LoopClock(Clock):
    """The loop's time; `ahead_ns` is how wrong the clock on the wall is."""

    ahead_ns = 0

    def now_ns(self) -> int:
        return round(asyncio.get_running_loop().time() * 1e6) * 1_000

    def time_ns(self) -> int:
        return EPOCH_NS + self.now_ns() + self.ahead_ns


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a history in virtual time.

    Garbage is not collected meanwhile: when a cycle with a coroutine in it goes would depend on what ran before.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", async_solipsism.ResolutionWarning)
            with asyncio.Runner(loop_factory=SimLoop) as runner:
                return runner.run(main)
    finally:
        if collecting:
            gc.enable()
