"""One WebSocket, from its opening to its end. It runs on the loop of the connection's thread."""

from __future__ import annotations

import asyncio
from typing import Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.protocol import State
from websockets.typing import Subprotocol

from .belief import steady
from .errors import ProfileError, failure, from_server, in_words
from .frames import PROTOCOL, Frame, read

GREETING_S = 10.0
"""How long the opening may take, until the answer to the greeting."""

SILENCE_S = 8.0
"""After how long without a byte the connection counts as lost."""

MAX_PAYLOAD = 32 << 20


class LinkUser(Protocol):
    def opened(self, link: Link) -> list[str]:
        """It is open: the greeting's frames."""

    def frame(self, link: Link, frame: Frame) -> None: ...

    def closed(self, link: Link, why: ProfileError) -> None:
        """It ended, and says nothing any more."""


class Link:
    def __init__(self, url: str, key: str, user: LinkUser) -> None:
        self.url = url
        self.has_greeted = False
        self._user = user
        self._is_closed = False
        self._heard_at = steady()
        self._socket: ClientConnection | None = None
        self._probing: set[asyncio.Task[None]] = set()
        self._out: asyncio.Queue[str | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        late = failure("unavailable", f"no answer to the greeting: {url}")
        self._greeting = self._loop.call_later(GREETING_S, self._end, late)
        self._task = self._loop.create_task(self._run(key))

    async def _run(self, key: str) -> None:
        try:
            self._socket = socket = await connect(
                self.url.rstrip("/") + "/v1/connect",
                subprotocols=[Subprotocol(PROTOCOL)],
                additional_headers={"Authorization": f"Bearer {key}"},
                compression=None,
                max_size=MAX_PAYLOAD,
                open_timeout=None,
                ping_interval=None,
                close_timeout=1,
                proxy=None,
            )
            self._heard_at = steady()
            if self._is_closed:
                return
            greeting = self._user.opened(self)
            self.has_greeted = True
            for frame in greeting:
                self.send(frame)
            writing = self._loop.create_task(self._write(socket))
            try:
                await self._listen(socket)
            finally:
                # The listener ends when the socket does, also when this side closed it.
                writing.cancel()
        except InvalidStatus as error:
            body = bytes(error.response.body or b"").decode("utf-8", "replace")
            self._end(from_server(body, error.response.status_code))
        except (OSError, EOFError, WebSocketException, ValueError, ProfileError) as error:
            self._end(failure("unavailable", f"{self.url}: {in_words(error)}"))
        finally:
            if self._socket is not None:
                self._socket.transport.abort()

    async def _listen(self, socket: ClientConnection) -> None:
        while True:
            try:
                text = await socket.recv()
            except ConnectionClosed as error:
                self._end(failure("unavailable", f"the connection ended: {self.url}: {error}"))
                return
            self._heard_at = steady()
            if self._is_closed or not isinstance(text, str):
                continue
            frame = read(text)
            if frame[0] == "welcome":
                self._greeting.cancel()
            self._user.frame(self, frame)

    async def _write(self, socket: ClientConnection) -> None:
        while (frame := await self._out.get()) is not None:
            try:
                await socket.send(frame)
            except ConnectionClosed:
                return  # What was not answered is sent again.
        await socket.close()

    def send(self, frame: str) -> None:
        if self._socket is not None:
            self._out.put_nowait(frame)

    def probe(self) -> None:
        """Asks for a sign of life. A connection that was silent for too long is given up."""
        if steady() - self._heard_at > SILENCE_S:
            self._end(failure("unavailable", f"the server is silent: {self.url}"))
        elif self._socket is not None and self._socket.state is State.OPEN:
            probe = self._loop.create_task(self._probe(self._socket))
            self._probing.add(probe)
            probe.add_done_callback(self._probing.discard)

    async def _probe(self, socket: ClientConnection) -> None:
        try:
            answer = await socket.ping()
            await answer
            self._heard_at = steady()
        except (OSError, WebSocketException):
            pass  # The listener says so.

    def drop(self) -> None:
        """Gives the link up, with nothing said to its user. What was sent goes out first."""
        if self._is_closed:
            return
        self._is_closed = True
        self._greeting.cancel()
        if self._socket is None:
            self._task.cancel()
        else:
            self._out.put_nowait(None)
            self._loop.call_later(2, self._task.cancel)

    async def ended(self) -> None:
        """Waits until nothing of it is left."""
        await asyncio.wait([self._task])

    def _end(self, why: ProfileError) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._greeting.cancel()
        self._task.cancel()
        self._user.closed(self, why)
