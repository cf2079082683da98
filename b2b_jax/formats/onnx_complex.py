"""Complex numbers and Fourier transforms in ONNX, for `models.consistent` and what stands before it.

    X = W_h x W_w,   W_n = exp(-2πi jk / n)

ONNX has no complex numbers, so they are pairs of real values; not every runtime has its operator DFT, so a transform is
two products with matrices of cosines and sines. Rules are as in onnx_rules.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from jax import lax

from b2b_jax.formats import onnx_rules
from b2b_jax.formats.onnx_graph import Graph, refusal


class Complex(NamedTuple):
    """A complex value of two values of a graph; None stands for an imaginary part of zeros."""

    real: Any
    imag: Any


def is_complex(variable: Any) -> bool:
    """True of a variable of a program that holds complex numbers."""
    return np.issubdtype(variable.aval.dtype, np.complexfloating)


def parts(value: Any) -> Complex:
    """A value as a complex one; constants of the program are NumPy's complex arrays."""
    if isinstance(value, Complex):
        return value
    if isinstance(value, str) or not np.iscomplexobj(value):
        return Complex(value, None)
    return Complex(np.real(value), np.imag(value))


def _moved(graph: Graph, equation: Any, x: Any, *padding: Any) -> Complex:
    """Of a primitive that moves numbers and does not change them; what it pads with is 0."""
    rule, zero = onnx_rules.RULES[equation.primitive.name], [np.float32(0) for _ in padding]
    return Complex(*(None if part is None else rule(graph, equation, part, *zero) for part in parts(x)))


def _plus(graph: Graph, x: Any, y: Any) -> Any:
    return y if x is None else x if y is None else graph.add("Add", x, y)


def _minus(graph: Graph, x: Any, y: Any) -> Any:
    return x if y is None else graph.add("Sub", x, y)


def _times(graph: Graph, x: Any, y: Any) -> Any:
    return None if x is None or y is None else graph.add("Mul", x, y)


def _multiply(graph: Graph, equation: Any, x: Any, y: Any) -> Complex:
    x, y = parts(x), parts(y)
    real = _minus(graph, _times(graph, x.real, y.real), _times(graph, x.imag, y.imag))
    return Complex(real, _plus(graph, _times(graph, x.real, y.imag), _times(graph, x.imag, y.real)))


def _divide(graph: Graph, equation: Any, x: Any, y: Any) -> Complex:
    if parts(y).imag is not None:
        raise refusal("a division by complex numbers")
    return Complex(*(None if part is None else graph.add("Div", part, parts(y).real) for part in parts(x)))


def _conjugate(graph: Graph, equation: Any, x: Any) -> Complex:
    x = parts(x)
    return Complex(x.real, None if x.imag is None else graph.add("Neg", x.imag))


def _absolute(graph: Graph, equation: Any, x: Complex) -> str:
    square = _plus(graph, _times(graph, x.real, x.real), _times(graph, x.imag, x.imag))
    return graph.add("Sqrt", square)


def _imaginary(graph: Graph, equation: Any, x: Complex) -> Any:
    return np.zeros(equation.outvars[0].aval.shape, np.float32) if x.imag is None else x.imag


def _transform(graph: Graph, equation: Any, x: Any) -> Any:
    """Of the last two axes: a real photo's half spectrum, or the photo of one."""
    kind, sides = equation.params["fft_type"], equation.params["fft_lengths"]
    if kind not in (lax.FftType.RFFT, lax.FftType.IRFFT) or len(sides) != 2:
        raise refusal(f"a Fourier transform of the kind {kind.name} over {len(sides)} axes")
    h, w = sides
    cosines, sines = waves(w, w // 2 + 1)
    if kind == lax.FftType.RFFT:
        return _along_rows(graph, Complex(graph.add("MatMul", x, cosines), graph.add("MatMul", x, -sines)), h, -1)
    x = _along_rows(graph, parts(x), h, 1)
    twice = np.full((w // 2 + 1, 1), 2.0)  # for the half that is left out; these have no other half:
    twice[[0, w // 2] if w % 2 == 0 else 0] = 1.0
    cosines, sines = (np.float32(twice * wave.T / (h * w)) for wave in (cosines, sines))
    return _minus(graph, graph.add("MatMul", x.real, cosines), graph.add("MatMul", x.imag, sines))


def _along_rows(graph: Graph, x: Complex, n: int, sign: int) -> Complex:
    """exp(sign 2πi jk / n) times x, over the last axis but one."""
    cosines, sines = waves(n, n)
    (a, b), (c, d) = ([_product(graph, wave, part) for part in x] for wave in (cosines, np.float32(sign) * sines))
    return Complex(_minus(graph, a, d), _plus(graph, b, c))


def _product(graph: Graph, matrix: np.ndarray, x: Any) -> Any:
    return None if x is None else graph.add("MatMul", matrix, x)


def waves(n: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of 2π jk / n: (n, count) both, float32."""
    angle = 2 * math.pi / n * (np.arange(n)[:, None] * np.arange(count) % n)
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


RULES = {
    "abs": _absolute,
    "broadcast_in_dim": _moved,
    "conj": _conjugate,
    "convert_element_type": lambda graph, equation, x: parts(x),  # from real numbers: JAX refuses the way back
    "div": _divide,
    "fft": _transform,
    "imag": _imaginary,
    "mul": _multiply,
    "pad": _moved,
    "real": lambda graph, equation, x: x.real,
    "transpose": _moved,
}
