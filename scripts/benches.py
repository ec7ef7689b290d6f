#!/usr/bin/env python3
"""Runs the benches, keeps what they print, and makes the tables of docs/benchmarks.md from it.

    scripts/benches.py                      all groups, five runs each
    scripts/benches.py --runs 1 sqlite      only these groups
    scripts/benches.py --against COMMIT sqlite
                                            these groups, and the same at an earlier commit
    scripts/benches.py --continue           goes on where an interrupted call ended
    scripts/benches.py --page               no bench; makes the page anew from what is kept
    scripts/benches.py --check              fails when the page is not what the kept results make
    scripts/benches.py --list               the groups, with their commands

What a bench prints is kept as it is in docs/benchmarks/results.jsonl, a line for each run, with
date, commit and machine, as soon as the run is over. A group that runs again takes the place of its
earlier runs. With --continue the runs that are kept of this commit and machine stay, and only those
that are missing are made. The runs of all groups take turns, so that each group sees the machine at
several times. A run that takes longer than its limit is ended and left out.

With --against, an earlier commit is checked out and built in the target folder, and each run is a
pair: the earlier program, then this one. They are kept in docs/benchmarks/against.jsonl, and their
table has both and the ratio of each pair.

Needs Python 3.11; `instructions` needs valgrind, `crash-jemalloc` and `crash-shared-jemalloc`
jemalloc, `served-wrk` wrk, `served-node` Node and the SDK for TypeScript built, `postgres`,
`trace-postgres`, `messengers` and `processes` PostgreSQL and nats-server.
"""

import argparse
import ctypes.util
import datetime
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
sys.dont_write_bytecode = True

from bench_figures import PARSERS  # noqa: E402
from bench_page import AGAINST, RESULTS, make_page, write_page  # noqa: E402


@dataclass
class Group:
    """What is run: a bench with arguments, and for how many seconds at most."""

    package: str
    bench: str
    arguments: list[str]
    limit: int
    about: str
    servers: bool = False
    # What runs it alone, where that is not the bench itself.
    alone: str = ""
    # Whether it is run only when it is named: it takes long, or much memory.
    only_named: bool = False
    environment: dict[str, str] = field(default_factory=dict)

    def command(self) -> str:
        if self.alone:
            return self.alone
        settings = "".join(f"{name}={value} " for name, value in self.environment.items())
        features = " --features postgres,nats" if self.servers else ""
        arguments = " -- " + " ".join(self.arguments) if self.arguments else ""
        servers = "scripts/servers.sh " if self.servers else ""
        bench = f"cargo bench -p {self.package}{features} --bench {self.bench}{arguments}"
        return f"{settings}{servers}{bench}"


