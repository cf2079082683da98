"""oneDNN's library, and functions that run one computation of it on addresses of float32 arrays.

Functions, numbers and structures are those of oneDNN's dnnl.h and dnnl_types.h. Everything made is kept: it is made
once for a computation of a program.
"""

import contextlib
import ctypes
import functools
import importlib.metadata
import math
import os
from collections.abc import Callable, Iterable, Iterator
from ctypes import c_float, c_int, c_int64, c_size_t, c_uint32, c_void_p
from typing import NamedTuple

from absl import logging

from b2b_jax.models.convolution_cpu import Shape

WHEEL, LIBRARY = "onednn-cpu-gomp", "libdnnl.so.3"

# Enumerators, and the places of arguments.
CPU, IN_ORDER, FLOAT32, ANY, INFERENCE, TRAINING, DIRECT = 1, 1, 3, 1, 96, 64, 1
WEIGHTS_DESCRIPTOR, DIFF_WEIGHTS_DESCRIPTOR = 131, 132
RELU, ADD, MULTIPLY = 0x20, 0x1FFF0, 0x1FFF1
SRC, DST, WEIGHTS, BIAS, OTHER = 1, 17, 33, 41, 32768 | 2
DIFF_SRC, DIFF_DST, DIFF_WEIGHTS, DIFF_BIAS = 129, 145, 161, 169
ALLOCATE = c_void_p(2**64 - 1)  # in place of an address

# Of each kind of convolution, its arrays, the results last, and their places.
KINDS = {
    "forward": {"image": SRC, "kernel": WEIGHTS, "bias": BIAS, "other": OTHER, "output": DST},
    "over_image": {"output": DIFF_DST, "kernel": WEIGHTS, "image": DIFF_SRC},
    "over_kernel": {"image": SRC, "output": DIFF_DST, "kernel": DIFF_WEIGHTS, "bias": DIFF_BIAS},
}
BINARY = {"times": MULTIPLY, "plus": ADD}


class Convolution(NamedTuple):
    """One convolution, or a gradient of it. Shapes are NHWC and HWIO.

    bias: 'forward' adds one, 'over_kernel' also makes its gradient, 'over_image' has none. after: what 'forward' ends
    with, 'relu', or 'times' or 'plus' another array of the output's shape. packed: the kernel is what `Packing` makes.
    """

    kind: str  # of KINDS
    image: Shape
    kernel: Shape
    output: Shape
    stride: int = 1
    padding: tuple[int, int] = (0, 0)
    groups: int = 1
    bias: bool = False
    after: str = ""
    packed: bool = False


class Packing(NamedTuple):
    """Copies a kernel (kh, kw, in, out), as a flat array, to the layout that oneDNN prefers for a convolution."""

    convolution: tuple  # the fields of a `Convolution`


class LayerNorm(NamedTuple):
    """Zero mean and unit variance over the channels of each pixel (n, h, w, c)."""

    image: Shape
    epsilon: float


class OneDNNError(RuntimeError):
    """A call of oneDNN failed; the message names it and gives its status."""


Work = Convolution | Packing | LayerNorm
Primitive = Callable[[list[int]], None]  # of the addresses of arrays, the results last


@functools.cache
def primitive(work: Work) -> Primitive:
    """What does this work. OneDNNError: oneDNN has nothing for it."""
    makers = {Convolution: _convolution, Packing: _packing, LayerNorm: _layer_norm}
    return makers[type(work)](work)


@functools.cache
def packing(convolution: Convolution) -> tuple[Packing, int]:
    """How to pack the convolution's kernel, and into how many numbers; the same for all that prefer one layout."""
    convolution = convolution._replace(packed=False)
    dnn, layout = library().functions, _plan(convolution).preferred
    like = [c for c in _packings if c.kernel == convolution.kernel]
    first = next((c for c in like if dnn.dnnl_memory_desc_equal(_plan(c).preferred, layout)), None)
    if first is None:
        _packings.append(convolution)
    return Packing(tuple(first or convolution)), dnn.dnnl_memory_desc_get_size(layout) // 4


_packings: list[Convolution] = []  # one for each kernel's shape and layout


class _Argument(ctypes.Structure):
    _fields_ = [("place", c_int), ("memory", c_void_p)]


class Library(NamedTuple):
    """oneDNN's functions, its engine and stream."""

    functions: ctypes.CDLL
    engine: c_void_p
    stream: c_void_p

    def run(self, name: str, *arguments: object) -> None:
        """Calls a function. OneDNNError: it failed."""
        _check(self.functions, name, *arguments)

    def make(self, name: str, *arguments: object) -> c_void_p:
        """What the function makes."""
        return _make(self.functions, name, *arguments)

    def memory(self, descriptor: c_void_p, address: c_void_p) -> c_void_p:
        """An array at an address, or for `ALLOCATE` in memory of oneDNN's own."""
        return self.make("dnnl_memory_create", descriptor, self.engine, address)

    def descriptor(self, sizes: Shape, strides: Shape | None = None) -> c_void_p:
        """Of a float32 array; without strides in whatever layout oneDNN prefers."""
        start = (c_int(len(sizes)), _vector(*sizes), c_int(FLOAT32))
        if strides is None:
            return self.make("dnnl_memory_desc_create_with_tag", *start, c_int(ANY))
        return self.make("dnnl_memory_desc_create_with_strides", *start, _vector(*strides))


