"""
The data of one session, as text: what was changed, what is stored, and the messages whose effect is
in it. Pure; it knows of no connection. A change that fails leaves nothing behind.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, Generic, NamedTuple, TypeVar

from .edit import edited
from .errors import failure, in_words
from .jsontext import parse, stringify
from .users import User, user_of

T = TypeVar("T")
R = TypeVar("R")

REMEMBERED = 10_000
"""How many indexes of messages are remembered."""


class Draft(NamedTuple):
    """One state of the document that is to be stored."""

    text: str
    processed: list[int]
    revision: int
    """How many changes it has."""
    users: tuple[User, ...] | None = None
    """All users associated with the profile. None: those that are stored."""


class Document(Generic[T]):
    def __init__(
        self, stored: Any, check: Callable[[T], object] | None, users: Iterable[User] = ()
    ) -> None:
        """Fails when the data has a number that cannot be held."""
        self.text = self._stored = stringify(stored)
        self.check = check
        self.revision = 0
        self.stored_revision = 0
        self._view: T | None = None
        self._processed: dict[int, None] = {}
        self._seen: dict[int, None] = {}
        self.users = self._stored_users = tuple(user_of(user) for user in users)

    @property
    def view(self) -> T:
        """For reading. A new object after each change."""
        if self._view is None:
            self._view = parse(self.text)
        return self._view

    @property
    def is_changed(self) -> bool:
        """Whether there is something that is not stored."""
        is_text = self.text != self._stored
        return is_text or bool(self._processed) or self.users != self._stored_users

    def add_user(self, given: User) -> None:
        user = user_of(given)
        if user not in self.users:
            self._associate((*self.users, user))

    def remove_user(self, given: User) -> None:
        user = user_of(given)
        if user in self.users:
            self._associate(tuple(one for one in self.users if one != user))

    def _associate(self, users: tuple[User, ...]) -> None:
        self.users = users
        self.revision += 1

    def tried(self, change: Callable[[T], R]) -> tuple[str, R]:
        """The data after ``change``, as a text; nothing is changed yet."""
        data = parse(self.text)
        result = change(data)
        refuse_async(result)
        return stringify(data), result

    def take(self, text: str) -> None:
        """Takes a text over that was tried."""
        if text != self.text:
            self.text = text
            self._view = None
            self.revision += 1

    def change(self, change: Callable[[T], R]) -> R:
        text, result = self.tried(change)
        self.take(text)
        return result

    def has_seen(self, index: int) -> bool:
        return index in self._seen

    def process(self, index: int, effect: Callable[[T], object]) -> None:
        """A message's effect; it goes with its index into one save."""
        self.change(effect)
        self.revision += 1
        self._processed[index] = self._seen[index] = None
        while len(self._seen) > REMEMBERED:
            del self._seen[next(iter(self._seen))]

    def edit(self, changes: Any) -> tuple[Draft, Callable[[], None]]:
        """An edit, alone: made on what is stored, and on what play made of it since."""
        steps = stringify(changes)

        def make(text: str) -> str:
            data = edited(parse(text), parse(steps))
            try:
                if self.check is not None:
                    self.check(data)
            except Exception as error:
                raise ValueError(f"the program refuses the data: {in_words(error)}") from error
            return stringify(data)

        alone = make(self._stored)
        before = self.text
        together = alone if before == self._stored else make(before)
        self.take(together)

        def undo() -> None:
            if self.text == together:
                self.take(before)

        return Draft(alone, [], self.stored_revision), undo

    def stored_draft(self) -> Draft:
        """What is stored."""
        return Draft(self._stored, [], self.stored_revision)

    def draft(self) -> Draft:
        users = None if self.users == self._stored_users else self.users
        return Draft(self.text, list(self._processed), self.revision, users)

    def stored(self, draft: Draft) -> None:
        """A draft is stored."""
        self._stored = draft.text
        if draft.users is not None:
            self._stored_users = draft.users
        self.stored_revision = max(self.stored_revision, draft.revision)
        for index in draft.processed:
            self._processed.pop(index, None)
        if not self.is_changed:
            self.stored_revision = self.revision


def refuse_async(result: object) -> None:
    """A change is made at once."""
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise failure("invalid", "a change is made at once: its function must not be async")
