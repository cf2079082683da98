"""The deblurrer after the translator, D_K(G(y)), as one program for batches of photos of any size.

Images are NHWC float32 in [0, 1].
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from b2b_jax.networks import Network, apply

Array = jax.Array


PROGRAMS = 8  # compiled programs that a chain keeps


class Chain:
    """Networks one after the other, compiled as one program for each shape of a batch.

    Only those of the last PROGRAMS shapes are kept, because each takes 15 MB or more.
    Called with images (n, h, w, 3) it returns the outputs of its last `keep` networks side by side, (n, h, w, 3 keep).
    `stride` is what all their strides divide. `margin` is how far from an edge results may depend on where the photo
    was cut, in pixels: the sum of what the networks say of themselves, 0 for those that say nothing.
    """

    def __init__(self, networks: Sequence[Network], keep: int = 1):
        self.stride = math.lcm(*(network.module.stride for network in networks))
        self.margin = sum(getattr(network.module, "margin", 0) for network in networks)
        self.channels = 3 * keep
        self._variables = variables = [network.variables for network in networks]
        modules = [network.module for network in networks]

        @functools.lru_cache(PROGRAMS)
        def program(shape: tuple[int, ...]) -> jax.stages.Compiled:
            run = functools.partial(_outputs, modules, keep)  # a new one each time: JAX keeps what it traced with it
            return jax.jit(run).lower(variables, jax.ShapeDtypeStruct(shape, jnp.float32)).compile()

        self._program = program

    def __call__(self, images: np.ndarray) -> Array:
        return self._program(images.shape)(self._variables, images)

    def working_memory(self, shape: tuple[int, ...]) -> int:
        """Bytes that a batch of `shape` takes between input and output, as XLA has laid them out; it compiles."""
        return self._program(shape).memory_analysis().temp_size_in_bytes


def _outputs(modules: Sequence[nn.Module], keep: int, variables: Sequence[Any], images: Array) -> Array:
    """What the last `keep` modules make of images, side by side."""
    outputs = [images]
    for module, arrays in zip(modules, variables, strict=True):
        outputs.append(apply(module, arrays, outputs[-1]))
    return jnp.concatenate(outputs[-keep:], axis=-1)
