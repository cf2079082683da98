"""Networks read from disk and run: the deblurrer after the translator, D_K(G(y)), on batches of photos of any size.

Images are NHWC float32 in [0, 1]; networks pad what their strides do not divide.
"""

import itertools
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from b2b_jax import weights
from b2b_jax.errors import UserError
from b2b_jax.models.nafnet import NAFNet

Array = jax.Array
WEIGHTS = "weights.safetensors"  # what a finished stage of a run leaves in its folder


class Network(NamedTuple):
    """A network and its weights, ready to run."""

    module: nn.Module
    variables: Any


# ---- from disk ----


def load(path: Path, dtype: jnp.dtype) -> Network:
    """Reads a network from its .safetensors file; UserError when it is missing or not one of ours."""
    if not path.is_file():
        raise UserError(f"No weights at {path}; train the stage first, or convert a .pth with tools/convert_weights.py")
    try:
        module, variables = weights.load(path)
    except ValueError as error:
        raise UserError(str(error)) from error
    return Network(module.clone(dtype=dtype), jax.device_put(variables))


def compute_dtype(name: str) -> jnp.dtype:
    """What networks compute in; "auto" is bfloat16, but float32 on a CPU, which has no fast bfloat16."""
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jnp.dtype(name)


def with_local_means(network: Network, local: bool, train_size: int) -> Network:
    """A NAFNet with or without its test-time local converter for crops of `train_size`; any other network as it is."""
    if not isinstance(network.module, NAFNet):
        return network
    return network._replace(module=network.module.clone(local=local, train_size=train_size))


def enable_compilation_cache() -> None:
    """Keeps compiled programs between runs, in ~/.cache/b2b_jax unless JAX_COMPILATION_CACHE_DIR says where."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "b2b_jax" / "xla"))


# ---- one network ----


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


# ---- several ----


class Chain:
    """Networks one after the other, compiled as one program for each shape of a batch, once.

    Called with images (n, h, w, 3) it returns the outputs of its last `keep` networks side by side, (n, h, w, 3 keep).
    `stride` is what all their strides divide.
    """

    def __init__(self, networks: Sequence[Network], keep: int = 1):
        self.stride = math.lcm(*(network.module.stride for network in networks))
        self.channels = 3 * keep
        self._modules = [network.module for network in networks]
        self._variables = [network.variables for network in networks]
        self._programs: dict[tuple[int, ...], jax.stages.Compiled] = {}

    def __call__(self, images: np.ndarray) -> Array:
        return self._program(images.shape)(self._variables, images)

    def working_memory(self, shape: tuple[int, ...]) -> int:
        """Bytes that a batch of `shape` takes between input and output, as XLA has laid them out; it compiles."""
        return self._program(shape).memory_analysis().temp_size_in_bytes

    def _program(self, shape: tuple[int, ...]) -> jax.stages.Compiled:
        if shape not in self._programs:
            images = jax.ShapeDtypeStruct(shape, jnp.float32)
            self._programs[shape] = jax.jit(self._run).lower(self._variables, images).compile()
        return self._programs[shape]

    def _run(self, variables: list[Any], images: Array) -> Array:
        outputs = [images]
        for module, arrays in zip(self._modules, variables, strict=True):
            outputs.append(apply(module, arrays, outputs[-1]))
        return jnp.concatenate(outputs[-(self.channels // 3) :], axis=-1)


# ---- many images ----


def batches(images: Iterable[np.ndarray], size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yields batches (size, h, w, 3) and how many images count; the last is filled up, so that one shape compiles."""
    images = iter(images)
    while group := list(itertools.islice(images, size)):
        yield np.stack(group + group[-1:] * (size - len(group))), len(group)


def stream(function: Callable[[np.ndarray], Array], images: Iterable[np.ndarray], batch: int) -> Iterator[np.ndarray]:
    """What `function` makes of each image (h, w, 3), computed `batch` at a time.

    JAX returns before it has computed: the next batch is handed over before the results of one are waited for, so that
    what is done with them, and with the images, takes no time from the device.
    """
    started: deque[tuple[Array, int]] = deque()
    for x, n in batches(images, batch):
        started.append((function(x), n))
        if len(started) > 1:
            yield from _fetched(*started.popleft())
    for results, n in started:
        yield from _fetched(results, n)


def _fetched(results: Array, count: int) -> np.ndarray:
    return np.asarray(results)[:count]


def run(function: Callable[[Array], Array], images: np.ndarray, batch: int) -> np.ndarray:
    """`function` over images (n, h, w, 3), `batch` at a time: float32 (n, ...)."""
    size = min(batch, len(images))
    return np.concatenate([np.asarray(function(x))[:n] for x, n in batches(images, size)])
