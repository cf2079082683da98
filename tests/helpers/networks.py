"""Networks with the weights of a reference checkpoint or random ones, and images for them."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from b2b_jax import foreign, models
from b2b_jax.formats import torch_files
from helpers import REFERENCE

KEY = jax.random.key(0, impl="rbg")  # compiles faster than the default


def load(module: nn.Module, name: str, size: int = 32) -> dict:
    """The weights of a reference checkpoint as variables of a module."""
    like = jax.eval_shape(module.init, KEY, jnp.zeros((1, size, size, 3)))
    return foreign.from_torch_state(torch_files.state_dict(torch_files.read(REFERENCE / f"{name}.pth")), like)


def positive_variance(path: tuple, x: np.ndarray) -> np.ndarray:
    return np.abs(x) if path[-1].key == "var" else x


def random_variables(module: nn.Module, x: jax.Array) -> dict:
    """Variables without the initialisers, whose random numbers take long to compile."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, KEY, x)
    variables = jax.tree.map(lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), shapes)
    return jax.tree_util.tree_map_with_path(positive_variance, variables)


def images(*shape: int) -> jax.Array:
    return jax.random.uniform(jax.random.key(7), shape)


def small_wizard(**hyper) -> tuple[nn.Module, dict, jax.Array]:
    hyper = {"nf": 4, "kernel_dim": 8, "front_blocks": 0, "back_blocks": 0, "kernel_blocks": 1, "reductions": 2} | hyper
    module, x = models.create("kernel_wizard", **hyper), images(2, 32, 48, 3)
    return module, random_variables(module, x), x
