"""PyTorch checkpoints read as data: no torch, and nothing in the file is executed.

`torch.save` has two formats. Since 1.6 it writes a zip archive: `<root>/data.pkl` describes the objects,
`<root>/data/<key>` holds the bytes of one storage, `<root>/byteorder` their byte order. Before, it wrote parts in a
row: pickles of a magic number, the protocol version, machine facts, the objects and the list of storage keys, then for
each key an int64 count and the bytes. A tensor is a window (offset, shape, strides; counted in elements) on a storage,
and storages may be shared.

Arrays keep PyTorch's names, shapes and layouts (OIHW); they may be read-only views of the memory-mapped file.
Source: https://docs.pytorch.org/docs/stable/notes/serialization.html
"""

import functools
import io
import pickle
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

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
DTYPES = {"float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"}
# Moving averages come first: they are what their authors evaluate.
WRAPPERS = (
    "params_ema", "ema", "params", "state_dict", "model_state_dict", "model",
    "generator", "netG", "net_g", "net", "network", "module", "weights",
)  # fmt: skip
PREFIXES = ("module.", "_orig_mod.", "netG.", "netD.", "net_g.", "net_d.", "generator.", "network.")

# (key, dtype, count) -> one-dimensional array
StorageReader = Callable[[str, np.dtype, int], np.ndarray]


def read(path: str | Path) -> Any:
    """Everything `torch.save` (or safetensors) put into a file, as numpy arrays in plain containers.

    Args:
      path: `.pth`, `.pt`, `.ckpt` or `.pkl` in either format of `torch.save`, or `.safetensors`.

    Returns:
      Usually a nested dict; arrays have the shapes and dtypes of the tensors (bfloat16 by ml_dtypes), on no device.

    Raises:
      ValueError: the file is something else, damaged, truncated, or asks for a global that is no plain data.
      OSError: the file cannot be opened.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        with path.open("rb") as file:
            reader = _read_zip if file.read(2) == b"PK" else _read_legacy
            return reader(file, _map(path))
    except _Problem as problem:
        raise ValueError(f"{path} ({describe(path)}): {problem}") from None


def state_dict(nested: Any) -> dict[str, np.ndarray]:
    """The tensors of one network: wrappers such as `params_ema` are opened, prefixes such as `module.` taken away.

    Args:
      nested: what `read` returned.

    Returns:
      PyTorch tensor names to arrays, in the order of the file. Entries that are no tensors (an epoch) are left out.

    Raises:
      ValueError: there are no tensors under any of the usual keys.
    """
    # Eight levels are more than anyone nests, and end a dictionary that contains itself.
    for _ in range(8):
        inner = (nested.get(key) for key in WRAPPERS) if isinstance(nested, Mapping) else ()
        nested = next((value for value in inner if isinstance(value, Mapping) and value), nested)
    state = {k: v for k, v in nested.items() if isinstance(v, np.ndarray)} if isinstance(nested, Mapping) else {}
    if not state:
        found = f"the keys {list(nested)[:10]}" if isinstance(nested, Mapping) else f"a {type(nested).__name__}"
        raise ValueError(f"no state dict found: looked for tensors, also under {', '.join(WRAPPERS)}; got {found}")
    return _strip_prefixes(state)


def describe(path: str | Path) -> str:
    """What a file seems to be, in a few words, from its first bytes: for error messages."""
    with Path(path).open("rb") as file:
        head = file.read(64)
    if not head:
        return "an empty file"
    if head.startswith(b"PK"):
        return "a zip file, as checkpoints of PyTorch are"
    if head.startswith(b"\x80"):
        return "a pickle, as checkpoints of PyTorch before 1.6 are"
    if head[8:9] == b"{":
        return "a safetensors file, whole or truncated"
    start = head[:24]
    readable = start.isascii() and all(c >= 32 or c in b"\t\r\n" for c in start)
    return f"text that begins {start.decode()!r}" if readable else "of an unknown kind"


class _Problem(ValueError):
    """A fault of the file, told without the file's name; `read` adds it."""


class _Dict(dict):
    """Stands for OrderedDict. Attributes that the file hangs on it (PyTorch's `_metadata`) are forgotten."""

    def __setstate__(self, state: Any) -> None:
        del state


class _Unpickler(pickle.Unpickler):
    """An unpickler that can build containers, numbers, strings and arrays, and nothing else.

    `find_class` is the only door from a pickle to Python's functions. It hands out immutable builtins, strings and
    bound methods, none of which the BUILD opcode can alter.
    """

    def __init__(self, file: BinaryIO, read_storage: StorageReader):
        super().__init__(file, encoding="utf-8")
        self._read_storage = read_storage

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.cuda") and (name in STORAGES or name in DTYPES):
            return name
        known = {
            "collections.OrderedDict": _Dict,
            "collections.Counter": _Dict,  # the milestones of a learning-rate schedule
            "builtins.set": set,
            "__builtin__.set": set,
            "torch.Size": tuple,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_parameter": self._parameter,
        }
        if f"{module}.{name}" not in known:
            raise _Problem(f"refused: it asks for `{module}.{name}`, which is no plain data; nothing of it was run")
        return known[f"{module}.{name}"]

    def persistent_load(self, pid: tuple) -> np.ndarray:
        """One storage; pid is ('storage', type, key, device, count[, view]). The device is of no interest here."""
        kind, storage_type, key, _, count, *view = pid
        if kind != "storage" or storage_type not in STORAGES:
            raise _Problem(f"it refers to an unknown kind of object: {pid!r:.80}")
        storage = self._read_storage(key, np.dtype(STORAGES[storage_type]), count)
        if not view or view[0] is None:
            return storage
        _, offset, size = view[0]  # PyTorch before 0.4 kept windows on storages too
        return self._tensor(storage, offset, (size,), (1,))

    def _tensor(
        self, storage: np.ndarray, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any
    ) -> np.ndarray:
        last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
        if min((offset, *shape, *stride)) < 0 or (0 not in shape and last >= storage.size):
            raise _Problem(f"a tensor of shape {shape} reaches outside its storage of {storage.size} elements")
        # The step of a placeholder is 0 bytes, so the step is asked for, not computed from the dtype.
        strides = [s * storage.strides[0] for s in stride]
        view = np.lib.stride_tricks.as_strided(storage[offset:], shape, strides, writeable=False)
        return np.require(view, requirements="A")

    def _parameter(self, data: np.ndarray, *_: Any) -> np.ndarray:
        return data


