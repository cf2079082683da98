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
from safetensors import SafetensorError
from safetensors.numpy import save_file

from b2b_jax import files
from b2b_jax.formats import opening, safetensors_files
from b2b_jax.formats.opening import Problem
from b2b_jax.models import create
from b2b_jax.models.recognition import MOST_TENSORS, State

Variables = dict[str, Any]

# {"model", "hyper", "stage", "sha256"}, the last two of newer files. One entry, in JSON: safetensors writes several in
# an order that changes from run to run.
METADATA = "b2b_jax"
# Hyper-parameters that say how many blocks or levels are built: no network has more of them than arrays.
COUNTS = {
    "kernel_wizard": ("front_blocks", "back_blocks", "kernel_blocks", "shrinks", "reductions"),
    "maxim": ("depth", "num_stages", "num_groups", "num_bottleneck_blocks", "num_supervision_scales"),
    "mimo_unet": ("num_res",),
    "nafnet": ("encoders", "middle", "decoders"),
    "patchgan": ("n_layers",),
    "resnet": ("n_blocks",),
    "restormer": ("num_blocks", "num_refinement_blocks"),
    "unet": ("num_downs",),
}
FLOATS = ("float64", "float32", "float16", "bfloat16")
LARGEST_STRIDE = 4096  # pixels; 256 is the largest published
CALLS = 10  # of submodules for each array of a network, at most; the kernel extractor calls some three times
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


