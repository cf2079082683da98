"""Python functions that XLA's programs on a CPU call with the addresses of their arrays.

JAX takes a handler in C for that; this is one by ctypes. The structures are those of xla/ffi/api/c_api.h, which jaxlib
ships.
"""

import ctypes
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_uint32, c_void_p

import jax

ASKED_FOR_METADATA, INTERNAL = 1, 13


class _Buffer(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("extension", c_void_p), ("dtype", c_int), ("data", c_void_p),
                ("rank", c_int64), ("dims", POINTER(c_int64))]  # fmt: skip


class _Buffers(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("extension", c_void_p), ("size", c_int64), ("types", POINTER(c_int)),
                ("items", POINTER(POINTER(_Buffer)))]  # fmt: skip


class _Text(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("size", c_size_t)]


class _Attributes(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("extension", c_void_p), ("size", c_int64), ("types", POINTER(c_int)),
                ("names", c_void_p), ("items", POINTER(POINTER(_Text)))]  # fmt: skip


class _Version(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("extension", c_void_p), ("major", c_int), ("minor", c_int)]


class _ErrorText(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("extension", c_void_p), ("message", c_char_p), ("code", c_int)]


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


_Handler = ctypes.CFUNCTYPE(c_void_p, POINTER(_Frame))
_handlers = []  # kept, as XLA has their addresses


def register(target: str, function: Callable[[str, list[int]], None]) -> None:
    """Has `jax.ffi.ffi_call(target, ...)(*arrays, text=...)` call `function(text, addresses)`.

    The addresses are those of the arrays, then of the results. What the function raises becomes XLA's error.
    """

    def handle(pointer: _Frame) -> int | None:
        frame = pointer.contents
        api = frame.api.contents
        if frame.extension and frame.extension.contents.kind == ASKED_FOR_METADATA:
            metadata = frame.extension.contents.metadata.contents
            metadata.version.major, metadata.version.minor, metadata.traits = api.version.major, api.version.minor, 0
            return None
        try:
            text = frame.attributes.items[0].contents
            arrays = [*frame.inputs.items[: frame.inputs.size], *frame.results.items[: frame.results.size]]
            function(ctypes.string_at(text.data, text.size).decode(), [array.contents.data for array in arrays])
        except BaseException as error:  # C cannot see one, and would take what is in a result's memory for the result
            message = _ErrorText(ctypes.sizeof(_ErrorText), None, f"{target}: {error!r}".encode(), INTERNAL)
            return api.make_error(ctypes.byref(message))
        return None

    _handlers.append(_Handler(handle))
    jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(_handlers[-1]), platform="cpu")
