"""
What a profile tells of, and the handlers that a game brings. What one of them raises reaches no
caller and no other handler.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from .frames import Asker

Report = Callable[[BaseException], object]
"""Told of what a handler raised, since there is no caller to tell."""

_running: set[asyncio.Future[Any]] = set()


def log(fault: BaseException) -> None:
    logging.getLogger("profilestore").error("a fault without a caller", exc_info=fault)


class End(NamedTuple):
    """How a session ended."""

    reason: str
    """
    ``ended`` by this program, ``released`` for another server or an operator, or without being
    asked: ``external`` (the profile was taken), ``operator``, ``lost``.
    """
    by: Asker | None
    """Who asked for the profile, or took it, if that is known."""
    has_loss: bool
    """The last changes were not stored."""


class Release(NamedTuple):
    """Another server or an operator asks for the profile. It is handed over at once."""

    by: Asker


class MessageFailed(NamedTuple):
    """A message's handler failed. The message stays in the inbox."""

    id: str
    error: Exception


class Received(NamedTuple):
    """A message, beside its body."""

    id: str
    sent_at: datetime


class Events:
    def __init__(self, report: Report) -> None:
        self.report = report
        self._handlers: dict[str, list[Callable[[Any], object]]] = {}

    def on(self, name: str, handler: Callable[[Any], object]) -> Callable[[], None]:
        """Calls ``handler`` at each event. The function that comes back takes it away."""
        handlers = self._handlers.setdefault(name, [])
        handlers.append(handler)
        return lambda: handlers.remove(handler) if handler in handlers else None

    def emit(self, name: str, event: object) -> None:
        for handler in list(self._handlers.get(name, ())):
            call(partial(handler, event), self.report)


def call(handler: Callable[[], object], report: Report) -> None:
    """Calls what the game brought, and waits for nothing."""
    try:
        result = handler()
        if inspect.isawaitable(result):
            task = asyncio.ensure_future(_guarded(result, report))
            _running.add(task)
            task.add_done_callback(_running.discard)
    except Exception as error:
        tell(report, error)


async def _guarded(result: Awaitable[object], report: Report) -> None:
    try:
        await result
    except Exception as error:
        tell(report, error)


def tell(report: Report, error: BaseException) -> None:
    try:
        report(error)
    except Exception:
        pass  # The reporter failed too, and there is nothing left to tell it to.
