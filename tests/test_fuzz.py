"""Mutated files of weights, some 21,000 of every format: each is converted or refused in one line, and nothing runs.

Every file is a function of its seed, which the failure names. Archives and headers are mutated inside too and packed
again, so that no checksum keeps the mutation from what reads it.
"""

import contextlib
import functools
import gzip
import io
import json
import os
import signal
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.tfjs_models import export, pack
from helpers.torch_save import pickled, whole, write_legacy, write_zip

from b2b_jax import convert, foreign, models, networks, templates, weights
from b2b_jax.errors import UserError

pytestmark = pytest.mark.slow

FILES = 3000  # of each format
SECONDS = 20  # of a processor, for one file
MEGABYTES = 500  # beyond what the process held before, at most
NETWORKS = {
    "patchgan": {"ndf": 2, "n_layers": 1, "norm": "batch", "input": "rgb"},
    "nafnet": {"width": 2, "encoders": [1], "middle": 1, "decoders": [1], "unshuffle": 1, "local": False},
}
NUMBERS = (0, 1, 2, 127, 128, 255, 1 << 15, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 62, (1 << 64) - 1)
VALUES = (0, -1, 10**9, 10**30, 1.5, float("nan"), True, None, "", "x" * 99, [], {}, [[1]], [0], [10**9] * 4, "float8")
# What a file must never bring about; `exec` and `compile` are left out, since libraries do both by themselves.
FORBIDDEN = {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pickle.find_class"}
FORBIDDEN |= {"socket.connect", "os.remove", "os.rename", "shutil.rmtree", "ctypes.dlopen"}


class TooSlow(BaseException):
    """Not an Exception: nothing that a reader catches."""


# ---- the world around a file


caught: list[str] = []
watching = False


def watch(event, _arguments):
    if watching and event in FORBIDDEN:
        caught.append(event)


sys.addaudithook(watch)


def too_slow(*_):
    raise TooSlow


@pytest.fixture
def bounded(monkeypatch):
    """Known networks are built once and nothing is written, so that the time goes into reading.

    Returns the largest growth of the process's memory since, in MB, as a function: tests before this one leave theirs.
    """
    build = templates.template
    built = functools.cache(lambda _, module, arrays: build(module, arrays))
    monkeypatch.setattr(templates, "template", lambda module, arrays: built(repr(module), module, arrays))
    monkeypatch.setattr(weights, "save", lambda *_: None)
    previous = signal.signal(signal.SIGPROF, too_slow)
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    yield lambda: peak() - before
    signal.signal(signal.SIGPROF, previous)


def peak() -> int:
    """Largest resident memory since it was cleared, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) // 1024


@contextlib.contextmanager
def guarded():
    global watching
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    watching = True
    try:
        yield
    finally:
        watching = False
        signal.setitimer(signal.ITIMER_PROF, 0)


def outcome(path: Path) -> str:
    """'read', or the line with which a file was refused, by both doors: the converter and the loader of networks."""
    said, loaded = io.StringIO(), False
    with guarded(), contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = convert.main([str(path), str(path.with_name("out.safetensors"))])
        try:
            networks.load(path, np.dtype("float32"))
            loaded = True
        except UserError as error:
            assert "\n" not in str(error)
    line = said.getvalue()
    assert code in (0, 2) and line.count("\n") == (code == 2) and line.rstrip("\n").isprintable(), (code, line)
    return line if code and not loaded else "read"


# ---- mutations


def mutated(rng: np.random.Generator, data: bytes) -> bytes:
    """One to four changes of a few bytes."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        place = int(rng.integers(len(out) or 1))
        match rng.integers(8):
            case 0 | 1:
                out[place : place + 1] = bytes([rng.integers(256)])
            case 2:
                out[place : place + 1] = bytes([(out[place] if out else 0) ^ 1 << rng.integers(8)])
            case 3:
                width = int(rng.choice([1, 2, 4, 8]))
                number = int(NUMBERS[rng.integers(len(NUMBERS))]) % (1 << 8 * width)
                out[place : place + width] = number.to_bytes(width, "little")
            case 4:
                del out[place : place + int(rng.integers(1, 64))]
            case 5:
                source = int(rng.integers(len(out) or 1))
                out[place:place] = out[source : source + int(rng.integers(1, 64))]
            case 6:
                out[place:place] = bytes(out[place : place + 4]) * int(rng.integers(1, 2000))
            case 7:
                del out[place:]
    return bytes(out)


def mutated_json(rng: np.random.Generator, value: object) -> object:
    """One value, anywhere, becomes another of VALUES, or a key another one."""
    if isinstance(value, dict | list) and value and rng.random() < 0.9:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = keys[rng.integers(len(keys))]
        value[key] = mutated_json(rng, value[key])
        if isinstance(value, dict) and rng.random() < 0.05:
            value[str(rng.integers(3))] = value.pop(key)
        return value
    return VALUES[rng.integers(len(VALUES))]


# ---- the formats: a folder and a generator to a file


def fresh(name: str) -> dict:
    like = templates.template(models.create(name, **NETWORKS[name]), 100)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: np.abs(rng.standard_normal(x.shape)).astype(x.dtype), like)


@functools.cache
def tensors(name: str) -> tuple:
    state = foreign.to_torch_state(fresh(name))
    kinds = {"float32": "FloatStorage", "int64": "LongStorage"}
    made = {key: whole(kinds[x.dtype.name], str(i), x) for i, (key, x) in enumerate(state.items())}
    return {key: tensor for key, (tensor, _) in made.items()}, [storage for _, storage in made.values()]


def any_network(rng: np.random.Generator) -> str:
    return list(NETWORKS)[rng.integers(len(NETWORKS))]


