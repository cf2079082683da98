"""The tensors of one network in what a checkpoint holds: wrappers are opened, prefixes taken away."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from b2b_jax.formats.globals_of_torch import Beside

AVERAGES = ("params_ema", "ema", "model_ema", "ema_model", "state_dict_ema", "ema_state_dict", "shadow")
# Moving averages come first: they are what their authors evaluate.
WRAPPERS = (
    *AVERAGES, "params", "state_dict", "model_state_dict", "model_state", "model",
    "generator", "netG", "net_g", "G", "gen", "net", "network", "module", "weights", "state",
)  # fmt: skip
PREFIXES = ("module.", "_orig_mod.", "netG.", "netD.", "net_g.", "net_d.", "generator.", "network.")
# What a program names its networks by. CycleGAN's own tensors begin with `model.`, so that it may be part of the name.
OWNERS = ("ema_model.", "netG.", "net_g.", "generator.", "G.", "model.", "net.", "network.", "module.", "backbone.")
MOST_LEVELS = 4  # of owners within owners

State = dict[str, np.ndarray]


def state_dict(nested: Any) -> State:
    """The tensors of one network: wrappers such as `params_ema` are opened, prefixes such as `module.` taken away.

    Args:
      nested: what `torch_files.read` returned.

    Returns:
      PyTorch tensor names to arrays, in the order of the file. Entries that are no tensors (an epoch) are left out.
      What a moving average lacks, since programs average parameters alone, comes from the network beside it.

    Raises:
      ValueError: there are no tensors under any of the usual keys, or they are not named by text.
    """
    state = _find(nested, set())
    if not state:
        found = f"the keys {_names(nested)}" if isinstance(nested, Mapping) else f"a {type(nested).__name__}"
        raise ValueError(f"no state dict found: looked for tensors, also under {', '.join(WRAPPERS)}; got {found}")
    if odd := [name for name in state if not isinstance(name, str)]:
        raise ValueError(f"its tensors are named by a {type(odd[0]).__name__}, wanted text")
    return _strip_prefixes(state)


def candidates(state: State) -> Iterator[tuple[str, State]]:
    """What may be the tensors of a network: all of `state`, then those below each owner's prefix, as (prefix, tensors).

    A LightningModule keeps its networks as attributes, so that their tensors begin with `model.` or `generator.`, and
    other networks stand beside them.
    """
    waiting = [("", state)]
    for _ in range(MOST_LEVELS):
        following = []
        for prefix, part in waiting:
            yield prefix, part
            following += [(prefix + owner, inner) for owner in OWNERS if (inner := _below(part, owner))]
        waiting = following


def _find(nested: Any, seen: set[int]) -> State:
    """The first tensors below wrappers, else those of the mapping itself. A dictionary may contain itself."""
    if not isinstance(nested, Mapping) or id(nested) in seen:
        return {}
    seen.add(id(nested))
    found = {key: inner for key in WRAPPERS if (inner := _find(nested.get(key), seen))}
    if not found:
        return _tensors(nested)
    first = next(iter(found))
    if first not in AVERAGES:
        return found[first]
    whole = next((state for key, state in found.items() if key not in AVERAGES), {})
    return whole | found[first] if found[first].keys() <= whole.keys() else found[first]


def _tensors(nested: Mapping) -> State:
    arrays = {name: value for name, value in nested.items() if isinstance(value, np.ndarray)}
    tensors = {name: array for name, array in arrays.items() if not isinstance(array, Beside)}
    return tensors or {name: array.view(np.ndarray) for name, array in arrays.items()}


def _names(nested: Mapping) -> str:
    return ", ".join(str(key) if isinstance(key, str | int) else type(key).__name__ for key in list(nested)[:10])


def _below(state: State, prefix: str) -> State:
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}


def _strip_prefixes(state: State) -> State:
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in state)), None):
        state = _below(state, prefix)
    return state
