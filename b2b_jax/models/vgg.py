"""VGG16 and VGG19 as feature extractors for the perceptual loss.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015,
arXiv 1409.1556; as a loss: Johnson et al., ECCV 2016, arXiv 1603.08155. NHWC images in [0, 1]; names as in torchvision.
"""

from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from b2b_jax.models.layers import Conv, choose, max_pool

BLOCKS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # convolutions before each pooling, configurations D and E
WIDTHS = (64, 128, 256, 512, 512)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Torchvision's.
INIT = {"kernel_init": nn.initializers.variance_scaling(2, "fan_out", "normal"), "bias_init": nn.initializers.zeros}

# What Blur2Blur's released code compares: its last slice ends before the ReLU.
VGG16_RELEASE_LAYERS = ("relu2_2", "relu3_3", "relu4_1", "relu4_3", "conv5_1")
# What its paper says: the usual five of VGG19.
VGG19_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


class VGG(nn.Module):
    """(n, h, w, 3) -> a tuple of features, one for each of `layers`, in their order.

    depth: 16 or 19. layers: 'relu{block}_{i}', or 'conv{block}_{i}' for the same before its ReLU, both counted from 1.
    Nothing beyond the deepest one asked for is computed or has parameters. normalize: subtract ImageNet's mean and
    divide by its standard deviation first (Blur2Blur does not). ValueError: an unknown depth or layer.
    """

    depth: int = 19
    layers: tuple[str, ...] = VGG19_LAYERS
    normalize: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, ...]:
        y, features = x, {}
        if self.normalize:
            y = (x - jnp.array(IMAGENET_MEAN)) / jnp.array(IMAGENET_STD)
        for index, block, i in self._needed():
            if i == 1 and block > 1:
                y = max_pool(y)
            relu = f"conv{block}_{i}" not in self.layers
            y = Conv(WIDTHS[block - 1], 3, relu=relu, dtype=self.dtype, name=f"features.{index}", **INIT)(y)
            if not relu:
                features[f"conv{block}_{i}"], y = y, nn.relu(y)
            features[f"relu{block}_{i}"] = y
        return tuple(features[name] for name in self.layers)

    def _needed(self) -> list[tuple[int, int, int]]:
        """The convolutions (torchvision's index, block, i) up to the deepest layer asked for."""
        if self.depth not in BLOCKS:
            raise ValueError(f"VGG has depth 16 or 19, not {self.depth}")
        convs = list(convolutions(self.depth))
        order = {f"{kind}{block}_{i}": n for n, (_, block, i) in enumerate(convs) for kind in ("conv", "relu")}
        return convs[: 1 + max(choose(order, name, f"layer of VGG{self.depth}") for name in self.layers)]


def convolutions(depth: int) -> Iterator[tuple[int, int, int]]:
    """(index, block, i) of each convolution: `features.{index}` counts convolutions, ReLUs and poolings from 0."""
    index = 0
    for block, number in enumerate(BLOCKS[depth], start=1):
        for i in range(1, number + 1):
            yield index, block, i
            index += 2
        index += 1
