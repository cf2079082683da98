"""The configuration of a run: the checks of its values, and what may not change within one run's folder."""

import importlib.util
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from b2b_jax.data import blur, moving
from b2b_jax.data.degradation import DEGRADATIONS
from b2b_jax.data.folder import SCORED
from b2b_jax.data.processing import Processing
from b2b_jax.data.sensor import RESPONSES
from b2b_jax.data.synthetic import FRAME_KINDS
from b2b_jax.errors import UserError
from b2b_jax.named import STARTED_IN
from b2b_jax.networks import DTYPES, compute_dtype

MOVABLE = {  # keys of `data` that say where photos lie and how they are read, not what they are
    *("root", "known_path", "unknown_path", "prepared", "prepare", "threads", "prefetch"),
}
PLACES = {  # keys, besides the stages' `weights`, that name a file or folder
    *("data.unknown_blur", "data.unknown_sharp", "known_blur.path", "adaptation.frames.folder", "kernel_field.kernels"),
    *("data.root", "data.known_path", "data.unknown_path", *(f"data.{key}" for key in SCORED)),
}
LARGEST_INTEGER = (1 << 31) - 1  # steps and seeds have 32 bits on the devices
ONE_AT_LEAST = {  # names of keys, whatever their section; the others may be 0
    *("batch", "crop", "crops_per_image", "critics", "every", "frames", "periods", "steps"),
    *("log_every", "evaluate_every", "checkpoint_every", "keep", "bad_steps", "fixed_filter_images"),
}


def as_json(config: ConfigDict) -> dict:
    """A configuration, or a section of one, as JSON gives it back: tuples are lists."""
    return json.loads(json.dumps(config.to_dict()))


def resolved(config: ConfigDict) -> dict:
    """The configuration for config.json, with what "auto" stands for on this machine, and where the run was started."""
    return as_json(config) | {"compute_dtype": compute_dtype(config.compute_dtype).name, STARTED_IN: os.getcwd()}


def identity(saved: Mapping, sections: Iterable[str]) -> dict:
    """What two starts of one run must share, of a configuration as JSON gives it: {section: values}.

    `sections` are those of the trained networks. A run of an older version may lack some.
    """
    names = ("seed", "compute_dtype", "data", "known_blur", *sections)
    found = {name: saved[name] for name in names if name in saved}
    return found | {"data": {k: value for k, value in found["data"].items() if k not in (*MOVABLE, *SCORED)}}


def placed(values: object, folders: Sequence[str], key: str = "") -> object:
    """An identity with absolute paths for those of PLACES and of `weights`, so that equal ones are the same file.

    folders: that relative paths may begin at; the first in which there is something, else the last.
    """
    if isinstance(values, dict):
        return {name: placed(value, folders, f"{key}.{name}".strip(".")) for name, value in values.items()}
    name = key.partition(".")[2]
    if not (isinstance(values, str) and values) or not (key in PLACES or name == "weights"):
        return values
    paths = [os.path.realpath(os.path.join(folder, values)) for folder in folders]
    return next(filter(os.path.exists, paths), paths[-1])


def differences(old: object, new: object, key: str = "") -> list[str]:
    """Lists what differs between two identities, "key: old → new"."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [line for k in keys for line in differences(old.get(k), new.get(k), f"{key}.{k}".strip("."))]
    return [] if old == new else [f"{key}: {old} → {new}"]


def lacking(old: object, new: object, key: str = "") -> list[str]:
    """Lists the keys of one identity that another, older one does not have."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return []
    missing = [f"{key}.{k}".strip(".") for k in sorted(new.keys() - old.keys())]
    shared = sorted(new.keys() & old.keys())
    return missing + [name for k in shared for name in lacking(old[k], new[k], f"{key}.{k}".strip("."))]


def check_choice(key: str, value: str, choices: Iterable[str]) -> None:
    """UserError when `value` is none of the choices."""
    if value not in choices:
        raise UserError(f"{key} is {value!r}; it can be {', '.join(choices)}")


def check_values(config: ConfigDict) -> None:
    """UserError for values that no run can use, whatever its stages."""
    check_numbers(config)
    check_choice("compute_dtype", config.compute_dtype, DTYPES)
    check_choice("data.degradation.kind", config.data.degradation.kind, (*FRAME_KINDS, *DEGRADATIONS))
    check_choice("data.degradation.response", config.data.degradation.response, RESPONSES)
    check_choice("data.bad_photos", config.data.bad_photos, ("skip", "stop"))
    if not 0 < config.data.split_ratio < 1:
        raise UserError(f"data.split_ratio is {config.data.split_ratio}; it must be between 0 and 1")
    if not 0 < config.data.share <= 1:
        raise UserError(f"data.share is {config.data.share}; it must be above 0 and at most 1")
    check_scenes(config.data.scenes)
    if config.loop.wandb and not importlib.util.find_spec("wandb"):
        raise UserError("loop.wandb is set, but wandb is not installed: pip install 'b2b_jax[wandb]'")


def check_odd(key: str, size: int) -> None:
    """UserError for a kernel without a middle pixel."""
    if size % 2 == 0:
        raise UserError(f"{key} is {size}; a kernel has an odd number of pixels, such as {size + 1}")


def check_numbers(config: ConfigDict, section: str = "") -> None:
    """UserError for a number that no key can have: negative, not finite or huge, or 0 where nothing would be done."""
    for key, value in config.items():
        name, least = f"{section}.{key}".strip("."), int(key in ONE_AT_LEAST)
        if isinstance(value, ConfigDict):
            check_numbers(value, name)
        elif isinstance(value, int | float):
            most = LARGEST_INTEGER if isinstance(value, int) else sys.float_info.max
            if not least <= value <= most:
                limit = f"at most {most}" if value > most else f"at least {least}"
                raise UserError(f"{name} is {value}; it must be {limit}")


def check_scenes(config: ConfigDict) -> None:
    """UserError for generated cameras that cannot be."""
    rng, photo = np.random.default_rng(0), np.zeros((128, 128, 3), np.float32)
    tries = {
        "known_kernel": lambda value: blur.draw(rng, value),
        "unknown_kernel": lambda value: moving.expose(rng, photo, value),
        "unknown_processing": lambda value: Processing(**value),
    }
    for key, attempt in tries.items():
        try:
            attempt(config[key].to_dict())
        except (ValueError, TypeError) as error:
            raise UserError(f"data.scenes.{key}: {error}") from error
    if config.sharp_scale < 1:
        raise UserError(f"data.scenes.sharp_scale is {config.sharp_scale}; it must be at least 1")
