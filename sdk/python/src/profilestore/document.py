"""
The data of one session, as text: what was changed, what is stored, and the messages whose effect is
in it. Pure; it knows of no connection. A change that fails leaves nothing behind.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

from .beside import Beside, BesideDraft
from .edit import edited
from .errors import failure, in_words
from .jsontext import parse, stringify

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
    beside: BesideDraft = BesideDraft()

    def framed(self) -> tuple[dict[str, Any], dict[str, str]]:
        """What a frame has of it: its members, and those that are JSON texts already."""
        members = {"processed": self.processed, "user_ids": self.beside.users}
        texts = {"tags": self.beside.tags, "metadata": self.beside.metadata, "data": self.text}
        return members, {name: text for name, text in texts.items() if text is not None}


class Document(Generic[T]):
    def __init__(self, stored: Any, check: Callable[[T], object] | None, beside: Beside) -> None:
        """Fails when the data has a number that cannot be held."""
        self.text = self._stored = stringify(stored)
        self.check, self.beside = check, beside
        self.revision = 0
        self.stored_revision = 0
        self._view: T | None = None
        self._processed: dict[int, None] = {}
        self._seen: dict[int, None] = {}
        self._is_changing = False

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
        return is_text or bool(self._processed) or self.beside.is_changed

    def change_beside(self, change: Callable[[Beside], None]) -> None:
        """A change of what is stored beside the data."""
        change(self.beside)
        self.revision += 1

    def must_be_at_rest(self) -> None:
        """A change made within another one would be lost when the outer one is taken over."""
        if self._is_changing:
            detail = "within a change: change the data that its function was given"
            raise failure("invalid", detail)

    def tried(self, change: Callable[[T], R]) -> tuple[str, R]:
        """The data after ``change``, as a text; nothing is changed yet."""
        self.must_be_at_rest()
        self._is_changing = True
        try:
            data = parse(self.text)
            result = change(data)
            refuse_async(result)
            return stringify(data), result
        finally:
            self._is_changing = False

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
        return Draft(self.text, list(self._processed), self.revision, self.beside.draft())

    def stored(self, draft: Draft) -> None:
        """A draft is stored."""
        self._stored = draft.text
        self.beside.stored(draft.beside)
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