def torch_zip(folder: Path, rng: np.random.Generator) -> Path:
    path = folder / "a.pth"
    obj, storages = tensors(any_network(rng))
    write_zip(path, {"epoch": 3, "state_dict": obj}, storages)
    if rng.random() < 0.3:
        path.write_bytes(mutated(rng, path.read_bytes()))
        return path
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    victim = "archive/data.pkl" if rng.random() < 0.9 else list(entries)[rng.integers(len(entries))]
    entries[victim] = mutated(rng, entries[victim])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if rng.random() < 0.3 else zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def torch_legacy(folder: Path, rng: np.random.Generator) -> Path:
    obj, storages = tensors(any_network(rng))
    path = write_legacy(folder / "a.pth", {"model": obj, "ema": {"shadow": obj}}, storages)
    data, end = path.read_bytes(), sum(s.data.nbytes + 8 for s in storages)
    cut = len(data) - end  # mostly the pickles, not the numbers behind them
    path.write_bytes(mutated(rng, data[:cut]) + data[cut:] if rng.random() < 0.8 else mutated(rng, data))
    return path


def safetensors(folder: Path, rng: np.random.Generator) -> Path:
    path = folder / "a.safetensors"
    weights.write_safetensors(path, foreign.to_torch_state(variables(any_network(rng))), {"format": "pt"})
    return remade(path, rng)


def ours(folder: Path, rng: np.random.Generator) -> Path:
    """Half of them without their SHA-256, which would refuse nearly all before anything else could."""
    path, name = folder / "a.safetensors", any_network(rng)
    arrays = {"/".join(key): x for key, x in flat(variables(name)).items()}
    hyper = mutated_json(rng, json.loads(json.dumps(NETWORKS[name]))) if rng.random() < 0.6 else NETWORKS[name]
    network = {"model": name, "hyper": hyper} | ({"sha256": "0" * 64} if rng.random() < 0.1 else {})
    weights.write_safetensors(path, arrays, {weights.METADATA: json.dumps(network)})
    return remade(path, rng) if rng.random() < 0.6 else path


def remade(path: Path, rng: np.random.Generator) -> Path:
    """A safetensors file whose header or bytes are mutated."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header, body = data[8 : 8 + size], data[8 + size :]
    match rng.integers(3):
        case 0:
            header = json.dumps(mutated_json(rng, json.loads(header))).encode()
        case 1:
            header = mutated(rng, header)
        case 2:
            path.write_bytes(mutated(rng, data))
            return path
    path.write_bytes(len(header).to_bytes(8, "little") + header + body)
    return path


@functools.cache
def variables(name: str) -> dict:
    return fresh(name)


def flat(nested: dict, path: tuple = ()) -> dict:
    items = ((flat(x, (*path, key)) if isinstance(x, dict) else {(*path, key): x}) for key, x in nested.items())
    return functools.reduce(dict.__or__, items, {})


TREE = {"stage_0_input_conv_0/kernel": (3, 3, 3, 4), "a/Conv_0/bias": (4,), "a/in_project/kernel": (4, 9)}


def tree() -> dict[str, np.ndarray]:
    return {path: np.ones(shape, np.float32) for path, shape in TREE.items()}


def npz(folder: Path, rng: np.random.Generator) -> Path:
    path, entries = folder / "a.npz", {}
    for name, array in tree().items():
        file = io.BytesIO()
        np.save(file, array)
        entries[f"opt/target/{name}.npy"] = file.getvalue()
    victim = list(entries)[rng.integers(len(entries))]
    entries[victim] = mutated(rng, entries[victim][:140]) + entries[victim][140:]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    if rng.random() < 0.3:
        path.write_bytes(mutated(rng, path.read_bytes()))
    return path


def graph(folder: Path, rng: np.random.Generator) -> Path:
    model, path = export(tree(), folder / "graph"), folder / "graph" / "model.json"
    if rng.random() < 0.7:
        path.write_text(json.dumps(mutated_json(rng, model)))
    else:
        path.write_bytes(mutated(rng, path.read_bytes()))
    return path


def package(folder: Path, rng: np.random.Generator) -> Path:
    export(tree(), folder / "graph")
    path = pack(folder / "graph", folder / "a.tgz")
    if rng.random() < 0.3:
        path.write_bytes(mutated(rng, path.read_bytes()))
    else:
        path.write_bytes(gzip.compress(mutated(rng, gzip.decompress(path.read_bytes())), 1))
    return path


FORMATS = (torch_zip, torch_legacy, safetensors, ours, npz, graph, package)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.__name__)
def test_mutated_files_are_read_or_refused(form, bounded, tmp_path):
    read = 0
    (tmp_path / "f").mkdir()
    for seed in range(FILES):
        path = form(tmp_path / "f", np.random.default_rng([FORMATS.index(form), seed]))
        try:
            said = outcome(path)
        except BaseException as error:
            raise AssertionError(f"{form.__name__}, seed {seed}: {type(error).__name__}: {error}") from error
        assert not caught, f"{form.__name__}, seed {seed} brought about {caught}"
        assert bounded() < MEGABYTES, f"{form.__name__}, seed {seed}: {bounded()} MB"
        read += said == "read"
    print(f"{form.__name__}: {FILES} files, {read} read, at most {bounded()} MB")
    assert 0 < read < FILES or form in (npz, graph, package)  # their tree is no network's


class Evil:
    """Pickles to a call of os.system."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_the_audit_notices_what_runs(tmp_path):
    """A fuzzer that could not see a call would prove nothing."""
    with guarded():
        os.system("true")
    assert caught.pop() == "os.system"
    (tmp_path / "a.pth").write_bytes(pickled(Evil("true")))
    assert "refused" in outcome(tmp_path / "a.pth") and not caught
