"""Several profiles of this game server change together, and gifts go with them: all or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

from .document import Draft, refuse_async
from .errors import failure
from .frames import compose
from .futures import fail, quiet, running, succeed
from .jsontext import parse, stringify
from .options import elements
from .profile import Profile
from .request import Request

R = TypeVar("R")


class Gift(NamedTuple):
    """A message that goes with a transaction. `Store.gift` makes it."""

    store: str
    scope: str
    key: str
    id: str
    """TIME:NAME. A message is stored once under it."""
    message: str
    """The message's JSON text."""

    def text(self) -> str:
        """As a frame has it."""
        body = {"store": self.store, "scope": self.scope, "key": self.key, "id": self.id}
        return compose("gift", body, {"message": self.message})[len('{"gift":') : -1]


class Bench(Protocol):
    """The connection's side of a transaction."""

    @property
    def max_frame(self) -> int: ...

    def number(self) -> int: ...

    def request(self, request: Request) -> None: ...


class _Part(NamedTuple):
    profile: Profile[Any]
    before: str
    """Its text at the beginning."""
    text: str
    """The one that is to be."""


def prepare(
    profiles: Sequence[Profile[Any]], change: Callable[..., R]
) -> tuple[list[_Part], R]:
    """Freezes the profiles and makes the change on copies. When it fails, nothing is frozen."""
    elements("profiles", Profile, profiles)
    if not profiles:
        raise failure("invalid", "a transaction has a list of at least one profile")
    if len({id(profile) for profile in profiles}) != len(profiles):
        raise failure("invalid", "a profile is named twice")
    frozen: list[Profile[Any]] = []
    try:
        before = []
        for profile in profiles:
            document = profile.freeze()
            frozen.append(profile)
            before.append(document.text)
        data = [parse(text) for text in before]
        result = change(*data)
        refuse_async(result)
        texts = [stringify(own) for own in data]
        parts = [_Part(*part) for part in zip(profiles, before, texts)]
        return parts, result
    except BaseException:
        for profile in frozen:
            profile.thaw()
        raise


def transact(
    bench: Bench,
    parts: list[_Part],
    result: R,
    gifts: Sequence[Gift],
    deadline_ms: int | None,
) -> asyncio.Future[R]:
    """
    Sends it, and is done once all of it is stored. The profiles are frozen until then, also when
    all tasks of the program are cancelled: what was sent can still take effect.
    """
    is_sent = False

    async def work() -> R:
        nonlocal is_sent
        await asyncio.gather(*(part.profile.settled() for part in parts))
        for part in parts:
            if part.profile.ended is not None:
                detail = f"nothing was done, the session is over: {part.profile.key}"
                raise failure("session-ended", detail)
            if part.profile.pending().text != part.before:
                detail = f"nothing was done, an operator's edit was taken back: {part.profile.key}"
                raise failure("busy", detail)
        drafts = [part.profile.pending()._replace(text=part.text) for part in parts]
        answer = _send(bench, parts, drafts, gifts, deadline_ms)
        is_sent = True
        answer.add_done_callback(partial(_answered, parts, drafts))
        await asyncio.shield(answer)
        return result

    def ended(_: object) -> None:
        if not is_sent:
            for part in parts:
                part.profile.thaw()

    task = asyncio.ensure_future(work())
    task.add_done_callback(ended)
    return running(task)


def _answered(
    parts: list[_Part], drafts: list[Draft], answer: asyncio.Future[list[int]]
) -> None:
    """The outcome is known."""
    if answer.exception() is not None:
        for part in parts:
            part.profile.thaw()
        return
    versions: list[int | None] = [None] * len(parts)
    stored = answer.result()
    versions[: len(stored)] = stored
    for part, draft, version in zip(parts, drafts, versions):
        part.profile.thaw(draft, version)


def _send(
    bench: Bench,
    parts: list[_Part],
    drafts: list[Draft],
    gifts: Sequence[Gift],
    deadline_ms: int | None,
) -> asyncio.Future[list[int]]:
    i = bench.number()
    named = [
        ({"s": part.profile.opened.s, "n": part.profile.next_save()}, draft.framed())
        for part, draft in zip(parts, drafts)
    ]
    gift_texts = f"[{','.join(gift.text() for gift in gifts)}]"

    def whole(is_staged: bool) -> str:
        texts = [
            compose(
                "part",
                {**names, **members},
                {name: text for name, text in raw.items() if not (is_staged and name == "data")},
            )[len('{"part":') : -1]
            for names, (members, raw) in named
        ]
        raw = {"parts": f"[{','.join(texts)}]", "gifts": gift_texts}
        return compose("tx", {"i": i, "deadline_ms": deadline_ms}, raw)

    frames = [whole(False)]
    if len(frames[0].encode()) > bench.max_frame:
        staged = [
            compose("stage", names, {"data": raw["data"]}) for names, (_, raw) in named
        ]
        frames = [*staged, whole(True)]
    future: asyncio.Future[list[int]] = quiet(asyncio.get_running_loop().create_future())
    bench.request(
        Request(
            i,
            frames,
            lambda answer: succeed(future, answer[1].get("versions", [])),
            lambda error: fail(future, error),
        )
    )
    return future
