"""Files of `torch.save` and safetensors: reading them, refusing code in them, and what is wrong with a broken one.

They are crafted here without torch, after both of its formats; the reference ones came from torch.
"""

import argparse
import json
import os
import pickle
import socket
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

import ml_dtypes
import numpy as np
import pytest
from helpers.torch_save import WRITERS, Global, Storage, Tensor, pickled, whole, write_legacy, write_zip

from b2b_jax import weights
from b2b_jax.formats import pickles, torch_files


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
    with pytest.raises(ValueError, match=r"refused.*my_project\.Net"):
        torch_files.read(write(tmp_path / "a.pth", {"model": Global("my_project", "Net")}))


def test_options_and_paths_beside_the_tensors_are_passed_over(write, tmp_path):
    options = argparse.Namespace(lr=1e-3, folder=Path("data"), nested=argparse.Namespace(steps=[1, 2]))
    tensor, storage = whole("FloatStorage", "0", np.arange(4, dtype=np.float32))
    for beside in ({"args": options}, {"hyper_parameters": {"root": PureWindowsPath("c:/x"), "options": options}}):
        got = torch_files.read(write(tmp_path / "a.pth", {"state_dict": {"x": tensor}} | beside, [storage]))
        np.testing.assert_array_equal(torch_files.state_dict(got)["x"], np.arange(4))


class OrderedByPython2(NamedTuple):
    """Python 2 makes an ordered dictionary of its items at once."""

    items: list

    def __reduce__(self):
        return OrderedDict, (self.items,)


def test_a_state_dict_saved_by_python_2_is_read(write, tmp_path):
    tensor, storage = whole("FloatStorage", "0", np.arange(4, dtype=np.float32))
    got = torch_files.read(write(tmp_path / "a.pth", OrderedByPython2([["x", tensor]]), [storage]))
    np.testing.assert_array_equal(torch_files.state_dict(got)["x"], np.arange(4))


@pytest.mark.parametrize("items", ["xy", ["xy"], [["x"]], [[("x",), 1]]])
def test_an_ordered_dictionary_of_no_items_is_refused(write, items, tmp_path):
    with pytest.raises(ValueError, match="an ordered dictionary of something other than keys and values"):
        torch_files.read(write(tmp_path / "a.pth", OrderedByPython2(items)))


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


# Costs.


def peak(path):
    """Bytes of Python's and NumPy's memory that reading a file takes at most, however it ends."""
    tracemalloc.start()
    try:
        torch_files.state_dict(torch_files.read(path))
    except ValueError as error:
        assert str(path) in str(error) or "no state dict" in str(error)
    finally:
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return size


def text(word):
    return b"X" + len(word).to_bytes(4, "little") + word.encode()


def whole_number(n):
    return b"J" + n.to_bytes(4, "little", signed=True)


STORAGE = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x01tQ"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def repeated(shape, stride):
    shape, stride = (b"(" + b"".join(map(whole_number, x)) + b"t" for x in (shape, stride))
    return REBUILD + b"(" + STORAGE + b"K\x00" + shape + stride + b"\x89}tR"


