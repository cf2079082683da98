"""The globals that checkpoints of PyTorch name, and what stands for each: the only doors out of their pickles.

Tensors become arrays, parameters and subclasses the array that they wrap, NumPy's scalars and arrays themselves. Of
what training scripts keep beside them, options and paths, nothing is read. Everything else is refused by its name,
whole modules among it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from b2b_jax.formats.opening import Problem
from b2b_jax.formats.pickles import PLAIN, Blank, Dict, Function

DTYPES = {"float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"}
MARKS = {"torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer", "numpy.ndarray"}
MARKS |= {f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("dict", "list", "int", "float")}
OPTIONS = ("argparse.Namespace", "types.SimpleNamespace")
PATHS = ("PosixPath", "WindowsPath", "Path", "PurePosixPath", "PureWindowsPath", "PurePath")
NUMBERS = re.compile(r"[<>|=]?([biufcSU]\d{1,4}|\?)")  # NumPy's dtypes of numbers and text
MOST_COPIED = 1 << 26  # bytes of arrays that are no tensors, and items of sets

Rebuild = Callable[..., np.ndarray]


class Beside(np.ndarray):
    """An array that stands beside the tensors of a checkpoint: a history, or statistics."""


def finder(tensor: Rebuild, storages: Iterable[str]) -> Callable[[str, str], Any]:
    """What stands for a global (module, name) of one file; `tensor(storage, offset, shape, strides)` makes a window."""
    known, names = _known(tensor), {*storages, *DTYPES}

    def find(module: str, name: str) -> Any:
        if module in ("torch", "torch.cuda") and (name in names or name.endswith("Storage")):
            return name
        whole = f"{module}.{name}"
        if whole in MARKS:
            return whole
        if whole not in known:
            raise Problem(
                f"refused: it asks for `{whole}`, which is no plain data, and nothing of it was run; "
                "if it holds a whole model, save the state dict alone: torch.save(model.state_dict(), 'weights.pth')"
            )
        return known[whole]

    return find


def _known(tensor: Rebuild) -> Mapping[str, Function]:
    copied = _Copies()
    calls = {
        "collections.OrderedDict": copied.ordered,
        "collections.defaultdict": lambda *_: Dict(),
        "collections.Counter": lambda items=(): copied.mapping(items),  # the milestones of a schedule
        "builtins.set": copied.set,
        "__builtin__.set": copied.set,
        "torch.Size": lambda sizes: sizes,
        "torch.device": lambda *names: ":".join(map(str, names[:2])),
        "torch.torch_version.TorchVersion": lambda version: version,
        "torch._utils._rebuild_tensor": tensor,
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch._utils._rebuild_parameter": _first,
        "torch._utils._rebuild_parameter_with_state": _first,
        "torch._tensor._rebuild_from_type_v2": _from_type,
        "_codecs.encode": copied.encode,
        "numpy.dtype": _dtype,
    }
    calls |= dict.fromkeys(OPTIONS, lambda *_: Dict())
    calls |= {f"{module}.{name}": lambda *_: "" for module in ("pathlib", "pathlib._local") for name in PATHS}
    for core in ("numpy.core.multiarray", "numpy._core.multiarray"):
        calls |= {f"{core}._reconstruct": lambda *_: Blank(copied.array), f"{core}.scalar": copied.scalar}
    return {name: Function(call) for name, call in calls.items()}


def _is_pair(item: Any) -> bool:
    return isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[0], PLAIN)


def _first(data: Any, *_: Any) -> np.ndarray:
    """The tensor of a parameter; whether it trains, its hooks and attributes are of no interest."""
    if not isinstance(data, np.ndarray):
        raise Problem("damaged: a parameter without a tensor")
    return data


def _from_type(function: Any, _type: Any, arguments: Any, _state: Any) -> np.ndarray:
    """The tensor of a subclass, or of one that carries attributes."""
    if not (isinstance(function, Function) and isinstance(arguments, tuple)):
        raise Problem("damaged: a tensor of a class without arguments")
    return _first(function.call(*arguments))


def _dtype(code: Any, *_: Any) -> Blank:
    if not isinstance(code, str) or not NUMBERS.fullmatch("?" if code == "b1" else code):
        raise Problem("refused: an array of something other than numbers or text")
    found = np.dtype(code)

    def build(state: Any) -> np.dtype:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else "|"
        return found.newbyteorder(order) if order in ("<", ">") else found

    return Blank(build)


class _Copies:
    """What is copied out of a pickle; a file can ask for copies of one text again and again."""

    def __init__(self):
        self._bytes = 0

    def _spend(self, count: int) -> None:
        self._bytes += count
        if self._bytes > MOST_COPIED:
            raise Problem(f"refused: arrays that are no tensors take more than {MOST_COPIED:,} bytes")

    def set(self, items: Any = ()) -> set[Any]:
        if not isinstance(items, list | tuple) or not all(isinstance(x, str | int | float) for x in items):
            raise Problem("refused: a set of something other than text or numbers")
        self._spend(200 * len(items))
        return set(items)

    def mapping(self, items: Any) -> Dict:
        self._spend(200 * len(items) if isinstance(items, dict) else 0)
        return Dict(items if isinstance(items, dict) else ())

    def ordered(self, items: Any = ()) -> Dict:
        """An OrderedDict, which Python 2 makes of [key, value] lists; Python 3 fills an empty one in later."""
        if not isinstance(items, list | tuple) or not all(_is_pair(item) for item in items):
            raise Problem("damaged: an ordered dictionary of something other than keys and values")
        self._spend(200 * len(items))
        return Dict(items)

    def encode(self, text: Any, _codec: Any) -> bytes:
        """The bytes that pickles of protocol 2 hold as text."""
        if not isinstance(text, str):
            raise Problem("damaged: bytes that are no text")
        self._spend(len(text))
        return text.encode("latin-1")

    def array(self, state: Any) -> np.ndarray:
        """NumPy's state of an array: version, shape, dtype, order, bytes."""
        if not (isinstance(state, tuple) and len(state) == 5 and isinstance(state[1], tuple)):
            raise Problem("damaged: an array without its state")
        _, shape, dtype, fortran, data = state
        return self._numbers(dtype, data).reshape(shape, order="F" if fortran else "C").view(Beside)

    def scalar(self, dtype: Any, data: Any) -> np.generic:
        return self._numbers(dtype, data)[0]

    def _numbers(self, dtype: Any, data: Any) -> np.ndarray:
        data = data.encode("latin-1") if isinstance(data, str) else data  # pickled by Python 2
        if not (isinstance(dtype, np.dtype) and isinstance(data, bytes)):
            raise Problem("damaged: an array without a type or bytes")
        self._spend(len(data))
        return np.frombuffer(data, dtype)
