"""A deblurrer ready to use: the networks of a run's folder, or of one file, from photos to sharp photos.

import b2b_jax
deblurrer = b2b_jax.load("runs/mine")
sharp = deblurrer(photo)  # (h, w, 3) or (n, h, w, 3), uint8, uint16 or float in [0, 1]
"""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from clu.parameter_overview import count_parameters

from b2b_jax import named, networks, weights
from b2b_jax.compilation import enable_compilation_cache
from b2b_jax.errors import UserError
from b2b_jax.files import read_object
from b2b_jax.inference import tiles
from b2b_jax.inference.chain import Chain
from b2b_jax.inference.tiles import Restorer
from b2b_jax.models.kernel_wizard import KernelWizard
from b2b_jax.networks import Network

SYSTEMS: Mapping[str, Sequence[str]] = {  # the stages of each system of a run, in the order in which they run
    "adapted_consistent": ("kernel_field", "adaptation"),
    "adapted": ("adaptation",),
    "consistent": ("kernel_field", "deblurrer"),
    "kernel_field": ("kernel_field", "deblurrer"),
    "blur2blur": ("translator", "deblurrer"),
    "deblurrer": ("deblurrer",),
}
METHODS = tuple(SYSTEMS)
# What not every run has.
EXTRAS = {
    "adapted_consistent": "adapted deblurrer with a step towards agreement with the photo",
    "adapted": "adapted deblurrer",
    "consistent": "kernel mixture",
    "kernel_field": "kernel field",
}


def load(
    path: str | PathLike, method: str = "", tile: int = 0, overlap: int = tiles.OVERLAP, dtype: str = "auto"
) -> "Deblurrer":
    """The deblurrer in a run's folder or in one converted file.

    Args:
        path: a folder of `b2b_jax.main`, a .safetensors of `b2b_jax.convert`, or a name of `named.NAMED`.
        method: which system of a run: its deblurrer adapted to the camera ("adapted"), adapted and made to agree with
            the photo ("adapted_consistent"), behind the kernel field ("kernel_field"), behind it and made to agree with
            the photo ("consistent"), behind the translator ("blur2blur"), or alone ("deblurrer"); "" for what its
            evaluation found best.
        tile: largest side in pixels of the tiles that a photo is cut into; 0 runs it whole where memory allows.
        overlap: pixels that neighbouring tiles share at least.
        dtype: what the networks compute in: "float32", "bfloat16", or "auto" (float32 on a CPU only).

    Raises:
        UserError: there is nothing at `path`, it holds no such network, the tile is too small, or the dtype is none of
            these.
    """
    return Deblurrer(open_networks(choose(named.located(path), method), dtype), tile, overlap)


class Deblurrer:
    """Photos in, sharp photos out; programs are compiled once for each size.

    `chain` is the networks in the order in which they run. With `keep` above 1 the outputs of the last `keep` networks
    come side by side, as 3 channels each.
    """

    def __init__(self, chain: Sequence[Network], tile: int = 0, overlap: int = tiles.OVERLAP, keep: int = 1):
        enable_compilation_cache()
        self.chain = tuple(chain)
        self.restorer = Restorer(Chain(chain, keep), tile, overlap)

    def __call__(self, photos: np.ndarray) -> np.ndarray:
        """Sharp photos of the same shape and dtype, in the machine's byte order.

        Args:
            photos: one photo (h, w, 3) or several of one size (n, h, w, 3): uint8, uint16, or floats in [0, 1].

        Raises:
            ValueError: the shape is another, or floats lie outside [0, 1] or are not finite.
            TypeError: the dtype is another.
        """
        photos = np.asarray(photos)
        photos = photos.astype(photos.dtype.newbyteorder("="), copy=False)
        _check(photos)
        if not photos.size:
            return photos.copy()
        if photos.ndim == 3:
            return self.restorer.photo(photos, self.restorer.plan(*photos.shape[:2]))
        return np.stack(list(self.restorer.frames(photos)))

    def __repr__(self) -> str:
        names = (f"{type(n.module).__name__} ({int(count_parameters(n.variables)):,} parameters)" for n in self.chain)
        device, dtype = jax.devices()[0].device_kind, np.dtype(self.chain[0].module.dtype).name
        return f"{' → '.join(names)}, {dtype} on {device}"


def _check(photos: np.ndarray) -> None:
    if photos.ndim not in (3, 4) or photos.shape[-1] != 3 or 0 in photos.shape[-3:]:
        raise ValueError(f"photos have shape {photos.shape}; wanted (h, w, 3) or (n, h, w, 3)")
    floats = np.issubdtype(photos.dtype, np.floating)
    if photos.dtype not in (np.uint8, np.uint16) and not floats:
        raise TypeError(f"photos are {photos.dtype}; wanted uint8, uint16, or floats in [0, 1]")
    if floats and photos.size and not (np.min(photos) >= 0 and np.max(photos) <= 1):  # false for NaN, too
        raise ValueError(f"floats must lie in [0, 1]; these go from {np.min(photos):.4g} to {np.max(photos):.4g}")


# ---- which networks ----


class Choice(NamedTuple):
    """The files of a system."""

    translator: Path | None
    deblurrer: Path
    train_size: int | None  # of the deblurrer's local means; 0: global means, None: as its file says
    consistent: bool = False  # the result is made to agree with the photo, by what the translator knows
    step: float = 0.0  # of an adapted deblurrer's result towards agreement with the photo; 0: none


