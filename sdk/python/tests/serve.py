"""The real server process, on a store of its own."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any

from profilestore import Server, connect


class Serve:
    """Needs ``PROFILESTORE_BIN``: the program, built with its feature ``serve``."""

    def __init__(self, folder: str, key: str) -> None:
        self.folder, self.key = folder, key
        self.port = 0
        self._process: asyncio.subprocess.Process | None = None

    @staticmethod
    async def begin(beside: Serve | None = None) -> Serve:
        """A process on a new store, or one more on another's."""
        if beside is None:
            serve = Serve(tempfile.mkdtemp(prefix="profilestore-sdk-"), "")
        else:
            serve = Serve(beside.folder, beside.key)
        await serve.start()
        return serve

    async def start(self) -> None:
        self._process = process = await asyncio.create_subprocess_exec(
            os.path.abspath(os.environ["PROFILESTORE_BIN"]),
            "serve",
            "--listen",
            f"127.0.0.1:{self.port}",
            "--json",
            cwd=self.folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=None if os.environ.get("SHOW") else asyncio.subprocess.DEVNULL,
        )
        assert process.stdout is not None
        told = json.loads(await process.stdout.readline())
        self.port = int(told["url"].rsplit(":", 1)[1])
        self.key = told.get("key") or self.key

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def send(self, which: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(which)

    async def stop(self, which: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(which)
            await self._process.wait()

    async def remove(self) -> None:
        await self.stop(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


async def connected(url: str | list[str], **options: Any) -> Server:
    """Connects, with time for a slow machine."""
    return await connect(url, **{"connect_timeout": 60.0, **options})


async def until(what: str, is_so: Callable[[], bool | Awaitable[bool]]) -> None:
    """Waits until something is so."""
    for _ in range(6000):
        answer: Any = is_so()
        if await answer if inspect.isawaitable(answer) else answer:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"it never came to this: {what}")
