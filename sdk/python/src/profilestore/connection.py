"""
The connection of one game server: it is opened again whenever it is lost, here or at another
address, and goes on as the same game server. A request that was sent never changes. It is kept
until it is answered, and sent again in order.

All of it runs on a thread of its own. So pings go out and a lost connection is opened again while
the game computes. What the game is to hear is handed to its loop.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import secrets
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from .belief import Belief, Moment, now, steady
from .errors import ProfileError, failure
from .events import Report
from .frames import Frame, compose
from .link import Link
from .request import Request
from .trust import Trust

SDK = "python/0.1.0"
PING_S = 2.0
MOST_RETRY_S = 2.0
AGAIN_S = 0.5
MOST_ATTEMPTS = 60
MOST_REQUESTS = 100_000
"""How many requests may be unanswered."""
MOST_BYTES = 256 << 20
"""How many bytes of starts and messages may be unanswered. A session has one save at most."""
NAMED_AT_ONCE = 5000
"""How many sessions one frame of a greeting names."""
LATE = 0.6
"""A host is late when its confirmation is older than this part of the lease."""
REFUSED = {"unauthorized", "forbidden", "upgrade-required", "invalid", "misdirected"}
MADE_WAY = "run-replaced"
"""Another run has resumed this game server, and goes on in the place of this one."""
ANSWERS = {"started", "saved", "ended", "done", "sent", "error", "overloaded"}
OF_SESSIONS = {"resumed", "lost", "release", "closed", "message", "edit"}


class Options(NamedTuple):
    urls: list[str]
    key: str
    job: str
    place: int
    lease_ms: int | None
    connect_s: float


class Holder(Protocol):
    """Who holds the sessions."""

    def frame(self, frame: Frame) -> None: ...

    def replaced(self) -> None:
        """Another run goes on as this game server: nothing is told here any more."""


def pause(failures: int, chance: float) -> float:
    """How long to wait before connecting again: soon at first, not with all others at once."""
    return min(MOST_RETRY_S, 0.1 * 2.0 ** min(failures, 30)) * (0.2 + 0.8 * chance)


class Connection:
    def __init__(self, options: Options, holder: Holder, report: Report) -> None:
        self.options = options
        self.trust = Trust()
        self.max_frame = 5 << 20
        self.is_connected = False
        self._holder = holder
        self._report = report
        self._game = asyncio.get_running_loop()
        self._instance = secrets.token_hex(32)
        self._numbers = itertools.count(1)
        self._requests: dict[int, Request] = {}
        self._waiting_bytes = 0
        """Of the unanswered starts and messages. The game's thread counts them."""
        self._sessions: dict[int, tuple[int, str, str, str, int]] = {}
        self._pings: dict[int, Moment] = {}
        self._identity: dict[str, str] | None = None
        self._lease = 0.0
        self._confirmed_at = 0.0
        self._left_at = float("-inf")
        self._leaving: asyncio.TimerHandle | None = None
        self._n = 0
        self._at = 0
        self._failures = 0
        self._link: Link | None = None
        """The one that counts."""
        self._next: Link | None = None
        """The one that is to take its place."""
        self._retry: asyncio.TimerHandle | None = None
        self._pinging: asyncio.TimerHandle | None = None
        self._opening: asyncio.Future[None] | None = None
        self._why_not = failure("unavailable", f"no connection within {options.connect_s} s")
        """Why there is no first connection yet."""
        self._is_closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True, name="profilestore")

    # --- from the game's thread ----------------------------------------------------------------

    async def open(self) -> None:
        """Connects for the first time."""
        self._opening = opening = self._game.create_future()
        self._thread.start()
        self._on_thread(self._attempt)
        try:
            async with asyncio.timeout(self.options.connect_s):
                await opening
        except TimeoutError:
            await self.close()
            raise self._why_not from None
        except BaseException:
            await self.close()
            raise

    def number(self) -> int:
        """A number for the next request."""
        return next(self._numbers)

    def request(self, request: Request) -> None:
        """Sends a request, once there is a connection."""
        try:
            sizes = [len(frame.encode()) for frame in request.frames]
        except UnicodeEncodeError as error:
            detail = f"half of a character (a lone surrogate) is in a name: {error.object[:50]!r}"
            request.failed(failure("invalid", detail))
            return
        size = 0 if request.is_kept else sum(sizes)
        is_full = self._waiting_bytes + size > MOST_BYTES
        if self._is_closed:
            request.failed(failure("closing", "this game server is closed"))
        elif any(one > self.max_frame for one in sizes):
            detail = f"a frame has at most {self.max_frame} bytes"
            request.failed(failure("too-large", detail))
        elif len(self._requests) >= MOST_REQUESTS or is_full:
            request.failed(failure("overloaded", "too many requests are unanswered"))
        else:
            self._waiting_bytes += size
            request.size = size
            self._on_thread(self._take, request)

    def call_off(self, i: int) -> None:
        """Calls a start off, also one that is sent again later."""
        self._on_thread(self._call_off, i)

    async def close(self) -> None:
        """The last frame, and the end. What is unanswered fails."""
        if self._is_closed and not self._thread.is_alive():
            return
        self._on_thread(self._close)
        while self._thread.is_alive():
            await asyncio.sleep(0.005)

    def _on_thread(self, work: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(work, *arguments)
        except RuntimeError:
            if work == self._take:
                assert isinstance(arguments[0], Request)
                arguments[0].failed(failure("closing", "this game server is closed"))

    # --- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def _on_game(self, work: Callable[..., object], *arguments: object) -> None:
        try:
            self._game.call_soon_threadsafe(work, *arguments)
        except RuntimeError:
            self._close()  # The game's loop is closed, so nothing can be heard any more.

    def _take(self, request: Request) -> None:
        if self._is_closed:
            why = failure("closing", "this game server is closed")
            self._on_game(request.failed, why)
            return
        self._requests[request.i] = request
        self._send(request)

    def _tell(self, frame: str) -> None:
        if self._link is not None and not self._is_muted:
            self._link.send(frame)

    def _send(self, request: Request) -> None:
        if self._link is None or self._is_muted:
            return
        request.is_sent = True
        for frame in request.frames:
            self._tell(frame)
        if request.is_called_off:
            self._tell(compose("cancel", {"i": request.i}))

    def _call_off(self, i: int) -> None:
        request = self._requests.get(i)
        if request is None:
            return
        if request.is_sent:
            request.is_called_off = True
            self._tell(compose("cancel", {"i": i}))
        else:
            self._forget(request)

    def _forget(self, request: Request) -> None:
        del self._requests[request.i]
        if request.size > 0:
            self._on_game(self._took, request.size)

    def _took(self, size: int) -> None:
        self._waiting_bytes -= size

    @property
    def _is_muted(self) -> bool:
        """A greeting is under way at another link: what the old one says is said again there."""
        return self._next is not None and self._next.has_greeted

    def _answer(self, frame: Frame, i: int) -> None:
        request = self._requests.get(i)
        if request is None:
            return
        name, body = frame
        if name == "overloaded":
            self._loop.call_later(body["retry_after_ms"] / 1000, self._send_again, request)
            return
        if name == "error":
            problem = body["problem"]
            # Nothing was done, or nobody knows. The same request finds out, at any process.
            is_open = problem["kind"] == "closing" or problem["advice"] == "retry-as"
            request.attempts += 1 if is_open else 0
            is_asked = request.attempts < MOST_ATTEMPTS
            goes_on = request.is_kept or request.is_called_off or is_asked
            if is_open and (goes_on or request.starts is not None):
                self._loop.call_later(AGAIN_S, self._send_again, request)
                if not goes_on:
                    # Its session may be there, and its caller waits no more.
                    request.is_called_off = True
                    self._on_game(request.failed, ProfileError(problem))
                return
        self._forget(request)
        if name == "started" and request.starts is not None:
            self._sessions[body["s"]] = (*request.starts, body["epoch"])
        if name == "ended" and request.ends is not None:
            self._sessions.pop(request.ends, None)
        if name == "error":
            self._on_game(request.failed, ProfileError(body["problem"]))
        else:
            self._on_game(request.done, frame)

    def _send_again(self, request: Request) -> None:
        if request.i in self._requests:
            self._send(request)

    # --- links ---------------------------------------------------------------------------------

    def _attempt(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._is_closed or self._next is not None:
            return
        urls = self.options.urls
        url = urls[self._at % len(urls)]
        self._at += 1
        self._next = Link(url, self.options.key, self)

    def _again(self) -> None:
        """Connects again after a while."""
        if self._is_closed or self._retry is not None or self._next is not None:
            return
        delay = pause(self._failures, random.random())
        self._failures += 1
        self._retry = self._loop.call_later(delay, self._attempt)

    def opened(self, link: Link) -> list[str]:
        _, _, job, place, lease_ms, _ = self.options
        hello: dict[str, Any] = {
            "instance": self._instance,
            "job": job,
            "place": place,
            "lease_ms": lease_ms,
            "sdk": SDK,
        }
        if lease_ms is None:
            del hello["lease_ms"]
        if self._identity is None:
            return [compose("hello", hello)]
        named = list(self._sessions.values())
        pieces = [
            {"sessions": named[at : at + NAMED_AT_ONCE], "more": at + NAMED_AT_ONCE < len(named)}
            for at in range(0, max(len(named), 1), NAMED_AT_ONCE)
        ]
        hello["resume"] = {**self._identity, **pieces[0]}
        return [compose("hello", hello)] + [compose("sessions", piece) for piece in pieces[1:]]

    def frame(self, link: Link, frame: Frame) -> None:
        try:
            self._hear(link, frame)
        except Exception as error:
            # It has a name, and not what belongs to it. The connection is opened again.
            detail = f"the server sent a frame that cannot be read: {frame[0]}: {error!r}"
            why = failure("unavailable", detail)
            self._on_game(self._report, why)
            link.drop()
            self.closed(link, why)

    def _hear(self, link: Link, frame: Frame) -> None:
        name, body = frame
        if link is self._next:
            if name == "welcome":
                self._welcomed(link, body)
            elif name == "error":
                link.drop()
                self.closed(link, ProfileError(body["problem"]))
            return
        if link is not self._link or self._is_muted:
            return
        if name in ANSWERS and body.get("i") is not None:
            self._answer(frame, body["i"])
        elif name == "pong":
            self._ponged(body["n"], body["incarnation"], body["age"] / 1000)
        elif name == "error":
            self._on_game(self._report, ProfileError(body["problem"]))
        elif name == "goaway":
            self._failures = 0
            self._attempt()
        elif name == "stopped":
            self._link = None
            self.is_connected = False
            link.drop()
            self._again()
        elif name in OF_SESSIONS:
            self._of_session(frame)

    def _of_session(self, frame: Frame) -> None:
        name, body = frame
        s = body["s"]
        if s not in self._sessions:
            return  # It is over, and the game has forgotten it, or will at its answer.
        if name == "resumed":
            self.trust.resumed(s)
        elif name in ("lost", "closed"):
            self.trust.doubt(s)
            del self._sessions[s]
        elif name == "release":
            # Pongs behind this do not count for the session, also while the game computes.
            self.trust.doubt(s)
        self._on_game(self._holder.frame, frame)

    def _welcomed(self, link: Link, welcome: dict[str, Any]) -> None:
        before, self._link, self._next = self._link, link, None
        if before is not None:
            before.drop()
        self._failures = 0
        self._pings.clear()
        how = welcome["resumed"]
        sessions = [] if how is None else list(self._sessions)
        self.trust.welcomed(welcome["incarnation"], sessions, how == "same")
        self._identity = {name: welcome[name] for name in ("incarnation", "token", "store")}
        self._lease = welcome["lease_ms"] / 1000
        self._confirmed_at = steady()
        self.max_frame = welcome["max_frame"]
        self.is_connected = True
        for i in sorted(self._requests):
            self._send(self._requests[i])
        self._ping()
        self._opened(None)

    def _opened(self, why: ProfileError | None) -> None:
        opening, self._opening = self._opening, None
        if opening is None:
            return

        def tell() -> None:
            if opening.done():
                return
            if why is None:
                opening.set_result(None)
            else:
                opening.set_exception(why)

        self._on_game(tell)

    def _ping(self) -> None:
        if self._pinging is not None:
            self._pinging.cancel()
        link = self._link
        if link is None:
            return
        self._pinging = self._loop.call_later(PING_S, self._ping)
        link.probe()
        self._leave_late_host()
        if self._link is not link or self._is_muted:
            return
        self._n += 1
        self._pings[self._n] = now()
        self._pings.pop(self._n - 100, None)
        link.send(compose("ping", {"n": self._n}))

    def _ponged(self, n: int, incarnation: str, age: float) -> None:
        ping = self._pings.get(n)
        if ping is None or self._identity is None or incarnation != self._identity["incarnation"]:
            return
        self.trust.ponged(Belief.of(incarnation, ping, age, self._lease))
        self._confirmed_at = max(self._confirmed_at, ping.steady - age)
        for old in [old for old in self._pings if old <= n]:
            del self._pings[old]

    # --- a host that is late with its renewals is left -----------------------------------------

    @property
    def _is_late(self) -> bool:
        return steady() - self._confirmed_at > LATE * self._lease

    def _leave_late_host(self) -> None:
        """Once in a lease time at most, and not with all other game servers at once."""
        is_due = steady() - self._left_at > self._lease
        if self._leaving is None and is_due and self._is_late:
            wait = random.random() * self._lease / 2
            self._leaving = self._loop.call_later(wait, self._leave)

    def _leave(self) -> None:
        self._leaving = None
        if self._link is not None and self._is_late:
            self._left_at = steady()
            self._attempt()

    def closed(self, link: Link, why: ProfileError) -> None:
        if link is self._next:
            self._next = None
            if link.has_greeted and self._link is not None:
                # What the old link said in the meantime was not listened to.
                self._link.drop()
                self._link = None
            if why.kind == MADE_WAY:
                # Each would end the connection of the other, in turn for ever.
                self._on_game(self._report, why)
                self._close()
                self._on_game(self._holder.replaced)
                return
            if self._opening is not None:
                self._why_not = why
                if why.kind in REFUSED:
                    self._is_closed = True
                    self._opened(why)
                    return
            elif why.kind in REFUSED:
                self._on_game(self._report, why)
        elif link is self._link:
            self._link = None
        else:
            return
        self.is_connected = self._link is not None
        self._again()

    def _close(self) -> None:
        if not self._is_closed:
            self._tell(compose("bye", {}))
            self._is_closed = True
        for timer in (self._retry, self._pinging, self._leaving):
            if timer is not None:
                timer.cancel()
        links = [link for link in (self._next, self._link) if link is not None]
        self._next = self._link = None
        self.is_connected = False
        for link in links:
            link.drop()
        why = failure("unknown", "this game server was closed before the answer came")
        unanswered, self._requests = self._requests, {}
        for request in unanswered.values():
            try:
                self._game.call_soon_threadsafe(request.failed, why)
            except RuntimeError:
                break  # The game's loop is closed.
        self._loop.create_task(self._stop(links))

    async def _stop(self, links: list[Link]) -> None:
        for link in links:
            await link.ended()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self._loop.stop()
