"""A request of a game server, until it is answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .errors import ProfileError
from .frames import Frame


@dataclass
class Request:
    """
    What is sent, and what becomes of it: one of the outcomes, once, on the game's loop.

    A start that is given up is called off until it is known what became of it. So it may be done
    when it has failed: then its session is to be let go.
    """

    i: int
    frames: list[str]
    done: Callable[[Frame], object]
    failed: Callable[[ProfileError], object]
    is_kept: bool = True
    """It is repeated for as long as its outcome is not known."""
    starts: tuple[int, str, str, str] | None = None
    """The session that it opens: number, store, scope, key."""
    ends: int | None = None
    """The session that it ends."""
    size: int = field(default=0, init=False)
    """How many bytes wait with it, if it is a start or a message."""
    attempts: int = field(default=0, init=False)
    is_sent: bool = field(default=False, init=False)
    is_called_off: bool = field(default=False, init=False)
