"""The kit's driver for Python: JSON lines over standard input and output (docs/sdk.md)."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import profilestore
from profilestore import Profile, ProfileError, Server, belief, connection, edit, errors, jsontext


def say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def event(name: str, session: str = "", **more: Any) -> None:
    say({"event": {"name": name, "as": session, **more}})


def gift(data: Any, message: Any, received: Any) -> None:
    if message.get("broken"):
        data["gifts"] = -1
        raise ValueError("no room")
    got = data.setdefault("got", {})
    got[received.id] = got.get(received.id, 0) + 1
    data["gifts"] = data.get("gifts", 0) + message["coins"]


def change(data: Any, command: dict[str, Any]) -> None:
    for name, by in command.get("add", {}).items():
        data[name] = data.get(name, 0) + by
    for name, value in command.get("set", {}).items():
        data[name] = value
    for name, count in command.get("fill", {}).items():
        data[name] = "x" * count
    if "push" in command:
        data["items"].append(command["push"])
    if command.get("raise"):
        raise ValueError("of the game")


def move(giver: Any, taker: Any, command: dict[str, Any]) -> None:
    item = command["move"]
    if item == "last":
        item = giver["items"][-1] if giver["items"] else None
    if item is not None:
        giver["items"].remove(item)
        taker["items"].append(item)
    if command.get("raise"):
        raise ValueError("of the game")


def no_debts(data: Any) -> None:
    if data.get("coins", 0) < 0:
        raise ValueError("debts are not allowed")


class Driver:
    server: Server
    options: dict[str, Any]

    def __init__(self) -> None:
        self.sessions: dict[str, Profile[Any]] = {}
        self.calls: dict[int, asyncio.Task[None]] = {}

    async def handle(self, command: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"id": command["id"]}
        try:
            answer["ok"] = await getattr(self, command["do"])(command)
        except ProfileError as error:
            answer["error"] = {"kind": error.kind, "advice": error.advice, "message": str(error)}
        except asyncio.CancelledError:
            answer["error"] = {"kind": "cancelled", "advice": "ignore", "message": ""}
        except Exception as error:
            answer["error"] = {"kind": "raised", "advice": "fix", "message": repr(error)}
        say(answer)

    def session(self, command: dict[str, Any]) -> Profile[Any]:
        return self.sessions[command["as"]]

    async def connect(self, command: dict[str, Any]) -> None:
        self.options = command
        self.server = await profilestore.connect(
            command["urls"],
            key=command["key"],
            job=command["job"],
            lease_ms=command["lease_ms"],
            on_fault=lambda fault: event("fault", message=repr(fault)),
        )

    def store(self, command: dict[str, Any]) -> profilestore.Store[Any]:
        return self.server.store(
            self.options["store"],
            command.get("template", self.options["template"]),
            reconcile=command.get("reconcile", False),
            check=no_debts,
            save_within=command.get("save_within_ms", 60_000) / 1000,
            data_version=command.get("data_version"),
        )

    async def start(self, command: dict[str, Any]) -> Any:
        timeout = command.get("timeout_ms")
        profile = await self.store(command).start(
            command["key"],
            when_held=command.get("when_held"),
            timeout=None if timeout is None else timeout / 1000,
        )
        name = command["as"]
        self.sessions[name] = profile

        def ended(end: Any) -> None:
            by = None if end.by is None else end.by._asdict()
            event("end", name, reason=end.reason, by=by, loss=end.has_loss)

        profile.on("end", ended)
        profile.on("release", lambda _: event("release", name))
        profile.on("save-failed", lambda error: event("save-failed", name, kind=error.kind))
        profile.on("message-failed", lambda failed: event("message-failed", name, id=failed.id))
        if "last" in command:
            profile.on_last_save(lambda data: change(data, command["last"]))
        if command.get("messages"):
            profile.on_message("gift", gift)
        return {"data": profile.data, "version": profile.version}

    async def call_off(self, command: dict[str, Any]) -> None:
        for call in [call for call in self.calls.values() if call.get_name() == command["of"]]:
            call.cancel()

    async def messages(self, command: dict[str, Any]) -> None:
        self.session(command).on_message("gift", gift)

    async def update(self, command: dict[str, Any]) -> Any:
        profile = self.session(command)
        profile.update(lambda data: change(data, command))
        return {"data": profile.data}

    async def beside(self, command: dict[str, Any]) -> Any:
        profile = self.session(command)
        if "tags" in command:
            profile.set_tags(command["tags"])
        if "metadata" in command:
            profile.set_metadata(command["metadata"])
        if "user" in command:
            profile.add_user(command["user"])
        users = list(profile.users)
        return {"tags": profile.tags, "metadata": profile.metadata, "users": users}

    async def data(self, command: dict[str, Any]) -> Any:
        return {"data": self.session(command).data}

    async def state(self, command: dict[str, Any]) -> Any:
        profile = self.session(command)
        ended = None if profile.ended is None else profile.ended.reason
        return {"active": profile.is_active, "unsaved": profile.has_unsaved, "ended": ended}

    async def save(self, command: dict[str, Any]) -> Any:
        data = self.session(command).data
        await self.session(command).save()
        return {"data": data}

    async def end(self, command: dict[str, Any]) -> Any:
        profile = self.session(command)
        await profile.end()
        return {"data": profile.data}

    async def trade(self, command: dict[str, Any]) -> Any:
        pair = [self.session(command), self.sessions[command["to"]]]
        gifts = []
        if "gift" in command:
            to = command["gift"]
            message = {"type": "gift", "coins": to["coins"]}
            gifts.append(self.store({}).gift(to["key"], message, to["id"]))
        left: list[Any] = []

        def make(giver: Any, taker: Any) -> None:
            move(giver, taker, command)
            left.extend([giver, taker])

        await self.server.transaction(pair, make, gifts=gifts)
        return {"data": left}

    async def send(self, command: dict[str, Any]) -> Any:
        broken = command.get("broken", False)
        message = {"type": "gift", "coins": command["coins"], "broken": broken}
        if "pad" in command:
            message["pad"] = "x" * command["pad"]
        sent = await self.store({}).send(command["key"], message, command["id_of_message"])
        return {"stored_now": sent}

    async def close(self, command: dict[str, Any]) -> Any:
        profiles = self.server.profiles
        unsaved = await self.server.close(command.get("timeout_ms", 60_000) / 1000)
        saved = [profile.data for profile in profiles if profile not in unsaved]
        return {"unsaved": [profile.key for profile in unsaved], "data": saved}

    async def vector(self, command: dict[str, Any]) -> Any:
        rule = command["rule"]
        if rule == "json":
            return jsontext.stringify(jsontext.parse(command["text"]))
        if rule == "edit":
            return edit.edited(command["data"], command["steps"])
        if rule == "belief":
            at = belief.Moment(command["ping"] / 1000, command.get("ping_wall", 0) / 1000)
            one = belief.Belief.of("a", at, command["age"] / 1000, command["lease"] / 1000)
            if "at" not in command:
                return one.until * 1000
            now = belief.Moment(command["at"] / 1000, command["at_wall"] / 1000)
            return one.holds(command["incarnation"], now)
        if rule == "pause":
            return connection.pause(command["failures"], command["chance"]) * 1000
        error = errors.from_server(command["text"], command["status"])
        return {"kind": error.kind, "advice": error.advice}


async def main() -> None:
    driver = Driver()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: event("fault", message=str(context)))
    reader = asyncio.StreamReader(limit=64 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        command = json.loads(line)
        name = str(command.get("later", ""))
        call = asyncio.create_task(driver.handle(command), name=name)
        driver.calls[command["id"]] = call

        def forget(_: object, number: int = command["id"]) -> None:
            driver.calls.pop(number)

        call.add_done_callback(forget)


if __name__ == "__main__":
    asyncio.run(main())
