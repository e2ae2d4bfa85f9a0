"""Cosmic Ray as the mutator: its operators, applied to a text instead of a file.

It carries no types, so this is the one place that knows it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ("cosmic_sources",)


class Operator(Protocol):
    """What is used of an operator of Cosmic Ray."""

    def mutation_positions(self, node: object) -> Iterable[object]:
        """Return something for each change that it can make to a node of the syntax tree."""
        ...


# The types of what has none.
get_ast: Callable[[str], object] = import_module("cosmic_ray.ast").get_ast
ast_nodes: Callable[[object], Iterable[object]] = import_module("cosmic_ray.ast").ast_nodes
get_operator: Callable[[str], type[Operator]] = import_module("cosmic_ray.plugins").get_operator
mutate_code: Callable[[str, Operator, int], str | None]
mutate_code = import_module("cosmic_ray.mutating").mutate_code

# Each comparison is turned round and moved by one, each other operator replaced once: the
# rest of its 170 operators gives many more mutants, and hardly any that tells more.
OPERATORS = (
    *(
        f"ReplaceComparisonOperator_{pair}"
        for pair in (
            *("Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is"),
            *("Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE", "GtE_Gt", "GtE_Lt"),
        )
    ),
    *(
        f"ReplaceBinaryOperator_{pair}"
        for pair in (
            *("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Mul", "Mod_FloorDiv"),
            *("Pow_Mul", "LShift_RShift", "RShift_LShift", "BitOr_BitAnd", "BitAnd_BitOr"),
        )
    ),
    *("ReplaceUnaryOperator_USub_UAdd", "ReplaceUnaryOperator_Delete_Not"),
    *("ReplaceUnaryOperator_Delete_Invert", "AddNot", "ReplaceAndWithOr", "ReplaceOrWithAnd"),
    *("ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "NumberReplacer", "ExceptionReplacer"),
    *("ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "ZeroIterationForLoop"),
    "RemoveDecorator",
)


def cosmic_sources(source: str) -> Iterator[str]:
    """Yield the source with each change that one of the operators makes."""
    nodes = list(ast_nodes(get_ast(source)))
    for name in OPERATORS:
        operator = get_operator(f"core/{name}")()
        for occurrence in range(sum(len(list(operator.mutation_positions(n))) for n in nodes)):
            mutated = mutate_code(source, operator, occurrence)
            if mutated is not None:
                yield mutated