LIBRARY, LUAU, SERVER = "profilestore", "profilestore-luau", "profilestore-server"
# Its program is no bench: scripts/large.sh runs and measures its commands.
COMMANDS = "profilestore-cli"
GROUPS = {
    "sqlite": Group(LIBRARY, "sqlite", [], 120, "the store alone, beside its bare statements"),
    # For pairs with commits before 2026-11-28, whose bench knew no other order.
    "sqlite-in-order": Group(
        LIBRARY,
        "sqlite",
        [],
        120,
        "the store alone, keys in the order of the file",
        only_named=True,
        environment={"IN_ORDER": "1"},
    ),
    "instructions": Group(
        LIBRARY,
        "sqlite",
        [],
        600,
        "instructions of a save, counted by valgrind",
        alone="scripts/benches.py --runs 1 instructions",
    ),
    "sessions": Group(LIBRARY, "sessions", [], 300, "saves, hand-overs, CPU and memory"),
    "trace": Group(LIBRARY, "trace", [], 60, "where the time of a hand-over goes"),
    "trace-process": Group(
        LIBRARY, "trace", ["process"], 60, "where the time of a hand-over goes, in one process"
    ),
    "trace-postgres": Group(
        LIBRARY,
        "trace",
        ["postgres"],
        120,
        "where the time of a hand-over goes, on PostgreSQL",
        servers=True,
    ),
    "live": Group(LIBRARY, "many", ["live", "100000"], 300, "100,000 sessions in one process"),
    "crash": Group(LIBRARY, "many", ["crash", "100000"], 300, "play lost, 100,000 sessions"),
    "crash-jemalloc": Group(
        LIBRARY,
        "many",
        ["crash", "100000"],
        300,
        "play lost, 100,000 sessions, with jemalloc",
        environment={"LD_PRELOAD": "libjemalloc.so.2"},
    ),
    "crash-shared": Group(
        LIBRARY,
        "many",
        ["crash-shared", "100000"],
        300,
        "play lost, 100,000 sessions, seldom changed parts behind Arc",
    ),
    "crash-shared-jemalloc": Group(
        LIBRARY,
        "many",
        ["crash-shared", "100000"],
        300,
        "play lost, 100,000 sessions, seldom changed parts behind Arc, with jemalloc",
        environment={"LD_PRELOAD": "libjemalloc.so.2"},
    ),
    "edit-all": Group(LIBRARY, "edit_all", [], 300, "one edit for 100,000 profiles"),
    "million": Group(
        LIBRARY,
        "many",
        ["live", "1000000"],
        3600,
        "1,000,000 sessions in one process",
        only_named=True,
    ),
    "calm-1": Group(
        LIBRARY,
        "many",
        ["calm", "1000000", "1"],
        1800,
        "1,000,000 calm sessions with data of 1 KB",
        only_named=True,
    ),
    "calm-4": Group(
        LIBRARY,
        "many",
        ["calm", "1000000", "4"],
        1800,
        "1,000,000 calm sessions with data of 4 KB",
        only_named=True,
    ),
    "growth": Group(LIBRARY, "growth", [], 900, "what the size of a store costs"),
    "operators": Group(
        COMMANDS,
        "profilestore",
        ["1000000", "--versions", "1", "--only", "import,list,search,export"],
        3600,
        "operators' commands on 1,000,000 profiles",
        alone="scripts/benches.py --runs 1 operators",
        only_named=True,
    ),
    "served": Group(SERVER, "served", [], 600, "sessions through a server process"),
    "served-roll": Group(SERVER, "served", ["roll"], 900, "server processes replaced under play"),
    "served-crash": Group(SERVER, "served", ["crash"], 600, "play lost, 10,000 remote sessions"),
    "served-stopped": Group(
        SERVER, "served", ["stopped"], 900, "a game server stopped for 30 s", only_named=True
    ),
    "served-many": Group(
        SERVER,
        "served",
        ["many"],
        1800,
        "100,000 sessions on one server process",
        only_named=True,
    ),
    "served-wrk": Group(
        SERVER, "served", ["wrk"], 300, "reads over HTTP, asked by wrk", only_named=True
    ),
    "served-node": Group(
        SERVER,
        "served",
        ["node"],
        300,
        "one Node process with the SDK beside the Rust client",
        only_named=True,
    ),
    "luau-cpu": Group(LUAU, "luau", ["cpu"], 300, "a save of a game in Luau"),
    "luau-memory": Group(LUAU, "luau", ["memory"], 300, "an open session of a game in Luau"),
    "luau-hour": Group(
        LUAU, "luau", ["hour"], 1200, "10,000 sessions in Luau for a virtual hour", only_named=True
    ),
    "postgres": Group(LIBRARY, "postgres", ["saves"], 300, "saves beside pgbench", servers=True),
    "messengers": Group(
        LIBRARY, "postgres", ["messengers"], 300, "hand-overs between processes", servers=True
    ),
    "processes": Group(
        LIBRARY,
        "postgres",
        ["processes", "16"],
        300,
        "16 processes on one database",
        servers=True,
        environment={"SECONDS": "10"},
    ),
    "processes-200": Group(
        LIBRARY,
        "postgres",
        ["processes", "200"],
        900,
        "200 processes on one database",
        servers=True,
        only_named=True,
        environment={"SECONDS": "10", "POSTGRES_CONNECTIONS": "700"},
    ),
}

