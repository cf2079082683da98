"""KernelWizard: takes the blur off one pair of photos and puts it onto another photo.

Tran et al., "Explore Image Deblurring via Encoded Blur Kernel Space", CVPR 2021, arXiv 2104.00317. An extractor F codes
the blur of a pair (sharp, blurry) as a small feature map k; an adapter G blurs any photo by k. NHWC images in [0, 1];
names as in the PyTorch original.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from b2b_jax.models import layers


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x)))."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        y = layers.Conv(x.shape[-1], relu=True, dtype=self.dtype, name="conv1")(x)
        return x + layers.Conv(x.shape[-1], dtype=self.dtype, name="conv2")(y)


class FeatureExtractor(nn.Module):
    """(n, h, w, 3) -> (n, h/2^shrinks, w/2^shrinks, nf): the features of a sharp or a blurry photo."""

    nf: int
    blocks: int
    shrinks: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        for i in range(1 + self.shrinks):
            stride = 1 if i == 0 else 2
            x = nn.leaky_relu(layers.Conv(self.nf, 3, stride, dtype=self.dtype, name=f"{2 * i}")(x), 0.1)
        for i in range(self.blocks):
            x = ResidualBlock(self.dtype, name=f"{2 * (1 + self.shrinks) + i}")(x)
        return x


class KernelExtractor(nn.Module):
    """Features of a pair (n, h, w, 2 nf) -> code of its blur (n, h/2^reductions, w/2^reductions, features)."""

    nf: int
    features: int
    blocks: int
    reductions: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = nn.relu(self._conv("model.1", layers.reflection_pad(x, 3), self.nf, 7))
        for i in range(self.reductions):
            last = i == self.reductions - 1  # fewer than five would not reach so many features by doubling
            width = self.features if last else min(self.nf * 2 ** (i + 1), self.features)
            x = nn.relu(self._conv(f"model.{4 + 3 * i}", x, width, stride=2, padding=1))
        for i in range(self.blocks):
            name = f"model.{4 + 3 * self.reductions + i}.conv_block"
            y = nn.relu(self._conv(f"{name}.1", layers.reflection_pad(x, 1), self.features))
            x = x + self._conv(f"{name}.5", layers.reflection_pad(y, 1), self.features)
        return x

    def _conv(self, name: str, x: jax.Array, features: int, kernel_size: int = 3, **kw: int) -> jax.Array:
        kw = {"padding": 0, "use_bias": False, "dtype": self.dtype, "name": name} | kw
        return layers.Conv(features, kernel_size, **kw)(x)


class Adapter(nn.Module):
    """Features (n, h, w, nf) and the code of a blur -> features of the blurred photo, a U-Net that ends in tanh.

    The code joins the features at the bottom of the U, whose `reductions` levels are those of the extractor.
    """

    nf: int
    reductions: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, code: jax.Array, train: bool = False) -> jax.Array:
        inputs = []
        for level in range(self.reductions):
            inputs.append(x)
            x = x if level == 0 else nn.leaky_relu(x, 0.2)
            width, number = min(2**level, 8) * self.nf, min(level, 1)
            kw = {"use_bias": False, "dtype": self.dtype, "name": f"{self._path(level)}.down.{number}"}
            x = layers.Conv(width, 4, 2, 1, **kw)(x)
        skip = code.astype(x.dtype)
        for level in reversed(range(self.reductions)):
            x = nn.relu(jnp.concatenate([x, skip], axis=-1))
            skip = inputs[level]
            kw = {"use_bias": level == 0, "dtype": self.dtype, "name": f"{self._path(level)}.up.1"}
            x = layers.ConvTranspose(skip.shape[-1], **kw)(x)
        return jnp.tanh(x)

    def _path(self, level: int) -> str:
        return ".".join(["model", *["submodule"] * level])


class Reconstruction(nn.Module):
    """(n, h/2^shrinks, w/2^shrinks, nf) -> (n, h, w, 3), what the blurring adds to the photo."""

    blocks: int
    shrinks: int
    tail: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        for i in range(self.blocks):
            x = ResidualBlock(self.dtype, name=f"{i}")(x)
        number = self.blocks
        for left in reversed(range(self.shrinks)):
            width = 4 * (x.shape[-1] if left else self.tail)
            x = nn.leaky_relu(layers.pixel_shuffle(self._conv(number, x, width), 2), 0.1)
            number += 3
        return self._conv(number + 2, nn.leaky_relu(self._conv(number, x, self.tail), 0.1), 3)

    def _conv(self, number: int, x: jax.Array, features: int) -> jax.Array:
        return layers.Conv(features, dtype=self.dtype, name=f"{number}")(x)


class KernelWizard(nn.Module):
    """Moves blur: `extract` codes the blur of a pair, `adapt` blurs a photo by a code.

    nf: channels of the features. kernel_dim: channels of a code (8 nf in the published networks). front_blocks,
    back_blocks, kernel_blocks: residual blocks of the features, the reconstruction and the kernel extractor.
    variational: codes are distributions. Smaller networks than the published: shrinks: halvings on the way to the
    features (2); the adapter halves them once more, and then nf channels must hold the detail of a cell of
    2^(shrinks + 1) pixels a side if blur is to take it away; reductions: halvings of the features on the way to a code
    (5); tail: channels of the last layers (64).
    Sides must be multiples of `stride`, for `extract` of at least twice `stride`, since a code of one pixel cannot be
    padded by reflection.
    """

    nf: int = 64
    kernel_dim: int = 512
    front_blocks: int = 10
    back_blocks: int = 20
    kernel_blocks: int = 4
    variational: bool = False
    shrinks: int = 2
    reductions: int = 5
    tail: int = 64
    dtype: Any = jnp.float32

    @property
    def stride(self) -> int:
        """Both sides of an image must be multiples of this (128 as published)."""
        return 2 ** (self.shrinks + self.reductions)

    def setup(self):
        features = self.kernel_dim * (2 if self.variational else 1)
        extractor = (self.nf, features, self.kernel_blocks, self.reductions, self.dtype)
        self.feature_extractor = FeatureExtractor(self.nf, self.front_blocks, self.shrinks, self.dtype)
        self.kernel_extractor = KernelExtractor(*extractor)
        self.adapter = Adapter(self.nf, self.reductions, self.dtype)
        self.recon_trunk = Reconstruction(self.back_blocks, self.shrinks, self.tail, self.dtype)

    def __call__(self, sharp: jax.Array, blurry: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Blurs `sharp` as it is blurred in `blurry` (the mean code); without `blurry`, as in itself: not at all."""
        mean, _ = self.extract(sharp, sharp if blurry is None else blurry)
        return self.adapt(sharp, mean)

    def extract(self, sharp: jax.Array, blurry: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The blur of a pair: mean and sigma of its code, (n, h/stride, w/stride, kernel_dim), float32.

        sharp, blurry: (n, h, w, 3). A code is mean + sigma * eps, eps standard normal; sigma is 0 when not variational.
        ValueError: sides that are no multiples of `stride`, or below twice of it.
        """
        self._check(sharp, smallest=2 * self.stride)
        pair = jnp.concatenate([self.feature_extractor(sharp), self.feature_extractor(blurry)], axis=-1)
        code = self.kernel_extractor(pair).astype(jnp.float32)
        if not self.variational:
            return code, jnp.zeros_like(code)
        mean, sigma = jnp.split(code, 2, axis=-1)
        return mean, sigma

    def adapt(self, image: jax.Array, code: jax.Array) -> jax.Array:
        """Blurs image (n, h, w, 3) by a code: (n, h, w, 3), float32, not clipped. ValueError: as `extract`."""
        self._check(image, smallest=self.stride)
        features = self.adapter(self.feature_extractor(image), code)
        return image + self.recon_trunk(features).astype(jnp.float32)

    def _check(self, x: jax.Array, smallest: int) -> None:
        h, w = x.shape[1:3]
        if h % self.stride or w % self.stride or min(h, w) < smallest:
            raise ValueError(
                f"KernelWizard with {self.reductions} reductions needs sides that are multiples of {self.stride} "
                f"and at least {smallest}, got {h}x{w}: crop the image, or use fewer reductions"
            )
