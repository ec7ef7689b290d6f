"""
The Python driver with one rule broken: ``wrong.py RULE``. The kit must catch each, and for the
reason that belongs to the rule. ``wrong.py --prove KIT [RULE…]`` runs the kit on them, and prints
the table of docs/sdk.md.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import driver
from profilestore import beside, connection, document, jsontext, profile, saver, server, store
from profilestore.frames import compose


class Rule(NamedTuple):
    words: str
    script: str
    """Which script catches a driver that breaks it."""
    because: str
    """What the kit says then, among other words."""
    patch: Callable[[], None]


RULES: dict[str, Rule] = {}


def breaks(
    name: str, words: str, script: str, because: str
) -> Callable[[Callable[[], None]], None]:
    def note(patch: Callable[[], None]) -> None:
        RULES[name] = Rule(words, script, because, patch)

    return note


def before_resending(change: Callable[[Any], None]) -> None:
    welcomed = connection.Connection._welcomed

    def changed(self: Any, link: Any, welcome: Any) -> None:
        change(self)
        welcomed(self, link, welcome)

    connection.Connection._welcomed = changed  # type: ignore[method-assign]


def rewrite(kind: str, old: str, new: str) -> None:
    def change(self: Any) -> None:
        for request in self._requests.values():
            if request.frames[0].startswith(f'{{"{kind}"'):
                request.frames = [text.replace(old, new, 1) for text in request.frames]

    before_resending(change)


@breaks("changes-sent-frames", "a frame that was sent never changes",
        "a change behind a save that is sent again",
        "request-id-reused")
def _() -> None:
    rewrite("save", '"data":{', '"data":{"again":1,')


@breaks("forgets-unanswered", "what is unanswered is sent again after a resume",
        "a save on its way/kill",
        "was never answered")
def _() -> None:
    before_resending(lambda self: self._requests.clear())


@breaks("new-message-id", "a message that is sent again has the same id",
        "a lost answer to a message",
        "request-id-reused")
def _() -> None:
    rewrite("send", ":gift", ":gift-again")


@breaks("forgets-receipts", "a message's effect and its index are in one save",
        "messages over a hand-over",
        ', not {"gifts":7}')
def _() -> None:
    draft = document.Document.draft
    document.Document.draft = (  # type: ignore[method-assign]
        lambda self: draft(self)._replace(processed=[])
    )


@breaks("processes-again", "a message whose index was processed is dropped",
        "a message that is handed out again before it is stored",
        ', not {"gifts":1}')
def _() -> None:
    document.Document.has_seen = lambda *_: False  # type: ignore[method-assign]


@breaks("changes-during-trade", "update answers busy from tx to its answer",
        "a profile in a trade is frozen",
        'did not fail with "busy"')
def _() -> None:
    profile.Profile._must_be_open = lambda self: None  # type: ignore[method-assign]


@breaks("saves-during-trade", "nothing of a session in a tx is saved or ended",
        "a save and an end wait for the trade's answer",
        ', not {"items":[]}')
def _() -> None:
    pump = saver.Saver._pump

    def changed(self: Any) -> None:
        is_frozen, self.is_frozen = self.is_frozen, False
        pump(self)
        self.is_frozen = is_frozen

    saver.Saver._pump = changed  # type: ignore[method-assign]


@breaks("ends-during-trade", "nothing of a session in a tx is saved or ended",
        "a save and an end wait for the trade's answer",
        ', not {"items":["sword"]}')
def _() -> None:
    when_thawed = saver.Saver.when_thawed

    def at_once(self: Any) -> Any:
        self.is_frozen = False
        done = when_thawed(self)
        self._release(self._thawing)
        return done

    saver.Saver.when_thawed = at_once  # type: ignore[method-assign]


@breaks("acknowledges-early", "a save is done when it is stored",
        "a save is not acknowledged before it is stored",
        "save was answered too early")
def _() -> None:
    save = saver.Saver.save

    def changed(self: Any) -> Any:
        save(self)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    saver.Saver.save = changed  # type: ignore[method-assign]


@breaks("ignores-release", "a profile that is asked for is saved and let go",
        "a session that an operator asks for",
        '"loss":true}, not')
def _() -> None:
    profile.Profile._release = lambda *_: None  # type: ignore[method-assign]


@breaks("skips-last-hooks", "the last hooks run before a hand-over",
        "last hooks before a hand-over",
        '{"data":{"coins":0,"items":["sword"]')
def _() -> None:
    profile.Profile.on_last_save = lambda *_: None  # type: ignore[method-assign]


@breaks("begins-anew", "a lost connection is resumed as the same game server",
        "saves at another process/killed",
        'failed: {"kind":"session-ended"')
def _() -> None:
    opened = connection.Connection.opened

    def changed(self: Any, link: Any) -> list[str]:
        self._identity = None
        self._instance += "x"
        return opened(self, link)

    connection.Connection.opened = changed  # type: ignore[method-assign]


@breaks("believes-for-ever", "a session is believed in as the formula says",
        "belief ends when the server is frozen",
        "never came to active=false")
def _() -> None:
    server.Server.is_active = lambda *_: True  # type: ignore[method-assign]


@breaks("sends-no-pings", "pings are sent every 2 s", "belief ends when the server is frozen",
        "never came to active=true")
def _() -> None:
    connection.Connection._ping = lambda self: None  # type: ignore[method-assign]


@breaks("ends-without-last-save", "the last save and the release are one commit",
        "an end on its way/cut",
        ', not {"items":["sword"]}')
def _() -> None:
    def changed(name: str, body: Any, raw: Any = None) -> str:
        return compose(name, body, None if name == "end" else raw)

    saver.compose = changed  # type: ignore[attr-defined]


@breaks("edits-with-play", "an edit is stored alone", "an edit goes alone",
        "the edit is not stored alone")
def _() -> None:
    edit = document.Document.edit

    def changed(self: Any, changes: Any) -> Any:
        _, undo = edit(self, changes)
        return self.draft(), undo

    document.Document.edit = changed  # type: ignore[method-assign]


@breaks("ignores-the-check", "the game may refuse an edit", "an edit that the game refuses",
        '"outcome":"done"')
def _() -> None:
    driver.no_debts = lambda data: None


@breaks("hides-loss", "the game is told of what was lost", "a session that is taken",
        '"loss":false}, not')
def _() -> None:
    finish = profile.Profile._finish
    profile.Profile._finish = (  # type: ignore[method-assign]
        lambda self, reason, by, has_loss: finish(self, reason, by, False)
    )


@breaks("template-overwrites", "reconcile fills in what is missing", "what the template has",
        'gives {"data":{"coins":0')
def _() -> None:
    store.fill = lambda data, template: data.update(template)


@breaks("calls-off-silently", "a start that is called off leaves nothing locked",
        "a start that is called off",
        "held never came to false")
def _() -> None:
    server.Server.call_off = lambda *_: None  # type: ignore[method-assign]
    store.Store._let_go = lambda *_: None  # type: ignore[method-assign]


@breaks("rounds-numbers", "a number is never rounded",
        "a number that not every language holds",
        'stored is {"coins":9223372036854775808')
def _() -> None:
    jsontext._int = lambda token: int(float(token))


@breaks("keeps-failed-effects", "a handler that fails changes nothing", "a handler that fails",
        '"gifts":-1')
def _() -> None:
    def changed(self: Any, change: Callable[[Any], Any]) -> Any:
        data = self.view
        try:
            return change(data)
        finally:
            self.take(jsontext.stringify(data))

    document.Document.change = changed  # type: ignore[method-assign]


@breaks("keeps-refused-starts", "what fails at a start ends, and leaves nothing locked",
        "data that the game refuses/late",
        "held never came to false")
def _() -> None:
    store.Store._let_go = lambda *_: None  # type: ignore[method-assign]


@breaks("drops-tags", "what is beside the data is stored with it",
        "what is beside the data in a trade",
        '"tags":{"vip":3}')
def _() -> None:
    beside.Table.draft = property(lambda self: None)  # type: ignore[assignment]


def prove(kit: str, names: list[str]) -> int:
    """Runs the kit on each. 1 when one is not caught, or for another reason."""

    def said(name: str) -> list[str]:
        """What the kit says is wrong in the script."""
        wrong = f"{sys.executable} {__file__} {name}"
        asked = [kit, "conformance", "--only", RULES[name].script, "--driver", wrong]
        lines = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
        return [line.strip() for line in lines.splitlines() if line.startswith("        ")]

    with ThreadPoolExecutor(4) as several:
        answers = list(zip(names, several.map(said, names), strict=True))
    print("| driver | breaks the rule | caught by | the kit says |")
    print("| --- | --- | --- | --- |")
    is_fine = True
    for name, reasons in answers:
        rule = RULES[name]
        if any(rule.because in reason for reason in reasons):
            verdict = f"{rule.script} | `{rule.because}`"
        else:
            is_fine = False
            verdict = f"NOT CAUGHT, or for another reason | {reasons}"
        print(f"| `{name}` | {rule.words} | {verdict} |")
    return 0 if is_fine else 1


if __name__ == "__main__":
    if sys.argv[1] == "--prove":
        sys.exit(prove(sys.argv[2], sys.argv[3:] or list(RULES)))
    RULES[sys.argv[1]].patch()
    asyncio.run(driver.main())
