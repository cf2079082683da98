"""Weights on disk: our safetensors files, and the names and layouts of PyTorch to and from those of flax.

A submodule is named in flax as in PyTorch, dots included, so a path joined by dots is the PyTorch name except its leaf:

    flax leaf                                   PyTorch leaf
    kernel             (kh, kw, in, out)        weight  (out, in, kh, kw)
    transposed_kernel  (kh, kw, in, out)        weight  (in, out, kh, kw)
    scale              (c,)                     weight  (c,)
    beta, gamma        (c,)                     the same name  (1, c, 1, 1)      NAFNet
    mean, var          (c,)                     running_mean, running_var        collection `batch_stats`
    any other                                   the same name and shape              (temperature: Restormer)

Arrays here are numpy arrays; nothing is placed on an accelerator.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from b2b_jax import files
from b2b_jax.formats import torch_files
from b2b_jax.models import create
from b2b_jax.models.recognition import State

Variables = dict[str, Any]

METADATA = "b2b_jax"  # one entry, in JSON: safetensors writes several in an order that changes from run to run
ADVICE = "b2b_jax.convert converts checkpoints of PyTorch"
# What a published checkpoint holds beyond the network that we build.
UNUSED = {"vgg": ("classifier.",)}
# What an exported network may lack, having been exported for its last image alone: what makes the coarse ones.
UNEXPORTED = {"maxim": r"stage_\d+_output_conv_[1-9]\d*/(kernel|bias)"}


class Leaf(NamedTuple):
    """How one kind of flax leaf is called and laid out in PyTorch."""

    name: str
    to_torch: Callable[[np.ndarray], np.ndarray]
    to_flax: Callable[[np.ndarray], np.ndarray]


def _same(x: np.ndarray) -> np.ndarray:
    return x


LEAVES = {
    "kernel": Leaf("weight", lambda x: np.moveaxis(x, (-1, -2), (0, 1)), lambda x: np.moveaxis(x, (0, 1), (-1, -2))),
    "transposed_kernel": Leaf(
        "weight", lambda x: np.moveaxis(x, (-2, -1), (0, 1)), lambda x: np.moveaxis(x, (0, 1), (-2, -1))
    ),
    "scale": Leaf("weight", _same, _same),
    "beta": Leaf("beta", lambda x: x.reshape(1, -1, 1, 1), np.ravel),
    "gamma": Leaf("gamma", lambda x: x.reshape(1, -1, 1, 1), np.ravel),
    "mean": Leaf("running_mean", _same, _same),
    "var": Leaf("running_var", _same, _same),
}


def template(module: nn.Module) -> Variables:
    """Shapes and dtypes of a network's variables, without allocating them."""
    shape = getattr(module, "input_shape", (1, 256, 256, 3))  # most networks take images
    return jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))


def from_torch_state(state: State, variables_like: Variables) -> Variables:
    """A PyTorch state dict as flax variables.

    Args:
      state: tensor names to arrays in PyTorch's layouts.
      variables_like: variables or their shapes, as `template` gives; they also set the dtypes.

    Returns:
      Variables with the structure of `variables_like`, contiguous numpy arrays.

    Raises:
      ValueError: tensors are missing, left over or of another shape; at most ten of each are named.
    """
    wanted = flatten_dict(variables_like)
    state = {name: array for name, array in state.items() if not name.endswith("num_batches_tracked")}
    shapes = {_torch_name(path): _leaf(path).to_torch(_placeholder(like)).shape for path, like in wanted.items()}
    _check_shapes({name: array.shape for name, array in state.items()}, shapes)
    return unflatten_dict(
        {
            path: np.array(_leaf(path).to_flax(state[_torch_name(path)]), dtype=like.dtype, order="C")
            for path, like in wanted.items()
        }
    )


def from_flax_tree(name: str, tree: State, variables_like: Variables) -> tuple[Variables, list[str]]:
    """A network's parameters in flax's names and layouts as its variables.

    Args:
      name: the network's name for `models.create`.
      tree: paths joined by slashes, without a collection, to arrays.
      variables_like: as in `from_torch_state`.

    Returns:
      Variables, and the paths that the file lacks and the images of the network do not need: they are zeros.

    Raises:
      ValueError: arrays are missing, left over or of another shape; at most ten of each are named.
    """
    wanted = flatten_dict(variables_like["params"], sep="/")
    lacking = [path for path in wanted if path not in tree and re.fullmatch(UNEXPORTED.get(name, ""), path)]
    tree = tree | {path: np.zeros(wanted[path].shape, np.float32) for path in lacking}
    _check_shapes({path: array.shape for path, array in tree.items()}, {path: x.shape for path, x in wanted.items()})
    params = {path: np.asarray(tree[path], like.dtype) for path, like in wanted.items()}
    return {"params": unflatten_dict(params, sep="/")}, lacking


