"""The frames of ``profilestore.v1+json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from . import jsontext
from .errors import failure

PROTOCOL = "profilestore.v1+json"

Frame = tuple[str, dict[str, Any]]
"""The name of a frame, and its members."""


class ByServer(NamedTuple):
    """A game server, as others see it."""

    job: str
    place: int


class ByOperator(NamedTuple):
    """An operator, as the audit log names them."""

    name: str
    reason: str


Asker = ByServer | ByOperator
"""Who asked for a profile."""


def server_of(value: Mapping[str, Any] | None) -> ByServer | None:
    return None if value is None else ByServer(value["job"], value["place"])


def asker_of(value: Mapping[str, Any]) -> Asker:
    if "server" in value:
        return ByServer(value["server"]["job"], value["server"]["place"])
    operator = value.get("operator") or {}
    return ByOperator(operator.get("name", ""), operator.get("reason", ""))


def read(text: str) -> Frame:
    """Reads a frame. Numbers in it that Python cannot hold are kept as their text."""
    frame = jsontext.read(text)
    if type(frame) is dict:
        for name, body in frame.items():
            if type(body) is dict:
                return name, body
    raise failure("invalid", "this is no frame")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def compose(name: str, body: Mapping[str, Any], raw: Mapping[str, str] | None = None) -> str:
    """One frame. ``raw`` are members that are JSON texts already; None is left out."""
    members = [
        f'"{member}":{_json(value)}'
        for member, value in body.items()
        if value is not None
    ]
    members += [f'"{member}":{text}' for member, text in (raw or {}).items()]
    return f'{{"{name}":{{{",".join(members)}}}}}'
