"""Tensors of other programs as the variables of our networks, and back: PyTorch's names and layouts, and flax's.

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

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from b2b_jax.models.recognition import State
from b2b_jax.templates import Variables, check_tensors

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
    check_tensors(state, shapes)
    return unflatten_dict(
        {
            path: np.array(_leaf(path).to_flax(state[_torch_name(path)]), dtype=like.dtype, order="C")
            for path, like in wanted.items()
        }
    )


def to_torch_state(variables: Variables) -> dict[str, np.ndarray]:
    """Flax variables as a PyTorch state dict; the inverse of `from_torch_state`, bit for bit.

    Returns:
      Tensor names to contiguous arrays in PyTorch's layouts; each batch norm gets an int64 zero `num_batches_tracked`.

    Raises:
      ValueError: two of its arrays would have one name: it is no network of PyTorch's.
    """
    state = {}
    for path, array in flatten_dict(variables).items():
        if (name := _torch_name(path)) in state:
            raise ValueError(f"PyTorch has no names for this network: two of its arrays would be called {name}")
        state[name] = np.array(_leaf(path).to_torch(np.asarray(array)), order="C")
        if path[0] == "batch_stats" and path[-1] == "mean":
            state[".".join((*path[1:-1], "num_batches_tracked"))] = np.zeros((), np.int64)
    return state


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
    check_tensors(tree, {path: x.shape for path, x in wanted.items()})
    params = {path: np.asarray(tree[path], like.dtype) for path, like in wanted.items()}
    return {"params": unflatten_dict(params, sep="/")}, lacking


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


def _leaf(path: tuple[str, ...]) -> Leaf:
    return LEAVES.get(path[-1], Leaf(path[-1], _same, _same))


def _torch_name(path: tuple[str, ...]) -> str:
    return ".".join((*path[1:-1], _leaf(path).name))


def _placeholder(like: Any) -> np.ndarray:
    """An array of a shape that takes no memory."""
    return np.broadcast_to(np.zeros((), np.uint8), like.shape)
