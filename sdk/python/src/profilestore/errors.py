"""Errors with a kind and an advice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, cast

Advice = Literal["retry", "retry-as", "leave", "ignore", "fix"]
"""What to do about an error."""

ADVICE: dict[str, Advice] = {
    "busy": "retry",
    "cancelled": "ignore",
    "closing": "retry",
    "overloaded": "retry",
    "session-ended": "leave",
    "timed-out": "retry",
    "unavailable": "retry",
    "unknown": "retry-as",
}


class ProfileError(Exception):
    """
    Every error of this package. ``kind`` says what happened, such as ``taken-elsewhere``; the page
    ``docs/errors.md`` explains each, and so does the server at ``/errors/KIND``. ``advice`` says
    what to do: ``retry`` the call, ``retry-as`` (the same call under the same id), ``leave`` (let
    the player go), ``ignore``, or ``fix`` the program. ``problem`` is all that the server said.
    """

    def __init__(self, problem: Mapping[str, Any]) -> None:
        super().__init__(f"{problem['kind']}: {problem.get('detail') or problem.get('title', '')}")
        self.kind: str = problem["kind"]
        self.advice = cast(Advice, problem["advice"])
        self.problem = problem


def failure(kind: str, detail: str) -> ProfileError:
    """An error that this side found."""
    return ProfileError({"kind": kind, "advice": ADVICE.get(kind, "fix"), "detail": detail})


def from_server(text: str, status: int) -> ProfileError:
    """The error that a server's text describes, or one about the text."""
    try:
        problem = json.loads(text)
        if isinstance(problem["kind"], str) and isinstance(problem["advice"], str):
            return ProfileError(problem)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass  # It is no problem of ours: a proxy's page perhaps.
    kind = "unavailable" if status >= 500 else "invalid"
    return failure(kind, f"the answer is none of profilestore: status {status}")


def in_words(error: BaseException) -> str:
    return str(error) or type(error).__name__
