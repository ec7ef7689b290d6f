"""Handlers that a game brings. What one of them raises reaches no caller and no other handler."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

Report = Callable[[BaseException], object]
"""Told of what a handler raised, since there is no caller to tell."""

_running: set[asyncio.Future[Any]] = set()


def log(fault: BaseException) -> None:
    logging.getLogger("profilestore").error("a fault without a caller", exc_info=fault)


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
