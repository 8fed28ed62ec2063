"""Where else an answer comes from, when a call was not let through or has failed with all its attempts."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from trunkline.core.policy import Codes, Fallback

from ._committed import Committed, made_here
from ._rpc import NotSent, number_of

if TYPE_CHECKING:
    from ._tries import Ask, Caller

log = logging.getLogger("trunkline.client")

FALLBACK_DEPTH_MAX = 3
"""A service in place of a service in place of a service; policies with a circle would go on for ever."""


async def answered_otherwise(caller: Caller, ask: Ask, error: NotSent | grpc.aio.AioRpcError) -> Committed:
    """The answer in place of the failed one; raises `error` where there is none, whatever else went wrong."""
    answer = await _answer(caller, ask, error)
    if answer is None:
        raise error
    return answer


async def _answer(caller: Caller, ask: Ask, error: NotSent | grpc.aio.AioRpcError) -> Committed | None:
    options, policy = caller.options, caller.guards.policy.fallback
    kind, answer = "", None
    if options.fallback is not None:
        if _is_for(error, options.fallback_on):
            kind, answer = "function", await _from_function(caller, ask, error)
    elif policy is not None and _is_for(error, policy.on_codes):
        kind, answer = await _from_policy(caller, ask, policy)
    if answer is not None:
        caller.guards.counts.fallbacks[kind] += 1
    return answer


def _is_for(error: NotSent | grpc.aio.AioRpcError, codes: Codes) -> bool:
    """A call that was not let through always is; one whose time was over while it waited is as its code says."""
    code = error.code if isinstance(error, NotSent) else error.code()
    not_let_through = isinstance(error, NotSent) and code is not grpc.StatusCode.DEADLINE_EXCEEDED
    return not_let_through or number_of(code) in codes


async def _from_policy(caller: Caller, ask: Ask, policy: Fallback) -> tuple[str, Committed | None]:
    if policy.answers:
        return "answer", _static(ask, policy)
    if ask.left_s() == 0 or (ask.buffer is not None and ask.buffer.overflowed):
        return "", None
    try:
        if policy.subset:
            return "subset", await _from_subset(caller, ask, policy.subset)
        return "service", await _from_service(caller, ask, policy.service)
    except (NotSent, grpc.aio.AioRpcError):
        return "", None


def _static(ask: Ask, policy: Fallback) -> Committed | None:
    data = policy.answers.get(ask.method.name)
    if data is None or ask.method.streams_out:
        return None
    deserialize = ask.method.deserializer
    try:
        answer = data if deserialize is None else deserialize(data)
    except Exception:
        log.exception("a policy's answer cannot be read", extra={"method": ask.method.name})
        return None
    return made_here("answer", answer)


async def _from_subset(caller: Caller, ask: Ask, subset: str) -> Committed:
    """One attempt."""
    sent = await caller.send(ask, 0, tried=set(), timeout_s=None, subset=subset)
    return await Committed.of(sent.call, streams_out=ask.method.streams_out)


async def _from_service(caller: Caller, ask: Ask, service: str) -> Committed | None:
    """By that service's own policy, with what is left of the time."""
    if ask.depth >= FALLBACK_DEPTH_MAX:
        return None
    try:
        async with asyncio.timeout(ask.left_s()):
            method = await caller.method_of(service, ask.method)
    except TimeoutError:
        return None
    request = ask.request if ask.buffer is None else ask.buffer.requests()
    call = method.begin(request, ask.left_s(), ask.metadata, ask.options, depth=ask.depth + 1)
    return await Committed.of(call, streams_out=ask.method.streams_out)


async def _from_function(caller: Caller, ask: Ask, error: NotSent | grpc.aio.AioRpcError) -> Committed | None:
    """What the user's function raises is raised; one that takes too long has no answer."""
    function = caller.options.fallback
    assert function is not None
    shown = error.error if isinstance(error, NotSent) else error
    answer = function(ask.method.name, ask.original, shown)
    if inspect.isawaitable(answer):
        try:
            async with asyncio.timeout(ask.left_s()):
                answer = await answer
        except TimeoutError:
            return None
    if answer is None:
        return None
    if ask.method.streams_out:
        return made_here("function", responses=_each(answer))
    return made_here("function", answer)


async def _each(answers: AsyncIterable[Any] | Iterable[Any]) -> AsyncIterator[Any]:
    if isinstance(answers, AsyncIterable):
        async for answer in answers:
            yield answer
    else:
        for answer in answers:
            yield answer
