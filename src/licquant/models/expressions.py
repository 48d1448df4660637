"""A model's ``forward`` as nested expressions, one for each module it calls.

    ("g_s", ("item", ("bottleneck", ("g_a", "x")), 0))        x̂ = g_s(entropy_bottleneck(g_a(x))[0])

Different ways to write the same thing (a function, a method, a straight-through rounding) give the same
expression, so two models can be compared with ==.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

Expression = Any  # "x" for the input, a number or name, or a tuple: (function, argument, …)

_FUNCTIONS: dict[Any, str] = {
    operator.getitem: "item",
    operator.add: "add",
    operator.iadd: "add",
    torch.add: "add",
    operator.sub: "sub",
    operator.isub: "sub",
    torch.sub: "sub",
    torch.abs: "abs",
    operator.abs: "abs",
    torch.round: "round",
    torch.cat: "cat",
    torch.chunk: "chunk",
}
_METHODS = {"abs": "abs", "round": "round", "chunk": "chunk", "add": "add", "sub": "sub"}
_TRANSPARENT = ("clone", "contiguous")
_IGNORED = ("training",)  # keyword arguments of entropy models that do not matter in eval mode


class _LeafTracer(fx.Tracer):
    """Traces a model's forward with all its modules as leaves."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def module_calls(model: nn.Module, role: Callable[[nn.Module, str], str]) -> dict[str, Expression]:
    """Role of every module that ``forward`` calls → the expression of its (last) call.

    role: (module, its path) → what to call it. Raises what tracing raises where the control flow depends on data.
    """
    expressions: dict[fx.Node, Expression] = {}
    calls: dict[str, Expression] = {}
    for node in _LeafTracer().trace(model).nodes:
        if node.op == "call_module":
            name = role(model.get_submodule(str(node.target)), str(node.target))
            calls[name] = expressions[node] = (name, *_arguments(node, expressions))
        elif node.op == "placeholder":
            expressions[node] = "x"
        elif node.op != "output":
            expressions[node] = _call(node, expressions)
    return calls


def _arguments(node: fx.Node, expressions: dict[fx.Node, Expression]) -> tuple[Expression, ...]:
    values = [*node.args, *(value for key, value in node.kwargs.items() if key not in _IGNORED)]
    return tuple(_value(value, expressions) for value in values)


def _value(value: Any, expressions: dict[fx.Node, Expression]) -> Expression:
    if isinstance(value, fx.Node):
        return expressions[value]
    return tuple(_value(v, expressions) for v in value) if isinstance(value, list | tuple) else value


def _call(node: fx.Node, expressions: dict[fx.Node, Expression]) -> Expression:
    names: dict[Any, str] = _METHODS if node.op == "call_method" else _FUNCTIONS
    arguments = _arguments(node, expressions)
    if node.op == "call_method" and node.target in _TRANSPARENT:
        return arguments[0]
    if node.op == "call_method" and node.target == "detach":
        return ("detach", arguments[0])
    if node.op not in ("call_function", "call_method") or node.target not in names:
        return ("unknown", node.name)
    name = names[node.target]
    if name == "cat":
        return ("cat", *arguments[0]) if arguments[1:] == (1,) else ("unknown", node.name)
    return _simplified((name, *arguments))


def _simplified(expression: Expression) -> Expression:
    """Rounding with a straight-through gradient, (round(v) - v).detach() + v, is rounding."""
    match expression:
        case ("add", ("detach", ("sub", ("round", rounded), value)), other) if rounded == value == other:
            return ("round", value)
    return expression
