"""What a network makes of photos, whichever network it is. Images are NHWC float32 in [0, 1]."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from b2b_jax.models import layers

Array = jax.Array


def full_resolution(outputs: Array | list[Array]) -> Array:
    """The last of a multi-scale network's outputs, the image itself of any other network."""
    return outputs[-1] if isinstance(outputs, list | tuple) else outputs


def apply(module: nn.Module, variables: Any, images: Array) -> Array:
    """Runs `module` on images (n, h, w, 3); returns its full-resolution output, clipped to [0, 1], float32."""
    return restored(module, lambda x: module.apply(variables, x), images)


def restored(module: nn.Module, run: Callable[[Array], Any], images: Array) -> Array:
    """As `apply`, for one that `run` calls, such as a part of another network.

    A network that would pad by zeros makes a dark stripe of them, which reaches into the photo: it is given the photo's
    last pixels, repeated, instead.
    """
    h, w = images.shape[1:3]
    padded = getattr(module, "pads_zeros", False) and (h % module.stride or w % module.stride)
    whole = layers.pad_to_multiple(images, module.stride, "edge") if padded else images
    output = jnp.clip(full_resolution(run(whole)).astype(jnp.float32), 0.0, 1.0)
    return output[:, :h, :w] if padded else output
