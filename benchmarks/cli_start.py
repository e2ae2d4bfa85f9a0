"""Measures the start of each command against `python -c "import click"`.

Each command runs in a new process. The rounds are interleaved, so that a slow moment of the
machine affects all commands alike. The figures are medians. The budget is a ratio of 1.5 to
`import click`. The last column names the heavy libraries that a command imports.

Usage: python -m benchmarks.cli_start [ROUNDS]
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from benchmarks._report import report

PYTHON = sys.executable
SCRIPTS = Path(PYTHON).parent
BASELINE = 'python -c "import click"'
COMMANDS = {
    BASELINE: (PYTHON, "-c", "import click"),
    "fleeting --version": (PYTHON, str(SCRIPTS / "fleeting"), "--version"),
    "fleeting list": (PYTHON, str(SCRIPTS / "fleeting"), "list"),
    "taskscaler --version": (PYTHON, str(SCRIPTS / "taskscaler"), "--version"),
    "taskscaler --help": (PYTHON, str(SCRIPTS / "taskscaler"), "--help"),
    "taskscaler run --help": (PYTHON, str(SCRIPTS / "taskscaler"), "run", "--help"),
}
HEAVY = {"aiohttp", "anyio", "asyncio", "asyncssh", "msgspec", "pluggy", "rich"}
# Without cached bytecode, the time would include the compilation of our modules.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def run(command: tuple[str, ...], *options: str) -> tuple[float, str]:
    """Run a command to its end; return its seconds and its standard error."""
    started = time.perf_counter()
    completed = subprocess.run(
        [command[0], *options, *command[1:]],
        env=ENVIRONMENT,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    return time.perf_counter() - started, completed.stderr


def heavy_imports(command: tuple[str, ...]) -> str:
    """Return the heavy libraries that a command imports."""
    _, log = run(command, "-X", "importtime")
    return " ".join(sorted({line.rpartition("|")[2].strip() for line in log.splitlines()} & HEAVY))


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    imported = {name: heavy_imports(command) for name, command in COMMANDS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, command in COMMANDS.items():
            seconds[name].append(run(command)[0])
    baseline = median(seconds[BASELINE])
    report(
        "cli_start",
        [
            {
                "command": name,
                "median ms": median(times) * 1000,
                "ratio": median(times) / baseline,
                "heavy imports": imported[name],
            }
            for name, times in seconds.items()
        ],
    )


if __name__ == "__main__":
    main()
