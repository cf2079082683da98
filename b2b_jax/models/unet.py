"""The U-Net generator of pix2pix and its variant in Blur2Blur: a baseline translator, and a deblurrer.

Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017, arXiv 1611.07004. NHWC;
names as in pytorch-CycleGAN-and-pix2pix, where each level of the U is a module within the one above it.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from b2b_jax.models import layers

UPS = ("transposed", "bilinear")


class UNet(nn.Module):
    """(n, h, w, 3) -> (n, h, w, 3) in (-1, 1); with scales=3 a list, at 1/4, 1/2 and full resolution.

    num_downs: levels, each of half the size of the one above (8: `unet_256`, 7: `unet_128`; at least 2). ngf: channels
    of the outermost, doubled up to 8 ngf. norm: 'instance' (no parameters), 'batch' or 'none'. up: 'transposed'
    4x4 convolutions as in pix2pix, or 'bilinear' enlargement and a 5x5 convolution as in Blur2Blur. dropout: rate in
    training behind the inner levels of 8 ngf channels (0.5 in pix2pix; needs the rng 'dropout'). signed: photos in
    [0, 1] are taken to [-1, 1] and the output back: it is in (0, 1). weight_init: 'normal' (weights N(0, 0.02), biases
    0, as published) or 'torch'. scales: 2 or 3 put a 3x3 convolution to an image behind the inner levels of half and of
    a quarter of the size: the U-Net of Blur2Blur's table 4, as far as the paper describes it. Sides that are no
    multiples of `stride` are padded by their last pixels and cropped back.
    ValueError: an unknown name, num_downs below 2, or scales beyond the levels.
    """

    num_downs: int = 8
    ngf: int = 64
    norm: str = "batch"
    up: str = "transposed"
    dropout: float = 0.0
    signed: bool = False
    scales: int = 1
    weight_init: str = "normal"
    dtype: Any = jnp.float32

    @property
    def stride(self) -> int:
        """Both sides of an input should be multiples of this; others are padded."""
        return 2**self.num_downs

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        layers.choose(dict.fromkeys(UPS), self.up, "up")
        if self.num_downs < 2:
            raise ValueError(f"UNet needs num_downs of at least 2, got {self.num_downs}")
        if not 1 <= self.scales <= min(3, self.num_downs):
            raise ValueError(f"UNet has 1 to {min(3, self.num_downs)} scales, got {self.scales}")
        h, w, c = x.shape[1:]
        y = layers.pad_to_multiple(layers.to_signed(x) if self.signed else x, self.stride, "edge")
        y = self._down(y, "model.model.0", self._width(0))
        smaller: list[jax.Array] = []  # filled from the smallest on
        y = self._level(y, "model.model.1.model", 1, train, smaller)
        number = 3 if self.up == "transposed" else 4
        y = self._up(nn.relu(y), f"model.model.{number}", c, use_bias=True)
        sizes = zip([*smaller, y], (4, 2, 1)[-self.scales :], strict=True)
        outputs = [self._image(z)[:, : h // k, : w // k] for z, k in sizes]
        return outputs if self.scales > 1 else outputs[0]

    def _image(self, y: jax.Array) -> jax.Array:
        y = jnp.tanh(y.astype(jnp.float32))
        return layers.from_signed(y) if self.signed else y

    def _level(self, x: jax.Array, path: str, level: int, train: bool, smaller: list[jax.Array]) -> jax.Array:
        """Level `level` of the U and all below it: (n, h, w, c) -> (n, h, w, 2 c), the input and what comes up.

        `smaller` gets the images of reduced size.
        """
        innermost, biased = level == self.num_downs - 1, self.norm != "batch"
        y = self._down(nn.leaky_relu(x, 0.2), f"{path}.1", self._width(level))
        if not innermost:
            y = layers.normalise(y, self.norm, f"{path}.2", train, self.dtype)
            y = self._level(y, f"{path}.3.model", level + 1, train, smaller)
        # The ReLU is number 2 in the innermost level and number 4 elsewhere; a bilinear enlargement is number 3 or 5,
        # and a LeakyReLU of slope 1, that is, nothing, follows its convolution.
        conv = (3 if innermost else 5) + (self.up == "bilinear")
        norm = conv + (2 if self.up == "bilinear" else 1)
        y = self._up(nn.relu(y), f"{path}.{conv}", x.shape[-1], use_bias=biased or self.up == "bilinear")
        y = layers.normalise(y, self.norm, f"{path}.{norm}", train, self.dtype)
        if not innermost and self._width(level) == self._width(level - 1):
            y = nn.Dropout(self.dropout, deterministic=not train)(y)
        y = jnp.concatenate([x, y], axis=-1)
        if level < self.scales:
            smaller.append(layers.Conv(3, 3, name=f"heads.{level}", **self._kw())(nn.relu(y)))
        return y

    def _width(self, level: int) -> int:
        return min(2**level, 8) * self.ngf

    def _down(self, x: jax.Array, name: str, features: int) -> jax.Array:
        return layers.Conv(features, 4, 2, 1, use_bias=self.norm != "batch", name=name, **self._kw())(x)

    def _up(self, x: jax.Array, name: str, features: int, use_bias: bool) -> jax.Array:
        if self.up == "transposed":
            return layers.ConvTranspose(features, use_bias=use_bias, name=name, **self._kw())(x)
        return layers.Conv(features, 5, use_bias=use_bias, name=name, **self._kw())(layers.bilinear_double(x))

    def _kw(self) -> dict[str, Any]:
        return {"dtype": self.dtype, **layers.choose(layers.INITS, self.weight_init, "weight_init")}
