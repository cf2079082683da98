"""Large computations on a CPU by oneDNN, through XLA's foreign function interface; needs the extra `onednn`.

XLA leaves many large convolutions on one core, and the gradients of their kernels are slow; oneDNN, which PyTorch also
uses, takes two thirds to nine tenths of the time over a whole network (docs/benchmarks.md). Where its library is
installed and JAX has one CPU and nothing else, `convolution` hands it what is large enough to be worth the call, with
bias and ReLU, and networks that only deblur hand it whole blocks (`Steps`).
"""

import ast
import concurrent.futures
import functools
import math
from collections.abc import Callable, Iterable

import jax
import numpy as np

from b2b_jax.models import ffi
from b2b_jax.models.convolution_cpu import Geometry, Shape
from b2b_jax.models.onednn_primitives import (
    Convolution,
    LayerNorm,
    OneDNNError,
    Packing,
    Primitive,
    Work,
    library,
    packing,
    primitive,
)

TARGET = "b2b_jax_onednn"
LARGE, LARGE_POINTWISE = 1e8, 5e8  # operations from which oneDNN is faster; it shares the cores with XLA's threads
FEW, FEW_POINTWISE = 8, 64  # channels in or out, below which XLA is faster except over kernels (docs/benchmarks.md)
LARGE_KERNEL = 2**18  # numbers in a kernel, from which it is packed only once for all its uses in a program
LARGE_BLOCK = 2**17  # numbers in an image, from which the blocks of a network are faster in `Steps`

Array = jax.Array | jax.ShapeDtypeStruct  # the latter stands for what a step makes
# XLA calls from several threads, but OpenMP starts a team of threads for each caller, and primitives keep addresses.
_one_thread = concurrent.futures.ThreadPoolExecutor(1)


