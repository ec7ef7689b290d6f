"""Player data that no two game servers can write at once."""

from .answers import (
    Answer,
    EndedBy,
    HeldBy,
    Holder,
    Inbox,
    Page,
    Restored,
    Sent,
    StoredProfile,
    Version,
    Waiting,
)
from .belief import active_until
from .errors import Advice, ProfileError
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
    "Advice",
    "Answer",
    "Asker",
    "ByOperator",
    "ByServer",
    "End",
    "EndedBy",
    "Gift",
    "HeldBy",
    "Holder",
    "Http",
    "Inbox",
    "MessageFailed",
    "Page",
    "Profile",
    "ProfileError",
    "Received",
    "Release",
    "Restored",
    "Sent",
    "Server",
    "Store",
    "StoredProfile",
    "User",
    "Version",
    "Waiting",
    "active_until",
    "connect",
    "message_id",
    "operation_id",
]
