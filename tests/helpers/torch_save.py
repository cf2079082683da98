"""A small `torch.save`, without torch, in both of its formats; it also writes what torch never would."""

import io
import pickle
import zipfile
from typing import NamedTuple

import numpy as np

from b2b_jax.formats import torch_files

# A small torch.save. Global and Tensor pickle to the same opcodes as torch's functions and tensors.


class Global(NamedTuple):
    module: str
    name: str

    def __call__(self):
        raise AssertionError("only its name is ever pickled")


class Storage(NamedTuple):
    kind: str
    key: str
    data: np.ndarray
    view: tuple | None = None


class Tensor(NamedTuple):
    storage: Storage
    offset: int
    shape: tuple
    stride: tuple

    def __reduce_ex__(self, protocol):
        return Global("torch._utils", "_rebuild_tensor_v2"), (*self, False, {})


class Pickler(pickle._Pickler):
    def __init__(self, file, legacy):
        super().__init__(file, protocol=2)
        self.legacy = legacy

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Global):
            return self.write(f"c{obj.module}\n{obj.name}\n".encode())
        return super().save(obj, save_persistent_id)

    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        pid = ("storage", Global("torch", obj.kind), obj.key, "cuda:0", obj.data.size)
        return (*pid, obj.view) if self.legacy else pid


def pickled(obj, legacy=False):
    file = io.BytesIO()
    Pickler(file, legacy).dump(obj)
    return file.getvalue()


def write_zip(path, obj, storages=(), order=b"little", compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled(obj))
        archive.writestr("archive/byteorder", order)
        for storage in storages:
            archive.writestr(f"archive/data/{storage.key}", storage.data.tobytes())
    return path


def write_legacy(path, obj, storages=(), little_endian=True):
    parts = [torch_files.MAGIC, 1001, {"protocol_version": 1001, "little_endian": little_endian}]
    path.write_bytes(
        b"".join(map(pickled, parts))
        + pickled(obj, legacy=True)
        + pickled([storage.key for storage in storages])
        + b"".join(np.int64(s.data.size).tobytes() + s.data.tobytes() for s in storages)
    )
    return path


def whole(kind, key, data):
    """A contiguous tensor and its storage."""
    strides = tuple(s // data.itemsize for s in data.strides)
    storage = Storage(kind, key, data.ravel())
    return Tensor(storage, 0, data.shape, strides), storage


WRITERS = {"zip": write_zip, "legacy": write_legacy}