@functools.cache
def library() -> Library | None:
    """oneDNN; None where it is not installed or does not load."""
    try:
        files = importlib.metadata.files(WHEEL) or []
        path = next(file.locate() for file in files if file.name == LIBRARY)
        with _spinning_briefly():
            functions = ctypes.CDLL(str(path))
        functions.dnnl_primitive_desc_query_md.restype = c_void_p
        functions.dnnl_memory_desc_get_size.restype = c_size_t
        engine = _make(functions, "dnnl_engine_create", c_int(CPU), c_size_t(0))
        stream = _make(functions, "dnnl_stream_create", engine, c_int(IN_ORDER))
    except (importlib.metadata.PackageNotFoundError, StopIteration):
        return None
    except (OSError, OneDNNError) as error:
        logging.warning("%s is installed but does not load, so XLA convolves: %s", WHEEL, error)
        return None
    return Library(functions, engine, stream)


@contextlib.contextmanager
def _spinning_briefly() -> Iterator[None]:
    """Has OpenMP, which reads this as it loads, let idle threads spin for less time before they sleep.

    XLA's threads need the cores. What the user has set stays.
    """
    if {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        yield
        return
    os.environ["GOMP_SPINCOUNT"] = "10000"
    try:
        yield
    finally:
        del os.environ["GOMP_SPINCOUNT"]


def _check(functions: ctypes.CDLL, name: str, *arguments: object) -> None:
    if status := getattr(functions, name)(*arguments):
        raise OneDNNError(f"{name} returned {status}")


def _make(functions: ctypes.CDLL, name: str, *arguments: object) -> c_void_p:
    made = c_void_p()
    _check(functions, name, ctypes.byref(made), *arguments)
    return made


def _vector(*numbers: int) -> ctypes.Array:
    return (c_int64 * len(numbers))(*numbers)


class _Plan(NamedTuple):
    """A convolution before it has memory."""

    dnn: Library
    places: dict[str, int]
    layouts: dict[str, c_void_p]  # of XLA's arrays
    description: c_void_p  # oneDNN's
    preferred: c_void_p  # the layout that oneDNN prefers for the kernel


@functools.cache
def _plan(convolution: Convolution) -> _Plan:
    dnn, places = library(), _places(convolution)
    layouts = {
        "image": dnn.descriptor(*_image(convolution.image)),
        "kernel": dnn.descriptor(*_kernel(convolution.kernel, convolution.groups)),
        "bias": dnn.descriptor(convolution.output[3:], (1,)),
        "other": dnn.descriptor(*_image(convolution.output)),
        "output": dnn.descriptor(*_image(convolution.output)),
    }
    description = _description(dnn, convolution, {name: layouts[name] for name in places})
    which = DIFF_WEIGHTS_DESCRIPTOR if convolution.kind == "over_kernel" else WEIGHTS_DESCRIPTOR
    preferred = c_void_p(dnn.functions.dnnl_primitive_desc_query_md(description, c_int(which), c_int(0)))
    return _Plan(dnn, places, layouts, description, preferred)


def _convolution(convolution: Convolution) -> Primitive:
    """A kernel that is not packed is copied to the layout that oneDNN prefers, a kernel's gradient from it."""
    dnn, places, layouts, description, preferred = _plan(convolution._replace(packed=False))
    if convolution.packed:
        layouts = layouts | {"kernel": preferred}
    arrays = {name: dnn.memory(layouts[name], c_void_p(0)) for name in places}
    own = arrays if convolution.packed else arrays | {"kernel": dnn.memory(preferred, ALLOCATE)}
    steps = [(dnn.make("dnnl_primitive_create", description), _arguments((places[name], own[name]) for name in places))]
    plain, copied = (layouts["kernel"], arrays["kernel"]), (preferred, own["kernel"])
    if convolution.kind == "over_kernel":
        steps = [*steps, _copy(dnn, copied, plain)]
    elif not convolution.packed:
        steps = [_copy(dnn, plain, copied), *steps]
    return _runner(dnn, list(arrays.values()), steps)


def _packing(packing: Packing) -> Primitive:
    dnn, _, layouts, _, preferred = _plan(Convolution(*packing.convolution))
    plain, copied = ((layout, dnn.memory(layout, c_void_p(0))) for layout in (layouts["kernel"], preferred))
    return _runner(dnn, [plain[1], copied[1]], [_copy(dnn, plain, copied)])


def _places(convolution: Convolution) -> dict[str, int]:
    """The arrays that this convolution has, and their places."""
    optional = {"bias": convolution.bias, "other": convolution.after in BINARY}
    return {name: place for name, place in KINDS[convolution.kind].items() if optional.get(name, True)}


def _description(dnn: Library, convolution: Convolution, layouts: dict[str, c_void_p]) -> c_void_p:
    """oneDNN's description of the convolution, with the kernel in the layout that it prefers."""
    kind, stride, padding = convolution.kind, convolution.stride, convolution.padding
    image, output, bias = layouts["image"], layouts["output"], layouts.get("bias")
    kernel = dnn.descriptor(_kernel(convolution.kernel, convolution.groups)[0])
    sizes = zip(convolution.image[1:3], convolution.kernel[:2], convolution.output[1:3], padding, strict=True)
    at_end = [(out - 1) * stride + k - n - p for n, k, out, p in sizes]
    steps = (_vector(stride, stride), _vector(0, 0), _vector(*padding), _vector(*at_end))
    name = "dnnl_convolution_{}_primitive_desc_create".format
    use = INFERENCE if kind == "forward" else TRAINING
    start = (dnn.engine, c_int(use), c_int(DIRECT))
    forward = dnn.make(name("forward"), *start, image, kernel, bias, output, *steps, _after(dnn, convolution, output))
    if kind == "forward":
        return forward
    if kind == "over_image":
        arrays = (image, kernel, output)
        return dnn.make(name("backward_data"), dnn.engine, c_int(DIRECT), *arrays, *steps, forward, None)
    arrays = (image, kernel, bias, output)
    return dnn.make(name("backward_weights"), dnn.engine, c_int(DIRECT), *arrays, *steps, forward, None)


def _after(dnn: Library, convolution: Convolution, output: c_void_p) -> c_void_p | None:
    """What oneDNN does with each sum before it writes it."""
    if not convolution.after:
        return None
    operations, attributes = dnn.make("dnnl_post_ops_create"), dnn.make("dnnl_primitive_attr_create")
    if convolution.after in BINARY:
        dnn.run("dnnl_post_ops_append_binary", operations, c_int(BINARY[convolution.after]), output)
    else:
        dnn.run("dnnl_post_ops_append_eltwise", operations, c_int(RELU), c_float(0), c_float(0))
    dnn.run("dnnl_primitive_attr_set_post_ops", attributes, operations)
    return attributes


def _copy(dnn: Library, source: tuple[c_void_p, c_void_p], target: tuple[c_void_p, c_void_p]) -> tuple:
    """The step that copies an array, its layout and itself, to another."""
    (layout, array), (wanted, copy) = source, target
    described = dnn.make("dnnl_reorder_primitive_desc_create", layout, dnn.engine, wanted, dnn.engine, None)
    return dnn.make("dnnl_primitive_create", described), _arguments([(SRC, array), (DST, copy)])


def _layer_norm(norm: LayerNorm) -> Primitive:
    dnn = library()
    *sizes, channels = norm.image
    pixels = math.prod(sizes)
    rows = dnn.descriptor((pixels, channels), (channels, 1))
    details = (c_float(norm.epsilon), c_uint32(0), None)
    name = "dnnl_layer_normalization_forward_primitive_desc_create"
    described = dnn.make(name, dnn.engine, c_int(INFERENCE), rows, rows, None, *details)
    arrays = [dnn.memory(rows, c_void_p(0)) for _ in range(2)]
    step = dnn.make("dnnl_primitive_create", described), _arguments(zip((SRC, DST), arrays, strict=True))
    return _runner(dnn, arrays, [step])


def _runner(dnn: Library, arrays: list[c_void_p], steps: list[tuple]) -> Primitive:
    """Runs oneDNN's primitives on arrays whose addresses it is given."""

    def run(addresses: list[int]) -> None:
        for memory, address in zip(arrays, addresses, strict=True):
            dnn.run("dnnl_memory_set_data_handle", memory, c_void_p(address))
        for step, arguments in steps:
            dnn.run("dnnl_primitive_execute", step, dnn.stream, c_int(len(arguments)), arguments)
        dnn.run("dnnl_stream_wait", dnn.stream)

    return run


def _arguments(pairs: Iterable[tuple[int, c_void_p]]) -> ctypes.Array:
    arguments = [_Argument(place, memory) for place, memory in pairs]
    return (_Argument * len(arguments))(*arguments)


def _image(shape: Shape) -> tuple[Shape, Shape]:
    """Sizes (n, c, h, w), in oneDNN's order, and strides of an array that lies in memory as NHWC."""
    n, h, w, c = shape
    return (n, c, h, w), (h * w * c, 1, w * c, c)


def _kernel(shape: Shape, groups: int) -> tuple[Shape, Shape]:
    """Sizes (out, in, h, w), or (groups, out / groups, in, h, w), and strides of an array that lies as HWIO."""
    h, w, inputs, out = shape
    sizes, strides = (out, inputs, h, w), (1, out, w * inputs * out, inputs * out)
    if groups == 1:
        return sizes, strides
    return (groups, out // groups, *sizes[1:]), (out // groups, *strides)
