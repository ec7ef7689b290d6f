"""
What this game server believes about its sessions. The connection's thread writes it, and the game
reads it from its own, also while that one has not heard yet what the connection has.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from .belief import NOTHING, Belief, Moment, now


class Trust:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._incarnation = ""
        self._last = NOTHING
        self._unanswered: dict[int, Belief] = {}
        """Sessions that a resume has not answered yet, and what holds of them meanwhile."""
        self._doubted: set[int] = set()
        """Sessions that were asked for, or are over."""

    def welcomed(self, incarnation: str, sessions: Iterable[int], is_same: bool) -> None:
        """A resume was answered; each session is told about behind it."""
        with self._lock:
            for s in sessions:
                before = self._unanswered.get(s, self._last) if is_same else NOTHING
                self._unanswered[s] = before
            self._incarnation = incarnation

    def resumed(self, s: int) -> None:
        with self._lock:
            self._unanswered.pop(s, None)

    def ponged(self, belief: Belief) -> None:
        with self._lock:
            self._last = belief

    def doubt(self, s: int) -> None:
        with self._lock:
            self._doubted.add(s)

    def forget(self, s: int) -> None:
        with self._lock:
            self._unanswered.pop(s, None)
            self._doubted.discard(s)

    def is_active(self, s: int, at: Moment | None = None) -> bool:
        """Whether a session may be believed in."""
        with self._lock:
            if s in self._doubted:
                return False
            belief = self._unanswered.get(s, self._last)
            return belief.holds(self._incarnation, at or now())
