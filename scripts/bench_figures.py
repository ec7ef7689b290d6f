"""What the output of each bench says, as figures."""

import re

import bench_served
from bench_figure import Figure, found, number, rows


def sqlite(output: str) -> list[Figure]:
    figures = []
    # Earlier programs did not run the writes alone.
    cells = 8 if "writes /s" in output else 7
    for committers, bare, *writes, store, _, _, _, p99 in rows(output, cells):
        at_once = f"{committers:.0f} at once"
        what = f"commits, {at_once}"
        figures += [
            Figure(what, store, "/s", "the bare statements", bare),
            *(Figure(f"{what}, beside less", store, "/s", "the writes", base) for base in writes),
            Figure(f"the slowest of a hundred, {at_once}", p99, "ms"),
        ]
    return figures + left_by_a_save(output)


def left_by_a_save(output: str) -> list[Figure]:
    """Nothing, where an earlier program has not measured it."""
    everywhere = re.findall(r"bytes that a save leaves: ([\d.]+)$", output, re.MULTILINE)
    outcomes = re.findall(r"bytes that a save leaves in `settled`: ([\d.]+)", output)
    # Earlier programs told of all tables too, of which vacuum takes parts away.
    earlier = r"bytes that a save leaves: .* in all tables, ([\d.]+) of them in `settled`"
    outcomes += re.findall(earlier, output)
    what = "bytes that a save leaves"
    figures = [Figure(what, number(count), "bytes") for count in everywhere]
    figures += [Figure(f"{what} in `settled`", number(count), "bytes") for count in outcomes]
    return figures


def instructions(output: str) -> list[Figure]:
    counts = {}
    pattern = r"(\d+) committers, (\w+): (\d+) instructions"
    for committers, part, count in re.findall(pattern, output):
        counts[(committers, part)] = number(count)
    figures = []
    for committers in dict.fromkeys(committers for committers, _ in counts):
        figures.append(
            Figure(
                f"instructions of a save, {committers} at once",
                counts[(committers, "store")],
                "",
                "the bare statements",
                counts[(committers, "bare")],
            )
        )
    if not figures:
        raise ValueError("no instructions were counted")
    return figures


def sessions(output: str) -> list[Figure]:
    [sync] = found(r"with fdatasync: ([\d.]+)/s", output)
    figures = [
        Figure(f"saves, {count:.0f} at once", rate, "/s", "4 KB overwritten and synced", sync)
        for count, rate, _, _, _ in rows(output, 5)
    ]
    [commit] = found(r"one bare commit of the same store: p50 ([\d.]+) ms", output)
    for where in ("in one process", "between two processes"):
        p50, p99 = found(rf"{where}: +p50 ([\d.]+) ms, p99 ([\d.]+) ms", output)
        figures.append(Figure(f"hand-over {where}, p50", p50, "ms", "a bare commit", commit))
        figures.append(Figure(f"hand-over {where}, p99", p99, "ms"))
    [serialising] = found(r"serialising the data: ([\d.]+) us", output)
    [own] = found(r"the library itself ([\d.]+) us", output)
    figures.append(
        Figure("CPU of a save, the library alone", own, "µs", "serialising the data", serialising)
    )
    [data, beyond] = found(r"the data itself \(the bare structs\) (\d+): (-?\d+) beyond it", output)
    figures.append(Figure("an idle session beyond its data", beyond, "bytes", "its data", data))
    return figures


def beside_parts(what: str, p50: float, output: str) -> list[Figure]:
    """A hand-over beside what it is made of; nothing, where an earlier program says no parts."""
    pattern = r"3 bare commits .*?2 bare hints.*?: ([\d.]+) ms; (?:the|a) hand-over"
    what, beside = f"{what}, beside its parts", "3 bare commits + 2 bare hints"
    parts = re.findall(pattern, output)[:1]
    return [Figure(what, p50, "ms", beside, number(base)) for base in parts]


def trace(output: str) -> list[Figure]:
    p50, commit = found(r"p50 ([\d.]+) ms \(one bare commit: p50 ([\d.]+) ms\)", output)
    calls, within, between = found(
        r"(\d+) calls; ([\d.]+) ms within them, ([\d.]+) ms between them", output
    )
    [place] = re.findall(r"hand-over between two stores on one ([\w, ]+): p50", output)
    what = f"hand-over between two stores on one {place}"
    return [
        Figure(f"{what}, p50", p50, "ms", "a bare commit", commit),
        *beside_parts(what, p50, output),
        Figure("in it, calls of the store", calls, ""),
        Figure("in it, within calls of the store", within, "ms"),
        Figure("in it, between calls", between, "ms"),
    ]


