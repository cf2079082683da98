"""Large convolutions on a CPU by oneDNN, through XLA's foreign function interface; needs the extra `onednn`.

XLA leaves many large convolutions on one core, and the gradients of their kernels are slow; oneDNN, which PyTorch also
uses, is up to 1.3 times as fast over a whole network (docs/benchmarks.md). Where its library is installed and JAX has
one CPU and nothing else, `convolution` hands it what is large enough to be worth the call.

The structures are those of xla/ffi/api/c_api.h, which jaxlib ships; functions and numbers those of oneDNN's dnnl.h.
"""

import ctypes
import functools
import importlib.metadata
import math
import threading
from collections.abc import Callable, Iterable
from ctypes import POINTER, c_int, c_int64, c_size_t, c_uint32, c_void_p
from typing import NamedTuple

import jax
import numpy as np
from absl import logging

from b2b_jax.models.convolution_cpu import Form, Geometry, Shape

WHEEL, LIBRARY, TARGET = "onednn-cpu-gomp", "libdnnl.so.3", "b2b_jax_onednn_convolution"
LARGE, LARGE_POINTWISE = 1e8, 5e8  # operations from which oneDNN is faster; it shares the cores with XLA's threads
FEW, FEW_POINTWISE = 8, 64  # channels in or out, below which XLA is faster except over kernels (docs/benchmarks.md)

# dnnl_types.h: enumerators, and the places of arguments.
CPU, IN_ORDER, FLOAT32, ANY, TRAINING, DIRECT = 1, 1, 3, 1, 64, 1
WEIGHTS_DESCRIPTOR, DIFF_WEIGHTS_DESCRIPTOR = 131, 132
SRC, DST, WEIGHTS, DIFF_SRC, DIFF_DST, DIFF_WEIGHTS = 1, 17, 33, 129, 145, 161
ALLOCATE = c_void_p(2**64 - 1)  # in place of an address

# Of each kind of computation, what its two inputs and its result are, and their places.
KINDS = {
    "forward": {"image": SRC, "kernel": WEIGHTS, "output": DST},
    "over_image": {"output": DIFF_DST, "kernel": WEIGHTS, "image": DIFF_SRC},
    "over_kernel": {"image": SRC, "output": DIFF_DST, "kernel": DIFF_WEIGHTS},
}


class Convolution(NamedTuple):
    """One convolution, or a gradient of it. Shapes are NHWC and HWIO."""

    kind: str  # of KINDS
    image: Shape
    kernel: Shape
    output: Shape
    stride: int
    padding: tuple[int, int]


