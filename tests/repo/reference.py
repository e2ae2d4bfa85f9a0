"""Writes `docs/plugins/reference.md` from the docstrings of what a plugin imports.

Usage: uv run python -m tests.repo.reference
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import griffe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "plugins" / "reference.md"
SOURCE = ROOT / "fleeting" / "src"
MODULES = ("abc", "types", "errors", "plugin", "testing")
OPENING = """\
# Reference: what a plugin imports

The docstrings of `fleeting.abc`, `fleeting.types`, `fleeting.errors`, `fleeting.plugin` and
`fleeting.testing`: the contract in full. This page is made from them and not edited;
`uv run python -m tests.repo.reference` writes it anew.
"""
FENCE = "`" * 3
LINE = 90
QUOTE = "'"
# What a dataclass is told about a field, of which only the default is for readers.
FIELD = re.compile(r"field\((?:default=([^,]+)|default_factory=(\w+))?.*\)")
# An indented block after a line that ends with two colons, as docstrings have it.
LITERAL = re.compile(r"::\n\n((?:(?:    .*)?\n)*(?:    .*)(?:\n|\Z))")
DRAWING = re.compile(r"(?:^.*\n)?(?:^[ │]*[├└].*(?:\n|\Z))+", re.MULTILINE)


def render(package: griffe.Object, names: Iterable[str]) -> str:
    """Return the page about these modules of a package."""
    modules = [_resolved(package[name]) for name in names]
    lines = [OPENING]
    for module in modules:
        links = ", ".join(f"[`{one.name}`](#{one.name.lower()})" for one in _public(module))
        lines.append(f"- [`{module.path}`](#{_anchor(module.path)}): {links}")
    lines.append("")
    for module in modules:
        lines += [f"## `{module.path}`", "", *_text(module)]
        for member in _public(module):
            lines += [f"### `{member.name}`", "", *_member(member)]
    return "\n".join(lines).rstrip() + "\n"


def load() -> griffe.Object:
    """Return the package `fleeting`, read and not imported."""
    package = griffe.load(
        "fleeting",
        search_paths=[SOURCE],
        docstring_parser=griffe.Parser.google,
        docstring_options={
            "returns_multiple_items": False,
            "returns_named_value": False,
            "warn_unknown_params": False,
            "warn_missing_types": False,
        },
        resolve_aliases=True,
    )
    return _resolved(package)


def _resolved(found: griffe.Object | griffe.Alias) -> griffe.Object:
    return found.final_target if isinstance(found, griffe.Alias) else found


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def _public(module: griffe.Object) -> list[griffe.Object]:
    """Return what a module offers: constants first, then what is its own, as it is told."""
    found = [_resolved(module[str(name)]) for name in module.exports or ()]

    def place(one: griffe.Object) -> tuple[bool, bool, str, int]:
        # What it has from another module comes after what is its own.
        is_foreign = one.filepath != module.filepath
        return not one.is_attribute, is_foreign, str(one.filepath), one.lineno or 0

    return sorted(found, key=place)


def _member(member: griffe.Object) -> Iterator[str]:
    if isinstance(member, griffe.Class):
        yield from _class(member)
    elif isinstance(member, griffe.Function):
        yield from _function(member)
    elif isinstance(member, griffe.Attribute | griffe.TypeAlias):
        yield from _code(f"{member.name} = {str(member.value).strip(QUOTE)}")
        yield from _text(member)


def _class(cls: griffe.Class) -> Iterator[str]:
    bases = ", ".join(str(base) for base in cls.bases)
    yield from _code(f"class {cls.name}({bases})" if bases else f"class {cls.name}")
    yield from _text(cls)
    start = cls.members.get("__init__")
    # A dataclass is made from its attributes.
    is_told = "dataclass" not in cls.labels
    if is_told and isinstance(start, griffe.Function) and len(start.parameters) > 1:
        yield from _code(_signature(start, cls.name))
    attributes = list(_attributes(cls))
    if attributes:
        yield from [*attributes, ""]
    methods = [one for one in cls.members.values() if _is_shown(one) and one.is_function]
    tests = [one for one in methods if one.name.startswith("test_")]
    for method in methods:
        if method not in tests:
            yield from (f"#### `{cls.name}.{method.name}`", "")
            yield from _function(_resolved(method))
    if tests:
        yield from ("| test | what it proves |", "|---|---|")
        yield from (f"| `{one.name}` | {_summary(_resolved(one))} |" for one in tests)
        yield ""


def _is_shown(member: griffe.Object | griffe.Alias) -> bool:
    is_public = not member.name.startswith("_") or member.name == "__call__"
    is_told = member.is_attribute or member.docstring is not None
    return is_public and is_told and not member.is_alias


def _attributes(cls: griffe.Class) -> Iterator[str]:
    """Yield a line for each attribute, with what the docstring of the class says about it."""
    said = {one.name: one.description for one in _documented(cls)}
    for name, member in cls.members.items():
        if not _is_shown(member) or not isinstance(member, griffe.Attribute):
            continue
        text = said.pop(name, "") or (member.docstring.value if member.docstring else "")
        if not text and "property" in member.labels:
            continue
        kind = "" if member.annotation is None else f": {member.annotation}"
        yield f"- `{name}{kind}{_default(member)}`" + _after_colon(text)
    for name, text in said.items():
        yield f"- `{name}`" + _after_colon(text)


def _default(member: griffe.Attribute) -> str:
    """Return what an attribute is if nothing else is said, in the words of the source."""
    if member.value is None or "class-attribute" not in member.labels:
        return ""
    told = FIELD.fullmatch(str(member.value))
    if told is None:
        return f" = {member.value}"
    return f" = {told[2]}()" if told[2] else f" = {told[1]}"


def _documented(cls: griffe.Class) -> Iterator[griffe.DocstringAttribute]:
    for section in _sections(cls):
        if isinstance(section, griffe.DocstringSectionAttributes):
            yield from section.value


def _function(function: griffe.Object) -> Iterator[str]:
    if not isinstance(function, griffe.Function):
        raise TypeError(f"{function.path} is a {function.kind.value}")
    yield from _code(_signature(function))
    yield from _text(function)
    titles = {
        griffe.DocstringSectionKind.parameters: "Arguments",
        griffe.DocstringSectionKind.returns: "Returns",
        griffe.DocstringSectionKind.yields: "Yields",
        griffe.DocstringSectionKind.raises: "Raises",
    }
    for section in _sections(function):
        if section.kind in titles:
            yield from (f"{titles[section.kind]}:", "")
            yield from (_item(one, str(function.returns)) for one in section.value)
            yield ""


def _item(item: griffe.DocstringElement, result: str) -> str:
    name = ""
    if isinstance(item, griffe.DocstringParameter):
        name = item.name
    elif isinstance(item, griffe.DocstringRaise):
        name = str(item.annotation)
    text = _flat(item.description)
    if isinstance(item, griffe.DocstringReturn) and str(item.annotation) != result:
        text = f"{item.annotation}: {text}"  # What stood before a colon was no type.
    return f"- `{name}`: {text}" if name else f"- {text}"


def _signature(function: griffe.Function, cls: str = "") -> str:
    """Return the line of a definition, or of a call that makes a class, broken if it is long."""
    start = "async def " if "async" in function.labels else "def "
    whole = f"{start}{function.signature()}"
    if cls:
        whole = function.signature(name=cls, return_type=False)
    if len(whole) <= LINE:
        return whole
    before, _, rest = whole.partition("(")
    inner, _, result = rest.rpartition(")")
    lines = "".join(f"    {part},\n" for part in re.split(r", (?=\*|\w+:|/)", inner))
    return f"{before}(\n{lines}){result}"


def _sections(member: griffe.Object) -> Sequence[griffe.DocstringSection]:
    return member.docstring.parsed if member.docstring else ()


def _text(member: griffe.Object) -> Iterator[str]:
    """Yield the prose of a docstring, in Markdown."""
    for section in _sections(member):
        if isinstance(section, griffe.DocstringSectionText):
            yield from (_markdown(section.value), "")


def _markdown(text: str) -> str:
    """Return prose with its blocks of code and its drawings in fences."""

    def fenced(match: re.Match[str]) -> str:
        block = re.sub("^    ", "", match[1], flags=re.MULTILINE).strip("\n")
        return f":\n\n{FENCE}{'toml' if block.startswith('[') else 'py'}\n{block}\n{FENCE}\n"

    text = LITERAL.sub(fenced, text)
    return DRAWING.sub(lambda drawn: f"{FENCE}text\n{drawn[0].rstrip()}\n{FENCE}\n", text).rstrip()


def _summary(member: griffe.Object) -> str:
    return _flat(member.docstring.value) if member.docstring else ""


def _after_colon(text: str) -> str:
    return f": {_flat(text)}" if text else ""


def _flat(text: str) -> str:
    return " ".join(text.split())


def _code(text: str) -> Iterator[str]:
    yield from (f"{FENCE}py", text, FENCE, "")


def main() -> None:
    """Write the page."""
    PAGE.write_text(render(load(), MODULES))


if __name__ == "__main__":
    main()
