"""Checks what is in this folder against the real program.

    PROFILESTORE_BIN=…/profilestore PYTHONPATH=sdk/python/src python ops/check.py

A server process serves, a game server plays, and Prometheus scrapes. Then every expression of the
alerts and of the dashboard must find a series. The comparison of an alert is left out: nothing is
wrong here. It needs Debian's package `prometheus`, and the Python SDK's one dependency.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from profilestore import connect

OPS = Path(__file__).parent
JOB = "profilestore"
# A scrape each second, and enough of them for a rate.
SCRAPED = 6
PATIENCE_S = 60


def dashboard() -> list[tuple[str, str]]:
    """Each panel's title and expression."""
    board = json.loads((OPS / "grafana/profilestore.json").read_text())
    found = []
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            text = target["expr"].replace("$__rate_interval", "1m").replace("$job", JOB)
            found.append((panel["title"], text))
    return found


def without_comparison(expression: str) -> str:
    left = re.split(r"\s(?:==|>)\s(?=[^\s]+$)", expression.strip())
    if len(left) != 2:
        raise SystemExit(f"an alert that compares nothing: {expression}")
    return left[0]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class Prometheus:
    """The real one, with the rules of this folder, in a folder of its own."""

    def __init__(self, folder: Path, target: str, key: str) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        (folder / "key").write_text(key)
        text = (OPS / "prometheus/prometheus.yml").read_text()
        for old, new in [
            ("scrape_interval: 15s", "scrape_interval: 1s\n  evaluation_interval: 1s"),
            ("alerts.yaml", str(OPS.resolve() / "prometheus/alerts.yaml")),
            ("/etc/prometheus/profilestore-key", str(folder / "key")),
            ("127.0.0.1:7400", target),
        ]:
            if text.count(old) != 1 and old != "alerts.yaml":
                raise SystemExit(f"prometheus.yml has no {old!r}")
            text = text.replace(old, new)
        (folder / "prometheus.yml").write_text(text)
        self._log = (folder / "prometheus.log").open("w+")
        self._process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address={self.url.removeprefix('http://')}",
            ],
            stdout=self._log,
            stderr=self._log,
        )

    def ask(self, path: str, **query: str) -> Any:
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{query}: {error.read().decode()}") from error

    def scraped(self) -> None:
        """Waits until it has read the metrics often enough."""
        until = time.monotonic() + PATIENCE_S
        query = f'min(count_over_time(profilestore_sessions{{job="{JOB}"}}[10m]))'
        while True:
            try:
                found = self.ask("query", query=query)["result"]
            except OSError:
                found = []
            if found and float(found[0]["value"][1]) >= SCRAPED:
                return
            if time.monotonic() > until:
                self._log.seek(0)
                raise SystemExit(f"Prometheus has not scraped: {found}\n{self._log.read()}")
            time.sleep(0.3)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._log.close()


async def play(url: str, key: str) -> None:
    """A little of everything that moves a metric."""
    async with await connect(url, key=key, job="ops") as game:
        players = game.store("PlayerData", {"coins": 0})
        ann, ben = await asyncio.gather(players.start("ann"), players.start("ben"))
        ann.on_message("gift", lambda data, gift, received: data.update(coins=gift["coins"]))
        for _ in range(5):
            with ben.updating() as data:
                data["coins"] += 1
            await ben.save()
        await players.send("ann", {"type": "gift", "coins": 5})
        await game.transaction([ann, ben], lambda a, b: b.update(coins=b["coins"] + 1))
        await asyncio.sleep(1)


def series(prometheus: Prometheus) -> int:
    """Asks every expression. How many there are."""
    groups = prometheus.ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    wrong = [f"{rule['name']}: {rule['lastError']}" for rule in rules if rule.get("lastError")]
    expressions = [(rule["name"], without_comparison(rule["query"])) for rule in rules]
    expressions += dashboard()
    for where, expression in expressions:
        if not prometheus.ask("query", query=expression)["result"]:
            wrong.append(f"{where}: no series for {expression}")
    if wrong:
        raise SystemExit("\n".join(wrong))
    return len(expressions)


def main() -> None:
    rules = OPS / "prometheus/alerts.yaml"
    subprocess.run(["promtool", "check", "rules", str(rules)], check=True, stdout=sys.stderr)
    folder = Path(tempfile.mkdtemp(prefix="profilestore-ops-"))
    serve = subprocess.Popen(
        [os.path.abspath(os.environ["PROFILESTORE_BIN"]), "serve", "--listen", "127.0.0.1:0", "--json"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    prometheus = None
    try:
        assert serve.stdout is not None
        told = json.loads(serve.stdout.readline())
        target = told["url"].removeprefix("http://")
        prometheus = Prometheus(folder, target, told["key"])
        asyncio.run(play(f"ws://{target}", told["key"]))
        prometheus.scraped()
        print(f"{series(prometheus)} expressions, each with a series")
    finally:
        if prometheus is not None:
            prometheus.stop()
        serve.terminate()
        serve.wait()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
