"""Calls over HTTP against a server that refuses some: what is sent again, and what is not."""

from __future__ import annotations

import threading
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from profilestore import Http, ProfileError

TOO_MANY = '{"kind":"too-many-requests","advice":"retry"}'


class Refusing(ThreadingHTTPServer):
    """Answers with what is left, one answer a request: status, seconds to wait, body."""

    left: list[tuple[int, str, str]]
    asked: list[tuple[str, str | None]]


class Answer(BaseHTTPRequestHandler):
    server: Refusing

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, self.headers["Idempotency-Key"]))
        status, after, body = self.server.left.pop(0)
        self.send_response(status)
        self.send_header("Retry-After", after)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Calls(unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        self.server = Refusing(("127.0.0.1", 0), Answer)
        self.server.left, self.server.asked = [], []
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.http = Http(f"http://127.0.0.1:{self.server.server_port}", "ps_key")

    def tearDown(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    async def call(self) -> str:
        headers = {"Idempotency-Key": "one"}
        return await self.http.call("POST", "/v1/x", body="{}", headers=headers)

    async def test_a_request_over_the_limit_is_sent_again_as_it_was(self) -> None:
        self.server.left = [(429, "0", TOO_MANY), (429, "0", TOO_MANY), (200, "0", "fine")]
        self.assertEqual(await self.call(), "fine")
        self.assertEqual(self.server.asked, [("/v1/x", "one")] * 3)

    async def test_other_refusals_and_a_long_wait_are_told_at_once(self) -> None:
        full = '{"kind":"inbox-full","advice":"retry"}'
        self.server.left = [(429, "0", full), (429, "3600", TOO_MANY)]
        for kind in ["inbox-full", "too-many-requests"]:
            with self.assertRaises(ProfileError) as raised:
                await self.call()
            self.assertEqual(raised.exception.kind, kind)
        self.assertEqual(len(self.server.asked), 2)


if __name__ == "__main__":
    unittest.main()