def choose(path: Path, method: str = "") -> Choice:
    """The networks of a run's system, "" for the best, or of one file; UserError for a method of a file."""
    if path.is_dir():
        return from_run(path, method)
    if method:
        raise UserError(f"method {method!r} chooses among the systems of a run, and {path} is no run's folder")
    return Choice(None, path, None)


def from_run(folder: Path, method: str = "") -> Choice:
    """The networks of a run's system, "" for the best; UserError when the folder is no run's or lacks a network."""
    config = read_config(folder)
    if method and method not in METHODS:
        raise UserError(f"method {method!r} is unknown; a run's systems are {', '.join(METHODS)}")
    paths = {stage: named.in_run(folder, config, stage) for stages in SYSTEMS.values() for stage in stages}
    there = [name for name in METHODS if name not in EXTRAS or _has(paths, name)]
    usual = [name for name in there if name != "blur2blur" or _translates(config, paths)]
    method = method or best_method(folder, usual)
    if method not in there:
        raise UserError(f"{folder} has no {EXTRAS[method]}; its other systems are {', '.join(there)}")
    for stage in SYSTEMS[method]:
        if paths[stage] == folder / stage / networks.WEIGHTS and paths[stage].is_file():
            networks.check_stage(paths[stage], config)
    *before, last = (paths[stage] for stage in SYSTEMS[method])
    network = config["deblurrer"]["network"]
    return Choice(
        translator=before[0] if before else None,
        deblurrer=last,
        train_size=network.get("train_size", 0) if network.get("local") else 0,
        consistent=method == "consistent",
        step=networks.agreed_step(last) if method == "adapted_consistent" else 0.0,
    )


def _translates(config: Mapping, paths: Mapping[str, Path]) -> bool:
    """True when the run has a translator, has begun one, or was asked for one, as by a configuration without stages."""
    stages = config.get("stages")
    asked = not isinstance(stages, list) or "translator" in named.names(stages)
    return asked or paths["translator"].parent.is_dir()


def _has(paths: Mapping[str, Path], method: str) -> bool:
    """True when the networks of a system that not every run has are there; agreement needs one that knows kernels."""
    stages = [stage for stage in SYSTEMS[method] if stage != "deblurrer"]
    if not all(paths[stage].is_file() for stage in stages):
        return False
    if "consistent" not in method:
        return True
    try:
        mixture = weights.header(paths["kernel_field"])["model"] == "kernel_mixture"
        return mixture and (method == "consistent" or networks.agreed_step(paths["adaptation"]) > 0)
    except (ValueError, OSError):
        return False  # who loads it says what is wrong


def read_config(folder: Path) -> dict:
    """A run's configuration; UserError when there is none, or it does not say which networks the run has."""
    path, config = folder / "config.json", read_object(folder / "config.json")
    if not path.exists():
        raise UserError(f"{folder} is no run's folder: it holds no config.json")
    sections: list[Any] = [
        config.get("deblurrer"),
        config.get("translator"),
        *(config[stage] for stages in SYSTEMS.values() for stage in stages if stage in config),
        *(v for v in config.values() if isinstance(v, dict)),
    ]
    sound = all(isinstance(one, dict) and isinstance(one.get("weights", ""), str) for one in sections)
    if not sound or not isinstance(sections[0].get("network"), dict):
        raise UserError(
            f"{path} is damaged: it does not say which networks the run has; put back a copy of it, or name them: "
            "--translator FILE --deblurrer FILE"
        )
    return config


def best_method(folder: Path, there: Sequence[str]) -> str:
    """What the run's evaluation found best; without one, the first of the systems that are there."""
    measured = read_object(folder / "results.json").get("method")
    return measured if measured in METHODS else there[0]


def open_networks(choice: Choice, dtype: str = "auto") -> list[Network]:
    """The networks of a choice in their order; UserError when they are missing or do not turn photos into photos."""
    deblurrer = open_network(choice.deblurrer, dtype)
    size = own_train_size(choice.deblurrer, deblurrer) if choice.train_size is None else choice.train_size
    deblurrer = networks.with_local_means(deblurrer, size > 0, size)
    if not choice.translator:
        return [deblurrer]
    translator = open_network(choice.translator, dtype)
    if choice.step:
        return [networks.held(translator, deblurrer, choice.step)]
    return [networks.consistent(translator, deblurrer)] if choice.consistent else [translator, deblurrer]


def own_train_size(path: Path, network: Network) -> int:
    """The crop size for a file's local means: 0 if a run trained it without any, else its network's own.

    A file that was converted has tensors alone to go by; older ones say local=False, but no crop size.
    """
    hyper, size = weights.header(path)["hyper"], getattr(network.module, "train_size", 0)
    return 0 if hyper.get("local") is False and "train_size" in hyper else size


def open_network(path: Path, dtype: str = "auto") -> Network:
    """Reads a network that turns images into images; UserError for any other."""
    network = networks.load(path, networks.compute_dtype(dtype))
    # Those have a stride; so has the KernelWizard, which blurs. Tracing one to see would take as long as loading it.
    if not hasattr(network.module, "stride") or isinstance(network.module, KernelWizard):
        raise UserError(f"{path} holds a {type(network.module).__name__}, which does not turn photos into photos")
    return network
