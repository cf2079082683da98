"""What the stages of one run share: its config and folder, and, opened on first use, its photos and networks."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from b2b_jax import weights
from b2b_jax.data import domains
from b2b_jax.data.sources import Source
from b2b_jax.errors import UserError
from b2b_jax.inference.pipeline import Network
from b2b_jax.models.nafnet import NAFNet

WEIGHTS = "weights.safetensors"  # what a finished stage leaves in its folder


@dataclass(frozen=True)
class Run:
    """One run of `b2b_jax.main`."""

    config: ConfigDict
    workdir: Path

    @cached_property
    def known(self) -> domains.Known:
        """Pairs of the known blur."""
        return domains.open_known(self.config)

    @cached_property
    def unknown(self) -> domains.Unknown:
        """The camera's photos."""
        return domains.open_unknown(self.config)

    @property
    def dtype(self) -> jnp.dtype:
        """What the networks compute in."""
        name = self.config.compute_dtype
        if name == "auto":
            name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
        return jnp.dtype(name)

    def weights_path(self, stage: str) -> Path:
        """The stage's weights: those given in the config, else those that it trains."""
        given = self.config[stage].weights
        return Path(given) if given else self.workdir / stage / WEIGHTS

    def trained(self, stage: str) -> bool:
        """True when the stage's weights are there, so that nothing is left to train."""
        return self.weights_path(stage).is_file()

    def network(self, stage: str) -> Network:
        """The network that the stage trained or was given; a deblurrer with its test-time local converter as asked."""
        network, hyper = load(self.weights_path(stage), self.dtype), self.config.deblurrer.network
        if stage == "deblurrer" and isinstance(network.module, NAFNet):
            return network._replace(module=network.module.clone(local=hyper.local, train_size=hyper.train_size))
        return network


def load(path: Path, dtype: jnp.dtype) -> Network:
    """Reads a network from its .safetensors file; UserError when it is missing or not one of ours."""
    if not path.is_file():
        raise UserError(f"No weights at {path}; train the stage first, or convert a .pth with tools/convert_weights.py")
    try:
        module, variables = weights.load(path)
    except ValueError as error:
        raise UserError(str(error)) from error
    return Network(module.clone(dtype=dtype), jax.device_put(variables))


def centre_crops(source: Source, count: int, crop: int) -> dict[str, np.ndarray]:
    """The first `count` records of `source` (0 = all), cut to their largest common centred square of at most `crop` px.

    Returns float32 arrays (n, s, s, 3) in [0, 1], by the records' keys.
    """
    records = [source[i] for i in range(min(count or len(source), len(source)))]
    photos = [{k: v for k, v in record.items() if k != "name"} for record in records]
    side = min(crop, *(min(v.shape[:2]) for photo in photos for v in photo.values()))
    return {k: np.stack([_centre(photo[k], side) for photo in photos]).astype(np.float32) / 255.0 for k in photos[0]}


def _centre(image: np.ndarray, side: int) -> np.ndarray:
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return image[top : top + side, left : left + side]