def template(module: nn.Module, arrays: int = MOST_TENSORS) -> Variables:
    """Shapes and dtypes of a network's variables, without allocating them.

    ValueError: it cannot be built, or has far more than `arrays` of them, which is found before it is built whole.
    """
    shape = getattr(module, "input_shape", (1, 256, 256, 3))  # most networks take images
    left = iter(range(CALLS * (arrays + CALLS)))

    def count(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        if next(left, None) is None:
            raise ValueError(f"it has far more parts than the {arrays} tensors that are there")
        return call(*args, **kwargs)

    try:
        if not 0 < (stride := getattr(module, "stride", 1)) <= LARGEST_STRIDE:
            raise ValueError(f"the sides of its images would be multiples of {stride:.3g}")
        with nn.intercept_methods(count):
            return jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
    except ValueError:
        raise
    except Exception as error:  # numbers that no network has, such as no heads, can raise anything
        raise ValueError(f"it cannot be built ({type(error).__name__}: {error})") from error


def from_torch_state(state: State, variables_like: Variables) -> Variables:
    """A PyTorch state dict as flax variables.

    Args:
      state: tensor names to arrays in PyTorch's layouts.
      variables_like: variables or their shapes, as `template` gives; they also set the dtypes.

    Returns:
      Variables with the structure of `variables_like`, contiguous numpy arrays.

    Raises:
      ValueError: tensors are missing, left over, of another shape or no floats; at most ten of each are named.
    """
    wanted = flatten_dict(variables_like)
    state = {name: array for name, array in state.items() if not name.endswith("num_batches_tracked")}
    shapes = {_torch_name(path): _leaf(path).to_torch(_placeholder(like)).shape for path, like in wanted.items()}
    _check_tensors(state, shapes)
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
      ValueError: arrays are missing, left over, of another shape or no floats; at most ten of each are named.
    """
    wanted = flatten_dict(variables_like["params"], sep="/")
    lacking = [path for path in wanted if path not in tree and re.fullmatch(UNEXPORTED.get(name, ""), path)]
    tree = tree | {path: np.zeros(wanted[path].shape, np.float32) for path in lacking}
    _check_tensors(tree, {path: x.shape for path, x in wanted.items()})
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
    kept = state.keys() - set(dropped)
    return {key: array for key, array in state.items() if key in kept}, dropped


def _is_unused_statistic(key: str, state: State) -> bool:
    layer, _, leaf = key.rpartition(".")
    return leaf in ("running_mean", "running_var") and f"{layer}.weight" not in state


def save(path: str | Path, name: str, hyper: Mapping[str, Any], variables: Variables, stage: str = "") -> None:
    """Writes a network as one safetensors file that `load` can rebuild it from; whole or not at all.

    Args:
      path: the file; its folder is made if needed.
      name: the network's name for `models.create`.
      hyper: its hyper-parameters, storable as JSON.
      variables: flax variables, stored under names like `params/intro/kernel`.
      stage: what trained it in a run, so that no other stage's file is taken for it.

    Raises:
      OSError: the file cannot be written.
    """
    arrays = {"/".join(key): np.asarray(array) for key, array in flatten_dict(variables).items()}
    network = {"model": name, "hyper": dict(hyper)} | ({"stage": stage} if stage else {})
    network["sha256"] = safetensors_files.digest(json.dumps(network), arrays)
    write_safetensors(path, arrays, {METADATA: json.dumps(network)})


def load(path: str | Path) -> tuple[nn.Module, Variables]:
    """Reads a network that `save` wrote.

    Returns:
      The module, built as it was, and its variables: numpy arrays.

    Raises:
      ValueError: the file is not ours, has changed since it was written, or does not fit the network that it names.
      OSError: the file cannot be opened.
    """
    network, arrays = read(path)
    try:
        module = _plausible(network, len(arrays))
        wanted = {"/".join(key): like.shape for key, like in flatten_dict(template(module, len(arrays))).items()}
        _check_tensors(arrays, wanted)
    except (ValueError, TypeError) as error:
        named = json.dumps({key: network.get(key) for key in ("model", "hyper")})
        raise ValueError(f"{path}: does not fit the network that it names, {named}: {error}") from error
    return module, unflatten_dict({tuple(key.split("/")): array for key, array in arrays.items()})


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What a file of ours says of its network, {"model", "hyper", …}, and its arrays by their paths; nothing is built.

    Raises:
      ValueError: the file is not ours, or its SHA-256 tells that it has changed. Older files have none.
      OSError: the file cannot be opened.
    """
    path = Path(path)
    try:
        metadata, arrays = safetensors_files.read(path)
    except Problem as problem:
        raise ValueError(f"{path} ({opening.describe(path)}): {problem}; {ADVICE}") from None
    if METADATA not in metadata:
        raise ValueError(f"{path}: a safetensors file, but not of b2b_jax; {ADVICE}")
    network = _network(path, metadata[METADATA])
    told = network.pop("sha256", None)
    if told is not None and told != safetensors_files.digest(json.dumps(network), arrays):
        raise ValueError(
            f"{path} is damaged: it has changed since it was written, as its SHA-256 tells; put a good copy in its "
            "place (a run makes it anew from its last checkpoint when the file is deleted)"
        )
    return network, arrays


def _network(path: Path, text: str) -> dict[str, Any]:
    """The metadata, of the kinds that `save` writes."""
    try:
        network = json.loads(text)
    except (ValueError, RecursionError):
        network = None
    kinds = {"model": str, "hyper": dict, "stage": str, "sha256": str}
    whole = isinstance(network, dict) and {"model", "hyper"} <= network.keys() <= kinds.keys()
    if not whole or not all(isinstance(value, kinds[key]) for key, value in network.items()):
        raise ValueError(f"{path}: does not fit the network that it names, {text:.200}: wanted a model and its hyper")
    return network


def _plausible(network: Mapping[str, Any], arrays: int) -> nn.Module:
    """The module, not built yet; ValueError when it would have more blocks than the file has arrays."""
    if arrays > MOST_TENSORS:
        raise ValueError(f"it has {arrays:,} arrays, more than the {MOST_TENSORS:,} that any network needs")
    module = create(network["model"], **network["hyper"])
    for key in COUNTS.get(network["model"], ()):
        value = getattr(module, key)
        if np.sum(value) > arrays:
            raise ValueError(f"{key} is {value!r:.60}, but there are {arrays} arrays")
    return module


def describe(path: str | Path) -> tuple[str, dict[str, Any]]:
    """The name and hyper-parameters of the network in a file of `save`; ValueError and OSError as in `load`."""
    network = header(path)
    return network["model"], network["hyper"]


def header(path: str | Path) -> dict[str, Any]:
    """All that a file of `save` says of its network, {"model", "hyper", …}: its arrays are not read, nor checked."""
    path = Path(path)
    try:
        return _network(path, safetensors_files.metadata(path)[METADATA])
    except (Problem, KeyError) as error:
        raise ValueError(f"{path}: no file of b2b_jax; {ADVICE}") from error


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


def _leaf(path: tuple[str, ...]) -> Leaf:
    return LEAVES.get(path[-1], Leaf(path[-1], _same, _same))


def _torch_name(path: tuple[str, ...]) -> str:
    return ".".join((*path[1:-1], _leaf(path).name))


def _placeholder(like: Any) -> np.ndarray:
    """An array of a shape that takes no memory."""
    return np.broadcast_to(np.zeros((), np.uint8), like.shape)


def _check_tensors(got: State, wanted: Mapping[str, tuple[int, ...]]) -> None:
    """ValueError unless there are the wanted arrays, of the wanted shapes, all of them floats, and no others."""
    shapes = {name: array.shape for name, array in got.items()}
    shared = [name for name in wanted if name in got]
    problems = {
        "missing": [name for name in wanted if name not in got],
        "left over": [name for name in got if name not in wanted],
        "of another shape": [f"{n} {shapes[n]}, wanted {wanted[n]}" for n in shared if shapes[n] != wanted[n]],
        "no floats": [f"{n} is {got[n].dtype}" for n in shared if got[n].dtype.name not in FLOATS],
        "empty": [name for name in shared if 0 in wanted[name]],
    }
    found = [f"{len(names)} {kind} ({_first_ten(names)})" for kind, names in problems.items() if names]
    if found:
        raise ValueError(f"the tensors do not fit the network: {'; '.join(found)}")


def _first_ten(names: list[str]) -> str:
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
