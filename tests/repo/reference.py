"""Writes `docs/plugins/reference.md` from the docstrings of the modules that a plugin imports.

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
`fleeting.testing`: the contract in full. Do not edit this page;
`uv run python -m tests.repo.reference` writes it again.
"""
FENCE = "`" * 3
LINE = 90
QUOTE = "'"
# The definition of a field of a dataclass, of which only the default is for readers.
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
    """Return the public members of a module: constants, its own names, then names of others."""
    found = [_resolved(module[str(name)]) for name in module.exports or ()]

    def place(one: griffe.Object) -> tuple[bool, bool, str, int]:
        # Names that another module defines come last.
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
    # The arguments of a dataclass are its attributes.
    has_own_init = "dataclass" not in cls.labels
    if has_own_init and isinstance(start, griffe.Function) and len(start.parameters) > 1:
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
    is_described = member.is_attribute or member.docstring is not None
    return is_public and is_described and not member.is_alias


def _attributes(cls: griffe.Class) -> Iterator[str]:
    """Yield a line for each attribute, with its text from the docstring of the class."""
    texts = {one.name: one.description for one in _documented(cls)}
    for name, member in cls.members.items():
        if not _is_shown(member) or not isinstance(member, griffe.Attribute):
            continue
        text = texts.pop(name, "") or (member.docstring.value if member.docstring else "")
        if not text and "property" in member.labels:
            continue
        kind = "" if member.annotation is None else f": {member.annotation}"
        yield f"- `{name}{kind}{_default(member)}`" + _after_colon(text)
    for name, text in texts.items():
        yield f"- `{name}`" + _after_colon(text)


def _default(member: griffe.Attribute) -> str:
    """Return the default of an attribute, as it is written in the source."""
    if member.value is None or "class-attribute" not in member.labels:
        return ""
    field = FIELD.fullmatch(str(member.value))
    if field is None:
        return f" = {member.value}"
    return f" = {field[2]}()" if field[2] else f" = {field[1]}"


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
        text = f"{item.annotation}: {text}"  # The part before the colon was not a type.
    return f"- `{name}`: {text}" if name else f"- {text}"


def _signature(function: griffe.Function, cls: str = "") -> str:
    """Return the line of a definition, or of the call of a class, broken if it is long."""
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
