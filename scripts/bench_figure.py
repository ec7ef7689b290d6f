"""A figure of a bench, and how it is found in what the bench prints."""

import re
from dataclasses import dataclass


@dataclass
class Figure:
    """A measured value, and the bare baseline of the same run where there is one."""

    what: str
    value: float
    unit: str
    beside: str = ""
    base: float | None = None


def number(text: str) -> float:
    return float(text.replace(",", ""))


def found(pattern: str, output: str) -> list[float]:
    """The numbers that a pattern's groups find; an error names a pattern that finds nothing."""
    match = re.search(pattern, output)
    if not match:
        raise ValueError(f"the output has no `{pattern}`")
    return [number(group) for group in match.groups()]


def rows(output: str, cells: int) -> list[list[float]]:
    """The lines that are nothing but so many numbers."""
    table = []
    for line in output.splitlines():
        parts = line.split()
        if len(parts) == cells and all(re.fullmatch(r"[\d.]+", part) for part in parts):
            table.append([number(part) for part in parts])
    if not table:
        raise ValueError(f"the output has no table of {cells} columns")
    return table
