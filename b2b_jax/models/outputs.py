"""What a network makes of photos, whichever network it is. Images are NHWC float32 in [0, 1]."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array


def full_resolution(outputs: Array | list[Array]) -> Array:
    """The last of a multi-scale network's outputs, the image itself of any other network."""
    return outputs[-1] if isinstance(outputs, list | tuple) else outputs


def apply(module: nn.Module, variables: Any, images: Array) -> Array:
    """Runs `module` on images (n, h, w, 3); returns its full-resolution output, clipped to [0, 1], float32."""
    return jnp.clip(full_resolution(module.apply(variables, images)).astype(jnp.float32), 0.0, 1.0)
