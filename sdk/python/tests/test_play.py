"""Sessions against the real server."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
import unittest
from pathlib import Path
from textwrap import indent
from typing import Any

from profilestore import End, Http, ProfileError, Server, connect

from .serve import Serve, connected, until

PLAYER: dict[str, Any] = {"coins": 0, "items": []}
README = (Path(__file__).parent.parent / "README.md").read_text()
PROGRAMS: list[str] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
"""The programs of the README: a whole one, and three parts."""
CONNECTING = PROGRAMS[0].split("        profile =")[0].replace("PlayerData", "Bank")


def give(data: dict[str, Any], gift: dict[str, Any], _: object) -> None:
    data["coins"] += gift["coins"]


def add(coins: int) -> Any:
    def change(data: dict[str, Any]) -> int:
        data["coins"] += coins
        return int(data["coins"])

    return change


class Play(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.serve = await Serve.begin()
        self.open: list[Server] = []
        self.faults: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.faults.append(context))

    async def asyncTearDown(self) -> None:
        for server in self.open:
            await server.close(timeout=2)
        await self.serve.remove()
        self.assertEqual(self.faults, [])

    async def game_server(self, job: str) -> Server:
        server = await connected(self.serve.url, key=self.serve.key, job=job)
        self.open.append(server)
        return server

    async def fails(self, kind: str, work: Any) -> ProfileError:
        with self.assertRaises(ProfileError) as raised:
            await work
        self.assertEqual(raised.exception.kind, kind)
        return raised.exception

    async def test_a_start_right_behind_an_end_gets_what_that_saved(self) -> None:
        players = (await self.game_server("eu-1")).store("PlayerData", PLAYER)
        profile = await players.start("back")
        profile.update(add(10))
        ended, again = profile.end(), players.start("back")
        self.assertEqual((await again).data["coins"], 10)
        await ended
        await (await again).end()

    async def test_what_is_saved_is_read_back_and_a_second_session_finds_it(self) -> None:
        server = await self.game_server("eu-1")
        players = server.store("PlayerData", PLAYER)
        profile = await players.start("saved")
        self.assertEqual(profile.data, {"coins": 0, "items": []})
        self.assertEqual(profile.update(add(10)), 10)
        self.assertTrue(profile.has_unsaved)
        await profile.save()
        self.assertFalse(profile.has_unsaved)
        stored = await players.get("saved")
        assert stored is not None and stored["held"] is not None
        self.assertEqual(stored["data"]["coins"], 10)
        self.assertEqual(stored["held"]["job"], "eu-1")
        self.assertEqual(stored["version"], profile.version)
        await until("the lease is confirmed", lambda: profile.is_active)
        await profile.end()
        self.assertEqual(profile.ended, End("ended", None, False))
        self.assertFalse(profile.is_active)
        with self.assertRaises(ProfileError) as raised:
            profile.update(add(1))
        found = (raised.exception.kind, raised.exception.advice)
        self.assertEqual(found, ("session-ended", "leave"))
        await self.fails("session-ended", profile.save())
        again = await players.start("saved")
        self.assertEqual(again.data["coins"], 10)
        await again.end()
        items = (await players.versions("saved"))["items"]
        version = await players.version("saved", items[0]["version"])
        self.assertEqual(version["data"]["coins"], 10)
        self.assertIsNone(await players.get("nobody"))

    async def test_a_change_is_saved_by_itself_and_the_template_fills_in(self) -> None:
        server = await self.game_server("eu-1")
        players = server.store("PlayerData", PLAYER, reconcile=True, save_within=0.1)
        await server.http.put(players.at("old"), {"coins": 5}, None)
        profile = await players.start("old")
        self.assertEqual(profile.data, {"coins": 5, "items": []})
        with profile.updating() as data:
            data["items"].append("sword")

        async def is_stored() -> bool:
            stored = await players.get("old")
            return stored is not None and stored["data"].get("items") == ["sword"]

        await until("the sword is stored", is_stored)
        with self.assertRaises(RuntimeError), profile.updating() as data:
            data["items"].clear()
            raise RuntimeError("no")
        self.assertEqual(profile.data["items"], ["sword"])
        await profile.end()

    async def test_a_second_server_gets_the_profile_as_the_first_one_left_it(self) -> None:
        first, second = await self.game_server("eu-1"), await self.game_server("eu-2")
        here = await first.store("PlayerData", PLAYER).start("hop")
        ends: list[End] = []
        here.on("end", ends.append)
        here.on_last_save(add(1))
        here.update(add(41))
        there = await second.store("PlayerData", PLAYER).start("hop")
        self.assertEqual(there.data["coins"], 42)
        await until("the first one is told", lambda: ends != [])
        told = [(end.reason, end.by and end.by[0], end.has_loss) for end in ends]
        self.assertEqual(told, [("released", "eu-2", False)])
        with self.assertRaises(ProfileError):
            here.update(add(1))
        await there.end()

    async def test_users_are_found_and_stay_through_a_trade_and_a_second_session(self) -> None:
        server = await self.game_server("eu-1")
        players = server.store("Users", PLAYER)
        profile = await players.start("p")
        uuid = "069A79F4-44E9-4726-A5BE-FCA90E38AAF5"
        bare = uuid.replace("-", "")
        for user in (uuid, uuid.lower(), 76561198000000000, bare):
            profile.add_user(user)
        for wrong in (-1, "-1", 2**63, "", "a\0b", "ä" * 51, "\ud800", True, 1.5):
            with self.assertRaises(ProfileError, msg=repr(wrong)):
                profile.add_user(wrong)  # type: ignore[arg-type]
        await server.transaction([profile], add(1))
        self.assertFalse(profile.has_unsaved)
        profile.add_user("7")
        profile.remove_user(bare)
        self.assertTrue(profile.has_unsaved)
        await profile.end()
        stored = await players.get("p")
        assert stored is not None
        self.assertEqual(stored["user_ids"], ["76561198000000000", 7, uuid.lower()])
        for user in (uuid, "76561198000000000", 7):
            found = await server.http.call("GET", f"/v1/users/{user}/profiles")
            self.assertIn('"key":"p"', found, user)
        again = await players.start("p")
        self.assertEqual(again.users, (76561198000000000, 7, uuid.lower()))
        again.remove_user(uuid)
        await again.end()
        stored = await players.get("p")
        assert stored is not None
        self.assertEqual(stored["user_ids"], ["76561198000000000", 7])

    async def test_a_message_has_its_effect_once_however_often_it_is_sent(self) -> None:
        first, second = await self.game_server("eu-1"), await self.game_server("eu-2")
        players = first.store("PlayerData", PLAYER)
        id = f"{int(time.time() * 1000)}:order-1"
        self.assertTrue(await players.send("gifted", {"type": "gift", "coins": 5}, id))
        self.assertFalse(await players.send("gifted", {"type": "gift", "coins": 5}, id))
        here = await players.start("gifted")
        here.on_message("gift", give)
        await until("the first gift is there", lambda: here.data["coins"] == 5)
        await first.http.send(players.at("gifted"), {"type": "gift", "coins": 7})
        await until("the second gift is there", lambda: here.data["coins"] == 12)
        there = await second.store("PlayerData", PLAYER).start("gifted")
        there.on_message("gift", give)
        self.assertEqual(there.data["coins"], 12)
        await there.save()
        self.assertEqual((await second.http.messages(players.at("gifted")))["items"], [])
        await there.end()

    async def test_a_handler_that_fails_leaves_the_message_and_the_data(self) -> None:
        server = await self.game_server("eu-1")
        players = server.store("PlayerData", PLAYER)
        profile = await players.start("clumsy")
        failed: list[Any] = []
        profile.on("message-failed", failed.append)

        def clumsy(data: dict[str, Any], _body: Any, _received: Any) -> None:
            data["coins"] = 99
            raise RuntimeError("no room")

        profile.on_message(None, clumsy)
        await players.send("clumsy", "a box")
        await until("it failed", lambda: failed != [])
        self.assertEqual(profile.data["coins"], 0)
        self.assertEqual(len((await server.http.messages(players.at("clumsy")))["items"]), 1)
        await profile.end()

    async def test_a_trade_moves_the_item_to_both_or_to_neither(self) -> None:
        server = await self.game_server("eu-1")
        players = server.store("PlayerData", PLAYER)
        ann, bob = await players.start("ann"), await players.start("bob")
        ann.update(lambda data: data["items"].append("sword"))
        gifts = [players.gift("carl", {"type": "tax", "coins": 1})]

        def move(giver: dict[str, Any], taker: dict[str, Any]) -> int:
            taker["items"].append(giver["items"].pop())
            return 1

        trade = server.transaction([ann, bob], move, gifts=gifts)
        with self.assertRaises(ProfileError) as raised:
            ann.update(add(1))
        self.assertEqual(raised.exception.kind, "busy")
        self.assertEqual(await trade, 1)
        self.assertEqual((ann.data["items"], bob.data["items"]), ([], ["sword"]))
        stored = await players.get("bob")
        assert stored is not None
        self.assertEqual(stored["data"]["items"], ["sword"])
        self.assertEqual(len((await server.http.messages(players.at("carl")))["items"]), 1)

        def change_mind(giver: dict[str, Any], _: Any) -> None:
            giver["coins"] = 1
            raise RuntimeError("changed my mind")

        with self.assertRaisesRegex(RuntimeError, "changed my mind"):
            await server.transaction([ann, bob], change_mind)
        self.assertEqual(ann.data["coins"], 0)
        await bob.end()
        with self.assertRaises(ProfileError):
            await server.transaction([ann, bob], move)
        ann.update(add(3))
        await ann.end()

    async def test_an_edit_is_made_in_the_middle_of_play_or_refused(self) -> None:
        def check(data: dict[str, Any]) -> None:
            if data["coins"] < 0:
                raise ValueError("debts are not allowed")

        server = await self.game_server("eu-1")
        players = server.store("PlayerData", PLAYER, check=check)
        profile = await players.start("edited")
        profile.update(add(1))
        increase = [{"op": "increase", "path": "/coins", "by": 100}]
        await server.http.edit(players.at("edited"), increase, reason="lost in a crash")
        self.assertEqual(profile.data["coins"], 101)
        debt = [{"op": "increase", "path": "/coins", "by": -500}]
        with self.assertRaisesRegex(ProfileError, "debts are not allowed"):
            await server.http.edit(players.at("edited"), debt)
        self.assertEqual(profile.data["coins"], 101)
        gems = [{"op": "increase", "path": "/gems", "by": 3, "create": True}]
        for _ in range(2):
            await server.http.edit(players.at("edited"), gems)
        self.assertEqual(profile.data["gems"], 6)
        await profile.end()

    async def test_a_rollback_goes_over_what_was_read_and_nothing_else(self) -> None:
        server = await self.game_server("eu-1")
        at = server.store("PlayerData", PLAYER).at("rolled")
        first = await server.http.put(at, {"coins": 5}, None)
        second = await server.http.put(at, {"coins": 6}, first["etag"])
        await self.fails("changed", server.http.restore(at, 1, first["etag"]))
        await self.fails("changed", server.http.restore(at, 1, None))
        done = await server.http.restore(at, 1, second["etag"], reason="a test")
        self.assertEqual((done["restored"], done["replaced"]), (1, 2))
        stored = await server.http.get(at)
        assert stored is not None
        self.assertEqual((stored["data"], stored["etag"]), ({"coins": 5}, done["etag"]))

    async def test_whole_numbers_are_exact_and_what_cannot_be_held_locks_nothing(self) -> None:
        server = await self.game_server("eu-1")
        rich = server.store("Big", {"gold": 0})
        profile = await rich.start("rich")

        def fill(data: dict[str, Any]) -> None:
            data["gold"] = 9223372036854775807

        profile.update(fill)
        await profile.end()
        stored = await rich.get("rich")
        assert stored is not None
        self.assertEqual(stored["data"]["gold"], 9223372036854775807)
        path = rich.at("precise").path
        body = '{"data":{"gold":0.12345678901234567891}}'
        headers = {"If-None-Match": "*"}
        await server.http.call("PUT", path, headers=headers, body=body)
        why = await self.fails("invalid", rich.start("precise"))
        self.assertRegex(str(why), "0.12345678901234567891.*/gold")

        async def is_free() -> bool:
            return (await server.http.session(rich.at("precise")))["held"] is None

        await until("the profile is free", is_free)

    async def test_tags_and_metadata_are_read_back_over_http_and_by_the_next_session(self) -> None:
        server = await self.game_server("eu-1")
        players = server.store("PlayerData", PLAYER)
        tagged, other = await players.start("tagged"), await players.start("other")
        tagged.set_tags({"vip": 2**53 + 1, "notes": ["ä"]})
        tagged.set_metadata({"region": "eu"})
        await tagged.save()
        stored = await players.get("tagged")
        assert stored is not None
        self.assertEqual(stored["tags"], {"vip": 2**53 + 1, "notes": ["ä"]})
        self.assertEqual(stored["metadata"], {"region": "eu"})
        tagged.set_tags({"vip": 1})
        await server.transaction([tagged, other], lambda data, _: data["items"].append("sword"))
        traded = await players.get("tagged")
        assert traded is not None
        self.assertEqual((traded["tags"], len(traded["data"]["items"])), ({"vip": 1}, 1))
        await asyncio.gather(tagged.end(), other.end())
        again = await players.start("tagged")
        self.assertEqual((again.tags, again.meta["tags"]), ({"vip": 1}, {"vip": 1}))
        self.assertEqual(again.metadata, {"region": "eu"})
        await again.end()

    async def test_a_start_that_is_called_off_or_refused_leaves_nothing_behind(self) -> None:
        first, second = await self.game_server("eu-1"), await self.game_server("eu-2")
        held = await first.store("PlayerData", PLAYER).start("off")
        players = second.store("PlayerData", PLAYER)
        await self.fails("cancelled", players.start("off", when_held="give_up"))
        start = players.start("fresh")
        start.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await start

        async def is_free() -> bool:
            return (await first.http.session(players.at("fresh")))["held"] is None

        await until("the profile is free", is_free)
        await held.end()

    async def test_a_program_that_is_too_old_leaves_the_profile_alone(self) -> None:
        server = await self.game_server("eu-1")
        new = await server.store("PlayerData", PLAYER, data_version=2).start("versioned")
        await new.end()
        old = server.store("PlayerData", PLAYER, data_version=1)
        why = await self.fails("newer-data", old.start("versioned"))
        self.assertEqual(why.advice, "fix")
        again = await server.store("PlayerData", PLAYER, data_version=2).start("versioned")
        await again.end()

    async def test_a_wrong_key_is_refused_at_once(self) -> None:
        wrong = connect(self.serve.url, key="ps_000000000000_wrong", job="eu-1")
        self.assertEqual((await self.fails("unauthorized", wrong)).advice, "fix")

    async def test_an_operator_who_takes_a_profile_ends_its_session(self) -> None:
        server = await self.game_server("eu-1")
        players = server.store("PlayerData", PLAYER)
        profile = await players.start("stolen")
        ends: list[End] = []
        profile.on("end", ends.append)
        profile.update(add(1))
        await server.http.end_session(players.at("stolen"), steal=True, reason="a test")
        await until("the game is told", lambda: ends != [])
        self.assertTrue(ends[0].has_loss)
        asked = await players.start("asked")
        asked.update(add(1))
        released = await server.http.end_session(players.at("asked"), reason="a test")
        self.assertEqual(released["held_by"], "eu-1")
        await until("it is released", lambda: asked.ended is not None)
        stored = await Http(server.http.url, self.serve.key).get(players.at("asked"))
        assert stored is not None
        self.assertEqual(stored["data"]["coins"], 1)

    async def output_of(self, program: str) -> tuple[str, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            program,
            env={
                **os.environ,
                "PROFILESTORE_URL": self.serve.url,
                "PROFILESTORE_KEY": self.serve.key,
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, faults = await process.communicate()
        return out.decode(), faults.decode()

    async def test_the_readme_runs_as_it_stands_and_prints_what_it_says(self) -> None:
        printed = re.search(r"python hello\.py\n(.*?)```", README, re.DOTALL)
        assert printed is not None
        self.assertEqual(await self.output_of(PROGRAMS[0]), (printed[1], ""))

    async def test_the_way_of_the_readme_to_end_a_game_server_leaves_nothing_held(self) -> None:
        stop, _, _ = PROGRAMS[1:]
        ending = "asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)"
        body = indent(f'await players.start("stopped")\n{ending}\n{stop}', " " * 8)
        program = f"import signal\n{CONNECTING}{body}\n\nasyncio.run(main())\n"
        self.assertEqual(await self.output_of(program), ("", ""))
        server = await self.game_server("eu-1")
        stored = await server.store("Bank", PLAYER).get("stopped")
        assert stored is not None
        self.assertIsNone(stored["held"])

    async def test_the_trade_of_the_readme_moves_coins_and_sends_its_gift(self) -> None:
        _, trade, _ = PROGRAMS[1:]
        printing = 'print(ann.data["coins"], bob.data["coins"])'
        program = CONNECTING + indent(f"{trade}\n{printing}", " " * 8)
        printed = await self.output_of(f"{program}\n\nasyncio.run(main())\n")
        self.assertEqual(printed, ("0 2\n", ""))
        server = await self.game_server("eu-1")
        friend = await server.store("Bank", PLAYER).start("user-3")
        friend.on_message("gift", give)
        await until("the gift is there", lambda: friend.data["coins"] == 1)
