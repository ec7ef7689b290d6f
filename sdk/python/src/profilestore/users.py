"""Users that a profile is associated with, for search, export and erasure."""

from __future__ import annotations

import re

from .errors import failure
from .options import shown

User = int | str
"""A number, as Roblox and Steam have them, or a name."""

MAX_BYTES = 100
MAX_NUMBER = 2**63 - 1

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,18}")


def user_of(user: User) -> User:
    """A user in the one spelling that the server has too."""
    if type(user) is int:
        if not 0 <= user <= MAX_NUMBER:
            raise failure("invalid", f"the number of a user has up to 63 bits: {shown(user)}")
        return user
    if type(user) is not str:
        raise failure("invalid", f"a user is an int or a str, and this is {shown(user)}")
    if _WHOLE.fullmatch(user):
        number = int(user)
        if number < 0:
            raise failure("invalid", f"a user has no negative number: {user}")
        if number <= MAX_NUMBER:
            return number
    size = len(user.encode(errors="surrogatepass"))
    if not 0 < size <= MAX_BYTES or "\0" in user or re.search("[\ud800-\udfff]", user):
        raise failure("invalid", f"the name of a user has 1 to {MAX_BYTES} bytes and no NUL")
    return user.lower() if _UUID.fullmatch(user) else user
