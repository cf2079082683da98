"""MIMO-UNet: the blur translator of Blur2Blur, and a deblurrer.

Cho et al., "Rethinking Coarse-to-Fine Approach in Single Image Deblurring", ICCV 2021, arXiv 2108.05054. One U-Net
reads the image at three scales and writes it at three scales. NHWC images in [0, 1]; names as in the PyTorch original.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from b2b_jax.models import layers, onednn


class BasicConv(nn.Module):
    """Convolution, or the transposed one that doubles both sides, then ReLU unless told otherwise.

    With `doublings` it is the 1x1 convolution of several images that `layers.Blend` is, whatever `kernel_size` says.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    transpose: bool = False
    relu: bool = True
    doublings: tuple[int, ...] = ()
    weight_init: str = "torch"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array | Sequence[jax.Array], train: bool = False) -> jax.Array:
        init = layers.choose(layers.INITS, self.weight_init, "weight_init")
        if self.doublings:
            y = layers.Blend(self.features, self.doublings, dtype=self.dtype, name="main.0", **init)(x)
        elif self.transpose:
            y = layers.ConvTranspose(self.features, dtype=self.dtype, name="main.0", **init)(x)
        else:
            args = (self.features, self.kernel_size, self.stride)
            return layers.Conv(*args, relu=self.relu, dtype=self.dtype, name="main.0", **init)(x)
        return nn.relu(y) if self.relu else y


class ResBlock(nn.Module):
    """x + conv(relu(conv(x)))."""

    weight_init: str = "torch"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        kw = {"weight_init": self.weight_init, "dtype": self.dtype}
        y = BasicConv(x.shape[-1], name="main.0", **kw)(x)
        return x + BasicConv(x.shape[-1], relu=False, name="main.1", **kw)(y)


def resblock_in_steps(parameters: dict, x: jax.Array) -> jax.Array:
    """`ResBlock`: the ReLU and the sum are the last operations of the convolutions."""
    first, second = (parameters[name]["main.0"] for name in ("main.0", "main.1"))
    steps = onednn.Steps()
    y = steps.conv(x, first["kernel"], first["bias"], "relu")
    steps.conv(y, second["kernel"], second["bias"], "plus", x)
    return steps.run()


class Stage(nn.Module):
    """The residual blocks of one scale (EBlock and DBlock of the paper)."""

    num_res: int
    weight_init: str = "torch"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        for i in range(self.num_res):
            x = layers.in_steps(ResBlock(self.weight_init, self.dtype, name=f"layers.{i}"), resblock_in_steps, x)
        return x


