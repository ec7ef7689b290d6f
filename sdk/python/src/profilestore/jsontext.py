"""
JSON without rounding. Python's whole numbers are exact. A number with a fraction that a ``float``
cannot hold is an error, and so is what cannot be stored; both name the place.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal, InvalidOperation
from typing import Any

from .errors import ProfileError, failure, in_words
from .options import LEAST_WHOLE, MOST_WHOLE, shown

# As the server has them: docs/storable.md.
MAX_DEPTH = 100
RESERVED_NAME = "$serde_json::private::RawValue"


class Inexact(str):
    """The text of a number that was read and that Python cannot hold."""


def pointer(path: list[str | int]) -> str:
    """A place as a JSON pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _wrong(path: list[str | int], why: str) -> ProfileError:
    return failure("invalid", f"{why}: path=`{pointer(path)}`")


# --- reading ---------------------------------------------------------------------------------


def _float(token: str) -> float | Inexact:
    value = float(token)
    if len(token) <= 15 and "e" not in token and "E" not in token:
        return value
    try:
        if math.isfinite(value) and Decimal(repr(value)) == Decimal(token):
            return value
    except InvalidOperation:
        pass  # An exponent that no decimal has.
    return Inexact(token)


def _int(token: str) -> int | float | Inexact:
    if token == "-0":
        return -0.0
    return int(token) if len(token) <= 4000 else Inexact(token)


def _constant(token: str) -> Any:
    raise ValueError(f"{token} is no JSON")


def read(text: str) -> Any:
    """The value of a text. Numbers that cannot be held are `Inexact`; `exact` refuses them."""
    try:
        return json.loads(
            text, parse_float=_float, parse_int=_int, parse_constant=_constant, strict=True
        )
    except (ValueError, RecursionError) as error:
        raise failure("invalid", f"this is no JSON: {in_words(error)}") from error


def parse(text: str) -> Any:
    """The value of a text that Python can hold without rounding."""
    value = read(text)
    exact(value)
    return value


# --- writing ---------------------------------------------------------------------------------


def stringify(value: object) -> str:
    """The text of a value."""
    exact(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), check_circular=False)


def exact(value: object) -> None:
    """Fails when a value cannot be stored as it is, and names the place."""
    _check(value, [])


def _check(value: object, path: list[str | int]) -> None:
    kind = type(value)
    if kind is str:
        _check_text(value, path)
    elif kind is float:
        if not math.isfinite(value):  # type: ignore[arg-type]
            raise _wrong(path, f"{value} cannot be stored")
    elif kind is int:
        if not LEAST_WHOLE <= value <= MOST_WHOLE:  # type: ignore[operator]
            raise _wrong(path, "a whole number has at most 64 bits")
    elif kind is bool or value is None:
        pass
    elif kind is dict or kind is list:
        if len(path) >= MAX_DEPTH:
            raise _wrong(path[:5], "it is nested too deep, or in itself")
        entries = value.items() if isinstance(value, dict) else enumerate(value)  # type: ignore
        for name, member in entries:
            if kind is dict:
                if type(name) is not str:
                    raise _wrong(path, f"the names of members are texts, and this is {shown(name)}")
                _check_text(name, path)
                if name == RESERVED_NAME:
                    raise _wrong(path, f"a member cannot be called {name}")
            path.append(name)
            _check(member, path)
            path.pop()
    elif kind is Inexact:
        token = value if len(value) <= 40 else value[:40] + "…"  # type: ignore
        raise _wrong(path, f"Python cannot hold the number {token} without rounding")
    else:
        raise _wrong(path, f"only plain data can be stored, and this is a {kind.__name__}")


def _check_text(value: object, path: list[str | int]) -> None:
    assert isinstance(value, str)
    if value.isascii():
        return
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _wrong(path, f"half of a character (a lone surrogate) is in {value!r}") from error
