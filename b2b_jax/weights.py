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

from b2b_jax import torch_files
from b2b_jax.models import create

State = Mapping[str, np.ndarray]
Variables = dict[str, Any]

METADATA = "b2b_jax"  # one entry, in JSON: safetensors writes several in an order that changes from run to run
ADVICE = "tools/convert_weights.py converts checkpoints of PyTorch"
# What a published checkpoint holds beyond the network that we build.
UNUSED = {"vgg": ("classifier.",)}


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
    image = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
    return jax.eval_shape(module.init, jax.random.key(0), image)


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


def identify(state: State, only: str | None = None) -> tuple[str, dict[str, Any]]:
    """Recognises a network from the names and shapes of its PyTorch tensors alone.

    Args:
      state: tensor names to arrays.
      only: consider this network alone.

    Returns:
      The network's name and hyper-parameters, as `models.create` takes them.

    Raises:
      ValueError: no known network has such tensors, or `only` is not known.
    """
    if only is not None and only not in NETWORKS:
        raise ValueError(f"unknown network {only!r}: known are {', '.join(NETWORKS)}")
    for name in (only,) if only else NETWORKS:
        if (hyper := NETWORKS[name](state)) is not None:
            return name, hyper
    wanted = only or f"one of {', '.join(NETWORKS)}"
    raise ValueError(f"not the tensors of {wanted}: they begin with {', '.join(list(state)[:4])}")


def drop_unused(name: str, state: State) -> tuple[dict[str, np.ndarray], list[str]]:
    """Takes away what a published checkpoint of a network holds beyond our part of it (the classifier of VGG).

    Returns:
      The remaining state dict and the names that were dropped.
    """
    dropped = [key for key in state if key.startswith(UNUSED.get(name, ()))]
    return {key: array for key, array in state.items() if key not in dropped}, dropped


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


