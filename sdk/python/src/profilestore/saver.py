"""
When a session's document is sent. At most one save is unanswered; what changes meanwhile goes
together into the next one. Edits go alone. Nothing is sent while a transaction has the session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from .document import Document, Draft
from .errors import ProfileError, failure, in_words
from .frames import Frame, compose
from .futures import fail, quiet, succeed
from .request import Request

REMEMBERED = 10_000
"""How many edits are remembered, of which one may come again."""

AGAIN_S = 1.0
"""When a save is tried again that the server could not do."""


class Wire(Protocol):
    """What a session needs of the connection."""

    def number(self) -> int: ...

    def request(self, request: Request) -> None: ...


class SaverUser(Protocol):
    def refused(self, error: ProfileError) -> None:
        """A save was refused for good, and the session goes on."""

    def thawed(self) -> None: ...

    def lost(self) -> None: ...


class _Waiter(NamedTuple):
    revision: int
    future: asyncio.Future[None]


class Saver:
    def __init__(
        self,
        s: int,
        key: str,
        version: int,
        document: Document[Any],
        wire: Wire,
        save_within: float,
        user: SaverUser,
    ) -> None:
        self.version = version
        self.is_frozen = False
        self.is_end_sent = False
        self._s, self._key = s, key
        self._document, self._wire, self._user = document, wire, user
        self._save_within = save_within
        self._loop = asyncio.get_running_loop()
        self._n = 0
        self._is_sending = False
        self._is_over = False
        self._is_due = False
        """A save is wanted now."""
        self._timer: asyncio.TimerHandle | None = None
        self._end: asyncio.Future[None] | None = None
        self._waiters: list[_Waiter] = []
        self._idle: list[asyncio.Future[None]] = []
        self._thawing: list[asyncio.Future[None]] = []
        self._edits: dict[str, Any] = {}
        self._edits_done: dict[str, None] = {}

    def changed(self) -> None:
        """The data was changed: it is saved after a while."""
        if self._timer is None and not self._is_over and self._document.is_changed:
            self._timer = self._loop.call_later(self._save_within, self.soon)

    def soon(self) -> None:
        """Saves behind what this moment brings."""
        self._is_due = True
        self._loop.call_soon(self._pump)

    def save(self) -> asyncio.Future[None]:
        future = quiet(self._loop.create_future())
        # What a transaction stores is one of the changes up to now.
        if not (self._document.is_changed or self._is_sending or self.is_frozen):
            future.set_result(None)
        else:
            self._waiters.append(_Waiter(self._document.revision, future))
            self.soon()
        return future

    def end(self) -> asyncio.Future[None]:
        self._end = quiet(self._loop.create_future())
        end = self._end
        self._pump()
        return end

    def edit(self, op: str, changes: Any) -> None:
        """An operator's edit. One that comes again is answered already, or waits."""
        if op not in self._edits_done:
            self._edits[op] = changes
            self.soon()

    # --- transactions --------------------------------------------------------------------------

    def freeze(self) -> None:
        self.is_frozen = True

    def thaw(self) -> None:
        self.is_frozen = False
        self._release(self._thawing)
        self._settle_waiters()
        self._user.thawed()
        self.changed()
        self._pump()

    def when_thawed(self) -> asyncio.Future[None]:
        """At the end of a transaction. Another one may have begun there."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._thawing.append(future)
        return future

    async def settled(self) -> None:
        """No save is under way any more."""
        while self._is_sending:
            future = self._loop.create_future()
            self._idle.append(future)
            await future

    def next_save(self) -> int:
        self._n += 1
        return self._n

    # --- sending -------------------------------------------------------------------------------

    def _pump(self) -> None:
        if self._is_sending or self.is_frozen or self._is_over:
            return
        if self._end is not None:
            self._send_end(self._end)
        elif self._edits:
            self._next_edit()
        elif self._is_due:
            self._is_due = False
            self._stop_timer()
            if self._document.is_changed:
                self._send_save(self._document.draft(), [], None)
            else:
                # What was changed was changed back: what is stored is what the waiters want.
                self._document.stored(self._document.stored_draft())
                self._settle_waiters()

    def _next_edit(self) -> None:
        """Makes the next edit and sends it."""
        op, changes = next(iter(self._edits.items()))
        del self._edits[op]
        self._edits_done[op] = None
        while len(self._edits_done) > REMEMBERED:
            del self._edits_done[next(iter(self._edits_done))]
        try:
            draft, undo = self._document.edit(changes)
        except Exception as error:
            self._refuse_edit(op, in_words(error))
            return

        def refused(why: ProfileError) -> None:
            undo()
            self._refuse_edit(op, str(why))

        self._send_save(draft, [{"op": op}], refused)

    def _refuse_edit(self, op: str, why: str) -> None:
        # What a game says may have half of a character, which no frame can have.
        words = why[:1000].encode(errors="replace").decode()
        done = [{"op": op, "refused": words}]
        self._send_save(self._document.stored_draft(), done, None)

    def _send_save(
        self,
        draft: Draft,
        edits_done: list[dict[str, str]],
        instead: Callable[[ProfileError], None] | None,
    ) -> None:
        """``instead``: what is done when the save of an edit is refused."""
        i, n = self._wire.number(), self.next_save()
        members, texts = draft.framed()
        body = {"i": i, "s": self._s, "n": n, **members, "edits_done": edits_done}
        frame = compose("save", body, texts)
        self._is_sending = True

        def done(answer: Frame) -> None:
            self._document.stored(draft)
            self.version = answer[1].get("version") or self.version
            self._sent()

        def again() -> None:
            if self._is_over:
                self._ended(failure("session-ended", "the session is over"))
            else:
                self._send_save(draft, edits_done, instead)

        def failed(error: ProfileError) -> None:
            if error.kind == "session-ended":
                self._ended(error)
            elif error.advice == "retry":
                # It was not done. Under a new number, since the session can have changed.
                self._loop.call_later(AGAIN_S, again)
            elif instead is not None:
                instead(error)
            else:
                self._refused(error, draft)

        self._wire.request(Request(i, [frame], done, failed))

    def _sent(self) -> None:
        """An answer is there, and the next frame may go."""
        self._is_sending = False
        self._settle_waiters()
        self._release(self._idle)
        if self._waiters:
            self._is_due = True
        self.changed()
        self._pump()

    def _ended(self, error: ProfileError) -> None:
        self._is_sending = False
        self._release(self._idle)
        if self._is_over:
            self._fail_all(error)
            return
        if self._end is None:
            self._user.lost()
        self.over(error)

    def _refused(self, error: ProfileError, draft: Draft) -> None:
        """A save was refused for good. The session goes on."""
        self._is_sending = False
        self._release(self._idle)
        meant = [waiter for waiter in self._waiters if waiter.revision <= draft.revision]
        self._waiters = [waiter for waiter in self._waiters if waiter.revision > draft.revision]
        for waiter in meant:
            fail(waiter.future, error)
        self._user.refused(error)
        if self._waiters:
            self._is_due = True
        self.changed()
        self._pump()

    def _send_end(self, end: asyncio.Future[None]) -> None:
        draft = self._document.draft()
        i, n = self._wire.number(), self.next_save()
        members, texts = draft.framed()
        body = {"i": i, "s": self._s, "n": n, **members, "edits_done": []}
        self._stop_timer()
        self._is_sending = self.is_end_sent = True

        def done(_: Frame) -> None:
            self._is_sending = False
            self._release(self._idle)
            self._document.stored(draft)
            self._settle_waiters()
            succeed(end, None)

        def failed(error: ProfileError) -> None:
            self._is_sending = self.is_end_sent = False
            self._release(self._idle)
            self._end = None
            fail(end, error)
            self.changed()
            # What came meanwhile.
            self._pump()

        frame = compose("end", body, texts)
        self._wire.request(Request(i, [frame], done, failed, ends=self._s))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @staticmethod
    def _release(waiting: list[asyncio.Future[None]]) -> None:
        for future in waiting:
            succeed(future, None)
        waiting.clear()

    def _settle_waiters(self) -> None:
        stored = self._document.stored_revision
        for waiter in self._waiters:
            if waiter.revision <= stored:
                succeed(waiter.future, None)
        self._waiters = [waiter for waiter in self._waiters if waiter.revision > stored]

    def over(self, why: ProfileError | None = None) -> None:
        """The session is over. A save that is under way still has its answer."""
        why = why or failure("session-ended", f"the session is over: {self._key}")
        self._is_over = True
        self._stop_timer()
        self._edits.clear()
        if not self._is_sending or why.kind == "unknown":
            self._fail_all(why)
            return
        idle = self._loop.create_future()
        self._idle.append(idle)
        idle.add_done_callback(lambda _: self._fail_all(why))

    def _fail_all(self, why: ProfileError) -> None:
        self._settle_waiters()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            fail(waiter.future, why)
        self._release(self._thawing)
        if self._end is not None:
            fail(self._end, why)
            self._end = None
