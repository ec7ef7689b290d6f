"""What a server answers over HTTP. A later server may add members."""

from __future__ import annotations

from typing import Any, Generic, Literal, TypedDict, TypeVar

from .users import User

T = TypeVar("T")
Item = TypeVar("Item")

Answer = dict[str, Any]
"""An answer that has no type of its own here: ``/docs`` of the server describes it."""


class HeldBy(TypedDict):
    """Who holds a profile."""

    job: str
    place: int
    since_ms: int
    server: Literal["alive", "silent", "dead", "unknown"]
    asked_for_by: str | None


class StoredProfile(TypedDict, Generic[T]):
    """
    A profile as it is stored. What a holder has not saved yet is not in it. ``etag`` is for `put`
    and `restore`.
    """

    store: str
    scope: str
    key: str
    version: int
    etag: str | None
    data: T
    user_ids: list[User]
    tags: dict[str, Any]
    metadata: dict[str, Any]
    created_ms: int
    stored_ms: int
    cause: str
    author: str
    held: HeldBy | None
    messages_waiting: int


class Version(TypedDict):
    """
    One of a profile's versions, without its data. ``label`` is a name that stays when it is moved.
    """

    version: int
    label: str
    written_ms: int
    stored_ms: int
    superseded_ms: int | None
    removed: bool
    cause: str
    author: str
    load_count: int
    pinned: bool
    bytes: int


class Waiting(TypedDict):
    """A message that waits in an inbox. ``index`` is its number there, ``id`` is TIME:NAME."""

    index: int
    id: str
    sent_ms: int
    message: Any


class Inbox(TypedDict):
    """The messages that wait for a profile, the oldest first."""

    items: list[Waiting]


class Page(TypedDict, Generic[Item]):
    """Some of a list. With ``next_page_token`` as ``page_token`` of the next call it goes on."""

    items: list[Item]
    next_page_token: str | None


class Restored(TypedDict):
    """
    What a rollback did: the version that was made current again, the one until then, and the new
    one. ``etag`` is None when the same request had been answered before; ``held_by`` is the job
    whose session was ended.
    """

    restored: int
    replaced: int
    version: int
    etag: str | None
    held_by: str | None


class Sent(TypedDict):
    """A message that was sent. ``stored_now`` is false when it had been sent before."""

    id: str
    stored_now: bool


class Holder(TypedDict):
    """
    Who holds a profile. ``epoch`` grows with each session, ``load_count`` is how many there were.
    ``offered``: it was let go for a server that asked, which has not taken it yet.
    """

    held: HeldBy | None
    epoch: int
    load_count: int
    offered: bool


class EndedBy(TypedDict):
    """The job whose session was ended, if there was one."""

    held_by: str | None
