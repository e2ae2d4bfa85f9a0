"""The operators of Cosmic Ray, applied to a text instead of a file.

Cosmic Ray has no types, so only this module imports it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ("cosmic_sources",)


class Operator(Protocol):
    """The part of an operator of Cosmic Ray that is used here."""

    def mutation_positions(self, node: object) -> Iterable[object]:
        """Return one item for each change that the operator can make to a syntax node."""
        ...


# Cosmic Ray's functions, with types.
get_ast: Callable[[str], object] = import_module("cosmic_ray.ast").get_ast
ast_nodes: Callable[[object], Iterable[object]] = import_module("cosmic_ray.ast").ast_nodes
get_operator: Callable[[str], type[Operator]] = import_module("cosmic_ray.plugins").get_operator
mutate_code: Callable[[str, Operator, int], str | None]
mutate_code = import_module("cosmic_ray.mutating").mutate_code

# Each comparison is reversed and moved by one, and each other operator is replaced once. The rest
# of the 170 operators makes many more mutants and hardly reveals more mistakes.
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
    """Yield the source once for each change that an operator can make."""
    nodes = list(ast_nodes(get_ast(source)))
    for name in OPERATORS:
        operator = get_operator(f"core/{name}")()
        for occurrence in range(sum(len(list(operator.mutation_positions(n))) for n in nodes)):
            mutated = mutate_code(source, operator, occurrence)
            if mutated is not None:
                yield mutated
