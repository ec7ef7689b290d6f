"""One-shot work over HTTP: web shops, bots and operators need no session."""

from __future__ import annotations

import asyncio
import http.client
import re
import secrets
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import quote, urlencode, urlsplit

from .answers import (
    Answer,
    EndedBy,
    Holder,
    Inbox,
    Page,
    Restored,
    Sent,
    StoredProfile,
    Version,
)
from .errors import ProfileError, failure, from_server, in_words
from .jsontext import exact, read, stringify
from .options import elements, number, of, text, whole

CALL_S = 60.0

TOO_MANY = "too-many-requests"
"""The key sends more than it may. The server says when to try again."""

OF_GAME = ("data", "tags", "metadata")
"""What a game has put there."""

Which = int | str | datetime
"""A version: its number, its label, or the one that was current at a time."""


def operation_id() -> str:
    """The id of an operation: a UUID of version 7. The same one again does nothing twice."""
    millis = int(time.time() * 1000)
    value = (millis << 80) | (7 << 76) | (secrets.randbits(12) << 64)
    return str(uuid.UUID(int=value | (2 << 62) | secrets.randbits(62)))


def message_id(name: str | None = None, at: datetime | None = None) -> str:
    """The id of a message: when, and what for. The same one again sends nothing twice."""
    seconds = time.time() if at is None else _in_utc("at", at).timestamp()
    return f"{int(seconds * 1000)}:{name or uuid.uuid4()}"


class Address:
    """Which profile."""

    def __init__(self, store: str, key: str, scope: str | None = None) -> None:
        self.store, self.key, self.scope = store, key, scope

    @property
    def path(self) -> str:
        """Its resource over HTTP."""
        within = "" if self.scope is None else f"/scopes/{_part('scope', self.scope)}"
        store, key = _part("store", self.store), _part("key", self.key)
        return f"/v1/stores/{store}{within}/profiles/{key}"


