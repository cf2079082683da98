"""PatchGAN: the discriminator of Blur2Blur, one network for all scales, one logit per patch.

Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017, arXiv 1611.07004.
NHWC images in [0, 1]; layer numbers as in the PyTorch original (pytorch-CycleGAN-and-pix2pix, "basic").
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from b2b_jax.models import layers


def image_gradient(x: jax.Array) -> jax.Array:
    """Forward differences [dx, dy] of each channel, times 8, zero in the last column and row: (n, h, w, 2 c).

    Without colour and content the domain of a blur stands out: a discriminator tells two blurs apart far sooner.
    """
    dx = jnp.diff(x, axis=2, append=x[:, :, -1:])
    dy = jnp.diff(x, axis=1, append=x[:, -1:])
    return 8 * jnp.concatenate([dx, dy], axis=-1)


INPUTS = {"rgb": lambda x: x, "signed": layers.to_signed, "gradient": image_gradient}


class PatchGAN(nn.Module):
    """(n, h, w, c) -> logits (n, h', w', 1); h' = h / 2^n_layers - 2 for a multiple of 2^n_layers.

    ndf: channels of the first layer, doubled up to 8 ndf. n_layers: layers of stride 2. norm: 'instance' (no
    parameters), 'batch' or 'none', after all layers but the first and the last. input: 'rgb', 'signed' (in [-1, 1],
    as CycleGAN's) or 'gradient' for `image_gradient`. weight_init: 'normal' (weights N(0, 0.02), biases 0, as
    Blur2Blur) or 'torch'.
    ValueError: an unknown name, or a side below 3 * 2^n_layers (24), which would leave no patch.
    """

    ndf: int = 64
    n_layers: int = 3
    norm: str = "instance"
    input: str = "rgb"
    weight_init: str = "normal"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        self._check(x)
        init = layers.choose(layers.INITS, self.weight_init, "weight_init")
        y = layers.choose(INPUTS, self.input, "input")(x)
        for i in range(self.n_layers + 1):
            stride, biased = (2 if i < self.n_layers else 1), (i == 0 or self.norm != "batch")
            kw = {"use_bias": biased, "dtype": self.dtype, "name": f"model.{max(0, 3 * i - 1)}", **init}
            y = layers.Conv(self.ndf * min(2**i, 8), 4, stride, 1, **kw)(y)
            y = y if i == 0 else layers.normalise(y, self.norm, f"model.{3 * i}", train, self.dtype)
            y = nn.leaky_relu(y, 0.2)
        name = f"model.{3 * self.n_layers + 2}"
        return layers.Conv(1, 4, 1, 1, dtype=self.dtype, name=name, **init)(y).astype(jnp.float32)

    def _check(self, x: jax.Array) -> None:
        smallest = 3 * 2**self.n_layers
        if min(x.shape[1:3]) < smallest:
            raise ValueError(
                f"PatchGAN with {self.n_layers} layers needs images of at least {smallest}x{smallest}, got "
                f"{x.shape[1]}x{x.shape[2]}: use larger crops ({4 * smallest} for three scales) or fewer layers"
            )


def multiscale(discriminator: nn.Module, variables: Any, images: Sequence[jax.Array]) -> list[jax.Array]:
    """The logits of each image, all from the same network (in evaluation mode); images: e.g. [quarter, half, full]."""
    return [discriminator.apply(variables, x) for x in images]
