"""The ResNet generator of CycleGAN, a baseline translator.

Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", ICCV 2017,
arXiv 1703.10593, after Johnson et al., ECCV 2016. NHWC; layer numbers as in pytorch-CycleGAN-and-pix2pix.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from b2b_jax.models import layers


class ResnetBlock(nn.Module):
    """x + norm(conv(dropout(relu(norm(conv(x)))))), padded by reflection.

    use_dropout: whether the block has the dropout layer (rate 0.5, in training), which moves the second convolution's
    number from 5 to 6.
    """

    norm: str = "instance"
    use_dropout: bool = False
    use_bias: bool = True
    weight_init: str = "normal"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        second = 6 if self.use_dropout else 5
        y = nn.relu(self._norm(self._conv(x, 1), 2, train))
        if self.use_dropout:
            y = nn.Dropout(0.5, deterministic=not train)(y)
        return x + self._norm(self._conv(y, second), second + 1, train)

    def _conv(self, x: jax.Array, number: int) -> jax.Array:
        kw = {"use_bias": self.use_bias, "dtype": self.dtype, "name": f"conv_block.{number}"}
        init = layers.choose(layers.INITS, self.weight_init, "weight_init")
        return layers.Conv(x.shape[-1], 3, padding=0, **kw, **init)(layers.reflection_pad(x, 1))

    def _norm(self, y: jax.Array, number: int, train: bool) -> jax.Array:
        return layers.normalise(y, self.norm, f"conv_block.{number}", train, self.dtype)


class ResNet(nn.Module):
    """(n, h, w, 3) -> (n, h, w, 3) in (-1, 1): two reductions, n_blocks residual blocks, two enlargements, tanh.

    ngf: channels at full size. signed: photos in [0, 1] are taken to [-1, 1], CycleGAN's range, and the output back: it
    is in (0, 1). norm: 'instance' (no parameters), 'batch' or 'none'. use_dropout: rate 0.5 within the
    blocks, in training (needs the rng 'dropout'). weight_init: 'normal' (weights N(0, 0.02), biases 0, as published)
    or 'torch'. Sides that are no multiples of `stride` are padded by their last pixels and cropped back.
    """

    ngf: int = 64
    n_blocks: int = 9
    norm: str = "instance"
    use_dropout: bool = False
    signed: bool = False
    weight_init: str = "normal"
    dtype: Any = jnp.float32

    @property
    def stride(self) -> int:
        """Both sides of an input should be multiples of this; others are padded."""
        return 4

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        h, w, c = x.shape[1:]
        kw, last = {"dtype": self.dtype, **layers.choose(layers.INITS, self.weight_init, "weight_init")}, self.n_blocks
        biased = self.norm != "batch"

        x = layers.to_signed(x) if self.signed else x
        y = layers.reflection_pad(layers.pad_to_multiple(x, self.stride, "edge"), 3)
        y = layers.Conv(self.ngf, 7, padding=0, use_bias=biased, name="model.1", **kw)(y)
        y = self._norm_relu(y, 2, train)
        for i, number in enumerate((4, 7)):
            y = layers.Conv(2 ** (i + 1) * self.ngf, 3, 2, use_bias=biased, name=f"model.{number}", **kw)(y)
            y = self._norm_relu(y, number + 1, train)
        for i in range(self.n_blocks):
            block = (self.norm, self.use_dropout, biased, self.weight_init, self.dtype)
            y = ResnetBlock(*block, name=f"model.{10 + i}")(y, train)
        for features, number in ((2 * self.ngf, 10 + last), (self.ngf, 13 + last)):
            geometry = {"kernel_size": 3, "output_padding": 1}
            y = layers.ConvTranspose(features, **geometry, use_bias=biased, name=f"model.{number}", **kw)(y)
            y = self._norm_relu(y, number + 1, train)
        y = layers.Conv(c, 7, padding=0, name=f"model.{17 + last}", **kw)(layers.reflection_pad(y, 3))
        y = jnp.tanh(y.astype(jnp.float32))[:, :h, :w]
        return layers.from_signed(y) if self.signed else y

    def _norm_relu(self, y: jax.Array, number: int, train: bool) -> jax.Array:
        return nn.relu(layers.normalise(y, self.norm, f"model.{number}", train, self.dtype))
