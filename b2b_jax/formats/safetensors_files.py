"""safetensors: arrays and the text beside them. The library checks sizes and offsets; types are checked here.

Source: https://huggingface.co/docs/safetensors
"""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from b2b_jax.formats.opening import Problem, check_regular

TYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL")


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
        if odd := [f"{name} is {kind}" for name, kind in types.items() if kind not in TYPES]:
            raise Problem(f"{', '.join(odd[:3])}; the types that are read: {', '.join(TYPES)}")
        return file.metadata() or {}, {name: file.get_tensor(name) for name in types}


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
