"""A session and what is stored beside its data, on a connection that this test answers."""

from __future__ import annotations

import asyncio
import json
import unittest
from collections.abc import Callable
from typing import Any

from profilestore import Profile, ProfileError
from profilestore.beside import Beside
from profilestore.document import Document
from profilestore.errors import failure
from profilestore.events import Report
from profilestore.profile import Opened
from profilestore.request import Request
from profilestore.transaction import prepare, transact

from .serve import until


class Wire:
    """Takes frames, and answers when the test says so."""

    def __init__(self) -> None:
        self.max_frame = 5 << 20
        self.requests: list[Request] = []
        self.faults: list[BaseException] = []
        self.report: Report = self.faults.append

    def number(self) -> int:
        return len(self.requests) + 1

    def request(self, request: Request) -> None:
        self.requests.append(request)

    def is_active(self, s: int) -> bool:
        return True

    def over(self, s: int) -> None: ...

    @property
    def frames(self) -> list[tuple[str, Any]]:
        """Each with its name."""
        return [next(iter(json.loads(one.frames[0]).items())) for one in self.requests]

    @property
    def last(self) -> dict[str, Any]:
        body: dict[str, Any] = self.frames[-1][1]
        return body

    def answer(self, version: int) -> None:
        self.requests[-1].done(("saved", {"version": version}))


def session(meta: dict[str, Any] | None = None) -> tuple[Wire, Profile[dict[str, int]]]:
    wire, told = Wire(), meta or {}
    document: Document[dict[str, int]] = Document({"coins": 0}, None, Beside(told))
    opened = Opened(1, "S", "global", "k", 1, 1, told)
    return wire, Profile(opened, document, wire, 60.0)


def put(coins: int) -> Callable[[dict[str, int]], None]:
    return lambda data: data.update(coins=coins)


