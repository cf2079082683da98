"""JAX programs as ONNX models: a translation of the primitives that networks for images are made of.

ONNX operators 17 (https://github.com/onnx/onnx/blob/main/docs/Operators.md), shapes fixed. What depends on constants
only is computed here. jax2onnx knows far more primitives, but its releases for this JAX forbid the Orbax that training
needs.
"""

import math
import string
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend import core

from b2b_jax.errors import UserError
from b2b_jax.formats import portable

OPSET = 17
SMALL = 64  # numbers of a constant, up to which equal ones are looked for
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
    (result,) = graph.run(program, names[0])
    graph.nodes.append(onnx.helper.make_node("Identity", [graph.name(result)], [names[1]]))
    (out,) = program.out_avals
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, sides)
        for name, sides in zip(names, (shape, out.shape), strict=True)
    ]
    made = onnx.helper.make_graph(graph.nodes, "b2b_jax", ends[:1], ends[1:], graph.constants)
    operators = [onnx.helper.make_opsetid("", OPSET)]
    whole = onnx.helper.make_model(made, opset_imports=operators, ir_version=8, producer_name="b2b_jax")
    onnx.checker.check_model(whole, full_check=True)
    return whole.SerializeToString()


class Graph:
    """The nodes and constants of a model in the making. A value is a NumPy array, or the name of a node's output."""

    def __init__(self, onnx: Any):
        self._onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._names: dict[tuple, str] = {}

    def run(self, program: core.ClosedJaxpr, *inputs: str) -> list[Any]:
        """Adds the nodes of a flat program; returns its results."""
        jaxpr = program.jaxpr
        values = dict(zip(jaxpr.constvars, map(np.asarray, program.consts), strict=True))
        values |= zip(jaxpr.invars, inputs, strict=True)
        for equation in jaxpr.eqns:
            arguments = [v.val if isinstance(v, core.Literal) else values[v] for v in equation.invars]
            values |= zip(equation.outvars, self._equation(equation, arguments), strict=True)
        return [values[v] for v in jaxpr.outvars]

    def _equation(self, equation: Any, arguments: list[Any]) -> list[Any]:
        primitive, made = equation.primitive, [variable.aval for variable in equation.outvars]
        if all(0 in aval.shape for aval in made):  # padding by nothing; ONNX reads a side of 0 in another way
            return [np.zeros(aval.shape, aval.dtype) for aval in made]
        if not any(isinstance(argument, str) for argument in arguments):
            results = primitive.bind(*map(np.asarray, arguments), **equation.params)
            return [np.asarray(x) for x in (results if primitive.multiple_results else [results])]
        if primitive.name not in RULES:
            raise UserError(f"The network uses {primitive.name}, which has no translation to ONNX; try --to stablehlo")
        results = RULES[primitive.name](self, equation, *arguments)
        return results if primitive.multiple_results else [results]

    def name(self, value: Any) -> str:
        """The name of a value; arrays become constants of the model, equal small ones the same."""
        if isinstance(value, str):
            return value
        array = np.ascontiguousarray(value).reshape(np.shape(value))
        key = (array.dtype.str, array.shape, array.tobytes() if array.size <= SMALL else len(self._names))
        if key not in self._names:
            self._names[key] = f"constant_{len(self._names)}"
            self.constants.append(self._onnx.numpy_helper.from_array(array, self._names[key]))
        return self._names[key]

    def add(self, operator: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
        """Adds a node; returns the name of its output, or names when there are several."""
        made = [f"{operator.lower()}_{len(self.nodes)}_{i}" for i in range(outputs)]
        inputs = [self.name(value) for value in inputs]
        self.nodes.append(self._onnx.helper.make_node(operator, inputs, made, **attributes))
        return made[0] if outputs == 1 else made

    def transpose(self, x: Any, order: tuple[int, ...]) -> Any:
        """x with its axes in this order."""
        if not isinstance(x, str):
            return np.asarray(x).transpose(order)
        return x if list(order) == sorted(order) else self.add("Transpose", x, perm=list(order))

    def reshape(self, x: Any, shape: tuple[int, ...]) -> Any:
        """x in this shape."""
        return self.add("Reshape", x, np.array(shape, np.int64)) if isinstance(x, str) else np.reshape(x, shape)

    def slice(self, x: str, starts: Any, ends: Any, steps: Any) -> str:
        """x from `starts` to `ends`, one number for each axis."""
        count = np.arange(len(starts), dtype=np.int64)
        numbers = (np.array(n, np.int64) for n in (starts, ends))
        return self.add("Slice", x, *numbers, count, np.array(steps, np.int64))


# ---- one rule for each primitive: (graph, equation, *values) -> value ----


def _plain(operator: str) -> Callable:
    return lambda graph, equation, *values: graph.add(operator, *values)


def _reduce(operator: str) -> Callable:
    def rule(graph: Graph, equation: Any, x: str) -> str:
        axes = list(equation.params["axes"])
        if operator == "ReduceSum":  # the only one whose axes are an input before operators 18
            return graph.add(operator, x, np.array(axes, np.int64), keepdims=0)
        return graph.add(operator, x, axes=axes, keepdims=0)

    return rule


def _reshape(graph: Graph, equation: Any, x: str) -> str:
    return graph.reshape(x, equation.outvars[0].aval.shape)


def _broadcast(graph: Graph, equation: Any, x: str) -> str:
    shape, axes = equation.params["shape"], equation.params["broadcast_dimensions"]
    given, sides = equation.invars[0].aval.shape, [1] * len(shape)
    for axis, side in zip(axes, given, strict=True):
        sides[axis] = side
    x = x if tuple(sides) == given else graph.reshape(x, tuple(sides))
    return x if tuple(sides) == tuple(shape) else graph.add("Expand", x, np.array(shape, np.int64))


def _concatenate(graph: Graph, equation: Any, *parts: Any) -> str:
    filled = [part for part in parts if isinstance(part, str) or part.size]
    return graph.add("Concat", *filled, axis=equation.params["dimension"])


def _stack(graph: Graph, equation: Any, *parts: Any) -> str:
    axis, shape = equation.params["axis"], list(equation.outvars[0].aval.shape)
    shape[axis] = 1
    return graph.add("Concat", *(graph.reshape(part, tuple(shape)) for part in parts), axis=axis)


def _pad(graph: Graph, equation: Any, x: str, value: Any) -> str:
    widths = equation.params["padding_config"]
    if any(inner for _, _, inner in widths):
        raise UserError("The network puts zeros between pixels, which has no translation to ONNX; try --to stablehlo")
    sides = [low for low, _, _ in widths] + [high for _, high, _ in widths]  # below 0 they cut, as in JAX
    return graph.add("Pad", x, np.array(sides, np.int64), value)


def _slice(graph: Graph, equation: Any, x: str) -> str:
    params = equation.params
    return graph.slice(
        x, params["start_indices"], params["limit_indices"], params["strides"] or [1] * len(params["start_indices"])
    )


def _reverse(graph: Graph, equation: Any, x: str) -> str:
    turned = [i in equation.params["dimensions"] for i in range(len(equation.invars[0].aval.shape))]
    lowest = np.iinfo(np.int64).min
    starts, ends = [-1 if t else 0 for t in turned], [lowest if t else np.iinfo(np.int64).max for t in turned]
    return graph.slice(x, starts, ends, [-1 if t else 1 for t in turned])


def _split(graph: Graph, equation: Any, x: str) -> list[str]:
    sizes = equation.params["sizes"]
    parts = graph.add("Split", x, np.array(sizes, np.int64), outputs=len(sizes), axis=equation.params["axis"])
    return parts if len(sizes) > 1 else [parts]


def _product(graph: Graph, equation: Any, x: Any, y: Any) -> str:
    (over_x, over_y), (same_x, same_y) = equation.params["dimension_numbers"]
    ranks = [len(variable.aval.shape) for variable in equation.invars]
    if not same_x and tuple(over_x) == (ranks[0] - 1,) and tuple(over_y) == (0,) and ranks[1] == 2:
        return graph.add("MatMul", x, y)
    letters = iter(string.ascii_lowercase)
    of_x, of_y = ([next(letters) for _ in range(rank)] for rank in ranks)
    for i, j in zip([*over_x, *same_x], [*over_y, *same_y], strict=True):
        of_y[j] = of_x[i]
    rest_x = [letter for i, letter in enumerate(of_x) if i not in (*over_x, *same_x)]
    rest_y = [letter for j, letter in enumerate(of_y) if j not in (*over_y, *same_y)]
    out = "".join([*(of_x[i] for i in same_x), *rest_x, *rest_y])
    return graph.add("Einsum", x, y, equation=f"{''.join(of_x)},{''.join(of_y)}->{out}")


def _convolution(graph: Graph, equation: Any, x: Any, kernel: Any) -> str:
    params = equation.params
    numbers, groups, dilation = params["dimension_numbers"], params["feature_group_count"], params["lhs_dilation"]
    x, kernel = graph.transpose(x, numbers.lhs_spec), graph.transpose(kernel, numbers.rhs_spec)
    pads = [low for low, _ in params["padding"]] + [high for _, high in params["padding"]]
    if math.prod(dilation) == 1:
        options = {"strides": params["window_strides"], "dilations": params["rhs_dilation"], "pads": pads}
        y = graph.add("Conv", x, kernel, group=groups, **options)
    else:  # zeros between the pixels of x: the transpose of a convolution that steps over them
        sides = equation.invars[1].aval.shape
        size = [sides[axis] for axis in numbers.rhs_spec[2:]]
        pads = [k - 1 - p for k, p in zip(size * 2, pads, strict=True)]
        turned = np.asarray(kernel)[:, :, ::-1, ::-1].swapaxes(0, 1)
        y = graph.add("ConvTranspose", x, turned, strides=dilation, pads=pads)
    return graph.transpose(y, tuple(np.argsort(numbers.out_spec)))


RULES = {
    "abs": _plain("Abs"),
    "add": _plain("Add"),
    "add_any": _plain("Add"),
    "broadcast_in_dim": _broadcast,
    "clamp": lambda graph, equation, low, x, high: graph.add("Min", graph.add("Max", x, low), high),
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "convert_element_type": lambda graph, equation, x: graph.add("Cast", x, to=_element_type(graph, equation)),
    "copy": _plain("Identity"),
    "cumsum": lambda graph, equation, x: graph.add(
        "CumSum", x, np.array(equation.params["axis"], np.int64), reverse=int(equation.params["reverse"])
    ),
    "div": _plain("Div"),
    "dot_general": _product,
    "erf": _plain("Erf"),
    "erfc": lambda graph, equation, x: graph.add("Sub", np.float32(1), graph.add("Erf", x)),
    "eq": _plain("Equal"),
    "exp": _plain("Exp"),
    "expand_dims": _reshape,
    "ge": _plain("GreaterOrEqual"),
    "gt": _plain("Greater"),
    "integer_pow": lambda graph, equation, x: graph.add("Pow", x, np.float32(equation.params["y"])),
    "le": _plain("LessOrEqual"),
    "log": _plain("Log"),
    "logistic": _plain("Sigmoid"),
    "lt": _plain("Less"),
    "max": _plain("Max"),
    "min": _plain("Min"),
    "mul": _plain("Mul"),
    "neg": _plain("Neg"),
    "pad": _pad,
    "reduce_max": _reduce("ReduceMax"),
    "reduce_sum": _reduce("ReduceSum"),
    "reshape": _reshape,
    "rev": _reverse,
    "rsqrt": lambda graph, equation, x: graph.add("Reciprocal", graph.add("Sqrt", x)),
    "select_n": lambda graph, equation, which, no, yes: graph.add("Where", which, yes, no),
    "slice": _slice,
    "split": _split,
    "sqrt": _plain("Sqrt"),
    "square": lambda graph, equation, x: graph.add("Mul", x, x),
    "squeeze": _reshape,
    "stack": _stack,
    "stop_gradient": _plain("Identity"),
    "sub": _plain("Sub"),
    "tanh": _plain("Tanh"),
    "transpose": lambda graph, equation, x: graph.transpose(x, equation.params["permutation"]),
}


def _element_type(graph: Graph, equation: Any) -> int:
    return graph._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(equation.params["new_dtype"]))
