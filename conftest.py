"""What holds for every test: a neutral environment, and documentation that is executed.

The conventions for the documentation are in `docs/contributing.md`.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import shutil
import subprocess
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser

if TYPE_CHECKING:
    from sybil import Example

ROOT = Path(__file__).parent
# What a test must not see: agents, credentials and looks of a developer's shell, and
# the options of this very run, which are not those of a pytest that a test starts.
PRIVATE = re.compile(
    r"(AWS|AZURE|CLOUDSDK|DOCKER|FLEETING|GOOGLE|TASKSCALER)_|SSH_A"
    r"|(COLUMNS|FORCE_COLOR|LINES|NO_COLOR|PYTEST_ADDOPTS)$"
)
FILE_NAME = re.compile(r"<!-- file: (\S+) -->\s*\Z")


def pytest_configure(config: pytest.Config) -> None:
    """Hide the agents, credentials and preferences of whoever runs the tests."""
    # No fixture, because the blocks of the documentation have none.
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    for name in [name for name in os.environ if PRIVATE.match(name)]:
        patch.delenv(name)


def run_python(example: Example) -> None:
    """Execute a block, which may await at its top level, in the namespace of its page."""
    code = compile(
        "\n" * example.line + example.parsed,
        example.path,
        "exec",
        ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
        dont_inherit=True,
    )
    if code.co_flags & inspect.CO_COROUTINE:

        async def main() -> None:
            await eval(code, example.namespace)  # noqa: S307 - our own documentation

        anyio.run(main)
    else:
        exec(code, example.namespace)  # noqa: S102 - our own documentation


def run_console(example: Example) -> None:
    """Run the lines with a prompt, as one script, and compare all that it prints."""
    lines = example.parsed.splitlines()
    script = "\n".join(line[2:] for line in lines if line.startswith(("$ ", "> ")))
    expected = [line.rstrip() for line in lines if not line.startswith(("$ ", "> "))]
    completed = subprocess.run(
        ["/bin/sh", "-euc", script],
        cwd=example.namespace["folder"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    printed = [line.rstrip() for line in completed.stdout.splitlines()]
    assert completed.returncode == 0, completed.stdout
    assert matches(printed, expected), "\n".join(("It printed:", *printed))


def matches(printed: list[str], expected: list[str]) -> bool:
    """Return whether output is as shown; `...` stands for any lines, or for any text in one."""
    pattern = "".join(
        r"(?:.*\n)*?" if line == "..." else ".*?".join(map(re.escape, line.split("..."))) + r"\n"
        for line in expected
    )
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in printed)) is not None


def read_toml(example: Example) -> None:
    """Read a block; one that a comment gives a name becomes a file for the blocks after it."""
    data = tomllib.loads(example.parsed)
    if "runners" in data:
        check_config(example.parsed, whole=isinstance(data["runners"], list))
    before = example.document.text[: example.region.start]
    if name := FILE_NAME.search(before):
        path: Path = example.namespace["folder"] / name[1]
        path.write_text(example.parsed)


def check_config(text: str, *, whole: bool) -> None:
    """Read a block as the operator's file, or as a part of the only runner of one."""
    # Not above: what is imported there is not seen by the measurement of coverage.
    from fleeting.types import Severity
    from taskscaler.config import examine_config

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.toml")
        path.write_text(text if whole else f"[[runners]]\n{text}")
        _, problems = examine_config(path)
    errors = [str(problem) for problem in problems if problem.severity is Severity.ERROR]
    # A part may leave to another what it is not about.
    elsewhere = () if whole else ("runners[0].autoscaler.plugin:",)
    assert [error for error in errors if not error.startswith(elsewhere)] == []


def open_page(namespace: dict[str, Any]) -> None:
    """Give a page a folder of its own, in which the examples are."""
    folder = Path(tempfile.mkdtemp(prefix="docs-"))
    shutil.copytree(ROOT / "examples", folder / "examples", dirs_exist_ok=True)
    namespace.update(folder=folder, before=Path.cwd())
    os.chdir(folder)


def close_page(namespace: dict[str, Any]) -> None:
    """Leave the folder of a page, and remove it."""
    os.chdir(namespace["before"])
    shutil.rmtree(namespace["folder"])


pytest_collect_file = Sybil(
    parsers=[
        CodeBlockParser("python", run_python),
        CodeBlockParser("console", run_console),
        CodeBlockParser("toml", read_toml),
    ],
    patterns=["*.md"],
    setup=open_page,
    teardown=close_page,
).pytest()
