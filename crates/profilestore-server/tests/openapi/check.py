"""Asks the real server what its description says, and much that it does not.

    PROFILESTORE_BIN=…/profilestore VENV/bin/python check.py

Schemathesis makes some thousand requests from `api/openapi.json`, those that fit it and those that
do not. Each answer must be one that the description has: no status 500, no status, header, type of
content or member that is not described, no request taken that should be refused. `SEED=7` makes
other requests; the same seed makes the same ones again, but for what the server draws itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DESCRIPTION = HERE.parent.parent / "api/openapi.json"
PLAYER = "/v1/stores/PlayerData/profiles/user-1"

# A WebSocket, streams without an end, and what would revoke the key that asks.
LEFT_OUT = ["connect", "watch_live", "watch_bulk_edit", "revoke_key"]


class Served:
    """A server process on a new store, with something in it."""

    def __init__(self, folder: str) -> None:
        program = os.path.abspath(os.environ["PROFILESTORE_BIN"])
        self.log = Path(folder, "log")
        self.process = subprocess.Popen(
            [program, "serve", "--listen", "127.0.0.1:0", "--json"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            env={**os.environ, "PROFILESTORE_LOG": "warn"},
        )
        assert self.process.stdout is not None
        told = json.loads(self.process.stdout.readline())
        self.url, self.key = told["url"], told["key"]

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self.key}",
                "Content-Type": "application/json",
                **{name.replace("_", "-"): value for name, value in headers.items()},
            },
        )
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def fill(self) -> None:
        made = self.ask("PUT", PLAYER, {"data": {"coins": 1}}, If_None_Match="*")
        self.ask("PUT", PLAYER, {"data": {"coins": 2}}, If_Match=made["etag"])
        send = {"Idempotency_Key": f"{int(time.time() * 1000)}:gift"}
        member = {"name": "ann", "role": "viewer", "password": "correct horse"}
        for key in ["a", "b"]:
            path = f"/v1/stores/S/scopes/T/profiles/{key}"
            self.ask("PUT", path, {"data": [key]}, If_None_Match="*")
        self.ask("POST", f"{PLAYER}/messages", {"message": {"coins": 5}}, **send)
        self.ask("POST", "/v1/members", member)

    def stop(self) -> str:
        """Ends it. What is wrong with it, if something is."""
        alive = self.process.poll() is None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait()
        log = self.log.read_text()
        if not alive or code != 0:
            return f"the server ended with {code}:\n{log}"
        return log if "panicked" in log else ""


def operation_ids() -> set[str]:
    api = json.loads(DESCRIPTION.read_text())
    return {each["operationId"] for path in api["paths"].values() for each in path.values()}


def main() -> int:
    unknown = set(LEFT_OUT) - operation_ids()
    if unknown:
        raise SystemExit(f"these operations are left out and do not exist: {unknown}")
    with tempfile.TemporaryDirectory(prefix="profilestore-openapi-") as folder:
        served = Served(folder)
        try:
            served.fill()
            command = [str(Path(sys.executable).with_name("st"))]
            command += ["--config-file", str(HERE / "schemathesis.toml"), "run", str(DESCRIPTION)]
            command += ["--url", served.url, "-H", f"Authorization: Bearer {served.key}"]
            command += ["--phases", "coverage,fuzzing,stateful", "--max-examples", "20"]
            command += ["--seed", os.environ.get("SEED", "1"), "--generation-database", "none"]
            command += ["--request-timeout", "60", "--suppress-health-check", "all"]
            command += ["--warnings", "off", "--no-color", "--continue-on-failure"]
            for operation in LEFT_OUT:
                command += ["--exclude-operation-id", operation]
            code = subprocess.run(command, cwd=folder).returncode
            # The key that asked is still one.
            served.ask("GET", "/v1/me")
        finally:
            wrong = served.stop()
    print(wrong, end="")
    return 1 if code or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
