"""One store of profiles, with the type of its data."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar, get_args

from .answers import Page, StoredProfile, Version
from .beside import Beside
from .document import Document
from .errors import ProfileError, failure, in_words
from .frames import Frame, compose
from .futures import fail, quiet, succeed
from .http import Address, Http, Which, message_id
from .jsontext import parse, stringify
from .options import frame_ms, one_of, text
from .profile import Opened, Profile
from .profile import Wire as ProfileWire
from .request import Request
from .transaction import Gift

T = TypeVar("T")

WhenHeld = Literal["ask", "wait", "give_up", "steal"]
"""What a start does about a profile that another game server holds."""

START_MS = 120_000
"""How long a start may take by default, as the server has it."""

LATER_S = 1.0
"""How much later than the server a start's time is over here: the server's word counts first."""

AGAIN_S = 1.0
"""When an end is tried again that the server could not do."""


class Shop(ProfileWire, Protocol):
    """What a store needs of the server it belongs to."""

    http: Http

    @property
    def is_closing(self) -> bool:
        """Nothing is opened any more."""

    def call_off(self, i: int) -> None:
        """Calls off the start with this number."""

    def session(self) -> int: ...

    def was_opened(self, profile: Profile[Any]) -> None: ...


class StoreOptions(NamedTuple):
    scope: str
    reconcile: bool
    check: Callable[[Any], object] | None
    save_within: float
    data_version: int | None
    readable_from: int | None


class Store(Generic[T]):
    """Made by `Server.store`."""

    def __init__(self, name: str, template: T, options: StoreOptions, shop: Shop) -> None:
        self.name, self.scope = name, options.scope
        self._template, self._options, self._shop = copy.deepcopy(template), options, shop
        self._template_text = stringify(template)

    def start(
        self,
        key: str,
        *,
        when_held: WhenHeld | None = None,
        timeout: float | None = None,
    ) -> asyncio.Future[Profile[T]]:
        """
        Opens a profile. When another game server holds it, ``when_held`` says what to do: ``ask``
        it to save and let go (the default), ``wait`` without asking, ``give_up`` with the error
        ``cancelled``, or ``steal``, which loses what the holder has not saved. After ``timeout``
        seconds, 120 by default, the start fails with ``timed-out``. Cancelling the future, or the
        task that waits for it, calls the start off.
        """
        if when_held is not None:
            one_of("when_held", get_args(WhenHeld), when_held)
        shop, options = self._shop, self._options
        timeout_ms = frame_ms("timeout", timeout)
        s, i = shop.session(), shop.number()
        body = {
            "i": i,
            "s": s,
            "store": self.name,
            "scope": self.scope,
            "key": text("key", key),
            "when_held": when_held,
            "timeout_ms": timeout_ms,
            "data_version": options.data_version,
            "readable_from": options.readable_from,
        }
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Profile[T]] = quiet(loop.create_future())

        def called_off(done: asyncio.Future[Profile[T]]) -> None:
            if late is not None:
                late.cancel()
            if done.cancelled():
                shop.call_off(i)

        def is_late() -> None:
            shop.call_off(i)
            fail(future, failure("timed-out", f"the start took longer than {limit} ms: {key}"))

        # The server's clock begins anew at each process, and does not run without a connection.
        limit = START_MS if timeout_ms is None else timeout_ms
        late: asyncio.TimerHandle | None = None

        closing = failure("closing", f"this game server is closing: {key}")
        if shop.is_closing:
            future.set_exception(closing)
            return future

        def done(answer: Frame) -> None:
            if future.done() or shop.is_closing:
                self._let_go(s)
                fail(future, closing)
                return
            try:
                future.set_result(self._opened(key, answer[1]))
            except Exception as error:
                self._let_go(s)
                known = isinstance(error, ProfileError)
                fail(future, error if known else failure("undecodable", in_words(error)))

        future.add_done_callback(called_off)
        late = loop.call_later(limit / 1000 + LATER_S, is_late)
        frame = compose("start", body, {"template": self._template_text})
        starts = (s, self.name, self.scope, key)
        failed = lambda error: fail(future, error)  # noqa: E731
        shop.request(Request(i, [frame], done, failed, is_kept=False, starts=starts))
        return future

    def _opened(self, key: str, started: dict[str, Any]) -> Profile[T]:
        options = self._options
        beside = Beside(started["meta"])
        document: Document[T] = Document(started["data"], options.check, beside)
        if options.reconcile:
            document.change(lambda data: fill(data, self._template))
        if options.check is not None:
            options.check(parse(document.text))
        opened = Opened(
            started["s"],
            self.name,
            self.scope,
            key,
            started["epoch"],
            started["version"],
            started["meta"],
        )
        profile = Profile(opened, document, self._shop, options.save_within)
        self._shop.was_opened(profile)
        return profile

    def _let_go(self, s: int, n: int = 1) -> None:
        """Ends a session that the program has not seen, as it is stored. Otherwise it is locked."""
        i = self._shop.number()

        def failed(error: ProfileError) -> None:
            if error.advice == "retry" and error.kind != "closing":
                asyncio.get_running_loop().call_later(AGAIN_S, self._let_go, s, n + 1)
            else:
                self._shop.over(s)

        frame = compose("end", {"i": i, "s": s, "n": n})
        done: Callable[[Frame], None] = lambda _: self._shop.over(s)  # noqa: E731
        self._shop.request(Request(i, [frame], done, failed, ends=s))

    def gift(self, key: str, message: object, id: str | None = None) -> Gift:
        """A message to a profile, for a transaction. Its id makes it once: ``TIME:NAME``."""
        name = message_id() if id is None else text("id", id)
        return Gift(self.name, self.scope, text("key", key), name, stringify(message))

    def send(self, key: str, message: object, id: str | None = None) -> asyncio.Future[bool]:
        """
        Sends a message to a profile, whether it is played or not. Done when it is stored; False
        when it had been sent before under this id.
        """
        gift = self.gift(key, message, id)
        i = self._shop.number()
        future: asyncio.Future[bool] = quiet(asyncio.get_running_loop().create_future())
        self._shop.request(
            Request(
                i,
                [compose("send", {"i": i}, {"gift": gift.text()})],
                lambda answer: succeed(future, bool(answer[1].get("stored_now"))),
                lambda error: fail(future, error),
                is_kept=False,
            )
        )
        return future

    async def get(self, key: str) -> StoredProfile[T] | None:
        """A profile as it is stored, without a session. None: there is none."""
        return await self._shop.http.get(self.at(key))

    async def versions(self, key: str) -> Page[Version]:
        """A profile's versions, the newest first."""
        return await self._shop.http.versions(self.at(key))

    async def version(self, key: str, which: Which) -> StoredProfile[T]:
        """An earlier version: by its number, its label, or as it was at a time."""
        return await self._shop.http.version(self.at(key), which)

    def at(self, key: str) -> Address:
        """What names a profile of this store in `Http`."""
        return Address(self.name, key, self.scope)


def fill(data: Any, template: Any) -> None:
    """Fills in what the template has and the data has not. Lists are left alone."""
    if type(data) is not dict or type(template) is not dict:
        return
    for name, value in template.items():
        if name in data:
            fill(data[name], value)
        else:
            data[name] = copy.deepcopy(value)