LAUGHS = b"".join(b"0h" + bytes([i]) + b"(" + (b"h" + bytes([i])) * 9 + b"tq" + bytes([i + 1]) for i in range(30))
HOSTILE = {
    "memo index": b"\x80\x02Nr" + (2**31 - 1).to_bytes(4, "little") + b".",
    "memo index in text": b"\x80\x02Np999999999\n.",
    "stride 0": b"\x80\x02}" + text("w") + repeated((40_000_000,), (0,)) + b"s.",
    "stride 0 of two axes": b"\x80\x02}" + text("w") + repeated((3000, 3000), (0, 0)) + b"s.",
    "stride 0 many times": b"\x80\x02}("
    + b"".join(text(f"w{i}") + repeated((60_000,), (0,)) for i in range(99))
    + b"u.",
    "nested tuple as a key": b"\x80\x02})" + b"\x85" * 100_000 + b"Ns.",
    "nested tuple as a storage": b"\x80\x02(" + text("storage") + b")" + b"\x85" * 100_000 + b"K\x01K\x01K\x01tQ.",
    "nested lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "nested marks": b"\x80\x02" + b"(" * 100_000 + b".",
    "billion laughs as a storage": b"\x80\x02)q\x00" + LAUGHS + b"(" + text("storage") + b"h\x1eK\x01K\x01K\x01tQ.",
    "billion laughs as a key": b"\x80\x02}q\x40)q\x00" + LAUGHS + b"0h\x40h\x1eNs.",
    "billion laughs in a set": b"\x80\x04\x8f(K\x00q\x00" + LAUGHS + b"h\x1e\x90.",
    "sets": b"\x80\x04" + b"\x8f" * 300_000 + b".",
    "dictionaries": b"\x80\x02" + b"}" * 300_000 + b".",
    "long integer": b"\x80\x02\x8b" + (900_000).to_bytes(4, "little") + b"\x01" * 900_000 + b".",
    "text that is not there": b"\x80\x04\x8d" + (1 << 60).to_bytes(8, "little") + b"x.",
    "bytes that are not there": b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b"x.",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("form", [pytest.param("zip", marks=pytest.mark.slow), "deflated", "legacy"])
def test_memory_is_bounded_by_the_size_of_the_file(name, form, tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "MOST_CONTAINERS", 150_000)  # a test's patience
    path = tmp_path / "hostile.pth"
    if form == "legacy":
        path.write_bytes(b"".join(map(pickled, [torch_files.MAGIC, 1001, {}])) + HOSTILE[name])
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if form == "deflated" else zipfile.ZIP_STORED) as archive:
            archive.writestr("archive/data.pkl", HOSTILE[name])
            archive.writestr("archive/data/0", bytes(4))
    assert peak(path) < 60 * path.stat().st_size + (48 << 20)


def test_a_tensor_of_two_axes_is_no_storage(write, tmp_path):
    """Strides are multiples of the first axis's step, so the window's end would lie far outside the memory."""
    inner, storage = whole("FloatStorage", "0", np.zeros((2, 1000), np.float32))

    class Rebuilt:
        def __reduce_ex__(self, protocol):
            return Global("torch._utils", "_rebuild_tensor_v2"), (inner, 0, (1000,), (1,), False, {})

    with pytest.raises(ValueError, match="a tensor without a storage"):
        torch_files.read(write(tmp_path / "a.pth", {"x": Rebuilt()}, [storage]))


def test_a_storage_of_two_kinds_is_refused(write, tmp_path):
    data = np.arange(4, dtype=np.float32)
    first, second = Storage("FloatStorage", "0", data), Storage("IntStorage", "0", data)
    obj = {"a": Tensor(first, 0, (4,), (1,)), "b": Tensor(second, 0, (4,), (1,))}
    with pytest.raises(ValueError, match=r"described in two ways|does not fit"):
        torch_files.read(write(tmp_path / "a.pth", obj, [first]))


@pytest.mark.parametrize("size", [50 << 20, 200 << 20])
def test_a_zip_that_inflates_is_refused_before_it_does(size, tmp_path):
    path = tmp_path / "bomb.pth"
    storage = Storage("ByteStorage", "0", np.zeros(size, np.uint8))
    write_zip(path, {"x": Tensor(storage, 0, (size,), (1,))}, [storage], compression=zipfile.ZIP_DEFLATED)
    assert peak(path) < 32 << 20
    with pytest.raises(ValueError, match="unpacks to more than 20 times its size"):
        torch_files.read(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"compress_type": zipfile.ZIP_LZMA}, "packed by the method lzma"),
        ({"compress_type": zipfile.ZIP_BZIP2}, "packed by the method bzip2"),
        ({"compress_type": 97}, "packed by the method wavpack"),
        ({"compress_type": 99}, "packed by the method 99"),
        ({"flag_bits": 1}, "encrypted"),
    ],
)
def test_odd_zips_are_refused_by_name(change, words, tmp_path):
    path = write_zip(tmp_path / "a.pth", {"a": 1})
    data = bytearray(path.read_bytes())
    for place in (data.index(b"PK\x03\x04") + 6, data.index(b"PK\x01\x02") + 8):  # flags, then the method
        for offset, key in ((0, "flag_bits"), (2, "compress_type")):
            if key in change:
                data[place + offset : place + offset + 2] = change[key].to_bytes(2, "little")
    path.write_bytes(data)
    with pytest.raises(ValueError, match=words):
        torch_files.read(path)


# What is no file.


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "device", "link to a pipe", "no such file"])
def test_only_regular_files_are_opened(kind, tmp_path):
    path = tmp_path / "weights"
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind != "no such file":
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to(tmp_path / "pipe")
    for read in (torch_files.read, weights.load):
        with pytest.raises(
            OSError if kind == "no such file" else ValueError, match=r"pipe|socket|folder|device|No such"
        ):
            read(path)


# What the world saves.


