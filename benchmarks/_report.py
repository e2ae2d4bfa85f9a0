"""The output of every benchmark: a table, and a line of JSON for programs."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DISTRIBUTIONS = ("anyio", "asyncssh", "click", "fleeting", "msgspec", "taskscaler")


def report(name: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Print the rows of a benchmark with the machine, the versions and the date.

    Args:
        name: the name of the benchmark, as in `python -m benchmarks.NAME`.
        rows: the rows, all with the same keys; the keys are the columns and include units.
    """
    surroundings = {"machine": machine(), "versions": versions(), "date": today()}
    print(f"{name}, {surroundings['date']}, {surroundings['machine']}\n")
    print(table(rows))
    print()
    print(json.dumps({"benchmark": name, **surroundings, "rows": rows}))


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return the rows as a table in Markdown, with numbers aligned to the right."""
    columns = list(rows[0])
    cells = [columns, *([_text(row[column]) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    numeric = [isinstance(rows[-1][column], int | float) for column in columns]
    lines = ["| " + " | ".join(_pad(line, widths, numeric)) + " |" for line in cells]
    rule = [
        "-" * (w - 1) + ":" if right else "-" * w for w, right in zip(widths, numeric, strict=True)
    ]
    return "\n".join([lines[0], "| " + " | ".join(rule) + " |", *lines[1:]])


def _pad(line: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> list[str]:
    return [
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(line, widths, numeric, strict=True)
    ]


def _text(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def machine() -> str:
    """Return the processor and the system in one line."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    return f"{os.cpu_count()} x {model}, {platform.system()} {platform.release()}"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the distributions that affect the figures."""
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in DISTRIBUTIONS},
    }


def today() -> str:
    """Return the date, in UTC."""
    return datetime.now(UTC).date().isoformat()
