"""What a network's variables look like, found without allocating them, and whether arrays fit them."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from b2b_jax.models.recognition import MOST_TENSORS, State

Variables = dict[str, Any]

FLOATS = ("float64", "float32", "float16", "bfloat16")
LARGEST_FLOAT = float(np.finfo(np.float32).max)
LARGEST_STRIDE = 4096  # pixels; 256 is the largest published
CALLS = 10  # of submodules for each array of a network, at most; the kernel extractor calls some three times


def template(module: nn.Module, arrays: int = MOST_TENSORS) -> Variables:
    """Shapes and dtypes of a network's variables, without allocating them.

    ValueError: it cannot be built, or has far more than `arrays` of them, which is found before it is built whole.
    """
    shape = getattr(module, "input_shape", (1, 256, 256, 3))  # most networks take images
    left = iter(range(CALLS * (arrays + CALLS)))

    def count(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        if next(left, None) is None:
            raise ValueError(f"it has far more parts than the {arrays} tensors that are there")
        return call(*args, **kwargs)

    try:
        if not 0 < (stride := getattr(module, "stride", 1)) <= LARGEST_STRIDE:
            raise ValueError(f"the sides of its images would be multiples of {stride:.3g}")
        with nn.intercept_methods(count):
            # The key is made inside, so that no device starts: 48 MB.
            return jax.eval_shape(lambda x: module.init(jax.random.key(0), x), jax.ShapeDtypeStruct(shape, jnp.float32))
    except ValueError:
        raise
    except Exception as error:  # numbers that no network has, such as no heads, can raise anything
        raise ValueError(f"it cannot be built ({type(error).__name__}: {error})") from error


def check_tensors(got: State, wanted: Mapping[str, tuple[int, ...]]) -> None:
    """ValueError unless there are the wanted arrays, of the wanted shapes, all of them finite floats, and no others."""
    shapes = {name: array.shape for name, array in got.items()}
    shared = [name for name in wanted if name in got]
    problems = {
        "missing": [name for name in wanted if name not in got],
        "left over": [name for name in got if name not in wanted],
        "of another shape": [f"{n} {shapes[n]}, wanted {wanted[n]}" for n in shared if shapes[n] != wanted[n]],
        "no floats": [f"{n} is {got[n].dtype}" for n in shared if got[n].dtype.name not in FLOATS],
        "empty": [name for name in shared if 0 in wanted[name]],
        "not finite": [name for name in shared if not _is_finite(got[name])],
    }
    found = [f"{len(names)} {kind} ({_first_ten(names)})" for kind, names in problems.items() if names]
    if found:
        raise ValueError(f"the tensors do not fit the network: {'; '.join(found)}")


def _is_finite(array: np.ndarray) -> bool:
    """False for floats of which one is not finite as float32; looked at in place, for the sake of memory."""
    if array.dtype.name not in FLOATS or not array.size:
        return True
    with np.errstate(invalid="ignore"):
        return bool(-LARGEST_FLOAT <= float(array.min()) <= float(array.max()) <= LARGEST_FLOAT)


def _first_ten(names: list[str]) -> str:
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