def test_numpy_values_beside_tensors(tmp_path):
    torch = pytest.importorskip("torch")
    history = np.arange(12.0).reshape(3, 4)[:, ::2]
    obj = {
        "w": torch.arange(3.0),
        "psnr": np.float64(31.25),
        "history": history,
        "step": np.int64(7),
        "swapped": history.astype(">f4"),
        "fortran": np.asfortranarray(history),
    }
    for zipped in (True, False):
        torch.save(obj, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
        got = torch_files.read(tmp_path / "a.pth")
        assert got["psnr"] == 31.25 and got["step"] == 7
        for name in ("history", "swapped", "fortran"):
            np.testing.assert_array_equal(got[name], history)
        assert list(torch_files.state_dict(got)) == ["w"]
    torch.save({"w": history.astype(np.float32)}, tmp_path / "b.pth")
    assert type(torch_files.state_dict(torch_files.read(tmp_path / "b.pth"))["w"]) is np.ndarray


def test_parameters_with_attributes_and_of_subclasses(tmp_path):
    torch = pytest.importorskip("torch")
    parameter, tensor, buffer = torch.nn.Parameter(torch.ones(2)), torch.zeros(3), torch.nn.Buffer(torch.ones(4))
    parameter.note, tensor.note = "prompt", {"a": 1}
    torch.save({"p": parameter, "t": tensor, "b": buffer, "d": torch.device("cuda:1")}, tmp_path / "a.pth")
    got = torch_files.read(tmp_path / "a.pth")
    assert got.pop("d") == "cuda:1"
    assert {name: x.shape for name, x in got.items()} == {"p": (2,), "t": (3,), "b": (4,)}


@pytest.mark.filterwarnings("ignore")
def test_programs_are_refused_with_what_to_do(tmp_path):
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    torch.jit.save(torch.jit.script(module), tmp_path / "script.pt")
    with zipfile.ZipFile(tmp_path / "traced.pth", "w") as archive:
        archive.writestr("traced/data.pkl", pickled({"w": 1}))
        archive.writestr("traced/code/__torch__.py", "def forward(self): pass")
    torch.save(module, tmp_path / "module.pth")
    torch.save({"net": module}, tmp_path / "nested.pth", _use_new_zipfile_serialization=False)
    for name, words in {
        "script.pt": "TorchScript",
        "traced.pth": "TorchScript",
        "module.pth": "nn",
        "nested.pth": "nn",
    }.items():
        with pytest.raises(ValueError, match=rf"{words}.*torch\.save\(.*state_dict\(\), 'weights\.pth'\)"):
            torch_files.read(tmp_path / name)


def test_the_bytes_say_what_a_file_is_not_its_name(write, tmp_path):
    tensor, storage = whole("FloatStorage", "0", np.arange(3, dtype=np.float32))
    write(tmp_path / "torch.safetensors", {"x": tensor}, [storage])
    weights.write_safetensors(tmp_path / "a.ckpt", {"x": storage.data}, {})
    (tmp_path / "a.ckpt").rename(tmp_path / "SAFE.PTH")
    for name in ("torch.safetensors", "SAFE.PTH"):
        np.testing.assert_array_equal(torch_files.read(tmp_path / name)["x"], storage.data)


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2", "C64", "F4", "X9"])
def test_types_that_numpy_lacks_are_refused(kind, tmp_path):
    header = json.dumps({"w": {"dtype": kind, "shape": [8], "data_offsets": [0, 64 if kind == "C64" else 8]}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(64 if kind == "C64" else 8))
    with pytest.raises(ValueError, match=r"a\.safetensors.*(w is|not a whole)"):
        torch_files.read(path)


def test_averages_are_completed_by_the_network_beside_them():
    x, y, mean = np.zeros(1), np.ones(1), np.full(1, 2)
    got = torch_files.state_dict({"model": {"a.weight": x, "a.running_mean": mean}, "ema": {"shadow": {"a.weight": y}}})
    assert got == {"a.weight": y, "a.running_mean": mean}
    assert torch_files.state_dict({"model": {"a": x}, "ema": {"decay": 0.9, "shadow_params": [y]}}) == {"a": x}
    assert torch_files.state_dict({"ema_model": {"module.a": y}, "model": {"module.a": x}}) == {"a": y}


def test_names_that_are_no_text_are_refused():
    for name in (1, None, b"a"):
        with pytest.raises(ValueError, match="named by a"):
            torch_files.state_dict({name: np.zeros(1)})


def test_a_web_of_wrappers_ends():
    web = {}
    web |= dict.fromkeys(("params_ema", "ema", "params", "state_dict", "model", "net", "generator"), web)
    with pytest.raises(ValueError, match="no state dict"):
        torch_files.state_dict(web)
