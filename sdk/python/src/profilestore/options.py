"""What a game gives, looked at where it is given. An error names it, and what it is to be."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .errors import ProfileError, failure


LEAST_WHOLE = -(2**63)
MOST_WHOLE = 2**64 - 1
"""The server's numbers have 64 bits, with a sign or without."""


def shown(given: object) -> str:
    """The beginning of what was given. Whatever that is, this does not fail."""
    try:
        said = repr(given)
    except Exception:  # An int of some thousand digits has none, for example.
        said = "something that cannot be shown"
    return said[:50].encode("ascii", "backslashreplace").decode()


def _wrong(what: str, meant: str, given: object) -> ProfileError:
    told = f"`{what}` is {meant}, and this is {shown(given)} ({type(given).__name__})"
    return failure("invalid", told)


def text(what: str, given: object) -> str:
    """A text, such as a key."""
    if isinstance(given, str):
        return given
    raise _wrong(what, "a str", given)


def whole(what: str, given: object) -> int | None:
    """A whole number. None: the default."""
    return None if given is None else number(what, given)


def number(what: str, given: object, meant: str = "an int of at most 64 bits") -> int:
    """A whole number."""
    if isinstance(given, int) and not isinstance(given, bool):
        if LEAST_WHOLE <= given <= MOST_WHOLE:
            return given
    raise _wrong(what, meant, given)


def seconds(what: str, given: object) -> float:
    """A time for a timer. It may be without an end."""
    if isinstance(given, (int, float)) and not isinstance(given, bool) and given >= 0:
        try:
            float(given)
        except OverflowError:
            raise _wrong(what, "a number of seconds that a float can hold", given) from None
        return given
    raise _wrong(what, "a number of seconds", given)


def frame_ms(what: str, given: object) -> int | None:
    """A time for a frame, which has whole milliseconds. None: the server's default."""
    if given is None:
        return None
    time = seconds(what, given) * 1000
    if time <= MOST_WHOLE:
        return math.ceil(time)
    raise _wrong(what, "a number of seconds whose milliseconds have at most 64 bits", given)


def of(what: str, kind: type, given: object) -> None:
    """An object of a type."""
    if not isinstance(given, kind):
        raise _wrong(what, f"of the type {kind.__name__}", given)


def elements(what: str, kind: type, given: object) -> None:
    """A list, and what it has."""
    if not isinstance(given, Sequence) or not all(isinstance(one, kind) for one in given):
        raise _wrong(what, f"a list of {kind.__name__}", given)


def calls(what: str, given: object) -> None:
    """A function."""
    if not callable(given):
        raise _wrong(what, "a function", given)


def one_of(what: str, names: Sequence[str], given: object) -> None:
    """One of some names."""
    if given not in names:
        raise _wrong(what, f"one of {', '.join(names)}", given)
