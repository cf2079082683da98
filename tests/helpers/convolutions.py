"""Convolutions as JAX has them, and all derivatives that training takes of one."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from b2b_jax.models import convolution


def direct(x: jax.Array, kernel: jax.Array, padding: tuple[int, int], stride: int = 1, groups: int = 1) -> jax.Array:
    pads, options = [(p, p) for p in padding], {"feature_group_count": groups}
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=convolution.DIMENSIONS, **options
    )


def with_gradients(f: Callable, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    y, pull = jax.vjp(f, *arrays)
    return y, *pull(y)


def with_second_derivatives(f: Callable, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """All that a gradient penalty takes: the value, its gradients, and the gradients of a function of them."""

    def penalty(*arrays):
        _, *gradients = with_gradients(lambda *arrays: jnp.sin(f(*arrays)), *arrays)
        return sum(jnp.sum(jnp.square(g)) for g in gradients)

    return *with_gradients(f, *arrays), *jax.grad(penalty, range(len(arrays)))(*arrays)
