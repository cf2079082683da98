"""ResNet-18, which tells one blur from another in the converter check.

He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR 2016, arXiv 1512.03385, table 1. Group
instead of batch normalisation (Wu and He, ECCV 2018), so that an image's score does not depend on its batch and there
are no running statistics. NHWC images in [0, 1].
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from b2b_jax.models.layers import Conv, choose, max_pool
from b2b_jax.models.patchgan import INPUTS

GROUP = 8  # channels that are normalised together
HE = {"kernel_init": nn.initializers.he_normal(), "use_bias": False}


class BasicBlock(nn.Module):
    """relu(shortcut(x) + norm(conv(relu(norm(conv(x)))))); the shortcut is a 1 x 1 convolution where shapes change."""

    features: int
    stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = Conv(self.features, 3, self.stride, dtype=self.dtype, name="conv1", **HE)(x)
        y = nn.relu(_norm("bn1", self.dtype)(y))
        y = _norm("bn2", self.dtype)(Conv(self.features, 3, dtype=self.dtype, name="conv2", **HE)(y))
        if x.shape != y.shape:
            x = Conv(self.features, 1, self.stride, padding=0, dtype=self.dtype, name="downsample.0", **HE)(x)
            x = _norm("downsample.1", self.dtype)(x)
        return nn.relu(x + y)


class ResNet18(nn.Module):
    """(n, h, w, 3) -> one logit per image (n,), float32. The first pooling is 2 x 2.

    width: channels of the first stage, a multiple of 8, doubled in each of the three others. input: 'rgb', or
    'gradient' for `patchgan.image_gradient`, in which a small blur stands out.
    """

    width: int = 64
    input: str = "rgb"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        y = Conv(self.width, 7, 2, dtype=self.dtype, name="conv1", **HE)(choose(INPUTS, self.input, "input")(x))
        y = max_pool(nn.relu(_norm("bn1", self.dtype)(y)))
        for stage in range(4):
            for block in range(2):
                stride = 2 if stage > 0 and block == 0 else 1
                y = BasicBlock(self.width * 2**stage, stride, self.dtype, name=f"layer{stage + 1}.{block}")(y)
        return nn.Dense(1, name="fc")(jnp.mean(y.astype(jnp.float32), axis=(1, 2)))[:, 0]


def _norm(name: str, dtype: Any) -> nn.GroupNorm:
    return nn.GroupNorm(num_groups=None, group_size=GROUP, dtype=dtype, name=name)
