"""From a path to what serves it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import grpc
from grpc.aio import ServerInterceptor

from .metadata import Metadatum

Serialize = Callable[[Any], bytes]
Deserialize = Callable[[bytes], Any]


class HandlerCallDetails(NamedTuple):
    """What interceptors and generic handlers are told of a call; see grpc.HandlerCallDetails."""

    method: str
    invocation_metadata: tuple[Metadatum, ...]


class Route:
    """One method: its handler, and what was found out about it once."""

    __slots__ = (
        "behaviour",
        "deserialize",
        "is_async",
        "is_unary",
        "needs_no_request",
        "path",
        "serialize",
        "takes_stream",
        "yields",
        "yields_stream",
    )

    def __init__(self, path: str, handler: Any) -> None:
        behaviour = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        self.path = path
        self.behaviour: Callable[[Any, Any], Any] = behaviour
        self.takes_stream: bool = handler.request_streaming
        self.yields_stream: bool = handler.response_streaming
        self.deserialize: Deserialize = handler.request_deserializer or _as_it_is
        self.serialize: Serialize = handler.response_serializer or _checked
        self.yields = inspect.isasyncgenfunction(behaviour)
        self.is_async = self.yields or _is_coroutine_function(behaviour)
        self.needs_no_request = self.takes_stream
        self.is_unary = self.is_async and not self.takes_stream and not self.yields_stream


class Routes:
    """All that is registered. Found routes are kept, unless interceptors may change them from call to call."""

    def __init__(self, interceptors: Sequence[ServerInterceptor] = ()) -> None:
        self._generic: list[grpc.GenericRpcHandler] = []
        self._registered: dict[str, Any] = {}
        self._interceptors = tuple(interceptors)
        self._found: dict[bytes, Route] = {}
        self._intercepted = intercepted_route()

    @property
    def are_fixed(self) -> bool:
        """Whether `find` is enough; else each call must ask `intercepted`."""
        return not self._interceptors

    def add_generic(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """See grpc.aio.Server.add_generic_rpc_handlers."""
        self._generic.extend(handlers)

    def add_registered(self, service: str, methods: Mapping[str, Any]) -> None:
        """See grpc.aio.Server.add_registered_method_handlers."""
        for name, handler in methods.items():
            self._registered[f"/{service}/{name}"] = handler

    def find(self, path: bytes, metadata: Callable[[], tuple[Metadatum, ...]]) -> Route | None:
        """The route of a path; None when nothing serves it."""
        if self._interceptors:
            return self._intercepted
        route = self._found.get(path)
        if route is None:
            name = path.decode("latin-1")
            handler = self._registered.get(name)
            if handler is not None:
                route = self._found[path] = Route(name, handler)
            else:
                route = self._ask(HandlerCallDetails(name, metadata()))
        return route

    def _ask(self, details: Any) -> Route | None:
        """What a generic handler says, which may say something else another time."""
        for generic in self._generic:
            handler = generic.service(details)
            if handler is not None:
                return Route(details.method, handler)
        return None

    async def intercepted(self, path: bytes, metadata: tuple[Metadatum, ...]) -> Route | None:
        """The route as the interceptors, the first of them outermost, make it."""

        async def end(details: Any) -> Any:
            handler = self._registered.get(details.method)
            if handler is not None:
                return handler
            return next((found for generic in self._generic if (found := generic.service(details))), None)

        continuation: Callable[[Any], Any] = end
        for interceptor in reversed(self._interceptors):
            continuation = _bound(interceptor, continuation)
        details = HandlerCallDetails(path.decode("latin-1"), metadata)
        handler = await continuation(details)
        return None if handler is None else Route(details.method, handler)


def _bound(interceptor: ServerInterceptor, continuation: Callable[[Any], Any]) -> Callable[[Any], Any]:
    async def ask(details: Any) -> Any:
        return await interceptor.intercept_service(continuation, details)

    return ask


def _is_coroutine_function(behaviour: Any) -> bool:
    """Of a function, or of an object that is called like one."""
    return inspect.iscoroutinefunction(behaviour) or inspect.iscoroutinefunction(type(behaviour).__call__)


def _as_it_is(message: bytes) -> bytes:
    return message


def _checked(message: Any) -> bytes:
    if not isinstance(message, bytes):
        raise TypeError(f"a handler without serializer must give bytes, not {type(message).__name__}")
    return message


def intercepted_route() -> Route:
    """Stands for what interceptors will find: begun before its request is there, because only they know its kind."""
    route = Route("", grpc.unary_unary_rpc_method_handler(_as_it_is))
    route.needs_no_request, route.is_unary = True, False
    return route


UNSERVED: Final = "Method not found!"
"""What grpcio says of a path that nothing serves; clients' tests look for it."""
