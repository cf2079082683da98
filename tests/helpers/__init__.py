"""Helpers of the tests: the reference data and how to compare with it. Reference arrays are NCHW, as in PyTorch."""

import functools
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

DATA = Path(__file__).parents[1] / "data"
REFERENCE = DATA / "reference"
# The larger fixtures stay outside the repository; where they are absent, what needs them is skipped.
LARGE = Path(__file__).parents[3] / "shared" / "reference"

# In tests compiling takes longer than running. The second option is gone since JAX 0.11.
OPTIONS = {"xla_backend_optimization_level": "0"}
if jax.__version_info__ < (0, 11):
    OPTIONS["xla_cpu_use_fusion_emitters"] = False
jit = functools.partial(jax.jit, compiler_options=OPTIONS)


def applied(module, variables, *arrays, **options):
    """`module.apply`, compiled as one program: operation by operation each would be compiled for itself."""
    return jit(functools.partial(module.apply, **options))(variables, *arrays)


FLAGS = " ".join(f"--{name}={str(value).lower()}" for name, value in OPTIONS.items())  # the same as XLA_FLAGS

# flax leaf -> PyTorch leaf and the order of its axes there
TORCH_LEAVES = {
    "kernel": ("weight", (3, 2, 0, 1)),
    "transposed_kernel": ("weight", (2, 3, 0, 1)),
    "scale": ("weight", (0,)),
    "mean": ("running_mean", (0,)),
    "var": ("running_var", (0,)),
}


def reference(name: str) -> Path:
    """A file of the reference data; skips the test where it is absent."""
    for folder in (REFERENCE, LARGE):
        if (folder / name).is_file():
            return folder / name
    pytest.skip(f"the reference file {name} is neither in {REFERENCE} nor in {LARGE}")


def nhwc(x: np.ndarray) -> np.ndarray:
    """(n, c, h, w) -> (n, h, w, c)."""
    return np.moveaxis(x, 1, -1)


def assert_close(got, want, tol: float = 1e-4) -> None:
    """The rule of the reference data: equal shapes and max|got - want| <= tol * max(1, max|want|)."""
    assert np.shape(got) == np.shape(want)
    error = np.abs(np.asarray(got, np.float64) - want).max()
    assert error <= tol * max(1, np.abs(want).max()), f"largest difference {error:.2e}"


def torch_shapes(variables) -> dict[str, list[int]]:
    """Name and shape in PyTorch of every tensor of flax variables (arrays or their shapes)."""
    shapes = {}
    for (_, *path, leaf), array in flatten_dict(variables).items():
        name, axes = TORCH_LEAVES.get(leaf, (leaf, range(len(array.shape))))
        channels_only = leaf in ("beta", "gamma")
        shape = [1, *array.shape, 1, 1] if channels_only else [array.shape[i] for i in axes]
        shapes[".".join((*path, name))] = shape
    return shapes
