"""
What is stored beside a session's data: its users, its tags, and the metadata of its key. Pure.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from .errors import failure
from .jsontext import exact, parse, stringify
from .users import User, user_of

# Limits of the metadata, in characters of JSON: docs/storable.md.
MAX_NAME = 50
MAX_VALUE = 250
MAX_METADATA = 300


class BesideDraft(NamedTuple):
    """What is to be stored beside the data. None: what is stored already."""

    users: tuple[User, ...] | None = None
    tags: str | None = None
    """All tags, as a text."""
    metadata: str | None = None
    """The metadata, as a text."""


class Table:
    """Names and what they say."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self._told = told
        self._text: str | None = None
        """None: as the start was told."""
        self._stored: str | None = None

    @property
    def value(self) -> dict[str, Any]:
        """A new one each time. Fails when it has a number that cannot be held."""
        if self._text is None:
            exact(self._told)
            return copy.deepcopy(dict(self._told))
        value: dict[str, Any] = parse(self._text)
        return value

    @property
    def draft(self) -> str | None:
        return None if self._text == self._stored else self._text

    def set(self, text: str) -> None:
        self._text = text

    def stored(self, text: str | None) -> None:
        if text is not None:
            self._stored = text


class Beside:
    def __init__(self, meta: Mapping[str, Any]) -> None:
        """``meta`` is what the start was told."""
        self.users = self._stored_users = tuple(map(user_of, meta.get("user_ids", ())))
        self.tags, self.metadata = Table(meta.get("tags", {})), Table(meta.get("metadata", {}))

    @property
    def is_changed(self) -> bool:
        """Whether there is something that is not stored."""
        return self.draft() != BesideDraft()

    def add_user(self, given: User) -> None:
        user = user_of(given)
        if user not in self.users:
            self.users = (*self.users, user)

    def remove_user(self, given: User) -> None:
        user = user_of(given)
        self.users = tuple(one for one in self.users if one != user)

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        self.tags.set(_text_of(tags, "the tags"))

    def set_metadata(self, metadata: Mapping[str, Any]) -> None:
        text = _text_of(metadata, "the metadata")
        _check_metadata(text)
        self.metadata.set(text)

    def draft(self) -> BesideDraft:
        users = None if self.users == self._stored_users else self.users
        return BesideDraft(users, self.tags.draft, self.metadata.draft)

    def stored(self, draft: BesideDraft) -> None:
        """A draft is stored."""
        if draft.users is not None:
            self._stored_users = draft.users
        self.tags.stored(draft.tags)
        self.metadata.stored(draft.metadata)


def _text_of(table: Mapping[str, Any], what: str) -> str:
    if not isinstance(table, Mapping):
        raise failure("invalid", f"{what}: they are a dict with names and what these say")
    return stringify(dict(table))


def _check_metadata(text: str) -> None:
    """The server refuses a larger one, and with it everything else that was to be stored."""

    def check(what: str, said: str, limit: int) -> None:
        if len(said) > limit:
            detail = f"the metadata is too long: {what} characters=`{len(said)}` limit=`{limit}`"
            raise failure("too-large", detail)

    for name, value in json.loads(text).items():
        check("a key", name, MAX_NAME)
        check("a value", value if type(value) is str else stringify(value), MAX_VALUE)
    check("all of it", text, MAX_METADATA)
