"""What a game gives, looked at where it is given. An error names it, and what it is to be."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .errors import ProfileError, failure


def _wrong(what: str, meant: str, given: object) -> ProfileError:
    shown = repr(given)[:50].encode("ascii", "backslashreplace").decode()
    return failure("invalid", f"`{what}` is {meant}, and this is {shown} ({type(given).__name__})")


def text(what: str, given: object) -> str:
    """A text, such as a key."""
    if isinstance(given, str):
        return given
    raise _wrong(what, "a str", given)


def whole(what: str, given: object) -> int | None:
    """A whole number. None: the default."""
    if given is None or (isinstance(given, int) and not isinstance(given, bool)):
        return given
    raise _wrong(what, "an int", given)


def seconds(what: str, given: object) -> float:
    """A time for a timer. It may be without an end."""
    if isinstance(given, (int, float)) and not isinstance(given, bool) and given >= 0:
        return given
    raise _wrong(what, "a number of seconds", given)


def frame_ms(what: str, given: object) -> int | None:
    """A time for a frame, which has whole milliseconds. None: the server's default."""
    if given is None:
        return None
    time = seconds(what, given)
    if math.isfinite(time):
        return math.ceil(time * 1000)
    raise _wrong(what, "a number of seconds with an end", given)


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