class SCM(nn.Module):
    """Shallow convolutional module (figure 4a): features of a reduced image, (n, h, w, 3) -> (n, h, w, features)."""

    features: int
    weight_init: str = "torch"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        c, y, kw = self.features, x, {"weight_init": self.weight_init, "dtype": self.dtype}
        for i, (width, kernel) in enumerate(((c // 4, 3), (c // 2, 1), (c // 2, 3), (c - x.shape[-1], 1))):
            y = BasicConv(width, kernel, name=f"main.{i}", **kw)(y)
        return BasicConv(c, relu=False, doublings=(0, 0), name="conv", **kw)([x, y])


class FAM(nn.Module):
    """Feature attention module (figure 4b): x1 + conv(x1 * x2), x1 from the encoder, x2 from the reduced image."""

    weight_init: str = "torch"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x1: jax.Array, x2: jax.Array, train: bool = False) -> jax.Array:
        kw = {"weight_init": self.weight_init, "dtype": self.dtype}
        return x1 + BasicConv(x1.shape[-1], relu=False, name="merge", **kw)(x1 * x2)


class AFF(nn.Module):
    """Asymmetric feature fusion (figure 5): features of three scales, each doubled so many times, to one size."""

    features: int
    doublings: tuple[int, int, int]
    weight_init: str = "torch"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, scales: Sequence[jax.Array], train: bool = False) -> jax.Array:
        kw = {"weight_init": self.weight_init, "dtype": self.dtype}
        y = BasicConv(self.features, doublings=self.doublings, name="conv.0", **kw)(scales)
        return BasicConv(self.features, relu=False, name="conv.1", **kw)(y)


class MIMOUNet(nn.Module):
    """(n, h, w, 3) -> [quarter, half, full], each the reduced input plus what the network adds to it.

    base_channels: width at full scale, doubled at each reduction. num_res: residual blocks a stage (8; 20 is
    MIMO-UNet+). dropout: rate of whole channels on the two fused skips in training (0.1 in MIMO-UNet+; needs the rng
    'dropout'). zero_init: the three output convolutions start at zero, so that a fresh network is the identity.
    weight_init: 'torch', or 'normal' as Blur2Blur starts it: weights N(0, 0.02), biases 0.
    Sides that are no multiples of `stride` are padded by their last pixels, and the outputs are cropped to
    (ceil(h / 4), ceil(w / 4)), (ceil(h / 2), ceil(w / 2)) and (h, w).
    """

    base_channels: int = 32
    num_res: int = 8
    dropout: float = 0.0
    zero_init: bool = False
    weight_init: str = "torch"
    dtype: Any = jnp.float32

    @property
    def stride(self) -> int:
        """Both sides of an input should be multiples of this; others are padded."""
        return 4

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> list[jax.Array]:
        h, w = x.shape[1:3]
        full = layers.pad_to_multiple(x, self.stride, "edge")
        half = layers.nearest_half(full)
        images = (full, half, layers.nearest_half(half))
        outputs = self._decode(images, *self._encode(images), train)
        return [y[:, : -(-h // r), : -(-w // r)] for y, r in zip(outputs, (4, 2, 1), strict=True)]

    def _encode(self, images: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The encoder's features (full, half, quarter), with the reduced images merged in by SCM and FAM."""
        full, half, quarter = images
        c, kw = self.base_channels, {"weight_init": self.weight_init, "dtype": self.dtype}
        z1 = Stage(self.num_res, name="Encoder.0", **kw)(BasicConv(c, name="feat_extract.0", **kw)(full))
        z2 = BasicConv(2 * c, 3, 2, name="feat_extract.1", **kw)(z1)
        z2 = FAM(name="FAM2", **kw)(z2, SCM(2 * c, name="SCM2", **kw)(half))
        z2 = Stage(self.num_res, name="Encoder.1", **kw)(z2)
        z4 = BasicConv(4 * c, 3, 2, name="feat_extract.2", **kw)(z2)
        z4 = FAM(name="FAM1", **kw)(z4, SCM(4 * c, name="SCM1", **kw)(quarter))
        return z1, z2, Stage(self.num_res, name="Encoder.2", **kw)(z4)

    def _fuse(self, z1: jax.Array, z2: jax.Array, z4: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        """The skips (full, half): each fuses the features of all three scales; channel dropout in MIMO-UNet+."""
        c, kw = self.base_channels, {"weight_init": self.weight_init, "dtype": self.dtype}
        half = AFF(2 * c, (0, 0, 1), name="AFFs.1", **kw)([layers.nearest_half(z1), z2, z4])
        full = AFF(c, (0, 1, 2), name="AFFs.0", **kw)([z1, z2, z4])
        drop = nn.Dropout(self.dropout, broadcast_dims=(1, 2), deterministic=not train)
        return drop(full), drop(half)

    def _decode(
        self, images: tuple[jax.Array, ...], z1: jax.Array, z2: jax.Array, z4: jax.Array, train: bool
    ) -> list[jax.Array]:
        """The outputs [quarter, half, full]: one image at each scale on the way up."""
        full, half, quarter = images
        skip1, skip2 = self._fuse(z1, z2, z4, train)
        c, kw = self.base_channels, {"weight_init": self.weight_init, "dtype": self.dtype}
        out = {"relu": False, "weight_init": "zeros" if self.zero_init else self.weight_init, "dtype": self.dtype}

        z = Stage(self.num_res, name="Decoder.0", **kw)(z4)
        quarter = quarter + BasicConv(3, name="ConvsOut.0", **out)(z)

        z = BasicConv(2 * c, transpose=True, name="feat_extract.3", **kw)(z)
        z = BasicConv(2 * c, doublings=(0, 0), name="Convs.0", **kw)([z, skip2])
        z = Stage(self.num_res, name="Decoder.1", **kw)(z)
        half = half + BasicConv(3, name="ConvsOut.1", **out)(z)

        z = BasicConv(c, transpose=True, name="feat_extract.4", **kw)(z)
        z = BasicConv(c, doublings=(0, 0), name="Convs.1", **kw)([z, skip1])
        z = Stage(self.num_res, name="Decoder.2", **kw)(z)
        return [quarter, half, full + BasicConv(3, name="feat_extract.5", **out)(z)]