def live(output: str) -> list[Figure]:
    [memory, data] = found(r"memory (\d+) MB, [\s\S]*?the data's own (\d+) MB", output)
    figures = [Figure("memory of all", memory, "MB", "the data's own", data)]
    for what, pattern in [
        ("opened", r"opening them all, \d+ at a time +([\d.]+) s"),
        ("a tenth handed over", r"handing over \d+ of them, \d+ at a time +([\d.]+) s"),
        ("the rest saved and shut down", r"shutdown, \d+ of them [a-z ]+ ([\d.]+) s"),
    ]:
        figures.append(Figure(what, *found(pattern, output), "s"))
    for what, pattern in [
        ("idle", r"doing nothing +[\d.]+ s, CPU +[\d.]+ s \(([\d.]+) cores\)"),
        ("all saved within 30 s", r"spread over 30 s +[\d.]+ s, CPU +[\d.]+ s \(([\d.]+) cores\)"),
    ]:
        figures.append(Figure(what, *found(pattern, output), "cores"))
    figures.append(Figure("not saved at the end", *found(r"not saved: (\d+)", output), "profiles"))
    return figures


def calm(output: str) -> list[Figure]:
    [data] = found(r"([\d.]+) bytes in memory", output)
    figures = []
    for when in ("opened", "idle", "autosaved", "handed over"):
        [beyond] = found(rf"  {when}: (-?\d+) bytes a session beyond its data", output)
        what = f"a session beyond its data, {when}"
        figures.append(Figure(what, beyond, "bytes", "its data", data))
    [most] = found(r"  shut down: .*?, at most (\d+) MB", output)
    figures.append(Figure("memory of all, at most", most, "MB"))
    for what, pattern in [
        ("opened", r"opening them all, \d+ at a time +([\d.]+) s"),
        ("one in a hundred autosaved within 60 s", r"autosaves of \d+ that changed +([\d.]+) s"),
        ("some handed over", r"handing over \d+ that changed, \d+ at a time +([\d.]+) s"),
        ("the rest shut down", r"shutdown of the other \d+ +([\d.]+) s"),
    ]:
        figures.append(Figure(what, *found(pattern, output), "s"))
    [cores] = found(r"doing nothing +[\d.]+ s, CPU +[\d.]+ s \(([\d.]+) cores\)", output)
    [p50] = found(r"each p50 ([\d.]+) ms", output)
    [unsaved] = found(r"unsaved after that: (\d+)", output)
    [lost] = found(r"not saved: (\d+)", output)
    return [
        *figures,
        Figure("idle", cores, "cores"),
        Figure("a hand-over of them, p50", p50, "ms"),
        Figure("not autosaved in time", unsaved, "profiles"),
        Figure("not saved at the end", lost, "profiles"),
    ]


def crash(output: str) -> list[Figure]:
    pattern = r"p50 ([\d.]+) s, p99 [\d.]+ s, most ([\d.]+) s; (\d+) saves a second; CPU ([\d.]+)"
    p50, most, saves, cores = found(pattern, output)
    return [
        Figure("play lost, p50", p50, "s"),
        Figure("play lost, at most", most, "s"),
        Figure("saves", saves, "/s"),
        Figure("processor", cores, "cores"),
    ]


def edit_all(output: str) -> list[Figure]:
    return [
        Figure("edited", *found(r"edit --all: ([\d.]+) s", output), "s"),
        Figure("undone again", *found(r"undone: ([\d.]+) s", output), "s"),
    ]


# The columns of the bench `growth` whose times are plotted.
GROWTH = ["open", "start", "save", "hand-over", "commit", "get", "page", "user"]


def growth(output: str) -> list[Figure]:
    figures = []
    for profiles, megabytes, *times, gets, selects in rows(output, 4 + len(GROWTH)):
        size = f"{profiles:,.0f}"
        figures.append(Figure(f"{size}: file", megabytes, "MB"))
        for name, time in zip(GROWTH, times, strict=True):
            figures.append(Figure(f"{size}: {name}", time, "ms"))
        figures.append(Figure(f"{size}: reads", gets, "/s"))
        figures.append(Figure(f"{size}: bare reads", selects, "/s"))
    return figures


def luau_cpu(output: str) -> list[Figure]:
    figures = []
    for part in output.split("CPU a save of ")[1:]:
        size = f"{number(part.split()[0]) / 1000:.1f} KB"
        [encoding] = found(r"encoding alone .*?: +([\d.]+) us", part)
        [engine] = found(r"the engine and the store alone.*?: +([\d.]+) us", part)
        what = f"the engine and the store alone, {size}"
        figures.append(Figure(what, engine, "µs", "encoding the data", encoding))
        saves = re.findall(r"(\w+) +edit, save, wait ([\w ]*?) *: +([\d.]+) us", part)
        if not saves:
            raise ValueError("no save of a module was measured")
        for module, wait, cpu in saves:
            what = f"{module}, wait {wait}, {size}"
            figures.append(Figure(what, number(cpu), "µs", "encoding the data", encoding))
    if not figures:
        raise ValueError("no CPU was measured")
    return figures


