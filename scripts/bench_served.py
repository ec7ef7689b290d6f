"""What the parts of the bench `served` say, as figures."""

import re

from bench_figure import Figure, found, number, rows

UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


def times(pattern: str, output: str) -> list[float]:
    """The times of a pattern's groups, which come as value and unit, in milliseconds."""
    match = re.search(pattern, output)
    if not match:
        raise ValueError(f"the output has no `{pattern}`")
    groups = match.groups()
    return [
        number(value) * UNITS[unit] for value, unit in zip(groups[::2], groups[1::2], strict=True)
    ]


def served(output: str) -> list[Figure]:
    figures = []
    pattern = r"(?m)^ *(\d+) +(\d+) +(\d+) +[\d.]+ +[\d.]+, +([\d.]+) +[\d.]+, +([\d.]+)$"
    for count, *values in re.findall(pattern, output):
        own, remote, own_p99, remote_p99 = map(number, values)
        sessions = f"{count} session{'s' if count != '1' else ''}"
        figures += [
            Figure(f"saves, {sessions}", remote, "/s", "own sessions", own),
            Figure(f"a save, {sessions}, p99", remote_p99, "ms", "own sessions", own_p99),
        ]
    own, remote = found(r"at once: own (\d+), remote (\d+)", output)
    figures.append(Figure("starts", remote, "/s", "own sessions", own))
    of_own = found(r"two own game servers +p50 ([\d.]+) ms, p99 ([\d.]+) ms", output)
    of_remote = found(r"two remote game servers +p50 ([\d.]+) ms, p99 ([\d.]+) ms", output)
    for name, remote, own in zip(("p50", "p99"), of_remote, of_own, strict=True):
        figures.append(Figure(f"hand-over, {name}", remote, "ms", "own game servers", own))
    own, remote = found(r"own ([\d.]+) KiB with the game's data, remote ([\d.]+) KiB", output)
    figures.append(Figure("memory of a session", remote, "KiB", "own with its data", own))
    for count, bare, profile, _, bare_p99, profile_p99 in rows(output, 6):
        connections = f"{count:.0f} connection{'s' if count != 1 else ''}"
        figures += [
            Figure(f"reads, {connections}", profile, "/s", "a bare handler", bare),
            Figure(f"a read, {connections}, p99", profile_p99, "ms", "a bare handler", bare_p99),
        ]
    return figures


def wrk(output: str) -> list[Figure]:
    pattern = r"(?m)^ *(\d+) +(bare|profile) +([\d.]+) +([\d.]+)(us|ms|s)$"
    asked = {
        (count, what): (number(rate), number(p99) * UNITS[unit])
        for count, what, rate, p99, unit in re.findall(pattern, output)
    }
    figures = []
    for count, (rate, p99) in [(key[0], asked[key]) for key in asked if key[1] == "profile"]:
        bare_rate, bare_p99 = asked[(count, "bare")]
        connections = f"{count} connection{'s' if count != '1' else ''}"
        figures += [
            Figure(f"reads, {connections}", rate, "/s", "a bare handler", bare_rate),
            Figure(f"a read, {connections}, p99", p99, "ms", "a bare handler", bare_p99),
        ]
    if not figures:
        raise ValueError("wrk has not asked")
    return figures


def node(output: str) -> list[Figure]:
    pattern = r"(?m)^ *(saves of \d+ sessions|starts, \d+ at once) +(\d+) +(\d+) +[\d.]+$"
    figures = [
        Figure(what, number(node), "/s", "the Rust client", number(rust))
        for what, rust, node in re.findall(pattern, output)
    ]
    if not figures:
        raise ValueError("no Node process was measured")
    return figures


def ended(output: str) -> Figure:
    [count] = found(r"ended without being asked to: (\d+)", output)
    return Figure("sessions ended without being asked to", count, "")


def many(output: str) -> list[Figure]:
    memory, each = found(r"server process (\d+) MB, (\d+) bytes a session", output)
    figures = [Figure("memory", memory, "MB"), Figure("memory of a session", each, "bytes")]
    for what, line in [("opened", "opening them all"), ("ended", "ending them all")]:
        took, cores = found(rf"{line} +([\d.]+) s, the server process ([\d.]+) cores", output)
        figures += [Figure(what, took, "s"), Figure(f"{what}, processor", cores, "cores")]
    for what, line in [
        ("idle", "nothing but pings and renewals"),
        ("each saved once within 30 s", "each changes and is saved once"),
    ]:
        [cores] = found(rf"{line} +[\d.]+ s, the server process ([\d.]+) cores", output)
        figures.append(Figure(what, cores, "cores"))
    [longest] = times(r"longest time of one ([\d.]+) (ms|s)", output)
    [rate] = found(r"saves a second (\d+)", output)
    figures += [Figure("saves", rate, "/s"), Figure("longest time of a save", longest, "ms")]
    return [*figures, ended(output)]


def roll(output: str) -> list[Figure]:
    [before] = times(r"before that: longest time of a save ([\d.]+) (ms|s)", output)
    [meanwhile] = times(r"longest time of a save meanwhile ([\d.]+) (ms|s)", output)
    [took] = times(r"all replaced in ([\d.]+) (ms|s)", output)
    [missing] = found(r"profiles read, (\d+) without their last change", output)
    return [
        Figure("longest time of a save", meanwhile, "ms", "before", before),
        Figure("three processes replaced", took / 1000, "s"),
        ended(output),
        Figure("profiles without their last change", missing, ""),
    ]


SPREAD = r"p50 ([\d.]+) s, p99 ([\d.]+) s, most ([\d.]+) s"


def crash(output: str) -> list[Figure]:
    figures = []
    for since, line in [
        ("since the first change that is not stored", "first change that is not stored"),
        ("since the last change that is stored", "last change that is stored"),
    ]:
        values = found(rf"{line}: {SPREAD}", output)
        for name, value in zip(("p50", "p99", "at most"), values, strict=True):
            figures.append(Figure(f"play lost {since}, {name}", value, "s"))
    figures.append(Figure("saves", *found(r"(\d+) saves a second", output), "/s"))
    return figures


def stopped(output: str) -> list[Figure]:
    figures = []
    for part in output.split("a game server with ")[1:]:
        name = "alone" if ", alone" in part.splitlines()[0] else "asked for"
        gap = r"believed in its sessions for ([\d.]+) s of that, and believed in (\d+)"
        for believed, count in re.findall(gap, part)[:1]:
            figures += [
                Figure(f"{name}: believed, after it was stopped", number(believed), "s"),
                Figure(f"{name}: sessions believed in when it went on", number(count), ""),
            ]
        if name != "alone":
            pattern = r"the first profile ([\d.]+) (ms|s) after that, the last ([\d.]+) (ms|s)"
            first, last = times(pattern, part)
            figures += [
                Figure(f"{name}: another one had the first profile after", first / 1000, "s"),
                Figure(f"{name}: another one had the last profile after", last / 1000, "s"),
            ]
        if lost := re.search(rf"before it was stopped: {SPREAD}", part):
            p50, _, most = map(number, lost.groups())
            figures += [
                Figure(f"{name}: play lost, p50", p50, "s"),
                Figure(f"{name}: play lost, at most", most, "s"),
                Figure(
                    f"{name}: answered as stored and not there",
                    *found(r"that are not there: (\d+)", part),
                    "changes",
                ),
            ]
        over = ended(part)
        figures.append(Figure(f"{name}: {over.what}", over.value, ""))
    if not figures:
        raise ValueError("no game server was stopped")
    return figures
