"""Weights on disk: our safetensors files, which hold a network's name, hyper-parameters, arrays and their SHA-256.

Arrays here are numpy arrays; nothing is placed on an accelerator. Scripts take `template` and `to_torch_state` from
here, too.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from b2b_jax import files, templates
from b2b_jax.foreign import to_torch_state as to_torch_state
from b2b_jax.formats import opening, safetensors_files
from b2b_jax.formats.opening import Problem
from b2b_jax.models import create
from b2b_jax.models.recognition import MOST_TENSORS, State
from b2b_jax.templates import Variables
from b2b_jax.templates import template as template

# {"model", "hyper", "stage", "step", "sha256"}, the last three not in every file. One entry, in JSON: safetensors
# writes several in an order that changes from run to run.
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
ADVICE = "b2b_jax.convert converts checkpoints of PyTorch"


def save(
    path: str | Path,
    name: str,
    hyper: Mapping[str, Any],
    variables: Variables,
    stage: str = "",
    step: float = 0.0,
    announce: Callable[[str], None] = lambda digest: None,
) -> None:
    """Writes a network as one safetensors file that `load` can rebuild it from; whole or not at all.

    Args:
      path: the file; its folder is made if needed.
      name: the network's name for `models.create`.
      hyper: its hyper-parameters, storable as JSON.
      variables: flax variables, stored under names like `params/intro/kernel`.
      stage: what trained it in a run, so that no other stage's file is taken for it.
      step: of an adapted deblurrer, how far its result is to be moved towards agreement with the photo; 0: not at all.
      announce: is told the SHA-256 before the file is there.

    Raises:
      OSError: the file cannot be written.
    """
    arrays = {"/".join(key): np.asarray(array) for key, array in flatten_dict(variables).items()}
    rare = {"stage": stage, "step": step}
    network = {"model": name, "hyper": dict(hyper)} | {key: value for key, value in rare.items() if value}
    network["sha256"] = safetensors_files.digest(json.dumps(network), arrays)
    announce(network["sha256"])
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
        likes = flatten_dict(templates.template(module, len(arrays)), sep="/")
        wanted = {path: like.shape for path, like in likes.items()}
        templates.check_tensors(arrays, wanted)
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
    kinds = {"model": str, "hyper": dict, "stage": str, "step": float, "sha256": str}
    whole = isinstance(network, dict) and {"model", "hyper"} <= network.keys() <= kinds.keys()
    whole = whole and all(isinstance(value, kinds[key]) for key, value in network.items())
    if not whole or not 0 <= network.get("step", 0.0) <= 1:
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
    with files.draft(Path(path), durable=True) as part:
        safetensors_files.write(part, {key: np.asarray(array) for key, array in arrays.items()}, metadata)
