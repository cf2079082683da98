"""PyTorch checkpoints read as data: no torch, and nothing in the file is executed.

`torch.save` has two formats. Since 1.6 it writes a zip archive: `<root>/data.pkl` describes the objects,
`<root>/data/<key>` holds the bytes of one storage, `<root>/byteorder` their byte order. Before, it wrote parts in a
row: pickles of a magic number, the protocol version, machine facts, the objects and the list of storage keys, then for
each key an int64 count and the bytes. A tensor is a window (offset, shape, strides; counted in elements) on a storage,
and storages may be shared.

Arrays keep PyTorch's names, shapes and layouts (OIHW); they may be read-only views of the memory-mapped file. What a
file may cost is bounded by its size: entries that inflate, and tensors that repeat what they view, are refused.
Source: https://docs.pytorch.org/docs/stable/notes/serialization.html
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from b2b_jax.formats import globals_of_torch, pickles, safetensors_files
from b2b_jax.formats.opening import Problem, Window, describe, kind, mapped
from b2b_jax.formats.state_dicts import state_dict
from b2b_jax.formats.zips import Archive

__all__ = ["read", "state_dict"]

MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
SHARED = 4  # times the bytes of all storages that the tensors on them may add up to; tied weights need twice
ROOM = 1 << 20  # bytes that the tensors of any file may add up to
MOST_AXES = 16

# (key, dtype, count) -> one-dimensional array
StorageReader = Callable[[str, np.dtype, int], np.ndarray]


def read(path: str | Path) -> Any:
    """Everything `torch.save` (or safetensors) put into a file, as numpy arrays in plain containers.

    Args:
      path: a file in either format of `torch.save`, or of safetensors; its first bytes say which, whatever its name.

    Returns:
      Usually a nested dict; arrays have the shapes and dtypes of the tensors (bfloat16 by ml_dtypes), on no device.
      Arrays that the file holds as such, not as tensors, are `globals_of_torch.Beside`.

    Raises:
      ValueError: the file is something else, damaged, truncated, or asks for a global that is no plain data.
      OSError: the file cannot be opened.
    """
    path = Path(path)
    try:
        found = kind(path)
        if found == "safetensors":
            return safetensors_files.read(path)[1]
        if found == "zip":
            return _read_zip(Archive(mapped(path)))
        return _read_legacy(mapped(path))
    except Problem as problem:
        raise ValueError(f"{path} ({describe(path)}): {problem}") from None


class _Tensors:
    """The storages and the tensors of one file. Problem: they are not there, or add up to more than it can hold."""

    def __init__(self, read_storage: StorageReader):
        self._read, self._storages = read_storage, {}
        self._stored = self._viewed = 0  # bytes

    def storage(self, pid: Any) -> np.ndarray:
        """One storage; pid is ('storage', type, key, device, count[, view]). The device is of no interest here."""
        known = isinstance(pid, tuple) and len(pid) in (5, 6) and all(isinstance(x, str) for x in pid[:3])
        if not known or pid[0] != "storage" or type(pid[4]) is not int or pid[4] < 0:
            raise Problem("it refers to an unknown kind of object, not to the storage of a tensor")
        _, name, key, _, count, *view = pid
        if name not in STORAGES:
            raise Problem(f"it holds tensors of {name}, wanted one of {', '.join(STORAGES)}")
        storage = self._whole(name, key, count)
        if not view or view[0] is None:
            return storage
        _, offset, size = view[0]  # PyTorch before 0.4 kept windows on storages too
        return self.tensor(storage, offset, (size,), (1,))

    def _whole(self, name: str, key: str, count: int) -> np.ndarray:
        """The storage, read once, so that what is shared stays shared."""
        if key not in self._storages:
            self._storages[key] = (name, count), self._read(key, np.dtype(STORAGES[name]), count)
            self._stored += self._storages[key][1].nbytes
        described, storage = self._storages[key]
        if described != (name, count):
            raise Problem(f"damaged: the storage {key} is described in two ways")
        return storage

    def tensor(self, storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> np.ndarray:
        """A window on a storage."""
        lengths = isinstance(shape, tuple) and isinstance(stride, tuple)
        # A storage has one axis: on a tensor of more, the check of the last element below would not hold.
        known = isinstance(storage, np.ndarray) and storage.ndim == 1 and lengths
        if not known or max(len(shape), len(stride)) > MOST_AXES:
            raise Problem("damaged: a tensor without a storage, a shape and strides")
        if any(type(x) is not int for x in (offset, *shape, *stride)):
            raise Problem("damaged: the shape of a tensor is no numbers")
        last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
        if min((offset, *shape, *stride)) < 0 or (0 not in shape and last >= storage.size):
            raise Problem(f"a tensor of shape {shape} reaches outside its storage of {storage.size} elements")
        self._count(shape, storage.dtype.itemsize)
        # The step of a placeholder is 0 bytes, so the step is asked for, not computed from the dtype.
        strides = [s * storage.strides[0] for s in stride]
        view = np.lib.stride_tricks.as_strided(storage[offset:], shape, strides, writeable=False)
        return np.require(view, requirements="A")

    def _count(self, shape: tuple[int, ...], itemsize: int) -> None:
        self._viewed += itemsize * int(np.prod(shape, dtype=object))
        if self._viewed > SHARED * self._stored + ROOM:
            raise Problem(f"refused: with one of shape {shape} its tensors repeat what the file holds {SHARED} times")


def _unpickle(file: Window, tensors: _Tensors) -> Any:
    find = globals_of_torch.finder(tensors.tensor, STORAGES)
    return pickles.load(file, find, tensors.storage)


def _read_zip(archive: Archive) -> Any:
    root = next((name.removesuffix("data.pkl") for name in archive.entries if name.endswith("data.pkl")), None)
    if any(name.startswith((f"{root or ''}code/", f"{root or ''}constants.pkl")) for name in archive.entries):
        raise Problem(
            "a TorchScript archive, which is a program, not data; save its state dict instead: "
            "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')"
        )
    if root is None:
        raise Problem("not written by PyTorch: it has no data.pkl")
    swap = f"{root}byteorder" in archive.entries and archive.read(f"{root}byteorder").tobytes() == b"big"

    def read_storage(key: str, dtype: np.dtype, count: int) -> np.ndarray:
        if f"{root}data/{key}" not in archive.entries:
            raise Problem(f"the storage data/{key} is missing")
        data = archive.read(f"{root}data/{key}")
        if data.size != count * dtype.itemsize:
            raise Problem(f"the storage data/{key} has {data.size} bytes, wanted {count} elements of {dtype.name}")
        return data.view(f"u{dtype.itemsize}").byteswap().view(dtype) if swap else data.view(dtype)

    return _unpickle(Window(archive.read(f"{root}data.pkl")), _Tensors(read_storage))


def _read_legacy(raw: np.ndarray) -> Any:
    """Reads the objects twice: their length and the dtypes, which the first pass finds, tell where the storages lie."""
    file = Window(raw)
    if _unpickle(file, _Tensors(_no_storage)) != MAGIC:
        raise Problem("a pickle, but not of PyTorch: the magic number is missing")
    # The machine facts name a byte order, but PyTorch has always written this format in little endian.
    _version, _facts = (_unpickle(file, _Tensors(_no_storage)) for _ in range(2))
    start, announced = file.tell(), {}

    def announce(key: str, dtype: np.dtype, count: int) -> np.ndarray:
        if count * dtype.itemsize > raw.size:
            raise Problem(f"truncated: the storage {key} has {count} elements, the file {raw.size} bytes")
        announced[key] = dtype, count
        return np.broadcast_to(np.zeros((), dtype), (count,))

    _unpickle(file, _Tensors(announce))
    keys = _unpickle(file, _Tensors(_no_storage))
    storages = _legacy_storages(announced, keys, raw, file.tell())
    file.seek(start)
    return _unpickle(file, _Tensors(lambda key, dtype, count: storages[key]))


def _legacy_storages(
    announced: dict[str, tuple[np.dtype, int]], keys: Any, raw: np.ndarray, start: int
) -> dict[str, np.ndarray]:
    listed = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not listed or sorted(keys) != sorted(announced):
        raise Problem("damaged: its list of storages does not fit its tensors")
    storages = {}
    for key in keys:
        dtype, count = announced[key]
        end = start + 8 + count * dtype.itemsize
        if end > raw.size:
            raise Problem(f"truncated: the storage {key} should end at byte {end}, the file has {raw.size}")
        if raw[start : start + 8].view("<i8")[0] != count:
            raise Problem(f"damaged: the size of the storage {key} does not fit its tensors")
        storages[key] = raw[start + 8 : end].view(dtype)
        start = end
    return storages


def _no_storage(key: str, dtype: np.dtype, count: int) -> np.ndarray:
    raise Problem(f"damaged: the storage {key} ({count} elements of {dtype}) in an unexpected place")