# Parts of the bench `sqlite` whose instructions are counted, and with how many saves.
PARTS = ("store", "bare", "writes")
SAVES = (10_000, 30_000)


def build(groups: list[Group], root: Path = ROOT) -> dict[str, str]:
    """Builds the benches, and gives the program of each."""
    programs = {}
    environment = dict(os.environ)
    if root != ROOT:
        environment["CARGO_TARGET_DIR"] = str(root / "target")
    for package in sorted({group.package for group in groups}):
        mine = [group for group in groups if group.package == package]
        build_it, kind = ["bench", "--no-run"], "bench"
        if package == COMMANDS:
            build_it, kind = ["build", "--release"], "bin"
        command = ["cargo", *build_it, "--message-format=json", "-p", package]
        if any(group.servers for group in mine):
            command += ["--features", "postgres,nats"]
        for bench in sorted({group.bench for group in mine}):
            command += [f"--{kind}", bench]
        built = subprocess.run(
            command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        for line in built.stdout.splitlines():
            message = json.loads(line)
            if message.get("executable") and kind in message["target"]["kind"]:
                programs[message["target"]["name"]] = message["executable"]
    return programs


def run(command: list[str], limit: int, environment: dict[str, str] | None = None) -> str:
    """What a program prints. It is ended, with all that it started, when its time is over."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | (environment or {}),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=limit)
    except BaseException:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        raise
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command, output)
    return output


def count_instructions(program: str, limit: int) -> str:
    """A line for each part and number of committers: instructions of a save, without its setup."""
    lines = []
    for committers in (32, 256):
        for part in PARTS:
            counts = []
            for saves in SAVES:
                setting = {"PART": part, "COMMITTERS": str(committers), "SAVES": str(saves)}
                with tempfile.NamedTemporaryFile("r") as report:
                    # Virtual machines often have no counters of the processor's own.
                    counting = ["valgrind", "--tool=cachegrind", "--cache-sim=no"]
                    counting += ["--cachegrind-out-file=/dev/null", f"--log-file={report.name}"]
                    run([*counting, program], limit, setting)
                    counted = [line for line in report if "refs:" in line]
                counts.append(int(counted[0].split(":")[1].replace(",", "")))
            each = (counts[1] - counts[0]) / (SAVES[1] - SAVES[0])
            lines.append(f"{committers} committers, {part}: {each:.0f} instructions a save")
    return "\n".join(lines) + "\n"


def one_run(name: str, group: Group, programs: dict[str, str], sizes: list[int]) -> str:
    program = programs[group.bench]
    if name == "instructions":
        return count_instructions(program, group.limit)
    if preloaded := group.environment.get("LD_PRELOAD"):
        # The loader only warns when it is not there.
        library = preloaded.removeprefix("lib").split(".so")[0]
        if ctypes.util.find_library(library) != preloaded:
            raise LookupError(f"{preloaded} is not installed")
    arguments, limit = group.arguments, group.limit
    if name == "growth":
        # A slow disk may take some minutes for 10,000,000 profiles.
        arguments, limit = [str(size) for size in sizes], limit + max(sizes) // 4000
    command = [program, *arguments]
    if group.servers:
        command = ["scripts/servers.sh", *command]
    if group.package == COMMANDS:
        command = ["scripts/large.sh", *command]
    return run(command, limit, group.environment)


def machine() -> str:
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return f"{os.cpu_count()} cores of {model}, {platform.system()}"


def git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout.strip()


def commit() -> str:
    # What this script writes is no change of what it measures.
    changed = git("status", "--porcelain", "--untracked-files=no", ":!docs")
    return git("rev-parse", "--short", "HEAD") + (" with changes" if changed else "")


def earlier(rev: str, names: list[str]) -> dict[str, str]:
    """Builds an earlier commit in a folder that is kept, as building it takes long."""
    folder = ROOT / "target" / f"against-{rev}"
    if not folder.exists():
        git("worktree", "prune")
        git("worktree", "add", "--detach", str(folder), rev)
    return build([GROUPS[name] for name in names], folder)


def measure(
    names: list[str], runs: int, sizes: list[int], against: str, go_on: bool
) -> list[dict]:
    before = earlier(against, names) if against else None
    programs = build([GROUPS[name] for name in names])
    facts = {"date": datetime.date.today().isoformat(), "commit": commit(), "machine": machine()}
    if against:
        facts["against"] = against
    file = AGAINST if against else RESULTS
    same = {name: fact for name, fact in facts.items() if name != "date"}
    results = [result for result in kept(file) if go_on and same.items() <= result.items()]
    for number in range(1, runs + 1):
        for name in names:
            if sum(result["group"] == name for result in results) >= number:
                continue
            load = os.getloadavg()[0]
            began = datetime.datetime.now()
            try:
                pair = {"before": one_run(name, GROUPS[name], before, sizes)} if before else {}
                output = one_run(name, GROUPS[name], programs, sizes)
                # What cannot be read as figures is not kept: no page could be made of it.
                for printed in [*pair.values(), output]:
                    PARSERS[name](printed)
            except (subprocess.SubprocessError, OSError, LookupError, ValueError) as problem:
                print(f"{name}, run {number}: left out: {problem}", file=sys.stderr, flush=True)
                continue
            took = (datetime.datetime.now() - began).total_seconds()
            print(f"== {name}, run {number} of {runs} ({took:.0f} s)\n{output}", flush=True)
            results.append(
                {"group": name, "command": GROUPS[name].command(), "about": GROUPS[name].about}
                | facts
                | pair
                | {"load": round(load, 1), "seconds": round(took), "output": output}
            )
            keep(file, results)
    return results


def kept(file: Path) -> list[dict]:
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line) for line in lines]


def keep(file: Path, results: list[dict]) -> None:
    again = {result["group"] for result in results}
    order = list(GROUPS)
    all_results = [result for result in kept(file) if result["group"] not in again] + results
    all_results.sort(key=lambda result: order.index(result["group"]))
    file.parent.mkdir(exist_ok=True)
    # The old file stays until the new one is whole.
    whole = file.with_suffix(".new")
    whole.write_text("".join(json.dumps(result) + "\n" for result in all_results))
    whole.replace(file)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("groups", nargs="*", metavar="GROUP", help="only these")
    parser.add_argument("--runs", type=int, default=5, help="how often each is run (5)")
    parser.add_argument(
        "--sizes",
        nargs="+",
        # A group's name behind it is refused, and not taken for a size.
        type=int,
        metavar="PROFILES",
        default=[10_000, 100_000, 1_000_000],
        help="sizes of the group growth; 10000000 needs 3.6 GB and took three minutes",
    )
    parser.add_argument("--against", metavar="COMMIT", default="", help="an earlier commit beside")
    parser.add_argument(
        "--continue", action="store_true", dest="go_on", help="keep the runs of this commit"
    )
    parser.add_argument("--page", action="store_true", help="make the page anew")
    parser.add_argument("--check", action="store_true", help="fail when the page is old")
    parser.add_argument("--list", action="store_true", help="name the groups")
    given = parser.parse_args()
    unknown = [name for name in given.groups if name not in GROUPS]
    if unknown or given.runs < 1:
        parser.error(f"no such group: {', '.join(unknown)}" if unknown else "--runs is at least 1")
    if given.list:
        for name, group in GROUPS.items():
            named = "only when it is named, " if group.only_named else ""
            print(f"{name:<21} {group.about} ({named}at most {group.limit} s a run)")
            print(f"    {group.command()}")
        return 0
    if not (given.page or given.check):
        against = git("rev-parse", "--short", given.against) if given.against else ""
        usual = [name for name, group in GROUPS.items() if not group.only_named]
        names = given.groups or usual
        results = measure(names, given.runs, given.sizes, against, given.go_on)
        if not results:
            print("no run came to its end; nothing was kept", file=sys.stderr)
            return 1
    old = write_page(make_page(kept(RESULTS), kept(AGAINST)), only_check=given.check)
    if given.check and old:
        print(f"old: {', '.join(old)}; scripts/benches.py --page makes it anew", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
