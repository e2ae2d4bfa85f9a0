"""Prose is plain English: words that make it hard to read are listed here, with better ones."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = {".md", ".py", ".template", ".toml", ".yml"}
# Two words may stand on two lines, of which the second begins with the mark of a comment or quote.
GAP = r"[\s#>]+"
# What a match has as "fine" is good English that begins alike, such as "there is no instance".
WORDS = {
    r"anew": "again",
    r"(any|every|no|some)body": "a noun (the caller, another process), or anyone, everyone, no one",
    r"who(so)?ever": "a noun: callers, the user, a plugin that",
    r"(?P<fine>there (is|are|was|were) no)|(is|are|was|were) no (?!longer|more|less|one)\w+": (
        "is not a, does not have a, is never"
    ),
    r"to be had": "available",
    r"goes? together": "is compatible with; conflicts with",
    r"of (its|their) own accord": "by itself",
    r"in good order": "cleanly",
    r"as ever": "still, as before",
    r"let(s|ting)?( \w+){1,4} be": "allow, keep, leave unchanged",
    r"(is|are|was|were) to go": "must be removed",
    r"that it be": "that it is",
    r"hear(s|d)? of": "learn about",
    r"beside": "next to, in addition to",
}
PATTERNS = [
    (re.compile(rf"\b(?:{words.replace(' ', GAP)})\b", re.IGNORECASE), better)
    for words, better in WORDS.items()
]
# A sentence with a clause as its subject. It starts a text, a paragraph or a comment, or follows
# another sentence, and ends as a statement before the paragraph does.
CLAUSE = re.compile(
    r"""(?:\A|"|\# |\n\s*\n|[.!]["`)]?[\s#]+)"""
    r"""((?:What|Who)\s(?:(?!\n\s*\n)[^.?!|"])*\.)(?=[\s"]|\Z)"""
)


def complaints(text: str) -> Iterator[str]:
    """Yield each word or turn of a text that has a better one, with its line and the better one."""
    for pattern, better in PATTERNS:
        for match in pattern.finditer(text):
            if not match.groupdict().get("fine"):
                line = text.count("\n", 0, match.start()) + 1
                yield f"{line}: {re.sub(GAP, ' ', match.group())!r}, better: {better}"
    for match in CLAUSE.finditer(text):
        line = text.count("\n", 0, match.start(1)) + 1
        start = " ".join(match[1].split()[:6])
        yield f"{line}: '{start} ...', better: begin with the subject"


def test_prose_is_plain(files: list[Path], root: Path) -> None:
    """No source, test or page has a word or a turn of the list."""
    found = [
        f"{path.relative_to(root)}:{complaint}"
        for path in files
        if (path.suffix in KINDS or ".ci" in path.parts) and path != Path(__file__)
        for complaint in complaints(path.read_text())
    ]
    assert not found, "\n".join((f"{len(found)} places", *found))


def test_words_are_noticed() -> None:
    """Each entry is found across lines and in any case, with its line and better words."""
    bad = {
        "Start anew.": "1: 'anew', better: again",
        "\nNobody knows": "2: 'Nobody'",
        "Whoever asks": "1: 'Whoever'",
        "# this is\n    # no file": "1: 'is no file'",
        "> they are\n> no lists": "1: 'are no lists'",
        "it is to be had": "1: 'to be had'",
        "what goes together": "1: 'goes together'",
        "Let it be": "1: 'Let it be'",
        "What is ours stays.": "1: 'What is ours stays. ...', better: begin with the subject",
        "Fine. Who asks, waits.": "1: 'Who asks, waits. ...'",
    }
    assert {text: next(complaints(text), "")[: len(told)] for text, told in bad.items()} == bad


def test_plain_words_pass() -> None:
    """Questions, headings and ordinary negations are not in the list."""
    good = """# What survives a restart

There is no instance. If there are no tasks, none is added. It is no longer used, and no body is
read. What happens if it fails? Let the caller decide. Renewed."""
    assert list(complaints(good)) == []
