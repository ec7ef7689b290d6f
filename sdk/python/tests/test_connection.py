"""The connection, with a host that this test plays."""

from __future__ import annotations

import asyncio
import json
import socket
import unittest
from typing import Any
from unittest.mock import patch

from websockets.asyncio.server import Server as Listening
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from profilestore import ProfileError, Server, connect, connection

from .serve import until


class Host:
    """Takes frames, and says what the test says. It greets by itself."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []
        self.sockets: list[ServerConnection] = []
        self.refusal: dict[str, str] | None = None
        """What a greeting that resumes is refused with."""
        self._listening: Listening | None = None

    async def start(self) -> str:
        self._listening = await serve(self._greet, "127.0.0.1", 0)
        port = next(iter(self._listening.sockets)).getsockname()[1]
        return f"ws://127.0.0.1:{port}"

    async def _greet(self, socket: ServerConnection) -> None:
        self.sockets.append(socket)
        try:
            async for text in socket:
                name, body = next(iter(json.loads(text).items()))
                if name != "ping":
                    self.heard.append((name, body))
                if name == "hello" and self.refusal is not None:
                    await self.say("error", problem=self.refusal)
                elif name == "hello":
                    resumed = "same" if "resume" in body else None
                    welcome = {"incarnation": "i", "token": "t", "store": "s", "resumed": resumed}
                    await self.say("welcome", **welcome, lease_ms=20_000, max_frame=5 << 20)
        except ConnectionClosed:
            pass

    async def say(self, name: str, **body: Any) -> None:
        await self.sockets[-1].send(json.dumps({name: body}))

    def cut(self) -> None:
        self.sockets[-1].transport.abort()

    @property
    def names(self) -> list[str]:
        """The names of what was heard."""
        return [name for name, _ in self.heard]

    def stop(self) -> None:
        if self._listening is not None:
            self._listening.close()


class Connected(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.faults: list[BaseException] = []
        self.host = Host()
        url = await self.host.start()
        self.server: Server = await connect(
            url, key="k", job="eu-1", on_fault=self.faults.append
        )

    async def asyncTearDown(self) -> None:
        await self.server.close(timeout=1)
        self.host.stop()

    async def lost(self) -> None:
        self.host.cut()
        await until("the connection is lost", lambda: not self.server.is_connected)

    async def fails(self, kind: str, work: Any) -> None:
        with self.assertRaises(ProfileError) as raised:
            await work
        self.assertEqual(raised.exception.kind, kind)

    async def test_a_frame_without_what_belongs_to_it_is_told_and_the_next_link_works(self) -> None:
        for times in (1, 2):
            await self.host.say("error", i=None)
            await until("it has connected again", lambda: len(self.host.sockets) == times + 1)
            await until("it is connected", lambda: self.server.is_connected)
            self.assertEqual(len(self.faults), times)

    async def test_a_game_server_whose_place_another_run_took_comes_no_more_and_its_game_is_told(
        self,
    ) -> None:
        players = self.server.store("P", {"coins": 0})
        start = players.start("a")
        await until("the start is there", lambda: "start" in self.host.names)
        i = self.host.heard[-1][1]["i"]
        told = {"i": i, "s": 1, "epoch": 1, "version": 1, "data": {"coins": 0}, "meta": {}}
        await self.host.say("started", **told)
        profile = await start
        self.host.refusal = {"kind": "run-replaced", "advice": "leave"}
        await self.host.sockets[-1].close(4000)
        await until("its session is over", lambda: profile.ended is not None)
        assert profile.ended is not None
        self.assertEqual(profile.ended.reason, "lost")
        self.assertEqual(self.server.profiles, [])
        kinds = [fault.kind for fault in self.faults if isinstance(fault, ProfileError)]
        self.assertEqual(kinds, ["run-replaced"])
        await self.fails("closing", players.start("b"))
        self.assertEqual(await self.server.close(), [])
        self.assertEqual(self.host.names, ["hello", "start", "hello"])

    async def test_a_start_that_is_called_off_without_a_connection_is_so_on_the_next(self) -> None:
        players = self.server.store("P", {"coins": 0})
        start = players.start("a")
        await until("the start is there", lambda: "start" in self.host.names)
        await self.lost()
        start.cancel()
        # One that was never sent takes nothing, and is never heard of.
        players.start("b").cancel()
        await until("it was called off", lambda: "cancel" in self.host.names)
        self.assertEqual(self.host.names, ["hello", "start", "hello", "start", "cancel"])
        self.assertEqual(self.host.heard[4][1]["i"], self.host.heard[1][1]["i"])

    async def test_a_start_that_nobody_answers_fails_in_its_time_and_is_called_off(self) -> None:
        start = self.server.store("P", {"coins": 0}).start("a", timeout=0.001)
        await self.fails("timed-out", start)
        await until("it was called off", lambda: "cancel" in self.host.names)
        self.assertEqual(self.host.names, ["hello", "start", "cancel"])
        # It had taken effect all the same.
        told = {"s": 1, "epoch": 1, "version": 1, "data": {"coins": 0}, "meta": {}}
        await self.host.say("started", i=self.host.heard[1][1]["i"], **told)
        await until("its session is let go", lambda: "end" in self.host.names)

    async def test_a_session_that_was_never_seen_is_ended_again(self) -> None:
        def refuse(_: object) -> None:
            raise ValueError("no")

        start = self.server.store("P", {"coins": 0}, check=refuse).start("a")
        await until("the start is there", lambda: "start" in self.host.names)
        i = self.host.heard[-1][1]["i"]
        told = {"i": i, "s": 1, "epoch": 1, "version": 1, "data": {"coins": 0}, "meta": {}}
        await self.host.say("started", **told)
        await self.fails("undecodable", start)
        await until("its end is there", lambda: "end" in self.host.names)
        first = self.host.heard[-1][1]
        problem = {"kind": "unavailable", "advice": "retry"}
        await self.host.say("error", i=first["i"], problem=problem)
        await until("its second end is there", lambda: self.host.names.count("end") == 2)
        second = self.host.heard[-1][1]
        self.assertGreater(second["i"], first["i"])
        self.assertGreater(second["n"], first["n"])
        await self.host.say("ended", i=second["i"])

    async def test_a_start_that_is_given_up_is_called_off_until_it_is_known_what_became_of_it(
        self,
    ) -> None:
        unknown = {"kind": "unknown", "advice": "retry-as"}
        with patch.object(connection, "MOST_ATTEMPTS", 2):
            start = self.server.store("P", {"coins": 0}).start("a")
            for times in (1, 2):
                await until("the start is there", lambda: self.host.names.count("start") == times)
                i = self.host.heard[-1][1]["i"]
                await self.host.say("error", i=i, problem=unknown)
            await self.fails("unknown", start)
            # It is not known yet whether its session is there, and the next answer does not say it.
            await until("it was called off", lambda: self.host.names[-1] == "cancel")
            await self.host.say("error", i=i, problem=unknown)
            await until(
                "it was called off again", lambda: self.host.names.count("cancel") == 2
            )
        told = {"i": i, "s": 1, "epoch": 1, "version": 1, "data": {"coins": 0}, "meta": {}}
        await self.host.say("started", **told)
        await until("its session is ended", lambda: self.host.names[-1] == "end")
        sent = ["start", "start", "start", "cancel", "start", "cancel", "end"]
        self.assertEqual(self.host.names[1:], sent)
        await self.host.say("ended", i=self.host.heard[-1][1]["i"])

    async def test_a_session_that_was_never_seen_is_named_by_a_resume_until_it_is_ended(
        self,
    ) -> None:
        def refuse(_: object) -> None:
            raise ValueError("no")

        players = self.server.store("P", {"coins": 0}, check=refuse)
        start = players.start("a")
        await until("the start is there", lambda: "start" in self.host.names)
        i = self.host.heard[-1][1]["i"]
        told = {"i": i, "s": 1, "epoch": 7, "version": 1, "data": {"coins": 0}, "meta": {}}
        await self.host.say("started", **told)
        await self.fails("undecodable", start)

        def named() -> list[Any]:
            hellos = [body["resume"] for name, body in self.host.heard if "resume" in body]
            return [session for resume in hellos for session in resume["sessions"]]

        # The process dies with the end.
        await until("its end is there", lambda: self.host.names.count("end") == 1)
        self.host.cut()
        await until("its end is there again", lambda: self.host.names.count("end") == 2)
        self.assertEqual(named(), [[1, "P", "global", "a", 7]])
        await self.host.say("ended", i=self.host.heard[-1][1]["i"])
        # What is answered behind that says that it was heard.
        sent = players.send("a", 1)
        await until("the message is there", lambda: "send" in self.host.names)
        await self.host.say("sent", i=self.host.heard[-1][1]["i"], stored_now=True)
        self.assertTrue(await sent)
        self.host.cut()
        await until("it has resumed", lambda: self.host.names.count("hello") == 3)
        self.assertEqual(len(named()), 1)

    async def test_a_refused_end_takes_back_no_doubt_that_the_game_has_not_heard_of(self) -> None:
        start = self.server.store("P", {"coins": 0}).start("a")
        await until("the start is there", lambda: "start" in self.host.names)
        i = self.host.heard[-1][1]["i"]
        told = {"i": i, "s": 1, "epoch": 1, "version": 1, "data": {"coins": 0}, "meta": {}}
        await self.host.say("started", **told)
        end = (await start).end()
        await until("its end is there", lambda: "end" in self.host.names)
        # As the thread does for a `release` that the game's loop has not taken yet.
        self.server._connection.trust.doubt(1)
        problem = {"kind": "too-large", "advice": "fix"}
        await self.host.say("error", i=self.host.heard[-1][1]["i"], problem=problem)
        await self.fails("too-large", end)
        self.assertFalse(self.server.is_active(1))
        self.assertEqual(self.server._connection.trust._doubted, {1})

    async def test_a_start_that_is_answered_while_the_game_server_closes_is_let_go(self) -> None:
        players = self.server.store("P", {"coins": 0})

        async def asked(s: int) -> dict[str, Any]:
            await until("the start is there", lambda: self.host.names.count("start") == s)
            i = self.host.heard[-1][1]["i"]
            return {"i": i, "s": s, "epoch": 1, "version": 1, "data": {"coins": 0}, "meta": {}}

        first = players.start("a")
        await self.host.say("started", **await asked(1))
        await first
        second = players.start("b")
        answer = await asked(2)
        closing = asyncio.ensure_future(self.server.close())
        await until("the first end is there", lambda: "end" in self.host.names)
        await self.fails("closing", players.start("c"))
        await self.host.say("started", **answer)
        await self.fails("closing", second)
        await until("the second end is there", lambda: self.host.names.count("end") == 2)
        # The last answer is the one that the closing waits for.
        for _, body in [one for one in reversed(self.host.heard) if one[0] == "end"]:
            await self.host.say("ended", i=body["i"])
        self.assertEqual(await closing, [])

    async def test_a_close_that_was_cancelled_with_all_tasks_is_made_again(self) -> None:
        start = self.server.store("P", {"coins": 0}).start("a")
        await until("the start is there", lambda: "start" in self.host.names)
        started = {"s": 1, "epoch": 1, "version": 1, "data": {"coins": 0}, "meta": {}}
        await self.host.say("started", i=self.host.heard[-1][1]["i"], **started)
        await start
        first = asyncio.ensure_future(self.server.close())
        await until("the end is there", lambda: "end" in self.host.names)
        for task in asyncio.all_tasks():
            if getattr(task.get_coro(), "__qualname__", "") == "Server._close":
                task.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await first
        again = asyncio.ensure_future(self.server.close())
        await self.host.say("ended", i=self.host.heard[-1][1]["i"])
        self.assertEqual(await again, [])
        self.assertFalse(self.server.is_connected)

    async def test_messages_that_wait_are_refused_before_they_fill_the_memory(self) -> None:
        await self.lost()
        players = self.server.store("P", {"coins": 0})
        with patch.object(connection, "MOST_BYTES", 10_000):
            sent = [players.send("a", "x" * 3000, f"1:{at}") for at in range(4)]
            await self.fails("overloaded", sent[3])
        await until("the first ones are there", lambda: self.host.names.count("send") == 3)
        for _, body in [one for one in self.host.heard if one[0] == "send"]:
            await self.host.say("sent", i=body["i"], stored_now=True)
        for one in sent[:3]:
            self.assertTrue(await one)
        # There is room again.
        with patch.object(connection, "MOST_BYTES", 10_000):
            again = players.send("a", "x" * 3000, "1:5")
            await until("it is there", lambda: self.host.names.count("send") == 4)
        await self.host.say("sent", i=self.host.heard[-1][1]["i"], stored_now=False)
        self.assertFalse(await again)

    async def test_what_is_said_of_a_session_that_is_over_leaves_nothing_behind(self) -> None:
        for name in ("closed", "lost", "release"):
            by = {"server": {"job": "eu-2", "place": 0}} if name == "release" else None
            await self.host.say(name, s=7, n=1, why="external", by=by, deadline_ms=2000)
        # What comes behind it was heard.
        await self.host.say("error", problem={"kind": "internal", "advice": "retry"})
        await until("all of it was heard", lambda: len(self.faults) > 0)
        self.assertEqual(self.server._connection.trust._doubted, set())

    async def test_a_key_with_the_end_of_its_line_is_refused_at_once(self) -> None:
        for key in ("ps_1_2\n", "", "ps 1"):
            await self.fails("invalid", connect("ws://127.0.0.1:1", key=key, job="eu-1"))

    async def test_the_first_connection_is_given_up_in_its_time_by_a_silent_server_too(
        self,
    ) -> None:
        mute = socket.create_server(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{mute.getsockname()[1]}"
        with self.assertRaises(ProfileError) as raised:
            await connect(url, key="k", job="eu-1", connect_timeout=0.3)
        mute.close()
        self.assertIn("no connection within 0.3 s", str(raised.exception))
        self.assertEqual(raised.exception.kind, "unavailable")

    async def test_half_of_a_character_in_a_name_is_an_error_of_the_kind_invalid(self) -> None:
        players = self.server.store("P", {"coins": 0})
        await self.fails("invalid", players.start("\ud800"))
        await self.fails("invalid", players.send("\ud800", "hello"))
        await self.fails("invalid", players.get("\ud800"))


if __name__ == "__main__":
    unittest.main()
