"""Files of `torch.save` and safetensors: reading them, refusing code in them, and what is wrong with a broken one.

They are crafted here without torch, after both of its formats; the reference ones came from torch.
"""

import io
import os
import pickle
import zipfile
from typing import NamedTuple

import ml_dtypes
import numpy as np
import pytest

from b2b_jax import weights
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


@pytest.fixture(params=WRITERS)
def write(request):
    return WRITERS[request.param]


# Reading.


def test_windows_on_a_shared_storage(write, tmp_path):
    base = np.arange(24, dtype=np.float32)
    shared = Storage("FloatStorage", "7", base)
    other, last = whole("LongStorage", "8", np.array([3, -4]))
    obj = {
        "plain": Tensor(shared, 0, (4, 6), (6, 1)),
        "transposed": Tensor(shared, 0, (6, 4), (1, 6)),
        "strided": Tensor(shared, 7, (2, 3), (12, 2)),
        "expanded": Tensor(shared, 5, (2, 2), (0, 1)),
        "scalar": Tensor(shared, 23, (), ()),
        "empty": Tensor(shared, 0, (0, 6), (6, 1)),
        "other": other,
    }
    got = torch_files.read(write(tmp_path / "a.pth", obj, [shared, last]))
    square = base.reshape(4, 6)
    expected = {
        "plain": square,
        "transposed": square.T,
        "strided": np.array([[7, 9, 11], [19, 21, 23]]),
        "expanded": np.array([[5, 6], [5, 6]]),
        "scalar": np.array(23),
        "empty": np.zeros((0, 6)),
        "other": np.array([3, -4]),
    }
    for name, array in expected.items():
        assert got[name].shape == array.shape
        np.testing.assert_array_equal(got[name], array)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("HalfStorage", np.float16),
        ("BFloat16Storage", ml_dtypes.bfloat16),
        ("DoubleStorage", np.float64),
        ("BoolStorage", np.bool_),
        ("CharStorage", np.int8),
    ],
)
def test_dtypes(write, kind, dtype, tmp_path):
    # An odd number of bytes before the storage leaves it unaligned in the legacy format.
    first, first_storage = whole("ByteStorage", "0", np.array([1, 2, 3], np.uint8))
    data = np.array([[1, 0, 1.5], [-2, 0.25, 1]]).astype(dtype)
    tensor, storage = whole(kind, "1", data)
    got = torch_files.read(write(tmp_path / "a.pt", {"first": first, "x": tensor}, [first_storage, storage]))["x"]
    assert got.dtype == data.dtype and got.flags.aligned
    np.testing.assert_array_equal(got, data)


def test_big_endian_zip(tmp_path):
    data = np.array([1.5, -2, 1e-9], np.float32)
    tensor, _ = whole("FloatStorage", "0", data)
    swapped = Storage("FloatStorage", "0", data.byteswap())
    np.testing.assert_array_equal(torch_files.read(write_zip(tmp_path / "a.pt", tensor, [swapped], b"big")), data)


def test_legacy_format_is_little_endian_whatever_machine_wrote_it(tmp_path):
    data = np.array([1.5, -2, 1e-9], np.float32)
    tensor, storage = whole("FloatStorage", "0", data)
    path = write_legacy(tmp_path / "a.pt", tensor, [storage], little_endian=False)
    np.testing.assert_array_equal(torch_files.read(path), data)


def test_legacy_storage_views(tmp_path):
    root = np.arange(6, dtype=np.float32)
    storage = Storage("FloatStorage", "0", root, ("1", 2, 3))
    path = write_legacy(tmp_path / "a.pt", Tensor(storage, 1, (2,), (1,)), [storage])
    np.testing.assert_array_equal(torch_files.read(path), [3, 4])


def test_compressed_zip(tmp_path):
    data = np.arange(1000, dtype=np.float32)
    tensor, storage = whole("FloatStorage", "0", data)
    path = write_zip(tmp_path / "a.pt", tensor, [storage], compression=zipfile.ZIP_DEFLATED)
    np.testing.assert_array_equal(torch_files.read(path), data)


def test_plain_containers(write, tmp_path):
    obj = {"epoch": 3, "lr": [1e-3, (True, None)], "tags": {"a"}, "size": (2, 3), "dtype": Global("torch", "float16")}
    assert torch_files.read(write(tmp_path / "a.ckpt", obj)) == obj | {"dtype": "float16"}