def to_torch_state(variables: Variables) -> dict[str, np.ndarray]:
    """Flax variables as a PyTorch state dict; the inverse of `from_torch_state`, bit for bit.

    Returns:
      Tensor names to contiguous arrays in PyTorch's layouts; each batch norm gets an int64 zero `num_batches_tracked`.
    """
    state = {}
    for path, array in flatten_dict(variables).items():
        state[_torch_name(path)] = np.array(_leaf(path).to_torch(np.asarray(array)), order="C")
        if path[0] == "batch_stats" and path[-1] == "mean":
            state[".".join((*path[1:-1], "num_batches_tracked"))] = np.zeros((), np.int64)
    return state


def drop_unused(name: str, state: State) -> tuple[dict[str, np.ndarray], list[str]]:
    """Takes away what a published checkpoint of a network holds beyond our part of it (the classifier of VGG).

    So do the statistics of instance norms, which PyTorch kept before 0.4 and did not use.

    Returns:
      The remaining state dict and the names that were dropped.
    """
    dropped = [key for key in state if key.startswith(UNUSED.get(name, ())) or _is_unused_statistic(key, state)]
    return {key: array for key, array in state.items() if key not in dropped}, dropped


def _is_unused_statistic(key: str, state: State) -> bool:
    layer, _, leaf = key.rpartition(".")
    return leaf in ("running_mean", "running_var") and f"{layer}.weight" not in state


def save(path: str | Path, name: str, hyper: Mapping[str, Any], variables: Variables) -> None:
    """Writes a network as one safetensors file that `load` can rebuild it from; whole or not at all.

    Args:
      path: the file; its folder is made if needed.
      name: the network's name for `models.create`.
      hyper: its hyper-parameters, storable as JSON.
      variables: flax variables, stored under names like `params/intro/kernel`.

    Raises:
      OSError: the file cannot be written.
    """
    arrays = {"/".join(key): np.asarray(array) for key, array in flatten_dict(variables).items()}
    write_safetensors(path, arrays, {METADATA: json.dumps({"model": name, "hyper": dict(hyper)})})


def load(path: str | Path) -> tuple[nn.Module, Variables]:
    """Reads a file of `save`.

    Returns:
      The network and its variables (numpy arrays).

    Raises:
      ValueError: the file is not ours, is damaged, or does not fit the network that it names.
      OSError: the file cannot be opened.
    """
    metadata, arrays = _read(Path(path))
    if METADATA not in metadata:
        raise ValueError(f"{path}: a safetensors file, but not of b2b_jax; {ADVICE}")
    try:
        network = json.loads(metadata[METADATA])
        module = create(network["model"], **network["hyper"])
        wanted = {"/".join(key): like.shape for key, like in flatten_dict(template(module)).items()}
        _check_shapes({key: array.shape for key, array in arrays.items()}, wanted)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: does not fit the network that it names, {metadata[METADATA]}: {error}") from error
    return module, unflatten_dict({tuple(key.split("/")): array for key, array in arrays.items()})


def describe(path: str | Path) -> tuple[str, dict[str, Any]]:
    """The name and hyper-parameters of the network in a file of `save`; ValueError and OSError as in `load`."""
    try:
        with safe_open(path, "np") as file:
            network = json.loads((file.metadata() or {})[METADATA])
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: no file of b2b_jax; {ADVICE}") from error
    return network["model"], network["hyper"]


def write_safetensors(path: str | Path, arrays: State, metadata: Mapping[str, str]) -> None:
    """Writes arrays so that `path` is either the whole new file or what it was before, also after a power cut."""
    path = Path(path)
    # safetensors writes memory as it lies, so strides must be resolved first.
    arrays = {key: np.asarray(array, order="C") for key, array in arrays.items()}
    with files.draft(path, durable=True) as part:
        try:
            save_file(arrays, part, dict(metadata))
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            if not number:
                raise OSError(f"{path}: cannot be written ({error})") from error
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def _read(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    kind = torch_files.describe(path)
    try:
        with safe_open(path, framework="np") as file:
            return file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file but {kind} ({error}); {ADVICE}") from error


def _leaf(path: tuple[str, ...]) -> Leaf:
    return LEAVES.get(path[-1], Leaf(path[-1], _same, _same))


def _torch_name(path: tuple[str, ...]) -> str:
    return ".".join((*path[1:-1], _leaf(path).name))


def _placeholder(like: Any) -> np.ndarray:
    """An array of a shape that takes no memory."""
    return np.broadcast_to(np.zeros((), np.uint8), like.shape)


def _check_shapes(got: Mapping[str, tuple], wanted: Mapping[str, tuple]) -> None:
    shared = [name for name in wanted if name in got]
    problems = {
        "missing": [name for name in wanted if name not in got],
        "left over": [name for name in got if name not in wanted],
        "of another shape": [f"{n} {got[n]}, wanted {wanted[n]}" for n in shared if got[n] != wanted[n]],
    }
    found = [f"{len(names)} {kind} ({_first_ten(names)})" for kind, names in problems.items() if names]
    if found:
        raise ValueError(f"the tensors do not fit the network: {'; '.join(found)}")


def _first_ten(names: list[str]) -> str:
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
