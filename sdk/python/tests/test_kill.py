"""The server process is killed and deployed anew, and hosts are late."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sqlite3
import time
import unittest
from typing import Any

from websockets.asyncio.client import connect as open_socket
from websockets.asyncio.server import Server as WebSocketServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from profilestore import End, ProfileError, connect

from .serve import Serve, connected, until
from .test_play import add, give

TEMPLATE: dict[str, Any] = {"coins": 0, "trades": 0}


class Kill(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.serve = await Serve.begin()
        self.faults: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.faults.append(context))

    async def asyncTearDown(self) -> None:
        gc.collect()
        await asyncio.sleep(0)
        await self.serve.remove()
        self.assertEqual(self.faults, [])

    async def test_no_session_ends_and_nothing_is_lost_at_sigkill(self) -> None:
        await self.die(signal.SIGKILL, 3)

    async def test_no_session_ends_and_nothing_is_lost_at_sigterm(self) -> None:
        await self.die(signal.SIGTERM, 1)

    async def die(self, which: signal.Signals, rounds: int) -> None:
        server = await connected(self.serve.url, key=self.serve.key, job="eu-1")
        players = server.store("PlayerData", TEMPLATE, save_within=0.05)
        keys = ["a", "b", "c", "d"]
        profiles = await asyncio.gather(*(players.start(key) for key in keys))
        ends: list[End] = []
        for profile in profiles:
            profile.on_message("gift", give)
            profile.on("end", ends.append)

        def trade(giver: dict[str, Any], taker: dict[str, Any]) -> None:
            giver["coins"] -= 1
            taker["coins"] += 1
            giver["trades"] += 1

        for round in range(1, rounds + 1):
            for profile in profiles:
                profile.update(add(1))
            await asyncio.gather(*(profile.save() for profile in profiles))
            # All this is on its way when the process dies.
            for profile in profiles[2:]:
                profile.update(add(1))
            saves = [profile.save() for profile in profiles[2:]]
            trading = server.transaction(profiles[:2], trade)
            sent = players.send("c", {"type": "gift", "coins": 100})
            late = players.start(f"late-{round}")
            await self.serve.stop(which)
            await self.serve.start()
            work: list[Any] = [*saves, trading, sent]
            for one in work:
                await one
            await (await late).end()

            async def is_stored(round: int = round) -> bool:
                read = [await players.get(key) for key in keys]
                coins = [one["data"]["coins"] for one in read if one is not None]
                return coins == [0, 2 * round, 102 * round, 2 * round]

            await until(f"round {round} is stored", is_stored)
            await until("they may be believed in", lambda: all(p.is_active for p in profiles))
        self.assertEqual((ends, profiles[0].data["trades"]), ([], rounds))
        self.assertEqual(await server.close(), [])
        self.assertEqual([end.reason for end in ends], ["ended"] * 4)

    async def test_without_a_server_every_call_fails_and_nothing_is_left_over(self) -> None:
        told: list[BaseException] = []
        server = await connected(
            self.serve.url, key=self.serve.key, job="eu-1", on_fault=told.append
        )
        players = server.store("PlayerData", TEMPLATE)
        a, b = await players.start("a"), await players.start("b")

        async def clumsy(_: End) -> None:
            raise RuntimeError("of a handler")

        a.on("end", clumsy)
        await self.serve.stop(signal.SIGKILL)
        a.update(add(1))
        nothing = lambda *_: None  # noqa: E731
        work: list[Any] = [a.save(), players.send("c", "hello"), players.start("d")]
        work.append(server.transaction([b], nothing))
        work += [a.end(), b.end()]
        left_alone = [players.start("e"), players.send("c", "again")]
        del left_alone
        unsaved = await server.close(timeout=0.3)
        self.assertEqual(sorted(profile.key for profile in unsaved), ["a", "b"])
        for outcome in await asyncio.gather(*work, return_exceptions=True):
            self.assertIsInstance(outcome, ProfileError)
        await until("the handler's error is told", lambda: told != [])

    async def test_a_process_that_stops_hands_over_and_no_player_notices(self) -> None:
        first = self.serve
        second = await Serve.begin(first)
        try:
            server = await connected([first.url, second.url], key=first.key, job="eu-1")
            profile = await server.store("PlayerData", TEMPLATE).start("a")
            await until("it may be believed in", lambda: profile.is_active)
            profile.update(add(1))
            saved, doubts = profile.save(), 0
            stopped = asyncio.ensure_future(first.stop(signal.SIGTERM))
            while not stopped.done():
                doubts += not profile.is_active
                await asyncio.sleep(0.001)
            await saved
            profile.update(add(1))
            await profile.save()
            self.assertEqual((doubts, profile.ended, server.is_connected), (0, None, True))
            self.assertEqual(await server.close(), [])
        finally:
            await second.stop(signal.SIGKILL)

    async def test_after_a_cut_longer_than_the_lease_what_was_taken_is_lost(self) -> None:
        first = self.serve
        second = await Serve.begin(first)
        try:
            cut = await connected(first.url, key=first.key, job="eu-1", lease_ms=10_000)
            other = await connected(second.url, key=first.key, job="eu-2")
            players = cut.store("PlayerData", TEMPLATE, save_within=60)
            taken, kept = await players.start("taken"), await players.start("kept")
            ends: list[End] = []
            taken.on("end", ends.append)
            await first.stop(signal.SIGKILL)
            taken.update(add(1))
            kept.update(add(2))
            there = await other.store("PlayerData", TEMPLATE).start("taken")
            self.assertEqual((there.data["coins"], taken.is_active), (0, False))
            saves = [taken.save(), kept.save()]
            await first.start()
            with self.assertRaises(ProfileError) as raised:
                await saves[0]
            self.assertEqual(raised.exception.kind, "session-ended")
            await saves[1]
            self.assertEqual([end.has_loss for end in ends], [True])
            await until("the kept one may be believed in", lambda: kept.is_active)
            await there.end()
            self.assertEqual((await cut.close(), await other.close()), ([], []))
        finally:
            await second.stop(signal.SIGKILL)

    async def test_a_game_that_computes_for_long_is_still_believed_in(self) -> None:
        server = await connected(self.serve.url, key=self.serve.key, job="eu-1")
        profile = await server.store("PlayerData", TEMPLATE).start("a")
        await until("it may be believed in", lambda: profile.is_active)
        until_s = time.monotonic() + 8
        while time.monotonic() < until_s:
            sum(range(1000))
        self.assertTrue(profile.is_active)
        self.assertEqual(await server.close(), [])


class Host:
    """Answers greetings and pings, and says how late it is."""

    def __init__(self) -> None:
        self.age = 0
        self.greetings: list[dict[str, Any]] = []
        self._server: WebSocketServer | None = None
        self.url = ""

    async def start(self) -> None:
        subprotocol = Subprotocol("profilestore.v1+json")
        self._server = await serve(self._take, "127.0.0.1", 0, subprotocols=[subprotocol])
        self.url = f"ws://127.0.0.1:{next(iter(self._server.sockets)).getsockname()[1]}"

    async def _take(self, socket: ServerConnection) -> None:
        async for text in socket:
            [(name, body)] = json.loads(text).items()
            if name == "hello":
                self.greetings.append(body)
                welcome = {
                    "incarnation": "i",
                    "token": "t",
                    "store": "s",
                    "lease_ms": 1000,
                    "max_frame": 5 << 20,
                    "resumed": "same" if "resume" in body else None,
                }
                await socket.send(json.dumps({"welcome": welcome}))
            if name == "ping":
                pong = {"n": body["n"], "incarnation": "i", "age": self.age}
                await socket.send(json.dumps({"pong": pong}))

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()


class SignsOfLife(unittest.IsolatedAsyncioTestCase):
    async def test_a_server_that_stood_still_says_that_it_lives_until_it_has_renewed(self) -> None:
        host = await Serve.begin()
        database = sqlite3.connect(f"{host.folder}/profiles.db", isolation_level=None)
        headers = {"Authorization": f"Bearer {host.key}"}
        protocol = [Subprotocol("profilestore.v1+json")]
        url = f"{host.url}/v1/connect"
        async with open_socket(url, subprotocols=protocol, additional_headers=headers) as socket:
            hello = {"instance": "a secret of this test", "job": "eu-1", "lease_ms": 60_000}
            await socket.send(json.dumps({"hello": hello}))
            self.assertIn("welcome", json.loads(await socket.recv()))

            async def answer() -> str:
                await socket.send('{"ping":{"n":1}}')
                return str(next(iter(json.loads(await socket.recv()))))

            async def is_heard() -> bool:
                return await answer() == "heard"

            async def is_sure() -> bool:
                return await answer() == "pong"

            await until("a pong comes", is_sure)
            # No renewal can be stored, and the process stands still.
            database.execute("BEGIN IMMEDIATE")
            host.send(signal.SIGSTOP)
            await asyncio.sleep(3)
            host.send(signal.SIGCONT)
            await until("it says that it lives", is_heard)
            database.execute("ROLLBACK")
            await until("it has renewed", is_sure)
        database.close()
        await host.remove()


class LateHost(unittest.IsolatedAsyncioTestCase):
    async def test_a_host_that_is_late_is_left_for_another_one_after_that_answers(self) -> None:
        hosts = [Host(), Host()]
        for host in hosts:
            await host.start()
        hosts[0].age = 60_000
        server = await connect([host.url for host in hosts], key="k", job="eu-1")
        cuts = 0

        def is_other_asked() -> bool:
            nonlocal cuts
            cuts += not server.is_connected
            return hosts[1].greetings != []

        await until("the other one was asked", is_other_asked)
        resume = hosts[1].greetings[0]["resume"]
        self.assertEqual((resume["incarnation"], resume["token"], cuts), ("i", "t", 0))
        await server.close()
        for host in hosts:
            await host.stop()