def luau_hour(output: str) -> list[Figure]:
    figures = []
    for module in ("ProfileStore", "ProfileService"):
        pattern = rf"{module} +opened in ([\d.]+) s of CPU; the hour ([\d.]+) s of CPU"
        opened, hour = found(pattern, output)
        figures.append(Figure(f"{module}, opened: CPU", opened, "s"))
        figures.append(Figure(f"{module}, the hour: CPU", hour, "s"))
    return figures


def luau_memory(output: str) -> list[Figure]:
    [tables] = found(r"of JSON each: +([\d.]+) KB each", output)
    figures = []
    for module in ("ProfileStore", "ProfileService"):
        pattern = rf"{module} +opened: +([\d.]+) KB each, after an autosave: +([\d.]+) KB"
        opened, saved = found(pattern, output)
        figures.append(Figure(f"{module}, opened", opened, "KB", "its tables alone", tables))
        figures.append(Figure(f"{module}, autosaved", saved, "KB", "its tables alone", tables))
    return figures


def postgres(output: str) -> list[Figure]:
    figures = []
    for clients, one, same, single, _, _, batched, _, _ in rows(output, 9):
        at_once = f"{clients:.0f} at once"
        what = f"lone saves, {at_once}"
        figures += [
            Figure(what, single, "/s", "the same statement in pgbench", same),
            Figure(f"{what}, beside less", single, "/s", "a bare UPDATE in pgbench", one),
            Figure(f"saves in batches, {at_once}", batched, "/s", "lone saves", single),
        ]
    # The most that the store makes of batches, beside what the database makes of them; nothing,
    # where an earlier program has not measured that.
    what, beside = "saves in batches, 256 at once, beside more", "rows of bare UPDATEs of 64 rows"
    for rows_a_second in re.findall(r"rows at a time: (\d+) rows a second", output):
        figures.append(Figure(what, batched, "/s", beside, number(rows_a_second)))
    return figures + left_by_a_save(output)


def messengers(output: str) -> list[Figure]:
    figures = []
    for part in output.split("two processes, ")[1:]:
        name = part.splitlines()[0].strip()
        [hint] = found(r"bare hints at .*?heard, p50 ([\d.]+) ms", part)
        for what, pattern in [
            ("hand-over at once", r"hand-overs at once: p50 ([\d.]+) ms"),
            ("hand-over behind a pause", r"hand-overs behind a pause: p50 ([\d.]+) ms"),
            ("message", r"messages: p50 ([\d.]+) ms"),
        ]:
            [p50] = found(pattern, part)
            figures.append(Figure(f"{what} over {name}, p50", p50, "ms", "a bare hint", hint))
            if what.startswith("hand-over"):
                figures += beside_parts(f"{what} over {name}", p50, part)
    if not figures:
        raise ValueError("no messenger was measured")
    return figures


def processes(output: str) -> list[Figure]:
    [saves, errors, ready, memory] = found(
        r"  (\d+) saves a second of all; (\d+) errors; ready after ([\d.]+) s; ([\d.]+) MB", output
    )
    most, bound = found(r"connections: at most (\d+) of (\d+)", output)
    return [
        Figure("saves of all", saves, "/s"),
        Figure("saves that failed", errors, ""),
        Figure("connections, at most", most, "", "what the options allow", bound),
        Figure("all of them ready", ready, "s"),
        Figure("memory of a process", memory, "MB"),
    ]


def operators(output: str) -> list[Figure]:
    figures = []
    pattern = r"\| `(.+?)` \| ([\d.]+) s \| (\d+) /s \| .*? s \| (.*?) \| (\d+ MB|-) \| 0 \|"
    for what, seconds, rate, thirds, _ in re.findall(pattern, output):
        figures += [Figure(what, number(seconds), "s"), Figure(f"{what}: rate", number(rate), "/s")]
        if thirds != "-":
            first, _, last = (number(third) for third in thirds.removesuffix(" MB").split(" · "))
            name = f"{what}: memory, the last third"
            figures.append(Figure(name, last, "MB", "the first third", first))
    if not figures:
        raise ValueError("no command was measured")
    return figures


PARSERS = {
    "sqlite": sqlite,
    "instructions": instructions,
    "sessions": sessions,
    "trace": trace,
    "trace-process": trace,
    "trace-postgres": trace,
    "sqlite-in-order": sqlite,
    "crash-jemalloc": crash,
    "crash-shared": crash,
    "crash-shared-jemalloc": crash,
    "live": live,
    "million": live,
    "calm-1": calm,
    "calm-4": calm,
    "crash": crash,
    "edit-all": edit_all,
    "growth": growth,
    "operators": operators,
    "served": bench_served.served,
    "served-roll": bench_served.roll,
    "served-crash": bench_served.crash,
    "served-stopped": bench_served.stopped,
    "served-many": bench_served.many,
    "served-wrk": bench_served.wrk,
    "served-node": bench_served.node,
    "luau-cpu": luau_cpu,
    "luau-memory": luau_memory,
    "luau-hour": luau_hour,
    "postgres": postgres,
    "messengers": messengers,
    "processes": processes,
    "processes-200": processes,
}
