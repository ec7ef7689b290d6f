"""What a game gives by mistake, such as a number as a key: an error that names it."""

from __future__ import annotations

import json
import math
import unittest
import uuid
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from profilestore import Address, Http, ProfileError, Server, Store, answers, connect, message_id
from profilestore.options import shown

from .test_connection import Host
from .test_session import put, session

ANYWHERE = "ws://127.0.0.1:1"
EAST, WEST = (timezone(timedelta(hours=hours)) for hours in (1, -1))


class Options(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.host = Host()
        self.server: Server = await connect(await self.host.start(), key="k", job="eu-1")

    async def asyncTearDown(self) -> None:
        await self.server.close(timeout=1)
        self.host.stop()

    async def names(self, what: str, call: Any, *given: Any, **options: Any) -> None:
        """It fails with `invalid`, when it is called or when it is awaited, and names what."""
        with self.assertRaises(ProfileError, msg=shown((given, options))) as raised:
            await call(*given, **options)
        self.assertEqual(raised.exception.kind, "invalid")
        self.assertIn(what, str(raised.exception))

    async def test_an_option_of_connect_of_another_type_is_named_and_nothing_opened(self) -> None:
        for option, value in [
            ("key", None),
            ("job", b"eu-1"),
            ("place", 1.5),
            ("lease_ms", "20000"),
            ("lease_ms", math.inf),
            ("connect_timeout", "5"),
            ("connect_timeout", math.nan),
            ("on_fault", "log"),
        ]:
            options: dict[str, Any] = {"key": "k", "job": "eu-1", option: value}
            await self.names(f"`{option}`", connect, ANYWHERE, **options)

    async def test_an_address_that_is_not_there_is_an_error_as_is_one_of_another_kind(self) -> None:
        for url in (None, b"ws://127.0.0.1:1", 5, [], [None], "http://127.0.0.1:1", "ws://a:b"):
            await self.names("", connect, url, key="k", job="eu-1")
        await self.names("has no space", connect, f"{ANYWHERE} ", key="k", job="eu-1")
        for url in ("127.0.0.1:7400", ANYWHERE, "http://", "http://a:b", None):
            with self.assertRaises(ProfileError) as raised:
                Http(url, "ps_key")  # type: ignore[arg-type]
            self.assertEqual(raised.exception.kind, "invalid")

    async def test_an_option_of_a_store_of_another_type_is_named(self) -> None:
        for option, value in [
            ("scope", 5),
            ("check", 5),
            ("save_within", "5"),
            ("save_within", math.nan),
            ("save_within", -1),
            ("data_version", 1.5),
            ("readable_from", True),
        ]:
            options: dict[str, Any] = {option: value}
            await self.names(f"`{option}`", self.server.store, "P", {}, **options)
        await self.names("`name`", self.server.store, 5, {})
        self.assertEqual(self.server.store("P", {}, save_within=math.inf).scope, "global")

    async def test_a_key_that_is_a_number_is_refused_as_are_other_arguments(self) -> None:
        players: Store[dict[str, Any]] = self.server.store("P", {})
        for key in (5, None, b"a"):
            await self.names("`key`", players.start, key)
            await self.names("`key`", players.send, key, {})
            await self.names("`key`", players.get, key)
        for timeout in ("5", math.nan, -1, math.inf):
            await self.names("`timeout`", players.start, "k", timeout=timeout)
            if timeout != math.inf:
                await self.names("`timeout`", self.server.close, timeout)
        for when_held in ("stael", b"ask", 5):
            await self.names("`when_held`", players.start, "k", when_held=when_held)
        await self.names("`id`", players.send, "k", {}, 5)
        self.assertEqual(self.host.names, ["hello"])

    async def test_a_trade_whose_deadline_is_no_number_of_a_frame_leaves_profiles_free(
        self,
    ) -> None:
        _, profile = session()
        trade = self.server.transaction
        for deadline in (math.inf, "5"):
            options: dict[str, Any] = {"deadline_ms": deadline}
            await self.names("`deadline_ms`", trade, [profile], put(1), **options)
        await self.names("a list", trade, profile, put(1))
        await self.names("a list", trade, [5], put(1))
        await self.names("`change`", trade, [profile], None)
        for gifts in (5, [5]):
            await self.names("`gifts`", trade, [profile], put(1), gifts=gifts)
        profile.update(put(2))
        self.assertEqual((profile.data, self.host.names), ({"coins": 2}, ["hello"]))

    async def test_an_event_that_there_is_not_is_an_error_as_is_a_handler_that_is_none(
        self,
    ) -> None:
        _, profile = session()
        await self.names("save-failed", profile.on, "ended", print)
        await self.names("`handler`", profile.on, "end", None)
        await self.names("`handler`", profile.on_message, "gift", None)
        await self.names("`kind`", profile.on_message, 5, print)
        await self.names("`change`", profile.on_last_save, None)

    async def test_a_name_that_a_client_takes_for_a_step_up_is_no_part_of_a_path(self) -> None:
        http = Http("http://127.0.0.1:1", "k")
        said = "takes such names"
        await self.names(said, http.send, Address("S", "k", ".."), 1)
        await self.names(said, http.get, Address("S", "."))
        await self.names(said, http.list, "..")
        await self.names(said, http.version, Address("S", "k"), "..")
        await self.names(said, http.call, "GET", "/v1/stores/S/profiles/%2E%2e")
        await self.names(said, http.call, "GET", "/v1/stores/S/profiles/..?fresh=true")
        for path in ("/v1/stores/S/profiles/a b", "@127.0.0.1:2/v1", ""):
            await self.names("quoted", http.call, "GET", path)
        with self.assertRaises(ProfileError) as raised:
            await http.call("GET", "/v1/stores/S/profiles/a..b?prefix=..")
        self.assertEqual(raised.exception.kind, "unavailable")

    async def test_half_of_a_character_and_a_body_or_an_etag_of_another_type_are_refused(
        self,
    ) -> None:
        http, at = Http("http://127.0.0.1:1", "k"), Address("S", "k")
        await self.names("surrogate", http.edit, at, [], reason="\ud800")
        await self.names("surrogate", http.call, "PUT", "/v1/x", body="\ud800")
        await self.names("`body`", http.call, "PUT", "/v1/x", body={"a": 1})
        await self.names("`path`", http.call, "GET", 5)
        await self.names("`etag`", http.put, at, {}, 1.5)

    async def test_a_number_that_nothing_can_hold_is_named_and_no_overflow(self) -> None:
        """It was an `OverflowError`, or a `ValueError` of more digits than Python shows."""
        players: Store[dict[str, Any]] = self.server.store("P", {})
        _, profile = session()
        http, at = Http("http://127.0.0.1:1", "k"), Address("S", "k")
        for large in (10**400, 10**5000, -(10**5000)):
            known: dict[str, Any] = {"key": "k", "job": "eu-1"}
            for option in ("place", "lease_ms", "connect_timeout"):
                await self.names(f"`{option}`", connect, ANYWHERE, **known, **{option: large})
            for option in ("save_within", "data_version", "readable_from"):
                options: dict[str, Any] = {option: large}
                await self.names(f"`{option}`", self.server.store, "P", {}, **options)
            await self.names("`timeout`", players.start, "k", timeout=large)
            await self.names("`timeout`", self.server.close, large)
            trade = self.server.transaction
            await self.names("`deadline_ms`", trade, [profile], put(1), deadline_ms=large)
            await self.names("`epoch`", http.end_session, at, epoch=large)
            await self.names("`which`", http.version, at, large)
            await self.names("user", profile.add_user, large)
        # Seconds that a float holds, and whose milliseconds it does not.
        await self.names("`timeout`", players.start, "k", timeout=1e306)
        await self.names("digits", http.list, "S", limit=10**5000)
        await self.names("names of members", players.send, "k", {10**5000: 1})
        self.assertEqual(self.host.names, ["hello"])

    async def test_what_is_no_address_and_no_version_is_named(self) -> None:
        """It was an `AttributeError`, or a version called `None` was asked for."""
        http, at = Http("http://127.0.0.1:1", "k"), Address("S", "k")
        for other in ("P/k", None, ("P", "k"), 5):
            for ask in (http.get, http.versions, http.messages, http.session, http.end_session):
                await self.names("`at` is of the type Address", ask, other)
            await self.names("`at`", http.put, other, {}, None)
            await self.names("`at`", http.edit, other, [])
            await self.names("`at`", http.send, other, {})
        for which in (None, 1.5, True, b"1", datetime.min.replace(tzinfo=EAST)):
            await self.names("`which`", http.version, at, which)
            await self.names("`which`", http.restore, at, which, None)

    async def test_what_a_call_over_http_sends_is_a_text(self) -> None:
        """They were a `TypeError` and an `AttributeError` of the library below."""
        http, at = Http("http://127.0.0.1:1", "k"), Address("S", "k")
        once = uuid.uuid4()
        await self.names("`Idempotency-Key`", http.restore, at, 1, None, operation=once)
        await self.names("`Idempotency-Key`", http.edit, at, [], operation=once)
        await self.names("`Idempotency-Key`", http.send, at, {}, once)
        await self.names("`patch`", http.edit, at, 5)
        await self.names("`patch`", http.edit, at, ["add"])
        await self.names("`method`", http.call, 5, "/v1/x")
        await self.names("`query`", http.call, "GET", "/v1/x", query="a=b")
        await self.names("`headers`", http.call, "GET", "/v1/x", headers="a: b")
        for moment in (5, datetime.max.replace(tzinfo=WEST)):
            with self.assertRaisesRegex(ProfileError, "`at`"):
                message_id("gift", moment)  # type: ignore[arg-type]

    def test_the_types_of_answers_have_the_members_that_the_description_has(self) -> None:
        folder = Path(__file__).parents[3] / "crates/profilestore-server/api"
        described = json.loads((folder / "openapi.json").read_text())["components"]["schemas"]
        for kind, name in [
            (answers.StoredProfile, "ProfileView"),
            (answers.Version, "VersionView"),
            (answers.HeldBy, "HolderView"),
            (answers.Holder, "SessionView"),
            (answers.Waiting, "MessageView"),
            (answers.Inbox, "Inbox"),
            (answers.Page, "PageOf_VersionView"),
            (answers.Sent, "SentView"),
            (answers.EndedBy, "Ended"),
        ]:
            own = kind.__annotations__
            self.assertEqual(set(own), set(described[name]["properties"]), name)


if __name__ == "__main__":
    unittest.main()
