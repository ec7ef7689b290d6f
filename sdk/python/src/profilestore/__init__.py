"""Player data that no two game servers can write at once."""

from .belief import active_until
from .errors import ProfileError
from .events import End, MessageFailed, Received, Release
from .frames import Asker, ByOperator, ByServer
from .http import Address, Http, message_id, operation_id
from .profile import Profile
from .server import Server, connect
from .store import Store
from .transaction import Gift
from .users import User

__all__ = [
    "Address",
    "Asker",
    "ByOperator",
    "ByServer",
    "End",
    "Gift",
    "Http",
    "MessageFailed",
    "Profile",
    "ProfileError",
    "Received",
    "Release",
    "Server",
    "Store",
    "User",
    "active_until",
    "connect",
    "message_id",
    "operation_id",
]
