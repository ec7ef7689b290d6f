"""A profile that this game server holds."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar, overload

from .beside import Beside
from .document import Document, Draft
from .errors import ProfileError, failure
from .events import End, Events, MessageFailed, Received, Release, Report, call
from .frames import Asker, ByServer, Frame, asker_of, server_of
from .futures import fail, quiet, shared, succeed
from .jsontext import exact, parse, stringify
from .options import calls, one_of, text
from .request import Request
from .saver import Saver
from .users import User

T = TypeVar("T")
R = TypeVar("R")

MOST_WAITING = 1000
"""How many messages without a handler are kept here; the inbox has the others."""

AGAIN_S = 1.0
"""When a profile that was asked for is let go again, if the server could not do it."""


EVENTS = ("end", "release", "save-failed", "message-failed")


class Opened(NamedTuple):
    s: int
    store: str
    scope: str
    key: str
    epoch: int
    version: int
    meta: dict[str, Any]


class Wire(Protocol):
    """What a session needs of its game server."""

    report: Report

    def number(self) -> int: ...

    def request(self, request: Request) -> None: ...

    def is_active(self, s: int) -> bool: ...

    def over(self, s: int) -> None:
        """The session is over."""


Handler = Callable[[Any, Any, Received], object]


class Profile(Generic[T]):
    """Made by `Store.start`. It is this game server's until `end`, or until its event ``end``."""

    def __init__(
        self, opened: Opened, document: Document[T], wire: Wire, save_within: float
    ) -> None:
        self.opened = opened
        self.store, self.scope, self.key = opened.store, opened.scope, opened.key
        self.ended: End | None = None
        """How the session ended. None: it goes on."""
        self._document, self._wire = document, wire
        self._events = Events(wire.report)
        self._saver = Saver(
            opened.s, opened.key, opened.version, document, wire, save_within, self
        )
        self._handlers: dict[str | None, Handler] = {}
        self._last_save: list[Callable[[T], object]] = []
        self._last_revision: int | None = None
        """What the last hooks have left, for which they do not run again."""
        self._waiting: dict[int, dict[str, Any]] = {}
        self._asked: Asker | None = None
        self._is_ending = False
        self._is_asked = False
        self._asked_meanwhile: Asker | None = None
        """Who asked while an end was under way."""
        self._ending: asyncio.Future[None] | None = None

    @property
    def data(self) -> T:
        """The data, for reading: a new object after each change. `update` changes it."""
        return self._document.view

    @property
    def meta(self) -> dict[str, Any]:
        """As they were at the start: users, tags, metadata, and how often it was opened."""
        exact(self.opened.meta)
        return copy.deepcopy(self.opened.meta)

    @property
    def version(self) -> int:
        """The version that is stored."""
        return self._saver.version

    @property
    def has_unsaved(self) -> bool:
        """Whether there are changes that are not stored yet."""
        return self._document.is_changed if self.ended is None else self.ended.has_loss

    @property
    def is_active(self) -> bool:
        """
        Whether this game server may believe that the profile is its own. Ask before something that
        cannot be taken back, such as giving out what is worth money outside of the profile.
        """
        is_open = self.ended is None and not self._is_ending and not self._is_asked
        return is_open and self._wire.is_active(self.opened.s)

    def update(self, change: Callable[[T], R]) -> R:
        """
        Changes the data, at once. The change is stored within 5 s, or by `save`. What the function
        raises comes through, and then nothing is changed. Fails with ``busy`` while a transaction
        has the profile or it is being handed over, with ``session-ended`` after that, and with
        ``invalid`` when the data has something that cannot be stored.
        """
        self._must_be_open()
        result = self._document.change(change)
        self._saver.changed()
        return result

    @contextmanager
    def updating(self) -> Iterator[T]:
        """
        The same as `update`, for a block. Do not wait in it: a block that finds at its end that the
        data was changed by other code fails with ``busy``, and changes nothing.
        """
        self._must_be_open()
        self._document.must_be_at_rest()
        before = self._document.text
        data: T = parse(before)
        yield data
        self._must_be_open()
        text = stringify(data)
        if self._document.text != before:
            raise failure("busy", f"the data was changed in the meantime: {self.key}")
        self._document.take(text)
        self._saver.changed()

    @property
    def users(self) -> tuple[User, ...]:
        """The users associated with the profile, for search, export and erasure."""
        return self._document.beside.users

    def add_user(self, user: User) -> None:
        """
        Associates a user: a number, or a name such as the UUID of a Minecraft player, of up to 100
        bytes. UUIDs with hyphens get small letters. Stored as changes of the data are.
        """
        self._change_beside(lambda beside: beside.add_user(user))

    def remove_user(self, user: User) -> None:
        """Takes a user's association away."""
        self._change_beside(lambda beside: beside.remove_user(user))

    @property
    def tags(self) -> dict[str, Any]:
        """
        The game's tags: what it notes of the profile beside the data, for support and tools. A new
        dict each time. Those of ``data_version`` are among them.
        """
        return self._document.beside.tags.value

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """
        Replaces the tags. Stored as changes of the data are. Those of ``data_version`` stay,
        whatever is given.
        """
        self._change_beside(lambda beside: beside.set_tags(tags))

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the profile's key, on Roblox ``RobloxMetaData``. A new dict each time."""
        return self._document.beside.metadata.value

    def set_metadata(self, metadata: Mapping[str, Any]) -> None:
        """
        Replaces the metadata. Stored as changes of the data are. Fails with ``too-large``, and
        changes nothing, when a name has more than 50 characters, a value more than 250, or all of
        it more than 300 as JSON.
        """
        self._change_beside(lambda beside: beside.set_metadata(metadata))

    def _change_beside(self, change: Callable[[Beside], None]) -> None:
        self._must_be_open()
        self._document.change_beside(change)
        self._saver.changed()

    def _must_be_open(self) -> None:
        if self.ended is not None:
            raise failure("session-ended", f"the session is over: {self.key}")
        if self._is_ending:
            raise failure("busy", f"the profile is being handed over: {self.key}")
        if self._saver.is_frozen:
            raise failure("busy", f"a transaction has the profile: {self.key}")

    def save(self) -> asyncio.Future[None]:
        """Done when every change up to now is stored. It begins at once."""
        if self.ended is not None:
            future: asyncio.Future[None] = quiet(asyncio.get_running_loop().create_future())
            fail(future, failure("session-ended", f"the session is over: {self.key}"))
            return future
        return self._saver.save()

    def end(self) -> asyncio.Future[None]:
        """The last save and the release, in one commit. Once it is done, any server may start."""
        if self._ending is None:
            if self.ended is not None:
                future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                succeed(future, None)
                return future
            self._document.must_be_at_rest()
            self._last_revision = None
            self._ending = self._letting_go("ended", None)
        return shared(self._ending)

    @overload
    def on(self, name: Literal["end"], handler: Callable[[End], object]) -> Callable[[], None]: ...
    @overload
    def on(
        self, name: Literal["release"], handler: Callable[[Release], object]
    ) -> Callable[[], None]: ...
    @overload
    def on(
        self, name: Literal["save-failed"], handler: Callable[[ProfileError], object]
    ) -> Callable[[], None]: ...
    @overload
    def on(
        self, name: Literal["message-failed"], handler: Callable[[MessageFailed], object]
    ) -> Callable[[], None]: ...
    def on(self, name: str, handler: Callable[[Any], object]) -> Callable[[], None]:
        """
        Calls ``handler`` at each event; it may be async. ``end``: let the player go. ``release``:
        the profile is asked for, and handed over at once. ``save-failed``: a change could not be
        stored; the data stays as it is, and the next change tries again. ``message-failed``: a
        handler raised. The function that comes back takes the handler away.
        """
        one_of("name", EVENTS, name)
        calls("handler", handler)
        return self._events.on(name, handler)

    def on_message(
        self, kind: str | None, handler: Callable[[T, Any, Received], object]
    ) -> None:
        """
        What messages with this ``type`` do to the data; None: all without a handler of their own.
        The effect and the receipt are stored in one commit: each message has its effect once.
        """
        if kind is not None:
            text("kind", kind)
        calls("handler", handler)
        self._handlers[kind] = handler
        self._process_all()

    def on_last_save(self, change: Callable[[T], object]) -> None:
        """
        A last change of the data before `end` and before a hand-over. It is made once, however
        often the hand-over is tried, unless the data was changed in between.
        """
        calls("change", change)
        self._last_save.append(change)
        self._last_revision = None

    # --- the way out ---------------------------------------------------------------------------

    def _letting_go(self, reason: str, by: Asker | None) -> asyncio.Future[None]:
        """
        It begins at once, so a start that comes behind it finds what is saved here. No task does
        it, which could be cancelled.
        """
        ending: asyncio.Future[None] = quiet(asyncio.get_running_loop().create_future())
        self._let_go(reason, by, ending)
        return ending

    def _let_go(
        self, reason: str, by: Asker | None, ending: asyncio.Future[None], *_: object
    ) -> None:
        if self.ended is not None:
            fail(ending, failure("session-ended", f"the session is over: {self.key}"))
        elif self._saver.is_frozen:
            thawed = self._saver.when_thawed()
            thawed.add_done_callback(partial(self._let_go, reason, by, ending))
        else:
            self._send_end().add_done_callback(partial(self._end_answered, reason, by, ending))

    def _send_end(self) -> asyncio.Future[None]:
        if self._document.revision != self._last_revision:
            for change in self._last_save:
                call(partial(self._document.change, change), self._wire.report)
            self._last_revision = self._document.revision
        self._is_ending = True
        return self._saver.end()

    def _end_answered(
        self,
        reason: str,
        by: Asker | None,
        ending: asyncio.Future[None],
        sent: asyncio.Future[None],
    ) -> None:
        error = sent.exception()
        if error is None:
            self._finish(reason, by, False)
            succeed(ending, None)
            return
        if isinstance(error, ProfileError) and error.kind == "session-ended":
            self._finish("lost", by, self._document.is_changed)
        else:
            # It was refused, so the session goes on.
            self._is_ending = False
            self._ending = None
            # What came meanwhile.
            self._process_all()
            asked, self._asked_meanwhile = self._asked_meanwhile, None
            if asked is not None:
                self._release(asked)
        fail(ending, error)

    def _finish(self, reason: str, by: Asker | None, has_loss: bool) -> None:
        if self.ended is not None:
            return
        self.ended = End(reason, by, has_loss)
        self._waiting.clear()
        self._wire.over(self.opened.s)
        self._saver.over()
        self._events.emit("end", self.ended)

    def abandon(self) -> None:
        """@private There is no connection any more, and there will be none."""
        self._finish("lost", None, self._document.is_changed)

    # --- what the server says ------------------------------------------------------------------

    def heard(self, frame: Frame) -> None:
        """@private What the server says."""
        if self.ended is not None:
            return
        name, body = frame
        if name == "resumed":
            self._saver.version = max(self._saver.version, body["version"])
        elif name == "lost":
            self._over("lost", server_of(body["by"]))
        elif name == "closed":
            why = body["why"]
            reason = why if why in ("external", "operator") else "lost"
            self._over(reason, server_of(body["by"]))
        elif name == "release":
            self._release(asker_of(body["by"]))
        elif name == "message":
            if len(self._waiting) < MOST_WAITING:
                self._waiting[body["index"]] = body
                self._process_all()
        elif name == "edit":
            # During an end it waits: when that is refused, the session goes on and it is made.
            self._saver.edit(body["op"], body["changes"])

    def _release(self, by: Asker) -> None:
        # From now on no pong counts, also when the end is refused: the server's deadline runs.
        self._is_asked = True
        if self._asked is not None:
            return
        if self._ending is not None:
            self._asked_meanwhile = by
            return
        self._asked = by
        self._events.emit("release", Release(by))
        self._hand_over(by)

    def _hand_over(self, by: Asker) -> None:
        if self.ended is not None:
            return
        self._asked = by
        # From this moment on the data is frozen, unless a transaction is to end first. The game may
        # have ended it by itself. When that is refused, the profile is asked for still.
        if self._ending is None:
            self._ending = self._letting_go("released", by)
        self._ending.add_done_callback(partial(self._released, by))

    def _released(self, by: Asker, ending: asyncio.Future[None]) -> None:
        error = None if ending.cancelled() else ending.exception()
        if error is None:
            return
        self._asked = None
        if self.ended is not None:
            return
        self._events.emit("save-failed", error)
        if isinstance(error, ProfileError) and error.advice == "retry":
            # It was not done, and nothing else tries again. The server's deadline runs.
            asyncio.get_running_loop().call_later(AGAIN_S, self._hand_over_again, by)
        else:
            self._last_revision = None

    def _hand_over_again(self, by: Asker) -> None:
        # Otherwise it was asked for again meanwhile.
        if self._asked is None:
            self._hand_over(by)

    def _over(self, reason: str, by: ByServer | None) -> None:
        # The answer to an end that was sent says what became of it.
        if not self._saver.is_end_sent:
            self._finish(reason, by, self._document.is_changed)

    # --- what the saver says -------------------------------------------------------------------

    def refused(self, error: ProfileError) -> None:
        """@private A save was refused for good."""
        self._events.emit("save-failed", error)

    def lost(self) -> None:
        """@private The session is not there any more."""
        self._finish("lost", None, True)

    def thawed(self) -> None:
        """@private A transaction is over."""
        self._process_all()

    # --- messages ------------------------------------------------------------------------------

    def _process_all(self) -> None:
        for index, message in list(self._waiting.items()):
            # What the game did because of the one before may be the end, or a transaction.
            if self._saver.is_frozen or self._is_ending or self.ended is not None:
                return
            if self._document.has_seen(index):
                self._waiting.pop(index, None)
            else:
                self._process(index, message)

    def _process(self, index: int, message: dict[str, Any]) -> None:
        received = Received(message["id"], datetime.fromtimestamp(message["sent_ms"] / 1000, UTC))
        body = message["body"]
        kind = body.get("type") if type(body) is dict else None
        own = self._handlers.get(kind) if type(kind) is str else None
        handler = own or self._handlers.get(None)
        if handler is None:
            return
        self._waiting.pop(index, None)
        try:
            exact(body)
            self._document.process(index, lambda data: handler(data, body, received))
            self._saver.soon()
        except Exception as error:
            self._events.emit("message-failed", MessageFailed(message["id"], error))

    # --- transactions --------------------------------------------------------------------------

    def freeze(self) -> Document[T]:
        """@private Takes the profile for a transaction."""
        self._must_be_open()
        self._document.must_be_at_rest()
        self._saver.freeze()
        return self._document

    async def settled(self) -> None:
        """@private No save is under way any more."""
        await self._saver.settled()

    def pending(self) -> Draft:
        """@private What is not stored yet."""
        return self._document.draft()

    def next_save(self) -> int:
        """@private The number of the part, which counts as a save."""
        return self._saver.next_save()

    def thaw(self, stored: Draft | None = None, version: int | None = None) -> None:
        """@private The transaction is over. ``stored``: what it stored of this profile."""
        if stored is not None:
            self._document.take(stored.text)
            self._document.stored(stored._replace(revision=self._document.revision))
        if version is not None:
            self._saver.version = version
        self._saver.thaw()
