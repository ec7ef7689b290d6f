"""Tables and a plot of the figures that are kept, and their place in docs/benchmarks.md."""

import math
from collections.abc import Iterable
from pathlib import Path
from statistics import median

from bench_figure import Figure
from bench_figures import GROWTH, PARSERS

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "benchmarks.md"
RESULTS = DOCS / "benchmarks" / "results.jsonl"
AGAINST = DOCS / "benchmarks" / "against.jsonl"
PLOT = DOCS / "benchmarks" / "growth.svg"

BEGIN = "<!-- Below, up to the end mark: made by scripts/benches.py. -->"
END = "<!-- The end of what scripts/benches.py makes. -->"


def shown(value: float) -> str:
    """A number with three figures, and its thousands apart."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 4)}f}"


def with_unit(value: float, unit: str) -> str:
    if unit.startswith("/"):
        return f"{shown(value)} {unit}"
    return f"{shown(value)} {unit}".strip()


def row(figures: list[Figure]) -> str:
    """One thing in all runs: medians, and the median of the ratios, each of which is of one run."""
    first = figures[0]
    values = [figure.value for figure in figures]
    cells = [first.what, with_unit(median(values), first.unit)]
    cells.append(f"{shown(min(values))} to {shown(max(values))}")
    pairs = [(figure.value, figure.base) for figure in figures if figure.base]
    if pairs:
        base = with_unit(median(base for _, base in pairs), first.unit)
        cells += [f"{first.beside}: {base}", f"{median(value / base for value, base in pairs):.2f}"]
    else:
        cells += ["", ""]
    return f"| {' | '.join(cells)} |"


def by_name(results: list[dict]) -> dict[str, list[Figure]]:
    """The figures of a group's runs, by what they say."""
    named: dict[str, list[Figure]] = {}
    for result in results:
        for figure in PARSERS[result["group"]](result["output"]):
            named.setdefault(figure.what, []).append(figure)
    return named


def table(figures: dict[str, list[Figure]]) -> list[str]:
    lines = [
        "| what | median | least to most | beside it, in the same runs | ratio |",
        "| --- | ---: | ---: | --- | ---: |",
    ]
    return lines + [row(runs) for runs in figures.values()]


def by_size(figures: dict[str, list[Figure]]) -> list[str]:
    """A row for each size of the store, with the medians of its runs."""
    rows: dict[str, list[str]] = {}
    heads = {}
    for what, runs in figures.items():
        size, name = what.split(": ", 1)
        heads[name] = f"{name}, {runs[0].unit.replace('/s', 'a second')}"
        rows.setdefault(size, []).append(shown(median(figure.value for figure in runs)))
    lines = [f"| profiles | {' | '.join(heads.values())} |", f"|{' ---: |' * (len(heads) + 1)}"]
    return lines + [f"| {size} | {' | '.join(cells)} |" for size, cells in rows.items()]


