"""Derived columns of a grid: the value of an expression of other columns, such as ``4 * hidden``."""

import ast
import operator
from collections.abc import Mapping
from typing import Any

from jouleline.errors import UserError

_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_FUNCTIONS = {"max": max, "min": min}


def evaluate(expression: str, row: Mapping[str, Any]) -> int:
    """Value of a derived column, such as ``4 * hidden`` or ``max(1, hidden // 64)``.

    Allowed are whole numbers, row columns, + - * // %, max and min. Anything else raises UserError.
    """

    def value(node: ast.AST) -> int:
        match node:
            case ast.Constant(value=int() as number) if not isinstance(number, bool):
                return number
            case ast.Name(id=name) if isinstance(row.get(name), int):
                return row[name]
            case ast.Name(id=name):
                raise UserError(f"'{name}' has no value in '{expression}'; set it before it is used")
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](value(left), value(right))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
                return _FUNCTIONS[name](*map(value, args))
        raise UserError(f"cannot read '{expression}'; use whole numbers, columns, + - * // % max min")

    try:
        return value(ast.parse(expression, mode="eval").body)
    except (SyntaxError, TypeError, ZeroDivisionError) as error:
        raise UserError(f"cannot work out '{expression}' ({error}); correct it") from error
