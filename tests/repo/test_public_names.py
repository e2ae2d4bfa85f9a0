"""`__all__` lists the public names of a module, and nothing else imports the others."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from tests.repo.imports import has_private_part, is_internal, is_ours

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from .conftest import Module


def definitions(tree: ast.Module) -> set[str]:
    """Return the public names that a module defines, those behind an `if` too.

    A constant is an implementation detail unless `__all__` says otherwise, and so is a logger;
    `borrowed` finds the modules that import one nevertheless.
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
                pass  # A type parameter is not part of an interface.
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
        return ["__all__ is missing, or is not a tuple"] if defined else []
    return [
        *(f"{name} is defined and not in __all__" for name in sorted(defined - set(names))),
        *(f"{name} is in __all__ and does not exist" for name in names if name not in known),
        *(["__all__ is not sorted, or has a name twice"] if in_order(names) != [*names] else []),
    ]


def borrowed(tree: ast.Module, offered: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return the names that a module imports from another one which does not offer them.

    Args:
        tree: the importing module's syntax.
        offered: the modules that have an `__all__`, with it and with their submodules.
    """
    return [
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names
        if alias.name not in offered.get(node.module, (alias.name,))
        or (has_private_part(alias.name) and is_ours(node.module.partition(".")[0]))
    ]


def hiding(names: Iterable[str], submodules: set[str]) -> list[str]:
    """Return the names of a package that hide one of its modules, or are replaced by it.

    Python sets a submodule as an attribute of its package when it is imported. A function of the
    same name works until then.
    """
    return sorted(set(names) & submodules)


def submodules(modules: list[Module], package: str) -> set[str]:
    """Return the names of the modules directly in a package."""
    found = (module.name.rpartition(".") for module in modules)
    return {name for above, _, name in found if above == package}


def test_all_equals_what_is_public(modules: list[Module]) -> None:
    """`__all__` is a sorted tuple of what the module defines or hands on.

    A module of an internal room may do without.
    """
    found: dict[str, list[str]] = {}
    for module in modules:
        is_optional = is_internal(module.name) and declared(module.tree) is None
        if is_optional or not module.is_public:
            continue
        loaded = module.load()
        known = {name for name in declared(module.tree) or () if hasattr(loaded, name)}
        found[module.name] = complaints(module.tree, known=known)
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_modules_import_what_others_offer(modules: list[Module]) -> None:
    """Modules of ours import no private name, and of a public `__all__` only what it lists."""
    offered = {
        module.name: (*listed, *submodules(modules, module.name))
        for module in modules
        if module.is_public and (listed := declared(module.tree)) is not None
    }
    names = {module.name for module in modules}
    found = {
        module.name: [
            name
            for name in borrowed(module.tree, offered)
            # A private module of a package is there for the modules next to it.
            if name not in names
        ]
        for module in modules
    }
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_names_hide_no_module(modules: list[Module]) -> None:
    """No package defines a name that is also one of its modules."""
    found = {
        module.name: hiding(_defined(module.tree.body), submodules(modules, module.name))
        for module in modules
        if module.path.stem == "__init__"
    }
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_hidden_modules_are_noticed() -> None:
    """A function with the name of a module next to it is found."""
    tree = ast.parse("def _registry(): ...\ndef connect(): ...")
    assert hiding(_defined(tree.body), {"_registry", "abc"}) == ["_registry"]


def test_borrowed_names_are_noticed() -> None:
    """An unlisted or private name is found; a listed one and a private one of others are not."""
    offered = {"fleeting.types": ("State", "errors")}
    text = (
        "from fleeting.types import State, DETAIL\nfrom fleeting.abc import _hidden\n"
        "from os import sep, _exit"
    )
    wrong = ["fleeting.types.DETAIL", "fleeting.abc._hidden"]
    assert borrowed(ast.parse(text), offered) == wrong


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
