"""No file names a package index, a path on a developer's machine, or a tool of the author."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# Each pattern is broken in two, so that this file does not match them.
PARTS = (
    ("pythonhosted", r"\.org"),
    (r"pypi\.org/", "simple"),
    (r"registry\.", "npmjs"),
    (r"proxy\.golang", r"\.org"),
    (r"(?<![\w.])/wo", "rk/"),
    ("/t", "mp/wt/"),
    (r"/root/", r"\."),
    (r"\.py", "env/"),
    ("/home/", r"(?!NAME|USER|user|me\b)\w+"),
    ("index", "-url = "),
    ("clau", "de"),
    ("anthro", "pic"),
    (r"\bopen", r"ai\b"),
    ("chat", "gpt"),
    ("co", "pilot"),
    ("co-auth", "ored-by"),
    ("generated ", "(by|with) (an? )?(ai|assistant|model)"),
    ("language ", "model"),
    (r"this se", "ssion"),
    (r"\bissue ", "[0-9]"),
)
FORBIDDEN = re.compile("|".join("".join(parts) for parts in PARTS), re.IGNORECASE)


def revelations(text: str) -> list[str]:
    """Return the parts of the text that it should not have."""
    return [match.group() for match in FORBIDDEN.finditer(text)]


def test_files_reveal_nothing(files: list[Path], root: Path) -> None:
    """No file has a registry host, a private path or the name of a tool, in its text or name."""
    found = {
        str(path.relative_to(root)): wrong
        for path in files
        if (wrong := revelations(f"{path.relative_to(root)}\n{path.read_text(errors='replace')}"))
    }
    assert found == {}


def test_revelations_are_noticed() -> None:
    """Each pattern finds what it is for, and ordinary text passes."""
    samples = (
        "https://files.python" + "hosted.org/x",
        "https://pypi" + ".org/simple",
        "see /wo" + "rk/main",
        "/t" + "mp/wt/house",
        "/root" + "/.cache",
        "Clau" + "de",
        "/home" + "/alice",
    )
    assert [text for text in samples if not revelations(text)] == []
    assert revelations("a network/address, framework/x, openaired; pypi.example.org/simple") == []