def form(kind: str, image: Shape, kernel: Shape, geometry: Geometry, dtype: jax.typing.DTypeLike) -> Form:
    """A function of (x, kernel), (g, kernel) or (x, g) for a kind of `KINDS`; None where XLA is to do it."""
    if geometry.groups > 1 or dtype != np.float32:
        return None
    sizes = zip(image[1:3], geometry.padding, kernel[:2], strict=True)
    output = (image[0], *((n + 2 * p - k) // geometry.stride + 1 for n, p, k in sizes), kernel[3])
    large, few = (LARGE_POINTWISE, FEW_POINTWISE) if kernel[:2] == (1, 1) else (LARGE, FEW)
    is_small = 2 * math.prod(output) * math.prod(kernel[:3]) < large
    is_shallow = kind != "over_kernel" and min(kernel[2:]) < few
    if is_small or is_shallow or not usable():
        return None
    convolution = Convolution(kind, image, kernel, output, geometry.stride, geometry.padding)
    try:
        primitive(convolution)  # here, so that a refusal leaves the convolution to XLA
    except OneDNNError:
        return None
    numbers = np.array(_flat(convolution), np.int64)
    result = {"forward": output, "over_image": image, "over_kernel": kernel}[kind]
    call = jax.ffi.ffi_call(TARGET, jax.ShapeDtypeStruct(result, np.float32), vmap_method="sequential")
    return lambda *arrays: call(*arrays, convolution=numbers)


def usable() -> bool:
    """Whether oneDNN is installed, and JAX has one CPU: a program for several devices would collect all arrays."""
    return library() is not None and jax.default_backend() == "cpu" and jax.device_count() == 1


# ---- oneDNN ----


class OneDNNError(RuntimeError):
    """A call of oneDNN failed; the message names it and gives its status."""


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
        """What the function makes; it is never freed, as each is made once for a convolution of the program."""
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
    """oneDNN, with the handler registered with XLA; None where it is not installed or does not load."""
    try:
        files = importlib.metadata.files(WHEEL) or []
        path = next(file.locate() for file in files if file.name == LIBRARY)
        functions = ctypes.CDLL(str(path))
        functions.dnnl_primitive_desc_query_md.restype = c_void_p
        engine = _make(functions, "dnnl_engine_create", c_int(CPU), c_size_t(0))
        stream = _make(functions, "dnnl_stream_create", engine, c_int(IN_ORDER))
    except (importlib.metadata.PackageNotFoundError, StopIteration):
        return None
    except (OSError, OneDNNError) as error:
        logging.warning("%s is installed but does not load, so XLA convolves: %s", WHEEL, error)
        return None
    jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(HANDLER), platform="cpu")
    return Library(functions, engine, stream)


def _check(functions: ctypes.CDLL, name: str, *arguments: object) -> None:
    if status := getattr(functions, name)(*arguments):
        raise OneDNNError(f"{name} returned {status}")


def _make(functions: ctypes.CDLL, name: str, *arguments: object) -> c_void_p:
    made = c_void_p()
    _check(functions, name, ctypes.byref(made), *arguments)
    return made


def _vector(*numbers: int) -> ctypes.Array:
    return (c_int64 * len(numbers))(*numbers)


@functools.cache
def primitive(convolution: Convolution) -> Callable[[list[int]], None]:
    """Runs the convolution on the addresses of both arrays and of the result. OneDNNError: oneDNN has none for it.

    oneDNN has a layout of its own for kernels, to which or from which they are copied.
    """
    dnn, places = library(), KINDS[convolution.kind]
    makes_kernel = convolution.kind == "over_kernel"
    descriptors = {
        "image": dnn.descriptor(*_image(convolution.image)),
        "kernel": dnn.descriptor(*_kernel(convolution.kernel)),
        "output": dnn.descriptor(*_image(convolution.output)),
    }
    described = _described(dnn, convolution, descriptors["image"], descriptors["output"])
    which = DIFF_WEIGHTS_DESCRIPTOR if makes_kernel else WEIGHTS_DESCRIPTOR
    preferred = c_void_p(dnn.functions.dnnl_primitive_desc_query_md(described, c_int(which), c_int(0)))
    arrays = {name: dnn.memory(descriptors[name], c_void_p(0)) for name in places}
    own = arrays | {"kernel": dnn.memory(preferred, ALLOCATE)}
    steps = [(dnn.make("dnnl_primitive_create", described), _arguments((places[name], own[name]) for name in places))]
    plain, copied = (descriptors["kernel"], arrays["kernel"]), (preferred, own["kernel"])
    steps = [*steps, _copy(dnn, copied, plain)] if makes_kernel else [_copy(dnn, plain, copied), *steps]

    def run(addresses: list[int]) -> None:
        for memory, address in zip(arrays.values(), addresses, strict=True):
            dnn.run("dnnl_memory_set_data_handle", memory, c_void_p(address))
        for step, arguments in steps:
            dnn.run("dnnl_primitive_execute", step, dnn.stream, c_int(len(arguments)), arguments)
        dnn.run("dnnl_stream_wait", dnn.stream)

    return run


def _described(dnn: Library, convolution: Convolution, image: c_void_p, output: c_void_p) -> c_void_p:
    """oneDNN's description of the convolution, with the kernel in the layout that it prefers."""
    kind, stride, padding = convolution.kind, convolution.stride, convolution.padding
    kernel = dnn.descriptor(_kernel(convolution.kernel)[0])
    sizes = zip(convolution.image[1:3], convolution.kernel[:2], convolution.output[1:3], padding, strict=True)
    after = [(out - 1) * stride + k - n - p for n, k, out, p in sizes]
    steps = (_vector(stride, stride), _vector(0, 0), _vector(*padding), _vector(*after))
    name, bias, attributes = "dnnl_convolution_{}_primitive_desc_create".format, None, None
    arrays = (image, kernel, bias, output)
    start = (dnn.engine, c_int(TRAINING), c_int(DIRECT))
    forward = dnn.make(name("forward"), *start, *arrays, *steps, attributes)
    if kind == "forward":
        return forward
    which, arrays = ("weights", arrays) if kind == "over_kernel" else ("data", (image, kernel, output))
    return dnn.make(name(f"backward_{which}"), dnn.engine, c_int(DIRECT), *arrays, *steps, forward, attributes)


def _copy(dnn: Library, source: tuple[c_void_p, c_void_p], target: tuple[c_void_p, c_void_p]) -> tuple:
    """The step that copies an array, its layout and itself, to another."""
    (layout, array), (wanted, copy) = source, target
    described = dnn.make("dnnl_reorder_primitive_desc_create", layout, dnn.engine, wanted, dnn.engine, None)
    return dnn.make("dnnl_primitive_create", described), _arguments([(SRC, array), (DST, copy)])


def _arguments(pairs: Iterable[tuple[int, c_void_p]]) -> ctypes.Array:
    arguments = [_Argument(place, memory) for place, memory in pairs]
    return (_Argument * len(arguments))(*arguments)


def _image(shape: Shape) -> tuple[Shape, Shape]:
    """Sizes (n, c, h, w), in oneDNN's order, and strides of an array that lies in memory as NHWC."""
    n, h, w, c = shape
    return (n, c, h, w), (h * w * c, 1, w * c, c)


def _kernel(shape: Shape) -> tuple[Shape, Shape]:
    """Sizes (out, in, h, w) and strides of an array that lies in memory as HWIO."""
    h, w, inputs, out = shape
    return (out, inputs, h, w), (1, out, w * inputs * out, inputs * out)


# ---- XLA ----


class _Buffer(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("extension", c_void_p), ("dtype", c_int), ("data", c_void_p),
                ("rank", c_int64), ("dims", POINTER(c_int64))]  # fmt: skip


class _Buffers(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("extension", c_void_p), ("size", c_int64), ("types", POINTER(c_int)),
                ("items", POINTER(POINTER(_Buffer)))]  # fmt: skip


class _Numbers(ctypes.Structure):
    _fields_ = [("dtype", c_int), ("size", c_size_t), ("data", POINTER(c_int64))]


class _Attributes(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("extension", c_void_p), ("size", c_int64), ("types", POINTER(c_int)),
                ("names", c_void_p), ("items", POINTER(POINTER(_Numbers)))]  # fmt: skip


class _Version(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("extension", c_void_p), ("major", c_int), ("minor", c_int)]


class _ErrorText(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("extension", c_void_p), ("message", ctypes.c_char_p), ("code", c_int)]


_MakeError = ctypes.CFUNCTYPE(c_void_p, POINTER(_ErrorText))


class _Api(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("extension", c_void_p), ("version", _Version), ("internal", c_void_p),
                ("make_error", _MakeError)]  # fmt: skip


class _Metadata(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("version", _Version), ("traits", c_uint32)]


class _Extension(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("kind", c_int), ("next", c_void_p), ("metadata", POINTER(_Metadata))]


class _Frame(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("extension", POINTER(_Extension)), ("api", POINTER(_Api)),
                ("context", c_void_p), ("stage", c_int), ("inputs", _Buffers), ("results", _Buffers),
                ("attributes", _Attributes)]  # fmt: skip


ASKED_FOR_METADATA, INTERNAL = 1, 13
_one_at_a_time = threading.Lock()  # XLA may call from several threads; primitives keep addresses between their steps


def _handle(pointer: _Frame) -> int | None:
    """What XLA calls: answers which version this is, or runs a convolution. Returns None, or an error of XLA's."""
    frame = pointer.contents
    api = frame.api.contents
    if frame.extension and frame.extension.contents.kind == ASKED_FOR_METADATA:
        metadata = frame.extension.contents.metadata.contents
        metadata.version.major, metadata.version.minor, metadata.traits = api.version.major, api.version.minor, 0
        return None
    try:
        numbers = frame.attributes.items[0].contents
        buffers = (frame.inputs.items[0], frame.inputs.items[1], frame.results.items[0])
        with _one_at_a_time:
            primitive(_unflat(numbers.data[: numbers.size]))([buffer.contents.data for buffer in buffers])
    except BaseException as error:  # C cannot see one, and would take what is in the result's memory for the result
        text = _ErrorText(ctypes.sizeof(_ErrorText), None, f"oneDNN: {error!r}".encode(), INTERNAL)
        return api.make_error(ctypes.byref(text))
    return None


HANDLER = ctypes.CFUNCTYPE(c_void_p, POINTER(_Frame))(_handle)


def _flat(convolution: Convolution) -> list[int]:
    kind, image, kernel, output, stride, padding = convolution
    return [list(KINDS).index(kind), *image, *kernel, *output, stride, *padding]


def _unflat(numbers: list[int]) -> Convolution:
    kind, *shapes, stride, ph, pw = numbers
    image, kernel, output = (tuple(shapes[i : i + 4]) for i in (0, 4, 8))
    return Convolution(list(KINDS)[kind], image, kernel, output, stride, (ph, pw))
