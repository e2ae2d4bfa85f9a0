"""What a module calls public is what is public in it."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .conftest import Module


def definitions(tree: ast.Module) -> set[str]:
    """Return the public names that a module defines, those behind an `if` too.

    A constant is an implementation detail unless `__all__` says otherwise, and
    so is a logger; `borrowed` finds whoever uses one from elsewhere nevertheless.
    """
    return {
        name
        for name in _defined(tree.body)
        if not (name.startswith("_") or name == "logger" or is_constant(name))
    }


def is_constant(name: str) -> bool:
    """Return whether a name is written as that of a constant."""
    return len(name) > 1 and name.isupper()


def _defined(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.ClassDef(name=name):
                yield name
            case ast.Assign(value=ast.Call(func=ast.Name(id="TypeVar" | "ParamSpec"))):
                pass  # A parameter of types is part of no interface.
            case ast.Assign(targets=targets):
                yield from (n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.If(body=then, orelse=otherwise) | ast.Try(body=then, orelse=otherwise):
                yield from _defined([*then, *otherwise])
            case _:
                pass


def declared(tree: ast.Module) -> tuple[str, ...] | None:
    """Return `__all__` if it is a tuple, written out, and None otherwise."""
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=ast.Tuple() as names):
                return tuple(ast.literal_eval(names))
            case _:
                pass
    return None


def in_order(names: tuple[str, ...]) -> list[str]:
    """Return the names sorted as the linter sorts them: constants, classes, the rest."""

    def kind(name: str) -> int:
        return 0 if is_constant(name) else 1 if name[0].isupper() else 2

    return sorted(set(names), key=lambda name: (kind(name), name))


def complaints(tree: ast.Module, *, known: set[str]) -> list[str]:
    """Return what is wrong with the `__all__` of a module.

    Args:
        tree: the module's syntax.
        known: names that the module has besides those that it defines: what it
            imports, or serves by `__getattr__`.
    """
    defined = definitions(tree)
    names = declared(tree)
    if names is None:
        return ["__all__ is missing, or no tuple"] if defined else []
    return [
        *(f"{name} is defined and not in __all__" for name in sorted(defined - set(names))),
        *(f"{name} is in __all__ and does not exist" for name in names if name not in known),
        *(["__all__ is not sorted, or has a name twice"] if in_order(names) != [*names] else []),
    ]


def borrowed(tree: ast.Module, public: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return the names that a module imports from a public one which does not offer them."""
    return [
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module in public
        for alias in node.names
        if alias.name not in public[node.module]
    ]


def test_all_equals_what_is_public(modules: list[Module]) -> None:
    """Each public module has a sorted tuple of all that it defines or hands on."""
    found: dict[str, list[str]] = {}
    for module in modules:
        if not module.is_public:
            continue
        loaded = module.load()
        known = {name for name in declared(module.tree) or () if hasattr(loaded, name)}
        found[module.name] = complaints(module.tree, known=known)
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_nobody_imports_what_is_not_public(modules: list[Module]) -> None:
    """From a public module of ours the others import only what its `__all__` offers."""
    names = {module.name for module in modules}
    public = {
        module.name: (
            *(declared(module.tree) or ()),
            *(name.rpartition(".")[2] for name in names if name.rpartition(".")[0] == module.name),
        )
        for module in modules
        if module.is_public
    }
    found = {module.name: borrowed(module.tree, public) for module in modules}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_borrowed_names_are_noticed() -> None:
    """An import of a detail gives a complaint, one of an offered name or of a stranger's not."""
    public = {"fleeting.types": ("State", "errors")}
    text = "from fleeting.types import State, DETAIL\nfrom os import sep"
    assert borrowed(ast.parse(text), public) == ["fleeting.types.DETAIL"]


def test_wrong_declarations_are_noticed() -> None:
    """A missing, superfluous, doubled or misplaced name gives a complaint, and so does a list."""
    samples = {
        "__all__ = ('a',)\ndef a(): ...\ndef b(): ...": 1,
        "__all__ = ('a', 'gone')\ndef a(): ...": 1,
        "__all__ = ('b', 'a')\na, b = 1, 2": 1,
        "__all__ = ('a', 'a')\na = 1": 1,
        "__all__ = ['a']\na = 1": 1,
        "class A: ...": 1,
        "if True:\n    def hidden(): ...": 1,
        "_private = 1\nDETAIL = 2\nT = TypeVar('T')": 0,
        "from x import other\n__all__ = ('LIMIT', 'A', 'other')\nclass A: ...\nLIMIT = 1": 0,
    }
    known = {"a", "b", "A", "LIMIT", "other"}
    assert {text: len(complaints(ast.parse(text), known=known)) for text in samples} == samples