def form(
    kind: str,
    image: Shape,
    kernel: Shape,
    geometry: Geometry,
    dtype: jax.typing.DTypeLike,
    bias: bool = False,
    relu: bool = False,
) -> Callable | None:
    """A function of (x, kernel), (g, kernel) or (x, g) for a kind of convolution; None where XLA is to do it.

    With `bias` it is one of (x, kernel, bias), with ReLU if `relu`, or one of (x, g) that returns both gradients.
    """
    if geometry.groups > 1 or dtype != np.float32:
        return None
    sizes = zip(image[1:3], geometry.padding, kernel[:2], strict=True)
    output = (image[0], *((n + 2 * p - k) // geometry.stride + 1 for n, p, k in sizes), kernel[3])
    large, few = (LARGE_POINTWISE, FEW_POINTWISE) if kernel[:2] == (1, 1) else (LARGE, FEW)
    is_small = 2 * math.prod(output) * math.prod(kernel[:3]) < large
    is_shallow = kind != "over_kernel" and min(kernel[2:]) < few
    if is_small or is_shallow or not usable():
        return None
    packed = kind != "over_kernel" and math.prod(kernel) >= LARGE_KERNEL
    details = {"bias": bias, "after": "relu" if relu else "", "packed": packed}
    convolution = Convolution(kind, image, kernel, output, geometry.stride, geometry.padding, **details)
    try:
        primitive(convolution)  # here, so that a refusal leaves the convolution to XLA
    except OneDNNError:
        return None
    return functools.partial(_convolve, convolution)


def _convolve(convolution: Convolution, *arrays: jax.Array) -> jax.Array | tuple[jax.Array, ...]:
    kind, over_bias = convolution.kind, convolution.kind == "over_kernel" and convolution.bias
    result = {"forward": convolution.output, "over_image": convolution.image, "over_kernel": convolution.kernel}[kind]
    results = [result, convolution.kernel[3:]] if over_bias else [result]
    if convolution.packed:  # by a call of its own, because XLA merges equal calls
        work, size = packing(convolution)
        (packed,) = _called([(work, (0, 1))], [(size,)], arrays[1])
        arrays = (arrays[0], packed, *arrays[2:])
    made = _called([(convolution, range(len(arrays) + len(results)))], results, *arrays)
    return tuple(made) if over_bias else made[0]


def suits(image: jax.Array) -> bool:
    """Whether a block of a network is faster in `Steps`."""
    return image.dtype == np.float32 and image.size >= LARGE_BLOCK and usable()


def usable() -> bool:
    """Whether oneDNN is installed, and JAX has one CPU: a program for several devices would collect all arrays."""
    return _is_registered() and jax.default_backend() == "cpu" and jax.device_count() == 1


class Steps:
    """Steps in one call, one after another; they share the arrays between them, which are float32 and NHWC.

    A method adds a step and returns what stands for its result in later steps.
    """

    def __init__(self) -> None:
        self._steps = []  # (work, arrays, what stands for the result)

    def conv(self, x: Array, kernel: jax.Array, bias: jax.Array, after: str = "", other: Array | None = None) -> Array:
        """The convolution that keeps an image's size, then 'relu', or 'times' or 'plus' the other array.

        x: (n, h, w, in); kernel: of odd sides, (kh, kw, in, out), or (kh, kw, 1, in) for a depthwise one.
        """
        kh, kw, inputs, out = kernel.shape
        shape, groups = (*x.shape[:3], out), x.shape[-1] // inputs
        padding = (kh // 2, kw // 2)
        work = Convolution("forward", x.shape, kernel.shape, shape, 1, padding, groups, bias=True, after=after)
        return self.add(work, shape, x, kernel, bias, *([] if other is None else [other]))

    def norm(self, x: Array, epsilon: float) -> Array:
        """Zero mean and unit variance over the channels of each pixel."""
        return self.add(LayerNorm(x.shape, epsilon), x.shape, x)

    def add(self, work: Convolution | LayerNorm, result: Shape, *arrays: Array) -> jax.ShapeDtypeStruct:
        """Any work. OneDNNError: oneDNN has nothing for it."""
        primitive(work)
        self._steps.append((work, arrays, jax.ShapeDtypeStruct(result, np.float32)))
        return self._steps[-1][-1]

    def run(self) -> jax.Array:
        """The last step's result."""
        made, places = self._shared()
        given = {id(a): a for _, arrays, _ in self._steps for a in arrays if id(a) not in places}
        number = {name: i for i, name in enumerate(given)} | {name: len(given) + i for name, i in places.items()}
        steps = [(work, [number[id(a)] for a in (*arrays, result)]) for work, arrays, result in self._steps]
        return _called(steps, made, *given.values())[places[id(self._steps[-1][-1])]]

    def _shared(self) -> tuple[list[Shape], dict[int, int]]:
        """The shapes of the arrays to make, and which of them each result, by its id, is written to.

        What no later step reads is written over.
        """
        last = {id(a): i for i, (_, arrays, _) in enumerate(self._steps) for a in arrays}
        shapes, free, places = [], [], {}
        for i, (_, arrays, result) in enumerate(self._steps):
            place = next((place for place in free if shapes[place] == result.shape), len(shapes))
            if place == len(shapes):
                shapes.append(result.shape)
            else:
                free.remove(place)
            places[id(result)] = place
            free += {places[id(a)] for a in arrays if id(a) in places and last[id(a)] == i}
        return shapes, places


def _called(steps: list[tuple[Work, Iterable[int]]], results: list[Shape], *arrays: jax.Array) -> list[jax.Array]:
    """The results of one call. A step is its work and which arrays it works on, counting `arrays`, then results."""
    text = repr([(type(work).__name__, tuple(work), tuple(places)) for work, places in steps])
    shapes = [jax.ShapeDtypeStruct(shape, np.float32) for shape in results]
    return jax.ffi.ffi_call(TARGET, shapes, vmap_method="sequential")(*arrays, text=text)


@functools.cache
def _is_registered() -> bool:
    """Whether oneDNN is installed; from then on XLA knows how to call it."""
    if library() is None:
        return False
    ffi.register(TARGET, _run)
    return True


def _run(text: str, addresses: list[int]) -> None:
    running = _one_thread.submit(_run_steps, text, addresses)
    try:
        running.result()
    finally:
        concurrent.futures.wait([running])  # after Ctrl-C, too: it writes to XLA's memory


def _run_steps(text: str, addresses: list[int]) -> None:
    for run, places in _steps(text):
        run([addresses[place] for place in places])


@functools.cache
def _steps(text: str) -> list[tuple[Primitive, tuple[int, ...]]]:
    """What each step runs, and on which of a call's arrays."""
    works = {work.__name__: work for work in (Convolution, Packing, LayerNorm)}
    return [(primitive(works[name](*fields)), places) for name, fields, places in ast.literal_eval(text)]