def test_files_of_torch_itself(tmp_path):
    torch = pytest.importorskip("torch")
    x = torch.arange(24.0).reshape(4, 6)
    obj = {"params": {"x": x, "t": x.t(), "h": x[1:3, ::2].half(), "p": torch.nn.Parameter(x[0].bfloat16())}}
    for zipped in (True, False):
        torch.save(obj, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
        got = torch_files.read(tmp_path / "a.pth")["params"]
        for name, tensor in obj["params"].items():
            np.testing.assert_array_equal(got[name].astype(np.float32), tensor.detach().float().numpy())


def test_safetensors_are_read(tmp_path):
    arrays = {"a": np.ones((2, 3), ml_dtypes.bfloat16), "b": np.zeros((), np.int64)}
    weights.write_safetensors(tmp_path / "a.safetensors", arrays, {})
    got = torch_files.read(tmp_path / "a.safetensors")
    assert got["a"].dtype == ml_dtypes.bfloat16 and got["b"].shape == ()


# Refusing.


class Evil:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
def test_code_in_a_pickle_is_refused_and_not_run(form, tmp_path):
    marker, path = tmp_path / "ran", tmp_path / "evil.pth"
    evil = {"params": Evil(f"touch {marker}")}
    if form == "bare":
        path.write_bytes(pickle.dumps(evil))
    else:
        WRITERS[form](path, evil)
    with pytest.raises(ValueError, match=rf"evil\.pth.*refused.*{os.system.__module__}\.system"):
        torch_files.read(path)
    assert not marker.exists()


def test_class_instances_are_refused_by_name(write, tmp_path):
    with pytest.raises(ValueError, match=r"refused.*argparse\.Namespace"):
        torch_files.read(write(tmp_path / "a.pth", {"args": Global("argparse", "Namespace")}))


def test_truncation_is_one_clear_error(write, tmp_path):
    tensor, storage = whole("FloatStorage", "0", np.arange(64, dtype=np.float32))
    data = write(tmp_path / "a.pth", {"x": tensor}, [storage]).read_bytes()
    for size in range(0, len(data), 7):
        (tmp_path / "b.pth").write_bytes(data[:size])
        with pytest.raises(ValueError, match=r"b\.pth"):
            torch_files.read(tmp_path / "b.pth")


def test_flipped_byte_in_a_zip_is_noticed(tmp_path):
    tensor, storage = whole("FloatStorage", "0", np.arange(64, dtype=np.float32))
    path = write_zip(tmp_path / "a.pth", {"x": tensor}, [storage])
    data = bytearray(path.read_bytes())
    data[data.index(storage.data.tobytes()) + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="checksum of archive/data/0"):
        torch_files.read(path)


@pytest.mark.parametrize("window", [(0, (9,), (1,)), (1, (2, 4), (4, 1)), (-1, (2,), (1,)), (7, (2,), (-1,))])
def test_windows_beyond_the_storage(write, window, tmp_path):
    storage = Storage("FloatStorage", "0", np.zeros(8, np.float32))
    with pytest.raises(ValueError, match="outside its storage"):
        torch_files.read(write(tmp_path / "a.pth", Tensor(storage, *window), [storage]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html>\n<html>", "text that begins '<!DOCTYPE html>"),
        (b"cos\nsystem\n(S'true'\ntR.", r"refused.*os\.system"),
        (b"version https://git-lfs.github.com/spec/v1\n", "text that begins 'version https"),
        (pickle.dumps([1, 2]), "not of PyTorch"),
        (bytes(range(200, 256)), "of an unknown kind"),
    ],
)
def test_foreign_files_are_described(content, message, tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        torch_files.read(path)


# State dicts.


def test_state_dict_opens_wrappers_and_strips_prefixes():
    x, y = np.zeros(1), np.ones(1)
    state_dict = torch_files.state_dict
    assert state_dict({"a": x, "epoch": 3}) == {"a": x}
    assert state_dict({"params": {"a": x}, "params_ema": {"a": y}})["a"] is y
    assert state_dict({"epoch": 1, "model": {"state_dict": {"module._orig_mod.module.a": x}}}) == {"a": x}
    assert list(state_dict({"netG.module.model.0.weight": x, "netG.module.b": y})) == ["model.0.weight", "b"]
    assert list(state_dict({"module.a": x, "b": y})) == ["module.a", "b"]


def test_no_state_dict():
    recursive = {"epoch": 3}
    recursive["model"] = recursive
    for nested in (recursive, {"epoch": 3}, [1], np.zeros(3)):
        with pytest.raises(ValueError, match="no state dict found"):
            torch_files.state_dict(nested)
