"""The balanced channel for blocking stubs: grpc.Channel's interface, calls made on the connection's loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from ._channel import BalancedChannel
from ._channel_options import ChannelPolicyState, EndpointState
from ._policy_call import CANCELLED_HERE
from ._portal import Portal
from ._view import View

_END = object()


class SyncCall(grpc.Call, grpc.Future):  # type: ignore[type-arg]
    """A call in flight: a future of its one response, or an iterator of many."""

    def __init__(self, portal: Portal, call: Any, answer: concurrent.futures.Future[Any] | None) -> None:
        self._portal = portal
        self._call = call
        self._answer = answer
        self._responses: Iterator[Any] = iter(()) if answer is not None else portal.iterate(call.__aiter__)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._responses)
        except concurrent.futures.CancelledError:
            raise _cancelled() from None

    def __del__(self) -> None:
        """As in grpc: a stream that nobody reads on is cancelled. Else it would be in flight for ever."""
        if self._answer is None:
            self._portal.abandon(self._call.cancel)

    # grpc.Call.

    def is_active(self) -> bool:
        return not self._portal.run(self._call.done)

    def time_remaining(self) -> Any:
        return self._portal.run(self._call.time_remaining)

    def cancel(self) -> bool:
        cancelled: bool = self._portal.run(self._call.cancel)
        return cancelled

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """`callback` is called on the loop's thread when the call ends."""
        if self.done():
            return False
        self._portal.run(self._call.add_done_callback, lambda _: callback())
        return True

    def initial_metadata(self) -> Any:
        return self._portal.call(self._call.initial_metadata)

    def trailing_metadata(self) -> Any:
        return self._portal.call(self._call.trailing_metadata)

    def code(self) -> Any:
        return self._portal.call(self._call.code)

    def details(self) -> Any:
        return self._portal.call(self._call.details)

    # grpc.Future.

    def cancelled(self) -> bool:
        cancelled: bool = self._portal.run(self._call.cancelled)
        return cancelled

    def running(self) -> bool:
        return self.is_active()

    def done(self) -> bool:
        return not self.is_active()

    def result(self, timeout: float | None = None) -> Any:
        assert self._answer is not None, "a call with many responses is iterated over"
        try:
            return self._answer.result(timeout)
        except concurrent.futures.TimeoutError:
            raise grpc.FutureTimeoutError from None
        except concurrent.futures.CancelledError:
            raise grpc.FutureCancelledError from None

    def exception(self, timeout: float | None = None) -> Any:
        assert self._answer is not None, "a call with many responses is iterated over"
        try:
            return self._answer.exception(timeout)
        except concurrent.futures.TimeoutError:
            raise grpc.FutureTimeoutError from None
        except concurrent.futures.CancelledError:
            raise grpc.FutureCancelledError from None

    def traceback(self, timeout: float | None = None) -> TracebackType | None:
        error = self.exception(timeout)
        return None if error is None else error.__traceback__

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        assert self._answer is not None, "a call with many responses is iterated over"
        self._answer.add_done_callback(lambda _: fn(self))


class SyncMethod:
    """A method as blocking stubs call it."""

    def __init__(self, portal: Portal, method: Any, *, streams_in: bool, streams_out: bool) -> None:
        self._portal = portal
        self._method = method
        self._streams_in = streams_in
        self._streams_out = streams_out

    def __call__(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """The response, or an iterator of responses."""
        call = self.future(request, *args, **kwargs)
        return call if self._streams_out else _waited_for(call)

    def with_call(self, request: Any, *args: Any, **kwargs: Any) -> tuple[Any, SyncCall]:
        """The response and its call."""
        call = self.future(request, *args, **kwargs)
        return _waited_for(call), call

    def future(self, request: Any, *args: Any, **kwargs: Any) -> SyncCall:
        """The call in flight."""
        given = _fed(request) if self._streams_in else request
        call = self._portal.run(lambda: self._method(given, *args, **kwargs))
        if self._streams_out:
            return SyncCall(self._portal, call, None)

        async def wait() -> Any:
            return await call

        return SyncCall(self._portal, call, self._portal.begin(wait))


def _waited_for(call: SyncCall) -> Any:
    try:
        return call.result()
    except grpc.FutureCancelledError:
        raise _cancelled() from None
    except BaseException:
        call.cancel()
        raise


def _cancelled() -> grpc.aio.AioRpcError:
    """What stubs raise of a call that was cancelled while somebody waits for it."""
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(grpc.StatusCode.CANCELLED, nothing, nothing, CANCELLED_HERE)


async def _fed(requests: Iterable[Any]) -> AsyncIterator[Any]:
    """Requests of a blocking iterator, each taken in a thread."""
    iterator = iter(requests)
    while (request := await asyncio.to_thread(next, iterator, _END)) is not _END:
        yield request


class SyncBalancedChannel(grpc.Channel):
    """One subchannel per endpoint; every call goes to an endpoint of its own. See BalancedChannel."""

    def __init__(self, portal: Portal, channel: BalancedChannel) -> None:
        self._portal = portal
        self._channel = channel
        self._states: dict[Callable[[grpc.ChannelConnectivity], None], concurrent.futures.Future[Any]] = {}

    @property
    def view(self) -> View:
        """The live view that it balances over; it belongs to the connection's loop: only read it."""
        return self._channel.view

    def endpoints(self) -> list[EndpointState]:
        """Every endpoint and why it is picked or not."""
        return self._portal.run(self._channel.endpoints)

    def policy_state(self) -> ChannelPolicyState:
        """The policy that holds, breakers, ejections, and counts."""
        return self._portal.run(self._channel.policy_state)

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """See grpc.Channel."""
        made = self._channel.unary_unary(method, *args, **kwargs)
        return SyncMethod(self._portal, made, streams_in=False, streams_out=False)

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """See grpc.Channel."""
        made = self._channel.unary_stream(method, *args, **kwargs)
        return SyncMethod(self._portal, made, streams_in=False, streams_out=True)

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """See grpc.Channel."""
        made = self._channel.stream_unary(method, *args, **kwargs)
        return SyncMethod(self._portal, made, streams_in=True, streams_out=False)

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """See grpc.Channel."""
        made = self._channel.stream_stream(method, *args, **kwargs)
        return SyncMethod(self._portal, made, streams_in=True, streams_out=True)

    def subscribe(
        self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool | None = False
    ) -> None:
        """Tell `callback` of the state now and of each change, on the loop's thread."""

        async def tell() -> None:
            while True:
                state = self._channel.get_state(bool(try_to_connect))
                callback(state)
                if state is grpc.ChannelConnectivity.SHUTDOWN:
                    return
                await self._channel.wait_for_state_change(state)

        self._states[callback] = self._portal.begin(tell)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """Tell it no more."""
        telling = self._states.pop(callback, None)
        if telling is not None:
            telling.cancel()

    def close(self) -> None:
        """Send no more calls; those in flight are cancelled. The view is closed, too."""
        for callback in list(self._states):
            self.unsubscribe(callback)
        self._portal.call(self._channel.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