def write_safetensors(path: str | Path, arrays: State, metadata: Mapping[str, str]) -> None:
    """Writes arrays so that `path` is either the whole new file or what it was before, also after a power cut."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # safetensors writes memory as it lies, so strides must be resolved first.
        save_file({key: np.asarray(array, order="C") for key, array in arrays.items()}, temporary, dict(metadata))
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)
    except SafetensorError as error:
        raise OSError(f"{path}: cannot be written ({error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    kind = torch_files.describe(path)
    try:
        with safe_open(path, framework="np") as file:
            return file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file but {kind} ({error}); {ADVICE}") from error


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


def _count(state: State, prefix: str) -> int:
    """How many numbered submodules stand under a prefix: `layers.` counts `layers.0.weight` and `layers.1.weight`."""
    return len({m[1] for name in state if (m := re.match(rf"{re.escape(prefix)}(\d+)\.", name))})


def _shape(state: State, name: str) -> tuple[int, ...]:
    return state[name].shape if name in state else ()


def _nafnet(state: State) -> dict[str, Any] | None:
    if "encoders.0.0.beta" not in state or len(_shape(state, "intro.weight")) != 4:
        return None
    width, channels, _, _ = _shape(state, "intro.weight")
    levels = range(_count(state, "downs."))
    return {
        "width": width,
        "encoders": [_count(state, f"encoders.{i}.") for i in levels],
        "middle": _count(state, "middle_blks."),
        "decoders": [_count(state, f"decoders.{i}.") for i in levels],
        "unshuffle": round((channels / 3) ** 0.5),
        "local": False,  # a matter of evaluation: the tensors are the same
    }


def _mimo_unet(state: State) -> dict[str, Any] | None:
    first = _shape(state, "feat_extract.0.main.0.weight")
    if len(first) != 4 or "SCM1.conv.main.0.weight" not in state:
        return None
    blocks = _count(state, "Encoder.0.layers.")
    # Dropout has no tensors; of the published networks MIMO-UNet+ alone, with 20 blocks, uses it.
    return {"base_channels": first[0], "num_res": blocks, "dropout": 0.1 if blocks == 20 else 0.0}


def _patchgan(state: State) -> dict[str, Any] | None:
    numbers = [int(m[1]) for name in state if (m := re.fullmatch(r"model\.(\d+)\.weight", name))]
    convs = [s for i in sorted(numbers) if len(s := _shape(state, f"model.{i}.weight")) == 4]
    if 0 not in numbers or {s[2:] for s in convs} != {(4, 4)} or convs[-1][0] != 1:
        return None
    return {
        "ndf": convs[0][0],
        "n_layers": len(convs) - 2,
        "norm": _norm(state),
        "input": "gradient" if convs[0][1] == 6 else "rgb",
    }


# Torchvision's numbering of the convolutions in `features`, after Simonyan & Zisserman 2015, configurations D and E.
VGG_CONVS = {
    16: [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28],
    19: [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34],
}


def _vgg(state: State) -> dict[str, Any] | None:
    convs = [int(m[1]) for name in state if (m := re.fullmatch(r"features\.(\d+)\.weight", name))]
    depth = next((depth for depth, numbers in VGG_CONVS.items() if sorted(convs) == numbers), None)
    # The last layer, so that every convolution is kept; `module.clone(layers=...)` picks others from the same file.
    return depth and {"depth": depth, "layers": ["relu5_3" if depth == 16 else "relu5_4"]}


def _restormer(state: State) -> dict[str, Any] | None:
    if "latent.0.attn.temperature" not in state or "patch_embed.proj.weight" not in state:
        return None
    levels = [f"encoder_level{i}." for i in (1, 2, 3)] + ["latent."]
    hidden, deepest, _, _ = _shape(state, "latent.0.ffn.project_in.weight")
    return {
        "dim": _shape(state, "patch_embed.proj.weight")[0],
        "num_blocks": [_count(state, prefix) for prefix in levels],
        "num_refinement_blocks": _count(state, "refinement."),
        "heads": [state[f"{prefix}0.attn.temperature"].shape[0] for prefix in levels],
        "expansion": round(hidden / 2 / deepest, 2),
        "bias": "patch_embed.proj.bias" in state,
        "layer_norm": "WithBias" if "latent.0.norm1.body.bias" in state else "BiasFree",
    }


def _kernel_wizard(state: State) -> dict[str, Any] | None:
    ups = [name for name in state if re.fullmatch(r"adapter\.model\.(submodule\.)*up\.1\.weight", name)]
    if not ups or "kernel_extractor.model.1.weight" not in state:
        return None
    innermost = max(ups, key=len)
    bottom = _shape(state, innermost.replace(".up.1.", ".down.1." if len(ups) > 1 else ".down.0."))[0]
    kernel_dim = _shape(state, innermost)[0] - bottom
    last = _shape(state, f"kernel_extractor.model.{1 + 3 * len(ups)}.weight")
    trunk = [name for name in state if re.fullmatch(r"recon_trunk\.\d+\.weight", name)]
    return {
        "nf": _shape(state, "feature_extractor.0.weight")[0],
        "kernel_dim": kernel_dim,
        "front_blocks": _blocks(state, r"feature_extractor\.\d+\.conv1"),
        "back_blocks": _blocks(state, r"recon_trunk\.\d+\.conv1"),
        "kernel_blocks": _blocks(state, r"kernel_extractor\.model\.\d+\.conv_block\.1"),
        "variational": last[:1] == (2 * kernel_dim,),
        "shrinks": len([name for name in state if re.fullmatch(r"feature_extractor\.\d+\.weight", name)]) - 1,
        "reductions": len(ups),
        "tail": _shape(state, max(trunk, key=lambda name: int(name.split(".")[1])))[1],
    }


def _blocks(state: State, pattern: str) -> int:
    """How many residual blocks there are, each known by the weight of its first convolution."""
    return sum(bool(re.fullmatch(pattern + r"\.weight", name)) for name in state)


def _unet(state: State) -> dict[str, Any] | None:
    inner = [name for name in state if re.fullmatch(r"model\.(model\.\d\.)+model\.1\.weight", name)]
    if "model.model.0.weight" not in state or not inner:
        return None
    return {
        "num_downs": 1 + len(inner),
        "ngf": _shape(state, "model.model.0.weight")[0],
        "norm": _norm(state),
        "up": "bilinear" if "model.model.4.weight" in state else "transposed",
    }


def _resnet(state: State) -> dict[str, Any] | None:
    first, blocks = _shape(state, "model.1.weight"), _blocks(state, r"model\.\d+\.conv_block\.1")
    if first[2:] != (7, 7) or not blocks:
        return None
    return {
        "ngf": first[0],
        "n_blocks": blocks,
        "norm": _norm(state),
        # The dropout layer has no tensors but moves the second convolution of a block from 5 to 6.
        "use_dropout": len(_shape(state, "model.10.conv_block.6.weight")) == 4,
    }


def _norm(state: State) -> str:
    """'none' has the tensors of 'instance', which is what is published."""
    return "batch" if any(name.endswith("running_mean") for name in state) else "instance"


NETWORKS: dict[str, Callable[[State], dict[str, Any] | None]] = {
    "nafnet": _nafnet,
    "restormer": _restormer,
    "mimo_unet": _mimo_unet,
    "kernel_wizard": _kernel_wizard,
    "resnet": _resnet,
    "unet": _unet,
    "patchgan": _patchgan,
    "vgg": _vgg,
}
