"""Makes foreign text printable: a cloud or an instance must not control a user's terminal."""

from __future__ import annotations

__all__ = ("plain",)


def plain(text: str) -> str:
    r"""Return the text with each non-printable character escaped, such as `\x1b`."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _escaped(one) for one in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
