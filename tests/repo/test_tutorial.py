"""The provider of the tutorial is as short as it says, and good enough to be copied.

That it works is proved where the page is executed: `test_documentation_runs.py` says how.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

MODULE = "fleeting-plugin-sshd/src/fleeting_plugin_sshd.py"
LIMIT = 60
HTTP_LIMIT = 180
BLOCK = r"<!-- file: {} -->\n\n```python\n(.*?)```"
EMPTY = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE),
    *(tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER),
}


def lines_of_code(source: str) -> int:
    """Count the lines of code, without imports, docstrings, comments and empty lines."""
    told: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant(value=str())):
                told.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
            case _:
                pass
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in EMPTY:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - told)


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    """Return the tutorial."""
    return (root / "docs" / "plugins" / "tutorial.md").read_text()


@pytest.fixture(scope="module")
def source(page: str) -> str:
    """Return the module that the reader of the tutorial has at its end."""
    blocks = re.findall(BLOCK.format(re.escape(MODULE)), page, re.DOTALL)
    assert len(blocks) > 3
    return "\n".join(blocks)


def test_provider_is_short(page: str, source: str) -> None:
    """The provider has fewer than 60 lines of code, and as many as the page says."""
    count = lines_of_code(source)
    assert count < LIMIT
    assert f"{count} lines, without imports, docstrings, comments and empty lines" in page


@pytest.fixture(scope="module")
def http_source(root: Path) -> str:
    """Return the provider of the page about clouds with an HTTP API."""
    page = (root / "docs" / "plugins" / "http.md").read_text()
    (block,) = re.findall(BLOCK.format("fleeting_plugin_nimbus.py"), page, re.DOTALL)
    return str(block)


def test_http_provider_is_short(http_source: str) -> None:
    """The provider for an HTTP API has about 150 lines of code."""
    assert lines_of_code(http_source) <= HTTP_LIMIT


@pytest.mark.parametrize("which", ["source", "http_source"])
def test_provider_is_clean(request: pytest.FixtureRequest, which: str, tmp_path: Path) -> None:
    """Its lines are of ordinary length, and neither ruff nor strict mypy finds anything in it."""
    source = str(request.getfixturevalue(which))
    module = tmp_path / "fleeting_plugin_sshd.py"
    module.write_text(source)
    ruff = ["ruff", "check", "--isolated", "--line-length=100", "--select=E4,E5,E7,E9,F,B,S,UP"]
    # Starting programs is what this one is for.
    # Elsewhere than in the repository, whose settings are not the reader's.
    for command in (
        [*ruff, "--ignore=S603", str(module)],
        ["mypy", "--strict", str(module)],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_only_code_counts() -> None:
    """A statement of three lines is three; what only speaks to people, or imports, is none."""
    source = '"""Say."""\n\nimport a\nfrom b import (\n    c,\n)\n\nx = (\n    1\n)  # one\n# two\n'
    assert lines_of_code(source) == 3
    assert lines_of_code('def f():\n    """Say\n    more."""\n    return """a\nb"""\n') == 3
