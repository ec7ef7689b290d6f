"""A game server: it holds profiles, through one connection."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, TypeVar

from .connection import Connection, Options
from .errors import failure
from .events import Report, log, tell
from .frames import Frame
from .futures import running
from .http import Http
from .options import calls, elements, seconds, text, whole
from .profile import Profile
from .request import Request
from .store import Store, StoreOptions
from .transaction import Gift, prepare, transact

T = TypeVar("T")
R = TypeVar("R")

CLOSE_S = 30.0


async def connect(
    url: str | Sequence[str],
    *,
    key: str,
    job: str,
    place: int = 0,
    lease_ms: int | None = None,
    connect_timeout: float = 10.0,
    on_fault: Report = log,
) -> Server:
    """
    Connects as a game server. Several addresses are those of processes on the same store: when one
    dies, the sessions go on at another. ``key`` has the scope ``sessions:hold``. ``job`` is the
    game server's name, for people. ``lease_ms``: after how long without a sign of life others may
    take the profiles, 20,000 by default, 10,000 to 600,000. ``connect_timeout``: for how many
    seconds the first connection is tried. ``on_fault`` is told of what has no caller to be told,
    such as an error of a handler; otherwise the log ``profilestore`` is.
    """
    is_one = isinstance(url, (str, bytes)) or not isinstance(url, Iterable)
    urls = [text("url", one) for one in ([url] if is_one else url)]
    if not urls or not all(re.fullmatch(r"wss?://\S+", one) for one in urls):
        told = "an address begins with ws:// or wss://, and has no space"
        raise failure("invalid", f"{told}: given=`{' '.join(urls)}`")
    text("key", key)
    text("job", job)
    whole("place", place)
    whole("lease_ms", lease_ms)
    seconds("connect_timeout", connect_timeout)
    calls("on_fault", on_fault)
    server = Server(Options(urls, key, job, place, lease_ms, connect_timeout), on_fault)
    await server._connection.open()
    return server


class Server:
    """Made by `connect`. Use it on the loop that made it, and on no other thread."""

    def __init__(self, options: Options, on_fault: Report) -> None:
        self.http = Http(options.urls[0].replace("ws", "http", 1), options.key)
        """One-shot work and operators' calls, at the first address."""
        self.report: Report = lambda fault: tell(on_fault, fault)
        self._connection = Connection(options, self, self.report)
        self._profiles: dict[int, Profile[Any]] = {}
        self._s = 0
        self._closing: asyncio.Future[list[Profile[Any]]] | None = None

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now. Play goes on without one for a while."""
        return self._connection.is_connected

    @property
    def profiles(self) -> list[Profile[Any]]:
        """The profiles that this game server holds."""
        return list(self._profiles.values())

    def store(
        self,
        name: str,
        template: T,
        *,
        scope: str = "global",
        reconcile: bool = False,
        check: Callable[[T], object] | None = None,
        save_within: float = 5.0,
        data_version: int | None = None,
        readable_from: int | None = None,
    ) -> Store[T]:
        """
        A store. ``template`` is the data of a player who plays for the first time, and gives the
        data its type. ``reconcile``: what it has and stored data has not is filled in. ``check``
        raises when data does not fit the program; it is asked at each start and about operators'
        edits. ``save_within``: within how many seconds a change is stored. ``data_version``: the
        version of the data that the program writes; older programs leave it alone, unless
        ``readable_from`` says that theirs can read it.
        """
        text("name", name)
        text("scope", scope)
        seconds("save_within", save_within)
        whole("data_version", data_version)
        whole("readable_from", readable_from)
        if check is not None:
            calls("check", check)
        options = StoreOptions(scope, reconcile, check, save_within, data_version, readable_from)
        return Store(name, template, options, self)

    def transaction(
        self,
        profiles: Sequence[Profile[Any]],
        change: Callable[..., R],
        *,
        gifts: Sequence[Gift] = (),
        deadline_ms: int | None = None,
    ) -> asyncio.Future[R]:
        """
        Changes several profiles of this game server together, and sends gifts with it: all of it or
        nothing. ``change`` gets the data of each. The profiles cannot be changed until it is done.
        ``deadline_ms``: after how many milliseconds it is given up, if it has not taken effect.
        """
        whole("deadline_ms", deadline_ms)
        calls("change", change)
        elements("gifts", Gift, gifts)
        parts, result = prepare(profiles, change)
        return transact(self, parts, result, gifts, deadline_ms)

    async def close(self, timeout: float = CLOSE_S) -> list[Profile[Any]]:
        """
        Ends all sessions, and then the connection. The profiles that were not saved within
        ``timeout`` seconds.
        """
        seconds("timeout", timeout)
        # It may have been cancelled with all other tasks.
        if self._closing is None or self._closing.cancelled():
            self._closing = running(self._close(timeout))
        return await asyncio.shield(self._closing)

    async def _close(self, timeout: float) -> list[Profile[Any]]:
        profiles = self.profiles
        if profiles:
            await asyncio.wait([profile.end() for profile in profiles], timeout=timeout)
        unsaved = [one for one in profiles if one.has_unsaved or one.ended is None]
        await self._connection.close()
        # Nothing of these can be saved any more. Their leases run out.
        for profile in [*profiles, *self.profiles]:
            profile.abandon()
        return unsaved

    # --- for stores, profiles and transactions -------------------------------------------------

    @property
    def max_frame(self) -> int:
        """@private How large a frame may be."""
        return self._connection.max_frame

    def number(self) -> int:
        """@private A number for the next request."""
        return self._connection.number()

    def request(self, request: Request) -> None:
        """@private Sends what is answered."""
        self._connection.request(request)

    def call_off(self, i: int) -> None:
        """@private Calls off the start with this number."""
        self._connection.call_off(i)

    @property
    def is_closing(self) -> bool:
        """@private Nothing is opened any more."""
        return self._closing is not None

    def session(self) -> int:
        """@private A number for the next session."""
        self._s += 1
        return self._s

    def was_opened(self, profile: Profile[Any]) -> None:
        """@private A start was answered."""
        self._profiles[profile.opened.s] = profile

    def is_active(self, s: int) -> bool:
        """@private Whether a session may be believed in."""
        return self._connection.trust.is_active(s)

    def over(self, s: int) -> None:
        """@private The session is over."""
        self._profiles.pop(s, None)
        self._connection.trust.forget(s)

    def replaced(self) -> None:
        """@private Another run goes on as this game server: its sessions are over here."""
        for profile in self.profiles:
            profile.abandon()

    def frame(self, frame: Frame) -> None:
        """@private What the server says of a session."""
        profile = self._profiles.get(frame[1]["s"])
        if profile is not None:
            profile.heard(frame)
