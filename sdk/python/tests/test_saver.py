"""When a session is saved, on a connection that this test answers."""

from __future__ import annotations

import asyncio
import json
import unittest
from typing import Any

from profilestore.beside import Beside
from profilestore.document import Document
from profilestore.errors import ProfileError, failure
from profilestore.request import Request
from profilestore.saver import Saver


class Wire:
    """Takes frames."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def number(self) -> int:
        return len(self.requests) + 1

    def request(self, request: Request) -> None:
        self.requests.append(request)

    @property
    def frames(self) -> list[tuple[str, Any]]:
        """Each with its name."""
        return [next(iter(json.loads(one.frames[0]).items())) for one in self.requests]


class User:
    def refused(self, error: ProfileError) -> None: ...

    def thawed(self) -> None: ...

    def lost(self) -> None: ...


class Saving(unittest.IsolatedAsyncioTestCase):
    async def test_an_edit_that_comes_during_an_end_is_made_when_that_end_is_refused(self) -> None:
        wire = Wire()
        document: Document[dict[str, int]] = Document({"coins": 0}, None, Beside({}))
        saver = Saver(1, "k", 1, document, wire, 60.0, User())
        end = saver.end()
        saver.edit("op-1", [{"op": "increase", "path": "/coins", "by": 100}])
        self.assertEqual([name for name, _ in wire.frames], ["end"])
        wire.requests[0].failed(failure("too-large", "it is too large"))
        with self.assertRaises(ProfileError):
            await end
        name, save = wire.frames[-1]
        self.assertEqual((name, save["data"]), ("save", {"coins": 100}))
        self.assertEqual(save["edits_done"], [{"op": "op-1"}])

    async def test_a_save_of_a_change_that_was_changed_back_is_done(self) -> None:
        wire = Wire()
        document: Document[dict[str, int]] = Document({"coins": 0}, None, Beside({}))
        saver = Saver(1, "k", 1, document, wire, 60.0, User())

        def put(coins: int) -> None:
            document.change(lambda data: data.update(coins=coins))

        put(1)
        first = saver.save()
        put(0)
        await first
        self.assertEqual((len(wire.requests), document.is_changed), (0, False))
        # The same behind a save that is refused.
        put(1)
        refused = saver.save()
        await asyncio.sleep(0)
        put(0)
        back = saver.save()
        wire.requests[-1].failed(failure("too-large", "it is too large"))
        with self.assertRaises(ProfileError):
            await refused
        await back
        self.assertEqual((len(wire.requests), document.is_changed), (1, False))

    async def test_ten_thousand_edits_of_one_session_are_remembered_and_no_more(self) -> None:
        wire = Wire()
        document: Document[dict[str, int]] = Document({"coins": 0}, None, Beside({}))
        saver = Saver(1, "k", 1, document, wire, 60.0, User())

        async def edit(op: str) -> int:
            """How many frames were sent since."""
            saver.edit(op, [])
            await asyncio.sleep(0)
            return len(wire.requests)

        for at in range(10_001):
            await edit(f"op-{at}")
            wire.requests[-1].done(("saved", {"version": at + 2}))
        before = len(wire.requests)
        self.assertEqual(await edit("op-10000"), before)
        self.assertEqual(await edit("op-0"), before + 1)


if __name__ == "__main__":
    unittest.main()
