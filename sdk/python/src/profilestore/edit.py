"""Operators' edits: JSON Patch (RFC 6902), a merge patch (RFC 7396), and some steps of our own."""

from __future__ import annotations

import copy
import re
from typing import Any

_INDEX = re.compile(r"(0|[1-9][0-9]*)\Z")
_NOTHING: Any = object()


class EditRefused(Exception):
    """What does not fit, in words for the operator."""


def edited(data: Any, steps: Any) -> Any:
    """The data with the edit made. It changes ``data``."""
    root = [data]
    for number, step in enumerate(steps, 1):
        try:
            _make(root, step)
        except EditRefused as why:
            at = f"step {number} ({step.get('op')} `{step.get('path', '')}`)"
            raise EditRefused(f"{at}: {why}") from why
    return root[0]


def _make(root: list[Any], step: dict[str, Any]) -> None:
    path = step.get("path", "")
    match step.get("op"):
        case "add":
            _add(root, path, step.get("value"))
        case "set":
            _set(root, path, step.get("value"))
        case "replace":
            _need(root, path)
            _set(root, path, step.get("value"))
        case "remove":
            _need(root, path)
            _remove(root, path)
        case "copy":
            _add(root, path, copy.deepcopy(_need(root, step.get("from", ""))))
        case "move":
            source = step.get("from", "")
            if path.startswith(source + "/"):
                raise EditRefused("it cannot be moved into itself")
            moved = _need(root, source)
            if path != source:
                _remove(root, source)
                _add(root, path, moved)
        case "test":
            if not same(_look(root, path), step.get("value")):
                raise EditRefused("another value is there")
        case "increase":
            if step.get("create") is True and _look(root, path) is _NOTHING:
                _set(root, path, step.get("by"))
            else:
                _set(root, path, _sum(_need(root, path), step.get("by")))
        case "merge":
            root[0] = merged(root[0], step.get("patch"))
        case "restore":
            if not same(_look(root, path), step.get("is", _NOTHING)):
                raise EditRefused("it was changed since")
            if "was" in step:
                _set(root, path, step["was"])
            elif "is" in step:
                _remove(root, path)
        case _:
            raise EditRefused("this SDK does not know the step")


def _sum(value: Any, by: Any) -> Any:
    for kind in (int, float):
        if type(value) is kind and type(by) is kind:
            return value + by
    raise EditRefused("there is no number of that kind")


def parts(path: str) -> list[str]:
    """The names on a JSON pointer (RFC 6901)."""
    if path == "":
        return []
    if not path.startswith("/"):
        raise EditRefused("a path begins with a slash")
    return [part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/")]


def _position(items: list[Any], name: str, most: int) -> int:
    if name == "-":
        return len(items)
    if not _INDEX.match(name) or int(name) > most:
        raise EditRefused("the list has no such place")
    return int(name)


def _child(value: Any, name: str) -> Any:
    if type(value) is list:
        fits = _INDEX.match(name) is not None and int(name) < len(value)
        return value[int(name)] if fits else _NOTHING
    return value.get(name, _NOTHING) if type(value) is dict else _NOTHING


def _look(root: list[Any], path: str) -> Any:
    found = root[0]
    for name in parts(path):
        found = _child(found, name)
    return found


def _need(root: list[Any], path: str) -> Any:
    found = _look(root, path)
    if found is _NOTHING:
        raise EditRefused("there is nothing at its path")
    return found


def _holder(root: list[Any], path: str) -> tuple[Any, str] | None:
    """What holds the path's last part, and that part. None: the path is the whole document."""
    names = parts(path)
    if not names:
        return None
    found = root[0]
    for name in names[:-1]:
        found = _child(found, name)
    if type(found) not in (dict, list):
        raise EditRefused("there is nothing at its path")
    return found, names[-1]


def _add(root: list[Any], path: str, value: Any) -> None:
    at = _holder(root, path)
    if at is None:
        root[0] = value
    elif type(at[0]) is list:
        at[0].insert(_position(at[0], at[1], len(at[0])), value)
    else:
        at[0][at[1]] = value


def _set(root: list[Any], path: str, value: Any) -> None:
    at = _holder(root, path)
    if at is None:
        root[0] = value
    elif type(at[0]) is list:
        index = _position(at[0], at[1], len(at[0]) - 1)
        at[0][index : index + 1] = [value]
    else:
        at[0][at[1]] = value


def _remove(root: list[Any], path: str) -> None:
    at = _holder(root, path)
    if at is None:
        raise EditRefused("the whole document cannot be removed")
    if type(at[0]) is list:
        del at[0][_position(at[0], at[1], len(at[0]) - 1)]
    else:
        del at[0][at[1]]


def merged(data: Any, patch: Any) -> Any:
    """A merge patch (RFC 7396)."""
    if type(patch) is not dict:
        return patch
    members = data if type(data) is dict else {}
    for name, value in patch.items():
        if value is None:
            members.pop(name, None)
        else:
            members[name] = merged(members.get(name), value)
    return members


def same(a: Any, b: Any) -> bool:
    """Whether two values are the same; numbers by their value, and true is no number."""
    if type(a) is dict and type(b) is dict:
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if type(a) is list and type(b) is list:
        return len(a) == len(b) and all(map(same, a, b))
    numbers = (int, float)
    if type(a) in numbers and type(b) in numbers:
        return bool(a == b)
    return type(a) is type(b) and bool(a == b)
