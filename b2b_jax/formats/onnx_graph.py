"""The nodes and constants of an ONNX model in the making.

A value is a NumPy array, where it depends on constants only, or the name of a node's output.
"""

import hashlib
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from b2b_jax.errors import UserError


class Graph:
    """A list of nodes and the constants that they use.

    onnx: the package. outer: the graph whose node has this one as its body; both share their constants, and the body
    may use every value of the graph around it.
    """

    def __init__(self, onnx: Any, outer: "Graph | None" = None):
        self._onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = outer.constants if outer else []
        self._names: dict[tuple, str] = outer._names if outer else {}
        self._numbers: Iterator[int] = outer._numbers if outer else itertools.count()

    def inner(self) -> "Graph":
        """An empty graph for the body of one of this graph's nodes."""
        return Graph(self._onnx, self)

    def name(self, value: Any) -> str:
        """The name of a value; arrays become constants of the model, equal ones the same."""
        if isinstance(value, str):
            return value
        array = np.ascontiguousarray(value).reshape(np.shape(value))
        key = (array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).digest())
        if key not in self._names:
            self._names[key] = f"constant_{len(self._names)}"
            self.constants.append(self._onnx.numpy_helper.from_array(array, self._names[key]))
        return self._names[key]

    def fresh(self, word: str) -> str:
        """A name that no other value of the model has."""
        return f"{word}_{next(self._numbers)}"

    def add(self, operator: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
        """Adds a node; returns the name of its output, or names when there are several."""
        made = [self.fresh(operator.lower()) for _ in range(outputs)]
        inputs = [self.name(value) for value in inputs]
        self.nodes.append(self._onnx.helper.make_node(operator, inputs, made, **attributes))
        return made[0] if outputs == 1 else made

    def cast(self, x: Any, dtype: Any) -> Any:
        """x in another type of number."""
        if not isinstance(x, str):
            return np.asarray(x).astype(dtype)
        return self.add("Cast", x, to=self.element(dtype))

    def element(self, dtype: Any) -> int:
        """ONNX's number of a type of number."""
        return self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

    def described(self, name: str, aval: Any) -> Any:
        """The type and shape of an input or output, as graphs list them."""
        return self._onnx.helper.make_tensor_value_info(name, self.element(aval.dtype), aval.shape)

    def whole(self, inputs: list[Any], outputs: list[Any], constants: bool = True) -> Any:
        """The finished graph, with its constants or as a body."""
        initializers = self.constants if constants else []
        return self._onnx.helper.make_graph(self.nodes, "b2b_jax", inputs, outputs, initializers)

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


def refusal(what: str) -> UserError:
    """The error for what is not translated."""
    return UserError(f"The network uses {what}, which has no translation to ONNX; try --to stablehlo")