class Sessions(unittest.IsolatedAsyncioTestCase):
    async def turn(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    def refused(self, kind: str, work: Callable[[], object]) -> None:
        with self.assertRaises(ProfileError) as raised:
            work()
        self.assertEqual(raised.exception.kind, kind)

    async def test_tags_and_metadata_go_with_the_next_save_once_and_not_with_an_edit(self) -> None:
        wire, profile = session({"user_ids": [7], "tags": {"old": 1}, "metadata": {}})
        self.assertEqual((profile.tags, profile.metadata), ({"old": 1}, {}))
        self.assertFalse(profile.has_unsaved)
        profile.set_tags({**profile.tags, "vip": True})
        profile.set_metadata({"region": "eu"})
        self.assertEqual((profile.tags, profile.has_unsaved), ({"old": 1, "vip": True}, True))
        edit = {"s": 1, "op": "op-1", "changes": [], "by": "ann", "reason": ""}
        profile.heard(("edit", edit))
        await self.turn()
        self.assertFalse({"tags", "metadata"} & wire.last.keys())
        wire.answer(2)
        saved = profile.save()
        await self.turn()
        self.assertEqual(wire.last["tags"], {"old": 1, "vip": True})
        self.assertEqual(wire.last["metadata"], {"region": "eu"})
        self.assertNotIn("user_ids", wire.last)
        # Changed while that is under way: it goes with the next one.
        profile.set_tags({})
        wire.answer(3)
        await saved
        self.assertEqual((wire.last["tags"], "metadata" in wire.last), ({}, False))
        profile.set_metadata({})
        end = profile.end()
        wire.answer(4)
        self.assertEqual(("tags" in wire.last, wire.last["metadata"]), (False, {}))
        wire.requests[-1].done(("ended", {}))
        await end
        self.assertFalse(profile.has_unsaved)
        self.refused("session-ended", lambda: profile.set_tags({}))

    async def test_a_session_that_was_asked_for_is_not_believed_in_when_its_end_is_refused(
        self,
    ) -> None:
        wire, profile = session()
        self.assertTrue(profile.is_active)
        by = {"server": {"job": "eu-2", "place": 0}}
        profile.heard(("release", {"s": 1, "by": by, "deadline_ms": 2000}))
        wire.requests[-1].failed(failure("too-large", "it is too large"))
        await self.turn()
        self.assertEqual((profile.ended, profile.is_active), (None, False))

    async def test_a_profile_that_is_asked_for_during_an_end_is_let_go_when_that_is_refused(
        self,
    ) -> None:
        wire, profile = session()
        asked: list[object] = []
        profile.on("release", lambda release: asked.append(release.by))
        profile.update(put(1))
        end = profile.end()
        by = {"server": {"job": "eu-2", "place": 0}}
        profile.heard(("release", {"s": 1, "by": by, "deadline_ms": 2000}))
        wire.requests[-1].failed(failure("too-large", "it is too large"))
        with self.assertRaises(ProfileError):
            await end
        await self.turn()
        self.assertEqual([name for name, _ in wire.frames], ["end", "end"])
        self.assertEqual(len(asked), 1)
        wire.requests[-1].done(("ended", {}))
        await self.turn()
        assert profile.ended is not None
        self.assertEqual((profile.ended.reason, profile.ended.has_loss), ("released", False))

    async def test_a_hand_over_that_the_server_could_not_do_is_tried_again(self) -> None:
        wire, profile = session()
        by = {"server": {"job": "eu-2", "place": 0}}
        profile.heard(("release", {"s": 1, "by": by, "deadline_ms": 2000}))
        wire.requests[-1].failed(failure("unavailable", "not now"))
        await until("it is let go again", lambda: len(wire.requests) == 2)
        wire.requests[-1].done(("ended", {}))
        await self.turn()
        assert profile.ended is not None
        self.assertEqual(profile.ended.reason, "released")

    async def test_a_profile_that_its_game_ends_as_it_is_asked_for_is_let_go_when_that_is_refused(
        self,
    ) -> None:
        wire, profile = session()
        refused: list[str] = []
        profile.on("save-failed", lambda why: refused.append(why.kind))
        profile.on("release", lambda _: profile.end())
        by = {"server": {"job": "eu-2", "place": 0}}
        profile.heard(("release", {"s": 1, "by": by, "deadline_ms": 2000}))
        self.assertEqual(len(wire.requests), 1)
        wire.requests[-1].failed(failure("unavailable", "not now"))
        await self.turn()
        # The server says it again, as on a new connection: one end at a time all the same.
        profile.heard(("release", {"s": 1, "by": by, "deadline_ms": 1000}))
        self.assertEqual((len(wire.requests), refused), (2, ["unavailable"]))
        await asyncio.sleep(1.2)
        wire.requests[-1].failed(failure("unavailable", "not now"))
        await until("it is let go again", lambda: len(wire.requests) == 3)
        self.assertEqual(len(refused), 2)
        wire.requests[-1].done(("ended", {}))
        await self.turn()
        assert profile.ended is not None
        self.assertFalse(profile.ended.has_loss)

    async def test_a_hand_over_that_is_tried_again_runs_its_last_hooks_once_for_the_same_data(
        self,
    ) -> None:
        wire, profile = session()

        def add(coins: int) -> Callable[[dict[str, int]], None]:
            return lambda data: data.update(coins=data["coins"] + coins)

        profile.on_last_save(add(1))
        by = {"server": {"job": "eu-2", "place": 0}}
        profile.heard(("release", {"s": 1, "by": by, "deadline_ms": 2000}))
        wire.requests[-1].failed(failure("unavailable", "not now"))
        await until("it is let go again", lambda: len(wire.requests) == 2)
        wire.requests[-1].failed(failure("unavailable", "not now"))
        await self.turn()
        profile.update(add(10))
        await until("it is let go once more", lambda: len(wire.requests) == 3)
        sent = [(name, body["data"]["coins"]) for name, body in wire.frames]
        self.assertEqual(sent, [("end", 1), ("end", 1), ("end", 12)])
        wire.requests[-1].done(("ended", {}))
        await self.turn()
        assert profile.ended is not None
        self.assertFalse(profile.ended.has_loss)

    async def test_a_second_end_that_the_game_asks_for_runs_the_last_hooks_again(self) -> None:
        wire, profile = session()
        profile.on_last_save(lambda data: data.update(coins=data["coins"] + 1))
        for coins in (1, 2):
            end = profile.end()
            self.assertEqual(wire.last["data"]["coins"], coins)
            wire.requests[-1].failed(failure("unavailable", "not now"))
            with self.assertRaises(ProfileError):
                await end

    async def test_a_message_behind_one_whose_failure_ends_the_session_changes_nothing(
        self,
    ) -> None:
        wire, profile = session()
        for index in (7, 8):
            body = {"type": "gift", "index": index}
            message = {"s": 1, "index": index, "id": f"1:{index}", "sent_ms": 1, "body": body}
            profile.heard(("message", message))

        def take(data: dict[str, int], gift: Any, _: object) -> None:
            if gift["index"] == 7:
                raise ValueError("no")
            data["coins"] += 5

        profile.on("message-failed", lambda _: profile.end())
        profile.on_message("gift", take)
        await self.turn()
        self.assertEqual((profile.data, wire.last["processed"]), ({"coins": 0}, []))
        wire.requests[-1].done(("ended", {}))
        await self.turn()
        assert profile.ended is not None
        self.assertFalse(profile.ended.has_loss)

    async def test_what_cannot_be_stored_beside_the_data_is_refused_at_once(self) -> None:
        _, profile = session()
        long = "ä" * 250
        profile.set_metadata({"long": long})
        too_large: list[dict[str, Any]] = [
            {"long": long + "x"},
            {"k" * 51: 1},
            {"a": long, "b": "x" * 50},
            {"list": [1] * 126},
        ]
        for metadata in too_large:
            self.refused("too-large", lambda: profile.set_metadata(metadata))
        wrong: list[Any] = [[], None, "vip", {"half": "\ud800"}, {"at": object()}, {"n": 2**64}]
        for given in wrong:
            self.refused("invalid", lambda: profile.set_tags(given))
            self.refused("invalid", lambda: profile.set_metadata(given))
        self.assertEqual((profile.tags, profile.metadata), ({}, {"long": long}))

    async def test_a_change_within_a_change_is_refused_and_loses_nothing(self) -> None:
        wire, profile = session()

        def change(data: dict[str, int]) -> None:
            data["coins"] = 1
            self.refused("invalid", lambda: profile.update(put(50)))
            self.refused("invalid", profile.end)
            data["coins"] += 1

        profile.update(change)
        self.assertEqual(profile.data, {"coins": 2})
        # A message whose handler forgets the data that it was given stays in the inbox.
        failed: list[str] = []
        profile.on("message-failed", lambda message: failed.append(message.id))
        profile.on_message("gift", lambda *_: profile.update(put(5)))
        message = {"s": 1, "index": 7, "id": "1:a", "sent_ms": 1, "body": {"type": "gift"}}
        profile.heard(("message", message))
        self.assertEqual((profile.data, failed), ({"coins": 2}, ["1:a"]))
        saved = profile.save()
        await self.turn()
        self.assertEqual((wire.last["data"], wire.last["processed"]), ({"coins": 2}, []))
        wire.answer(2)
        await saved

    async def test_an_edit_is_refused_in_words_that_a_frame_can_have(self) -> None:
        def check(_: object) -> None:
            raise ValueError("\ud83d")

        wire, profile = session()
        profile._document.check = check
        profile.heard(("edit", {"s": 1, "op": "op-1", "changes": []}))
        await self.turn()
        refused = wire.last["edits_done"][0]["refused"]
        self.assertEqual(refused, "the program refuses the data: ?")

    async def test_a_save_during_a_trade_is_done_when_the_trade_is(self) -> None:
        wire, profile = session()
        parts, result = prepare([profile], put(1))
        trade = transact(wire, parts, result, (), None)
        saved = profile.save()
        await self.turn()
        self.assertEqual([name for name, _ in wire.frames], ["tx"])
        self.assertFalse(saved.done())
        wire.requests[-1].done(("done", {"versions": [2]}))
        await trade
        await saved
        self.assertEqual((profile.data, profile.version), ({"coins": 1}, 2))
        self.assertEqual(len(wire.frames), 1)

    async def test_a_trade_goes_on_when_all_tasks_are_cancelled(self) -> None:
        for turns in range(8):
            wire, profile = session()
            profile.update(put(1))
            parts, result = prepare([profile], put(2))
            trade = transact(wire, parts, result, (), None)
            ending = profile.end()
            for _ in range(turns):
                await asyncio.sleep(0)
            was_sent = bool(wire.frames)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await self.turn()
            self.assertTrue(trade.done())
            if was_sent:
                # It can have taken effect, so nothing goes behind it before that is known.
                self.assertEqual([name for name, _ in wire.frames], ["tx"])
                self.refused("busy", lambda: profile.update(put(3)))
                wire.requests[-1].done(("done", {"versions": [2]}))
                await self.turn()
            # Otherwise nothing was done. Either way the end goes on, with the data as it is.
            self.assertEqual(profile.data, {"coins": 2 if was_sent else 1})
            name, body = wire.frames[-1]
            self.assertEqual((name, body["data"]), ("end", profile.data))
            wire.requests[-1].done(("ended", {}))
            await ending
            self.assertTrue(profile.ended is not None and not profile.has_unsaved)

    async def test_tags_go_with_their_part_of_a_trade_also_when_its_data_is_staged(self) -> None:
        wire, profile = session()
        for vip, max_frame in [(1, 5 << 20), (2, 10)]:
            wire.max_frame = max_frame
            profile.set_tags({"vip": vip})
            parts, result = prepare([profile], put(vip))
            trade = transact(wire, parts, result, (), None)
            await self.turn()
            frames = [json.loads(frame) for frame in wire.requests[-1].frames]
            part = frames[-1]["tx"]["parts"][0]
            self.assertEqual((part["tags"], "data" in part), ({"vip": vip}, vip == 1))
            self.assertEqual(len(frames), vip)
            wire.requests[-1].done(("done", {"versions": [2]}))
            await trade

    async def test_a_trade_takes_nothing_over_from_an_edit_that_was_taken_back(self) -> None:
        wire, profile = session()
        changes = [{"op": "increase", "path": "/coins", "by": 100}]
        profile.heard(("edit", {"s": 1, "op": "op-1", "changes": changes}))
        await self.turn()
        parts, result = prepare([profile], put(1))
        trade = transact(wire, parts, result, (), None)
        wire.requests[-1].failed(failure("too-large", "it is too large"))
        await self.turn()
        wire.answer(2)
        with self.assertRaises(ProfileError) as raised:
            await trade
        self.assertEqual(raised.exception.kind, "busy")
        self.assertEqual((profile.data, profile.has_unsaved), ({"coins": 0}, False))
        sent = [(name, body["data"]["coins"]) for name, body in wire.frames]
        self.assertEqual(sent, [("save", 100), ("save", 0)])


if __name__ == "__main__":
    unittest.main()
