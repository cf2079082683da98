"""Primitives of JAX in ONNX operators 17: one rule for each, (graph, equation, *values) -> value.

The values of a rule's result are as those of onnx_graph; of a primitive with several results it is a list.
"""

import math
import string
from collections.abc import Callable
from typing import Any

import numpy as np

from b2b_jax.formats.onnx_graph import Graph, refusal


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
        raise refusal("zeros between pixels")
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


def _gather(graph: Graph, equation: Any, x: Any, places: Any) -> str:
    """Of some axes one place each, of the others everything; JAX has brought the places into bounds."""
    numbers, sides = equation.params["dimension_numbers"], equation.invars[0].aval.shape
    chosen, made = numbers.start_index_map, equation.outvars[0].aval.shape
    whole = [axis for axis in range(len(sides)) if axis not in chosen]
    sizes = [1 if axis in chosen else side for axis, side in enumerate(sides)]
    if numbers.operand_batching_dims or list(equation.params["slice_sizes"]) != sizes:
        raise refusal("a gather of whole windows")
    found = graph.add("GatherND", graph.transpose(x, (*chosen, *whole)), graph.cast(places, np.int64))
    # found: (*places, *whole); the axes of `made` are told by offset_dims, those of one place among them
    windows = [axis for axis in range(len(sides)) if axis not in numbers.collapsed_slice_dims]
    seat = dict(zip(windows, numbers.offset_dims, strict=True))
    batch = [axis for axis in range(len(made)) if axis not in numbers.offset_dims]
    seats = [*batch, *(seat[axis] for axis in whole)]
    return graph.reshape(graph.transpose(found, tuple(np.argsort(seats))), made)


def _scatter(graph: Graph, equation: Any, x: Any, places: Any, updates: Any) -> str:
    """One window at a fixed place, or single places of the first axes."""
    numbers, sides = equation.params["dimension_numbers"], equation.invars[0].aval.shape
    chosen, adds = numbers.scatter_dims_to_operand_dims, equation.primitive.name == "scatter-add"
    if not numbers.inserted_window_dims and not isinstance(places, str) and places.ndim == 1 and adds:
        before = np.zeros(len(sides), np.int64)
        before[list(chosen)] = places
        after = np.array(sides) - before - equation.invars[2].aval.shape
        return graph.add("Add", x, graph.add("Pad", updates, np.array([*before, *after], np.int64), np.float32(0)))
    if numbers.inserted_window_dims != chosen or numbers.operand_batching_dims:
        raise refusal("a scatter of windows")
    order = (*chosen, *(axis for axis in range(len(sides)) if axis not in chosen))
    windows = numbers.update_window_dims
    batch = [axis for axis in range(len(equation.invars[2].aval.shape)) if axis not in windows]
    options = {"reduction": "add"} if adds else {}
    updates = graph.transpose(updates, (*batch, *windows))
    made = graph.add("ScatterND", graph.transpose(x, order), graph.cast(places, np.int64), updates, **options)
    return graph.transpose(made, tuple(np.argsort(order)))


def _sort(graph: Graph, equation: Any, *arrays: Any) -> list[str]:
    if len(arrays) > 1:
        raise refusal("a sort of several arrays at once")
    axis = equation.params["dimension"]
    count = np.array([equation.invars[0].aval.shape[axis]], np.int64)
    return [graph.add("TopK", *arrays, count, outputs=2, axis=axis, largest=0)[0]]


def _top(graph: Graph, equation: Any, x: str) -> list[str]:
    count, axis = np.array([equation.params["k"]], np.int64), equation.params["axis"]
    values, places = graph.add("TopK", x, count, outputs=2, axis=axis)
    return [values, graph.cast(places, equation.outvars[1].aval.dtype)]


def _place(operator: str) -> Callable:
    def rule(graph: Graph, equation: Any, x: str) -> str:
        (axis,) = equation.params["axes"]
        return graph.cast(graph.add(operator, x, axis=axis, keepdims=0), equation.params["index_dtype"])

    return rule


def _logical(operator: str) -> Callable:
    def rule(graph: Graph, equation: Any, *values: Any) -> str:
        if equation.outvars[0].aval.dtype != bool:
            raise refusal(f"{equation.primitive.name} of the bits of whole numbers")
        return graph.add(operator, *values)

    return rule


def _any(graph: Graph, equation: Any, x: str) -> str:
    numbers = graph.cast(x, np.int32)
    return graph.cast(graph.add("ReduceMax", numbers, axes=list(equation.params["axes"]), keepdims=0), bool)


RULES = {
    "abs": _plain("Abs"),
    "add": _plain("Add"),
    "add_any": _plain("Add"),
    "and": _logical("And"),
    "argmax": _place("ArgMax"),
    "argmin": _place("ArgMin"),
    "broadcast_in_dim": _broadcast,
    "ceil": _plain("Ceil"),
    "clamp": lambda graph, equation, low, x, high: graph.add("Min", graph.add("Max", x, low), high),
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "convert_element_type": lambda graph, equation, x: graph.cast(x, equation.params["new_dtype"]),
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
    "floor": _plain("Floor"),
    "gather": _gather,
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
    "ne": lambda graph, equation, *values: graph.add("Not", graph.add("Equal", *values)),
    "neg": _plain("Neg"),
    "not": _logical("Not"),
    "or": _logical("Or"),
    "pad": _pad,
    "reduce_max": _reduce("ReduceMax"),
    "reduce_or": _any,
    "reduce_sum": _reduce("ReduceSum"),
    "rem": lambda graph, equation, *values: graph.add("Mod", *values, fmod=1),
    "reshape": _reshape,
    "rev": _reverse,
    "rsqrt": lambda graph, equation, x: graph.add("Reciprocal", graph.add("Sqrt", x)),
    "scatter": _scatter,
    "scatter-add": _scatter,
    "select_n": lambda graph, equation, which, no, yes: graph.add("Where", which, yes, no),
    "sign": _plain("Sign"),
    "slice": _slice,
    "sort": _sort,
    "split": _split,
    "sqrt": _plain("Sqrt"),
    "square": lambda graph, equation, x: graph.add("Mul", x, x),
    "squeeze": _reshape,
    "stack": _stack,
    "stop_gradient": _plain("Identity"),
    "sub": _plain("Sub"),
    "tanh": _plain("Tanh"),
    "top_k": _top,
    "transpose": lambda graph, equation, x: graph.transpose(x, equation.params["permutation"]),
}
