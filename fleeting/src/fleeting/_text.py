"""Text for people: what a cloud or an instance says must not steer their terminal."""

from __future__ import annotations

__all__ = ("plain",)


def plain(text: str) -> str:
    r"""Return text in which each control character is spelled out, as `\x1b` is."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _spelled(one) for one in text)


def _spelled(character: str) -> str:
    return character.encode("unicode_escape").decode()