class Http:
    """Calls to a server, such as ``http://127.0.0.1:7400``. Each uses a thread while it waits."""

    def __init__(self, url: str, key: str) -> None:
        if not _is_address(text("url", url)):
            raise failure("invalid", f"an address begins with http:// or https://: given=`{url}`")
        # Such as one from a file, with the end of its line.
        if not re.fullmatch("[\x21-\x7e]+", text("key", key)):
            raise failure("invalid", "a key has letters, digits and underscores, and no space")
        self.url, self.key = url.rstrip("/"), key

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int | bool | None] | None = None,
        headers: Mapping[str, str] | None = None,
        body: str | None = None,
        media_type: str = "application/json",
    ) -> str:
        """
        Any resource that ``/docs`` of the server names. Answers with the text. When the key sends
        more than it may, it waits as long as the server says, for 60 s at most.
        """
        text("method", method)
        _check_path(path)
        of("query", Mapping, query or {})
        of("headers", Mapping, headers or {})
        all_headers = {"Authorization": f"Bearer {self.key}"}
        for name, value in (headers or {}).items():
            all_headers[text("headers", name)] = text(name, value)
        if body is not None:
            all_headers["Content-Type"] = text("media_type", media_type)
        try:
            asked = {
                name: str(value).lower() if isinstance(value, bool) else str(value)
                for name, value in (query or {}).items()
                if value is not None
            }
            target = f"{path}?{urlencode(asked)}" if asked else path
            encoded = None if body is None else text("body", body).encode()
        except ValueError as error:
            # Half of a character, such as in a reason, or a number of some thousand digits.
            raise failure("invalid", f"{method} {path}: {in_words(error)}") from error
        until = time.monotonic() + CALL_S
        while True:
            try:
                status, answer, after = await asyncio.to_thread(
                    self._call, method, target, all_headers, encoded
                )
            except (OSError, http.client.HTTPException) as error:
                raise failure("unavailable", f"{method} {path}: {in_words(error)}") from error
            except ValueError as error:
                # Such as a header that is not ASCII.
                raise failure("invalid", f"{method} {path}: {in_words(error)}") from error
            if status < 400:
                return answer
            refused = from_server(answer, status)
            # Nothing was done, so whatever the request is, it can be sent again.
            if refused.kind != TOO_MANY or time.monotonic() + after > until:
                raise refused
            await asyncio.sleep(after)

    def _call(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[int, str, float]:
        url = urlsplit(self.url)
        is_tls = url.scheme == "https"
        kind = http.client.HTTPSConnection if is_tls else http.client.HTTPConnection
        connection = kind(url.hostname or "", url.port, timeout=CALL_S)
        try:
            connection.request(method, url.path + target, body, dict(headers))
            response = connection.getresponse()
            body_of = response.read().decode("utf-8", "replace")
            return response.status, body_of, _seconds(response)
        finally:
            connection.close()

    async def _json(self, method: str, path: str, **how: Any) -> Answer:
        answer = read(await self.call(method, path, **how))
        if type(answer) is not dict:
            raise failure("invalid", f"the answer is no object: {method} {path}")
        return answer

    async def get(self, at: Address) -> StoredProfile[Any] | None:
        """A profile as it is stored, or None when there is none."""
        try:
            answer = await self._json("GET", _path(at))
        except ProfileError as error:
            if error.kind == "not-found":
                return None
            raise
        return _stored(answer)

    async def put(self, at: Address, data: object, etag: str | None) -> Answer:
        """
        Writes a profile that no session holds, if it is still the one with this ETag; None: if
        there is none yet.
        """
        headers = _expected(etag)
        body = f'{{"data":{stringify(data)}}}'
        return await self._json("PUT", _path(at), headers=headers, body=body)

    async def list(self, store: str, **query: str | int | bool | None) -> Page[Answer]:
        """The profiles of a store. The query's members are in the server's ``/docs``."""
        path = f"/v1/stores/{_part('store', store)}/profiles"
        return cast(Page[Answer], await self._json("GET", path, query=query))

    async def versions(self, at: Address, **query: str | int | bool | None) -> Page[Version]:
        """A profile's versions, the newest first."""
        path = f"{_path(at)}/versions"
        return cast(Page[Version], await self._json("GET", path, query=query))

    async def version(self, at: Address, which: Which) -> StoredProfile[Any]:
        """An earlier version: by its number, its label, or as it was at a time."""
        path = f"{_path(at)}/versions/{_part('which', _named(which))}"
        return _stored(await self._json("GET", path))

    async def restore(
        self,
        at: Address,
        which: Which,
        etag: str | None,
        *,
        reason: str | None = None,
        operation: str | None = None,
    ) -> Restored:
        """
        Makes an earlier version current again, if the profile is still the one with this ETag;
        None: if there is none now. What a session has not saved is lost.
        """
        answer = await self._json(
            "POST",
            f"{_path(at)}/restores",
            body=stringify({"version": _named(which)}),
            query={"reason": reason},
            headers={"Idempotency-Key": operation or operation_id(), **_expected(etag)},
        )
        return cast(Restored, answer)

    async def edit(
        self,
        at: Address,
        patch: Sequence[Mapping[str, Any]],
        *,
        reason: str | None = None,
        operation: str | None = None,
    ) -> Answer:
        """A JSON Patch, made by the game server that holds the profile, in the middle of play."""
        elements("patch", Mapping, patch)
        return await self._json(
            "POST",
            f"{_path(at)}/edits",
            body=stringify([dict(step) for step in patch]),
            media_type="application/json-patch+json",
            query={"reason": reason},
            headers={"Idempotency-Key": operation or operation_id()},
        )

    async def send(self, at: Address, message: object, id: str | None = None) -> Sent:
        """Sends a message. With the same id again it sends nothing twice."""
        answer = await self._json(
            "POST",
            f"{_path(at)}/messages",
            body=f'{{"message":{stringify(message)}}}',
            headers={"Idempotency-Key": id or message_id()},
        )
        return cast(Sent, answer)

    async def messages(self, at: Address) -> Inbox:
        """The messages that wait in a profile's inbox, the oldest first."""
        return cast(Inbox, await self._json("GET", f"{_path(at)}/messages"))

    async def session(self, at: Address) -> Holder:
        """Who holds a profile, and how often it has changed hands."""
        return cast(Holder, await self._json("GET", f"{_path(at)}/session"))

    async def end_session(
        self,
        at: Address,
        *,
        steal: bool | None = None,
        epoch: int | None = None,
        reason: str | None = None,
    ) -> EndedBy:
        """
        Asks the holder to save and let go. With ``steal`` its play is lost. With ``epoch``, as
        `session` gives it, only that session is ended: a later one is left alone, which is an error
        of the kind ``changed``.
        """
        query = {"steal": steal, "epoch": whole("epoch", epoch), "reason": reason}
        return cast(EndedBy, await self._json("DELETE", f"{_path(at)}/session", query=query))


def _stored(answer: Answer) -> StoredProfile[Any]:
    """A profile whose numbers can all be held."""
    exact([answer.get(name) for name in OF_GAME])
    return cast(StoredProfile[Any], answer)


def _path(at: Address) -> str:
    of("at", Address, at)
    return at.path


def _part(what: str, name: object) -> str:
    """A part of a path."""
    try:
        part = quote(text(what, name), safe="")
    except UnicodeEncodeError as error:
        detail = f"half of a character (a lone surrogate) is in a name: {error.object[:50]!r}"
        raise failure("invalid", detail) from error
    return part


def _check_path(path: str) -> None:
    """What takes the parts ``.`` and ``..`` away, such as a proxy, would name something else."""
    if not re.fullmatch("/[\x21-\x7e]*", text("path", path)):
        detail = "a path begins with `/`, and its parts are quoted (urllib.parse.quote)"
        raise failure("invalid", f"{detail}: {path!r}")
    for part in re.split("[/\\\\]", re.split("[?#]", path)[0]):
        if re.fullmatch(r"(\.|%2e){1,2}", part, re.IGNORECASE):
            detail = f"over HTTP no store, scope or key is called `{part}`"
            raise failure("invalid", f"{detail}; the program `profilestore` takes such names")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False  # Its port is no number.


def _seconds(response: http.client.HTTPResponse) -> float:
    told = response.headers.get("Retry-After", "")
    return float(told) if told.isascii() and told.isdigit() else 1.0


def _expected(etag: str | None) -> dict[str, str]:
    return {"If-None-Match": "*"} if etag is None else {"If-Match": text("etag", etag)}


def _named(which: Which) -> str:
    if isinstance(which, datetime):
        at = _in_utc("which", which)
        return "@" + at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(which, str):
        return which
    return str(number("which", which, "a version's number, its label, or a time"))


def _in_utc(what: str, at: datetime) -> datetime:
    of(what, datetime, at)
    try:
        return at.astimezone(UTC)
    except (OverflowError, ValueError, OSError) as error:
        # It is in the first year or in the last one, and elsewhere in another.
        raise failure("invalid", f"`{what}` is no time in UTC: {in_words(error)}") from error