def pairs(results: list[dict]) -> list[str]:
    """A group at an earlier commit beside this one, by pairs of runs."""
    named: dict[str, list[tuple[Figure, Figure]]] = {}
    for result in results:
        parse = PARSERS[result["group"]]
        before = {figure.what: figure for figure in parse(result["before"])}
        for figure in parse(result["output"]):
            if figure.what in before:
                named.setdefault(figure.what, []).append((figure, before[figure.what]))
    lines = [
        "| what | before | now | now to before | least to most | beside its baseline: before | now |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for what, runs in named.items():
        unit = runs[0][0].unit
        ratios = [figure.value / old.value for figure, old in runs if old.value]
        if not ratios:
            continue
        old = with_unit(median(old.value for _, old in runs), unit)
        new = with_unit(median(figure.value for figure, _ in runs), unit)
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        beside = [beside_base(old for _, old in runs), beside_base(new for new, _ in runs)]
        cells = [what, old, new, f"{median(ratios):.2f}", spread, *beside]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def beside_base(figures: Iterable[Figure]) -> str:
    """The median ratio to the baselines of the same runs; nothing, where there are none."""
    ratios = [figure.value / figure.base for figure in figures if figure.base]
    return f"{median(ratios):.2f}" if ratios else ""


def about_runs(results: list[dict]) -> str:
    first = results[0]
    runs = f"{len(results)} runs" if len(results) > 1 else "one run"
    loads = [result["load"] for result in results]
    beside = f" beside {first['against']}" if "against" in first else ""
    return (
        f"{first['date']}, commit {first['commit']}{beside}, {runs}, load average when they began "
        f"{min(loads)} to {max(loads)}."
    )


def before_and_now(results: list[dict]) -> list[str]:
    first = results[0]
    lines = [f"### Before and now: {first['about']}", "", about_runs(results), ""]
    lines += pairs(results)
    command = f"$ scripts/benches.py --against {first['against']} {first['group']}"
    return [*lines, "", "```console", command, "```", ""]


def section(results: list[dict]) -> list[str]:
    first = results[0]
    title = f"### {first['about'][0].upper()}{first['about'][1:]}"
    lines = [title, "", about_runs(results), ""]
    figures = by_name(results)
    lines += by_size(figures) if first["group"] == "growth" else table(figures)
    if first["group"].startswith("trace"):
        lines += ["", "The calls of one run:", "", "```text", first["output"].strip(), "```"]
    lines += ["", "```console"]
    command = f"$ {first['command']}"
    if len(command) > 100:
        before, after = command.rsplit(" --bench", 1)
        if len(before) > 98:
            settings, before = before.split(" scripts/", 1)
            lines.append(f"{settings} \\")
            before = f"    scripts/{before}"
        lines += [f"{before} \\", f"    --bench{after}"]
    else:
        lines.append(command)
    lines += ["```", ""]
    return lines


COLOURS = [
    "#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#7f7f7f", "#e377c2", "#bc8f00", "#17a2b8",
]  # fmt: skip


def plot(results: list[dict]) -> str:
    """Times over the number of stored profiles, both by their logarithms."""
    series: dict[str, list[tuple[float, float]]] = {name: [] for name in GROWTH}
    for what, figures in by_name(results).items():
        size, name = what.split(": ", 1)
        if name in series:
            profiles = float(size.split()[0].replace(",", ""))
            series[name].append((profiles, max(median(f.value for f in figures), 1e-4)))
    points = [point for line in series.values() for point in line]
    low_x, high_x = (math.log10(pick(x for x, _ in points)) for pick in (min, max))
    low_y = math.floor(math.log10(min(y for _, y in points)))
    high_y = math.ceil(math.log10(max(y for _, y in points)))
    high_x, high_y = max(high_x, low_x + 1), max(high_y, low_y + 1)
    left, top, width, height = 70, 20, 480, 320

    def at(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - low_x) / (high_x - low_x)
        up = (math.log10(y) - low_y) / (high_y - low_y)
        return round(left + across * width, 1), round(top + (1 - up) * height, 1)

    svg = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 400" font-family="sans-serif"'
        ' font-size="13">',
        "<title>Milliseconds over the number of stored profiles</title>",
        '<rect width="700" height="400" fill="#ffffff"/>',
    ]
    for power in range(low_y, high_y + 1):
        _, y = at(10**low_x, 10**power)
        svg.append(f'<path d="M{left} {y}H{left + width}" stroke="#dddddd"/>')
        svg.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{10.0**power:g} ms</text>')
    for power in range(math.ceil(low_x), math.floor(high_x) + 1):
        x, _ = at(10**power, 10**low_y)
        svg.append(f'<path d="M{x} {top}V{top + height}" stroke="#dddddd"/>')
        below = top + height + 20
        svg.append(f'<text x="{x}" y="{below}" text-anchor="middle">{10**power:,}</text>')
    svg.append(f'<text x="{left + width / 2}" y="388" text-anchor="middle">stored profiles</text>')
    for number, (name, line) in enumerate(series.items()):
        colour = COLOURS[number]
        places = [at(x, y) for x, y in sorted(line)]
        path = "L".join(f"{x} {y}" for x, y in places)
        svg.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        svg += [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in places]
        y = top + 14 + number * 22
        svg.append(f'<path d="M575 {y - 4}h24" stroke="{colour}" stroke-width="2"/>')
        svg.append(f'<text x="606" y="{y}">{name}</text>')
    svg.append("</svg>")
    return "\n".join(svg) + "\n"


def by_group(results: list[dict]) -> dict[str, list[dict]]:
    groups: dict[str, list[dict]] = {}
    for result in results:
        groups.setdefault(result["group"], []).append(result)
    return groups


def make_page(results: list[dict], against: list[dict]) -> dict[Path, str]:
    """The files that the results make, by their paths."""
    made = {}
    lines = [BEGIN, ""]
    if not results + against:
        lines += ["No run is kept yet.", ""]
    for machine in dict.fromkeys(result["machine"] for result in results + against):
        lines += [f"Machine: {machine}.", ""]
    for runs in by_group(against).values():
        lines += before_and_now(runs)
    for name, runs in by_group(results).items():
        lines += section(runs)
        if name == "growth":
            made[PLOT] = plot(runs)
            title = "Milliseconds over the number of stored profiles"
            lines += [f"![{title}](benchmarks/growth.svg)", ""]
    lines.append(END)
    page = PAGE.read_text()
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise SystemExit(f"{PAGE} has lost the marks between which the tables stand")
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    made[PAGE] = before + "\n".join(lines) + after
    return made


def write_page(made: dict[Path, str], only_check: bool) -> list[str]:
    """Writes what is not as it should be, unless it is only checked, and names it."""
    old = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    if not only_check:
        for path in old:
            path.parent.mkdir(exist_ok=True)
            path.write_text(made[path])
    return [path.name for path in old]
