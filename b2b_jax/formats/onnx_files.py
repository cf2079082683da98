"""JAX programs as ONNX models: a translation of the primitives that networks for images are made of.

ONNX operators 17 (https://github.com/onnx/onnx/blob/main/docs/Operators.md), shapes fixed. What depends on constants
only is computed here. jax2onnx knows far more primitives, but its releases for this JAX forbid the Orbax that training
needs.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend import core

from b2b_jax.errors import UserError
from b2b_jax.formats import onnx_complex, onnx_rules, portable
from b2b_jax.formats.onnx_complex import Complex
from b2b_jax.formats.onnx_graph import Graph, refusal

OPSET = 17
PRODUCER = "b2b_jax"  # as the file says near its beginning
MISSING = "ONNX files need the packages onnx and onnxruntime: pip install 'b2b_jax[onnx]'"


def model(function: Callable, shape: tuple[int, ...], names: tuple[str, str]) -> bytes:
    """The ONNX model of a function from one float32 array to one, its input and output called `names`.

    UserError: the package onnx is not installed, or the function needs a primitive that is not translated.
    """
    try:
        import onnx
    except ImportError as error:
        raise UserError(MISSING) from error
    program = portable.program(function, jax.ShapeDtypeStruct(shape, np.float32))
    graph = Graph(onnx)
    (result,) = run(graph, program, [names[0]])
    graph.nodes.append(onnx.helper.make_node("Identity", [graph.name(result)], [names[1]]))
    ends = [
        graph.described(name, aval) for name, aval in zip(names, (*program.in_avals, *program.out_avals), strict=True)
    ]
    operators = [onnx.helper.make_opsetid("", OPSET)]
    made = graph.whole(ends[:1], ends[1:])
    whole = onnx.helper.make_model(made, opset_imports=operators, ir_version=8, producer_name=PRODUCER)
    onnx.checker.check_model(whole, full_check=True)
    return whole.SerializeToString()


def run(graph: Graph, program: core.ClosedJaxpr, inputs: list[Any]) -> list[Any]:
    """Adds the nodes of a flat program to a graph; returns its results."""
    jaxpr = program.jaxpr
    values = dict(zip(jaxpr.constvars, map(np.asarray, program.consts), strict=True))
    values |= zip(jaxpr.invars, inputs, strict=True)
    for equation in jaxpr.eqns:
        arguments = [v.val if isinstance(v, core.Literal) else values[v] for v in equation.invars]
        values |= zip(equation.outvars, translated(graph, equation, arguments), strict=True)
    return [v.val if isinstance(v, core.Literal) else values[v] for v in jaxpr.outvars]


def translated(graph: Graph, equation: Any, arguments: list[Any]) -> list[Any]:
    """The results of one equation, which are computed here when its arguments are constants."""
    primitive, made = equation.primitive, [variable.aval for variable in equation.outvars]
    if all(0 in aval.shape for aval in made):  # padding by nothing; ONNX reads a side of 0 in another way
        return [np.zeros(aval.shape, aval.dtype) for aval in made]
    if not any(isinstance(argument, (str, Complex)) for argument in arguments):
        results = primitive.bind(*map(np.asarray, arguments), **equation.params)
        return [np.asarray(x) for x in (results if primitive.multiple_results else [results])]
    if primitive.name == "scan":
        return _scan(graph, equation, arguments)
    is_complex = any(map(onnx_complex.is_complex, [*equation.invars, *equation.outvars]))
    rules = onnx_complex.RULES if is_complex else onnx_rules.RULES
    if primitive.name not in rules:
        raise refusal(f"{primitive.name} of complex numbers" if is_complex else primitive.name)
    results = rules[primitive.name](graph, equation, *arguments)
    return results if primitive.multiple_results else [results]


def _scan(graph: Graph, equation: Any, arguments: list[Any]) -> list[str]:
    """A program that is run for each slice: the body of a Scan, which takes its constants from around it."""
    program, body = equation.params["jaxpr"], graph.inner()
    # Releases of JAX differ in how they tell constants from what is sliced; a slice has one axis less.
    sliced = [v.aval.ndim > aval.ndim for v, aval in zip(equation.invars, program.in_avals, strict=True)]
    carried = [v.aval.ndim == aval.ndim for v, aval in zip(equation.outvars, program.out_avals, strict=True)]
    slices = [i for i, is_sliced in enumerate(sliced) if is_sliced]
    ends = [equation.invars[i] for i in slices] + equation.outvars
    if any(carried) or equation.params["reverse"] or any(map(onnx_complex.is_complex, ends)):
        raise refusal("a scan that carries something on")
    given = [body.fresh("slice") if is_sliced else x for is_sliced, x in zip(sliced, arguments, strict=True)]
    results = [body.add("Identity", result) for result in run(body, program, given)]
    made = body.whole(
        [body.described(given[i], program.in_avals[i]) for i in slices],
        [body.described(*pair) for pair in zip(results, program.out_avals, strict=True)],
        constants=False,
    )
    over = [arguments[i] for i in slices]
    found = graph.add("Scan", *over, outputs=len(results), body=made, num_scan_inputs=len(over))
    return [found] if len(results) == 1 else found
