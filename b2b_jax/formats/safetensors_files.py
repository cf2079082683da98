"""safetensors: arrays and the text beside them. The library checks sizes and offsets; types are checked here.

Source: https://huggingface.co/docs/safetensors
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from b2b_jax.formats.opening import Problem, check_regular

TYPES = {  # by their names in NumPy
    **{"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "bool": "BOOL"},
    **{"int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8"},
    **{"uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8"},
}


def metadata(path: Path) -> dict[str, str]:
    """The text beside the arrays, which are not read. Raises as `read`."""
    with _opened(path) as file:
        return file.metadata() or {}


def read(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """The metadata and the arrays of a file.

    Raises:
      Problem: it is damaged, or holds numbers of a type that NumPy does not have.
      OSError: it cannot be opened.
    """
    with _opened(path) as file:
        types = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        if odd := [f"{name} is {kind}" for name, kind in types.items() if kind not in TYPES.values()]:
            raise Problem(f"{', '.join(odd[:3])}; the types that are read: {', '.join(TYPES.values())}")
        return file.metadata() or {}, {name: file.get_tensor(name) for name in types}


def write(path: Path, arrays: Mapping[str, np.ndarray], text: Mapping[str, str]) -> None:
    """Writes arrays, and the text beside them, into a file that is there, without a copy of them all in memory.

    Not by the library's `save_file`: it writes another file, which only its owner may read, and moves it here; a kill
    leaves that file behind. KeyError: an array is of a type that is not one of TYPES.
    """
    header: dict[str, Any] = {"__metadata__": dict(text)}
    order, start = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name)), 0  # all are aligned so
    for name in order:
        array, stop = arrays[name], start + arrays[name].nbytes
        header[name] = {"dtype": TYPES[array.dtype.name], "shape": array.shape, "data_offsets": [start, stop]}
        start = stop
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for name in order:
            little = arrays[name].astype(arrays[name].dtype.newbyteorder("<"), copy=False)
            file.write(np.ascontiguousarray(little).reshape(-1).view(np.uint8))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    check_regular(path)
    try:
        with safe_open(path, framework="np") as file:
            yield file
    except SafetensorError as error:
        raise Problem(f"not a whole safetensors file ({error})") from error
    except OSError as error:  # without a name: no right to read it, a file system without mapped files
        raise Problem(f"cannot be read ({error})") from error


def digest(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over `text` and the names, types, shapes and bytes of all arrays, in the order of their names."""
    hasher = hashlib.sha256(text.encode())
    for name, array in sorted(arrays.items()):
        hasher.update(f"\n{name} {array.dtype} {array.shape}\n".encode())
        hasher.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return hasher.hexdigest()
