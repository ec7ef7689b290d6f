"""Futures of calls that go on whether or not their caller waits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

R = TypeVar("R")

_running: set[asyncio.Future[Any]] = set()


def quiet(future: asyncio.Future[R]) -> asyncio.Future[R]:
    """The same, which may be left alone: its failure is not logged as never retrieved."""
    future.add_done_callback(lambda done: None if done.cancelled() else done.exception())
    return future


def running(work: Coroutine[Any, Any, R] | asyncio.Future[R]) -> asyncio.Future[R]:
    """Starts work now. Cancelling the wait for the result does not end the work."""
    task = asyncio.ensure_future(work)
    _running.add(task)
    task.add_done_callback(_running.discard)
    return quiet(asyncio.shield(quiet(task)))


def shared(future: asyncio.Future[R]) -> asyncio.Future[R]:
    """One caller's view of a future that others wait for too."""
    return quiet(asyncio.shield(future))


def succeed(future: asyncio.Future[R], result: R) -> None:
    if not future.done():
        future.set_result(result)


def fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
