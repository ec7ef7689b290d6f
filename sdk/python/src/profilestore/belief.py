"""Until when a game server may believe in its sessions. Pure: the caller brings the clocks."""

from __future__ import annotations

import time
from typing import NamedTuple

LONGEST_S = 6.0
"""The longest that one answer counts."""

MAX_GAP_S = 1.0
"""How much further the wall's clock may go than the steady one, which may stop in a suspend."""


class Moment(NamedTuple):
    """A moment by two clocks, in seconds: one that only grows, and the wall's."""

    steady: float
    wall: float


def active_until(ping: float, age: float, lease: float) -> float:
    """
    The moment until which sessions may be believed in, in seconds. ``ping`` is when the ping was
    sent, ``age`` how old the confirmation was that its answer named. One percent is for the
    clocks' difference.
    """
    return min(ping - age + lease - lease / 100 - 0.5, ping + LONGEST_S)


class Belief(NamedTuple):
    """What one pong allows."""

    incarnation: str
    ping: Moment
    until: float

    @staticmethod
    def of(incarnation: str, ping: Moment, age: float, lease: float) -> Belief:
        return Belief(incarnation, ping, active_until(ping.steady, age, lease))

    def holds(self, incarnation: str, at: Moment) -> bool:
        """Whether sessions of an incarnation may be believed in."""
        passed = at.steady - self.ping.steady
        slept = at.wall - self.ping.wall - passed > MAX_GAP_S
        return self.incarnation == incarnation and at.steady < self.until and not slept


NOTHING = Belief("", Moment(0, 0), float("-inf"))
"""Before the first pong."""


def steady() -> float:
    """A clock that only grows; on Linux it goes on in a suspend."""
    boot_time: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot_time is None else time.clock_gettime(boot_time)


def now() -> Moment:
    return Moment(steady(), time.time())