def _unpickle(file: BinaryIO, read_storage: StorageReader) -> Any:
    try:
        return _Unpickler(file, read_storage).load()
    except _Problem:
        raise
    except Exception as error:  # damaged bytes can raise anything
        reason = f"{type(error).__name__}: {error}"
        raise _Problem(f"not a PyTorch checkpoint, or a damaged one ({reason})") from error


def _map(path: Path) -> np.ndarray:
    if path.stat().st_size == 0:
        raise _Problem("there is nothing to read")
    return np.memmap(path, np.uint8, "r").view(np.ndarray)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise _Problem(f"not a safetensors file, or a truncated one ({error})") from error


def _read_zip(file: BinaryIO, raw: np.ndarray) -> Any:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = {info.filename: info for info in archive.infolist()}
            root = next((name.removesuffix("data.pkl") for name in entries if name.endswith("data.pkl")), None)
            if root is None:
                raise _Problem("not written by PyTorch: it has no data.pkl")
            records = {
                name.removeprefix(root): functools.partial(_entry, archive, info, raw) for name, info in entries.items()
            }
            return _unpickle(io.BytesIO(records["data.pkl"]()), _zip_storages(records))
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise _Problem(f"damaged or truncated ({error})") from error


def _zip_storages(records: dict[str, Callable[[], np.ndarray]]) -> StorageReader:
    swap = "byteorder" in records and records["byteorder"]().tobytes() == b"big"

    @functools.cache  # shared storages stay shared
    def read_storage(key: str, dtype: np.dtype, count: int) -> np.ndarray:
        if f"data/{key}" not in records:
            raise _Problem(f"the storage data/{key} is missing")
        data = records[f"data/{key}"]()
        if data.size != count * dtype.itemsize:
            raise _Problem(f"the storage data/{key} has {data.size} bytes, wanted {count} elements of {dtype.name}")
        return data.view(f"u{dtype.itemsize}").byteswap().view(dtype) if swap else data.view(dtype)

    return read_storage


def _entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, raw: np.ndarray) -> np.ndarray:
    """The bytes (n,) of an entry: a view of the mapped file where they are stored uncompressed, as PyTorch does."""
    if info.compress_type != zipfile.ZIP_STORED:
        return np.frombuffer(archive.read(info), np.uint8)
    name, extra = raw[info.header_offset + 26 : info.header_offset + 30].view("<u2")  # lengths, in the local header
    start = info.header_offset + 30 + int(name) + int(extra)
    data = raw[start : start + info.file_size]
    if zlib.crc32(data) != info.CRC:
        raise zipfile.BadZipFile(f"the checksum of {info.filename} does not match")
    return data


def _read_legacy(file: BinaryIO, raw: np.ndarray) -> Any:
    """Reads the objects twice: their length and the dtypes, which the first pass finds, tell where the storages lie."""
    file.seek(0)
    if _unpickle(file, _no_storage) != MAGIC:
        raise _Problem("a pickle, but not of PyTorch: the magic number is missing")
    # The machine facts name a byte order, but PyTorch has always written this format in little endian.
    _version, _facts, start = _unpickle(file, _no_storage), _unpickle(file, _no_storage), file.tell()
    announced: dict[str, tuple[np.dtype, int]] = {}

    def announce(key: str, dtype: np.dtype, count: int) -> np.ndarray:
        announced[key] = dtype, count
        return np.broadcast_to(np.zeros((), dtype), (count,))

    _unpickle(file, announce)
    storages = _legacy_storages(announced, _unpickle(file, _no_storage), raw, file.tell())
    file.seek(start)
    return _unpickle(file, lambda key, dtype, count: storages[key])


def _legacy_storages(
    announced: dict[str, tuple[np.dtype, int]], keys: list[str], raw: np.ndarray, start: int
) -> dict[str, np.ndarray]:
    if set(keys) != set(announced):
        raise _Problem("damaged: its list of storages does not fit its tensors")
    storages = {}
    for key in keys:
        dtype, count = announced[key]
        end = start + 8 + count * dtype.itemsize
        if end > raw.size:
            raise _Problem(f"truncated: the storage {key} should end at byte {end}, the file has {raw.size}")
        if raw[start : start + 8].view("<i8")[0] != count:
            raise _Problem(f"damaged: the size of the storage {key} does not fit its tensors")
        storages[key] = raw[start + 8 : end].view(dtype)
        start = end
    return storages


def _no_storage(key: str, dtype: np.dtype, count: int) -> np.ndarray:
    raise _Problem(f"damaged: the storage {key} ({count} elements of {dtype}) in an unexpected place")


def _strip_prefixes(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in state)), None):
        state = {name.removeprefix(prefix): array for name, array in state.items()}
    return state
