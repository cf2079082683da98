"""LPIPS, a learned perceptual distance; lower is better. Optional: it needs downloaded weights.

Zhang, Isola, Efros, Shechtman and Wang, "The unreasonable effectiveness of deep features as a perceptual metric", CVPR
2018, variant VGG16, version 0.1, the linear layers. Two files:

    vgg   torchvision's vgg16, converted by b2b_jax.convert
    lin   `vgg.pth` (7 KB) of weights/v0.1 in https://github.com/richzhang/PerceptualSimilarity, as it is

Images are NHWC in [0, 1].
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from b2b_jax.errors import UserError
from b2b_jax.formats import torch_files
from b2b_jax.models.vgg import VGG, WIDTHS
from b2b_jax.networks import Network, load

LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")  # the last of each block
# The authors' scaling of images in [-1, 1].
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class Lpips(NamedTuple):
    """The feature extractor, and the weight of every channel of every layer: five arrays (c,)."""

    vgg: Network
    lin: tuple[np.ndarray, ...]


def open_weights(vgg: Path, lin: Path) -> Lpips:
    """Reads both files; UserError when one is missing or something else."""
    network = load(vgg, jnp.dtype("float32"))
    if not isinstance(network.module, VGG) or network.module.depth != 16:
        raise UserError(f"evaluation.lpips.vgg is {vgg}, which holds no VGG16; convert torchvision's vgg16-*.pth")
    return Lpips(Network(VGG(16, LAYERS), network.variables), read_lin(lin))


def read_lin(path: Path) -> tuple[np.ndarray, ...]:
    """The five linear layers of the authors' file; UserError when they are not there."""
    try:
        state = torch_files.state_dict(torch_files.read(path))
        return tuple(state[f"lin{i}.model.1.weight"].reshape(width) for i, width in enumerate(WIDTHS))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"evaluation.lpips.lin is {path}: not LPIPS's linear layers for VGG16 ({error})") from error


def scorer(lpips: Lpips) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The compiled distance of images (n, h, w, 3) from others: (n,)."""
    compiled = jax.jit(lambda variables, lin, x, y: distance(lpips.vgg.module, variables, lin, x, y))
    return lambda x, y: compiled(lpips.vgg.variables, lpips.lin, x, y)


def distance(vgg: VGG, variables, lin: tuple[jax.Array, ...], x: jax.Array, y: jax.Array) -> jax.Array:
    """Eq. 1: squared differences of unit features, weighted by channel, averaged over positions, summed over layers."""
    features = [vgg.apply(variables, ((2 * image - 1) - jnp.array(SHIFT)) / jnp.array(SCALE)) for image in (x, y)]
    layers = zip(lin, *(map(_unit, of_image) for of_image in features), strict=True)
    return sum(jnp.mean(jnp.sum(weight * (a - b) ** 2, axis=-1), axis=(1, 2)) for weight, a, b in layers)


def _unit(feature: jax.Array) -> jax.Array:
    return feature / (jnp.linalg.norm(feature, axis=-1, keepdims=True) + 1e-10)
