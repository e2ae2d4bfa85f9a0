"""Makes mutants: every small change of a source file that could be a mistake.

Most changes come from Cosmic Ray. A few more matter in a state machine: a forgotten change of the
state, `min` instead of `max`, and similar ones. Changes of annotations alone and changes that are
not valid Python are left out.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard

from tests.mutation.cosmic import cosmic_sources
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("Mutant", "mutants_of")

# Replacements of operators and functions.
SWAPPED: dict[type[ast.cmpop], str] = {ast.In: "not in", ast.NotIn: "in"}
AUGMENTED: dict[type[ast.operator], str] = {ast.Add: "-=", ast.Sub: "+=", ast.BitOr: "&="}
EXTREMES = {"min": "max", "max": "min"}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One file with one change.

    Attributes:
        file: the path of the file in the core.
        where: the qualified name of the changed function or class; empty for the module itself.
        before: the changed lines.
        after: the lines after the change.
        nth: the number of the mutant among those with the same key, from 0.
        line: the line of the change, from 1.
        source: the whole file with the change.
    """

    file: str
    where: str
    before: str
    after: str
    nth: int
    line: int
    source: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Return a key that does not depend on other parts of the file."""
        return self.file, self.where, self.before, self.after

    @property
    def name(self) -> str:
        """Return a unique text."""
        return "\n".join((*self.key, str(self.nth)))


def mutants_of(file: str, source: str) -> list[Mutant]:
    """Return all different mutants of a file, in the order of their lines."""
    scopes = list(_scopes(ast.parse(source)))
    seen = {_essence(source)}
    changes: list[tuple[int, str, str, str]] = []
    for mutated in (*cosmic_sources(source), *_own_sources(source)):
        essence = _essence(mutated)
        if essence is not None and essence not in seen:
            seen.add(essence)
            changes.append((*_difference(source, mutated), mutated))
    counts: Counter[tuple[str, str, str]] = Counter()
    mutants: list[Mutant] = []
    for line, before, after, mutated in sorted(changes):
        inside = [(first, name) for first, last, name in scopes if first <= line <= last]
        where = max(inside)[1] if inside else ""
        nth = counts[where, before, after]
        counts[where, before, after] += 1
        mutants.append(Mutant(file, where, before, after, nth, line, mutated))
    return mutants


def _own_sources(source: str) -> Iterator[str]:
    """Yield the source once for each change that Cosmic Ray does not make."""
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    raw = source.encode()

    def replaced(first: ast.expr | ast.stmt, last: ast.expr | ast.stmt, text: str) -> str:
        begin = starts[first.lineno - 1] + first.col_offset
        end = starts[(last.end_lineno or 0) - 1] + (last.end_col_offset or 0)
        return (raw[:begin] + text.encode() + raw[end:]).decode()

    for node in ast.walk(ast.parse(source)):
        if _is_change_of_state(node):
            yield replaced(node, node, "pass")
        match node:
            case ast.Compare(left=left, ops=[ast.In() | ast.NotIn() as op], comparators=[right]):
                yield replaced(left, right, _swapped(source, left, right, SWAPPED[type(op)]))
            case ast.AugAssign(target=target, op=op, value=value) if type(op) in AUGMENTED:
                yield replaced(target, value, _swapped(source, target, value, AUGMENTED[type(op)]))
            case ast.Call(func=ast.Name(id=name) as called) if name in EXTREMES:
                yield replaced(called, called, EXTREMES[name])
            case _:
                pass


def _is_change_of_state(node: ast.AST) -> TypeGuard[ast.stmt]:
    match node:
        case ast.Expr(value=ast.Call()) | ast.Delete():
            return True
        case ast.Assign(targets=[target, *_]) | ast.AnnAssign(target=target, value=ast.expr()):
            return isinstance(target, ast.Attribute | ast.Subscript | ast.Tuple)
        case _:
            return False


def _swapped(source: str, left: ast.expr, right: ast.expr, word: str) -> str:
    """Return two operands with the other operator between them."""
    parts = [ast.get_source_segment(source, operand) or "" for operand in (left, right)]
    return f"{parts[0]} {word} {parts[1]}"


class _Bare(ast.NodeTransformer):
    """Removes the parts of a syntax tree that are not executed."""

    @override
    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        # Cosmic Ray takes a lone star for an operator.
        node.args = [*node.posonlyargs, *node.args, *node.kwonlyargs]
        node.defaults = [*node.defaults, *filter(None, node.kw_defaults)]
        node.posonlyargs, node.kwonlyargs, node.kw_defaults = [], [], []
        return self.generic_visit(node)

    @override
    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    @override
    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    @override
    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    @override
    def visit_If(self, node: ast.If) -> ast.AST | None:
        match node.test:
            case ast.Name(id="TYPE_CHECKING") | ast.UnaryOp(operand=ast.Name(id="TYPE_CHECKING")):
                return None
            case _:
                return self.generic_visit(node)


def _essence(source: str) -> str | None:
    """Return the executed part of a source as text; None if it is not valid Python."""
    try:
        return ast.dump(_Bare().visit(ast.parse(source)))
    except SyntaxError:
        return None


def _scopes(tree: ast.AST, above: str = "") -> Iterator[tuple[int, int, str]]:
    """Yield first line, last line and qualified name of all functions and classes."""
    for node in ast.iter_child_nodes(tree):
        name = above
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            name = f"{above}.{node.name}".lstrip(".")
            # A decorator belongs to what it decorates.
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            yield first, node.end_lineno or node.lineno, name
        yield from _scopes(node, name)


def _difference(source: str, mutated: str) -> tuple[int, str, str]:
    """Return the line where two sources differ, and the lines of both, without indentation."""
    old, new = source.splitlines(), mutated.splitlines()
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    changes = [change for change in matcher.get_opcodes() if change[0] != "equal"]
    places = [n for _, first, last, _, _ in changes for n in range(first, last)]
    line = next((n for n in places if old[n].strip()), changes[0][1])
    before = "\n".join(old[n].strip() for n in places)
    after = "\n".join(line.strip() for *_, first, last in changes for line in new[first:last])
    # Cosmic Ray leaves extra spaces where it adds or removes a word.
    neat = re.sub(r"(?<=\S)  +", " ", re.sub(r"([(\[]) +", r"\1", after))
    return line + 1, before.strip(), neat.strip()
