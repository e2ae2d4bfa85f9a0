"""The reference for authors of plugins has the text of the docstrings."""

from __future__ import annotations

from pathlib import Path

import griffe
from tests.repo.reference import MODULES, PAGE, load, render

SAMPLE = '''
"""First.

Like this::

    [table]
    key = 1

Root
├── one
└── two
"""
from dataclasses import dataclass, field

__all__ = ("Value", "Wrong", "ask")

@dataclass
class Value:
    """The known values.

    Attributes:
        size: how large,
            in metres.
    """

    size: int = 3
    secret: str = field(default="x", repr=False)
    _hidden: int = 0

class Wrong(Exception):
    """It failed."""

    def __init__(self, id: str, *, again: bool = True) -> None: ...

async def ask(first: str, *, second: dict[str, int] | None = None, third_and_last: int = 0) -> bool:
    """Ask.

    Args:
        first: what.

    Returns:
        Whether it is so: yes
        or no.

    Raises:
        Wrong: it is not known.
    """

def unlisted(): ...
'''


def sample() -> str:
    """Render a module that has one of everything."""
    module = griffe.visit(
        "sample",
        Path("sample.py"),
        SAMPLE,
        docstring_parser=griffe.Parser.google,
        docstring_options={"returns_multiple_items": False, "returns_named_value": False},
    )
    package = griffe.Module("package")
    package["sample"] = module
    return render(package, ["sample"])


def test_reference_is_up_to_date() -> None:
    """The page is the one that its program would write."""
    rendered = render(load(), MODULES)
    assert PAGE.read_text() == rendered, "run: uv run python -m tests.repo.reference"


def test_everything_public_is_shown() -> None:
    """Names, defaults, arguments, results, errors and ways to make an error are shown."""
    page = sample()
    for text in (
        "class Value\n",
        "- `size: int = 3`: how large, in metres.\n",
        "- `secret: str = 'x'`\n",
        "class Wrong(Exception)\n",
        "Wrong(id: str, *, again: bool = True)\n",
        "async def ask(\n    first: str,\n    *,\n    second: dict[str, int] | None = None,\n",
        "- `first`: what.\n",
        "- Whether it is so: yes or no.\n",
        "- `Wrong`: it is not known.\n",
    ):
        assert text in page


def test_private_names_are_not_shown() -> None:
    """Neither a private attribute nor a function that is not offered is shown."""
    page = sample()
    assert "hidden" not in page
    assert "unlisted" not in page


def test_blocks_in_docstrings_are_fenced() -> None:
    """Code after two colons, and a tree, are in blocks of their own."""
    fence = "`" * 3
    page = sample()
    assert f"Like this:\n\n{fence}toml\n[table]\nkey = 1\n{fence}\n" in page
    assert f"{fence}text\nRoot\n├── one\n└── two\n{fence}\n" in page
