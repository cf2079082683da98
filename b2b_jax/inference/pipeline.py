"""The deblurrer after the translator: D_K(G(y)), on batches of photos of any size.

Images are NHWC float32 in [0, 1]; networks pad what their strides do not divide.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


class Network(NamedTuple):
    """A network and its weights, ready to run."""

    module: nn.Module
    variables: Any


def full_resolution(outputs: Array | list[Array]) -> Array:
    """The last of a multi-scale network's outputs, the image itself of any other network."""
    return outputs[-1] if isinstance(outputs, list | tuple) else outputs


def apply(module: nn.Module, variables: Any, images: Array) -> Array:
    """Runs `module` on images (n, h, w, 3); returns its full-resolution output, clipped to [0, 1], float32."""
    return jnp.clip(full_resolution(module.apply(variables, images)).astype(jnp.float32), 0.0, 1.0)


def runner(network: Network) -> Callable[[Array], Array]:
    """`apply` compiled for one network; the weights are an argument of the program, not part of it."""
    compiled = jax.jit(lambda variables, images: apply(network.module, variables, images))
    return lambda images: compiled(network.variables, images)


def batches(images: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yields batches (size, h, w, 3) and how many images count; the last is filled up, so that one shape compiles."""
    size = min(size, len(images))
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        filling = np.repeat(batch[-1:], size - len(batch), axis=0)
        yield np.concatenate([batch, filling]), len(batch)


def run(function: Callable[[Array], Array], images: np.ndarray, batch: int) -> np.ndarray:
    """`function` over images (n, h, w, 3), `batch` at a time: float32 (n, ...)."""
    return np.concatenate([np.asarray(function(x))[:n] for x, n in batches(images, batch)])
