"""Filling kernels: what a photo must be convolved with so that its blur becomes one that the deblurrer knows.

    h = argmin | k * h - g |²   over kernels h without negative weights, of sum 1
    g = the known kernel for which that can be small, and which adds little blur

For two or three displaced copies, h is about a box as long as the gap between them: together, a continuous motion.
Kernels are float32 (n, k, k), odd, centred.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from scipy import fft

from b2b_jax.models.camera import spectra

Array = jax.Array


class Filling(NamedTuple):
    """How filling kernels are found."""

    size: int = 21  # of them, odd, in pixels
    ridge: float = 0.01  # squared spectrum of k below which a frequency counts as lost
    mildness: float = 1e-4  # squared error that a square pixel of variance is worth: known blur is short if it can be
    steps: int = 100  # of the accelerated projected gradient


def fill(kernels: Array, known: Array, filling: Filling) -> Array:
    """Filling kernels (n, size, size) of `kernels` (n, k, k) towards the best of the `known` (m, j, j) for each."""
    reach = kernels.shape[-1] + max(known.shape[-1], filling.size)
    side = fft.next_fast_len(reach, real=True)
    k, g = (spectra(x, (side, side)) for x in (kernels, known))
    target = g[chosen(k, g, variance(known), filling)]
    return solved(k, target, filling)


def chosen(k: Array, g: Array, blur: Array, filling: Filling) -> Array:
    """Which of the known spectra g (m, s, r), of variances `blur` (m,), each of the spectra k (n, s, r) should become.

    The squared error is that of the ridge solution: what g has at frequencies that k has lost.
    """
    power, side = jnp.square(jnp.abs(k)), k.shape[1]
    lost = jnp.square(filling.ridge / (power + filling.ridge)) * _halves(side)
    error = jnp.einsum("nsr,msr->nm", lost, jnp.square(jnp.abs(g))) / side**2
    return jnp.argmin(error + filling.mildness * blur, axis=1)


def solved(k: Array, target: Array, filling: Filling) -> Array:
    """argmin |k h - target|² over the simplex for spectra (n, s, r), by FISTA: (n, size, size)."""
    side, size = k.shape[1], filling.size
    around = jnp.arange(size) - size // 2
    rate = 1 / jnp.max(jnp.square(jnp.abs(k)), axis=(1, 2), keepdims=True)
    project = jax.vmap(lambda h: optax.projections.projection_simplex(h))

    def step(carry: tuple, number: Array) -> tuple:
        h, ahead = carry
        error = jnp.conj(k) * (k * spectra(ahead, (side, side)) - target)
        gradient = jnp.fft.irfft2(error, (side, side))[:, around[:, None], around]
        new = project((ahead - rate * gradient).reshape(len(k), -1)).reshape(h.shape)
        return (new, new + number / (number + 3) * (new - h)), None

    point = jnp.zeros((len(k), size, size)).at[:, size // 2, size // 2].set(1.0)
    (h, _), _ = jax.lax.scan(step, (point, point), jnp.arange(filling.steps, dtype=jnp.float32))
    return h


def variance(kernels: Array) -> Array:
    """Along both axes together, in square pixels, of kernels (n, k, k) about their centre: (n,)."""
    square = jnp.square(jnp.arange(kernels.shape[-1]) - kernels.shape[-1] // 2)
    return jnp.einsum("nij,ij->n", kernels, square[:, None] + square)


def _halves(side: int) -> Array:
    """How often a column of a real spectrum stands in the whole one: (r,)."""
    column = jnp.arange(side // 2 + 1)
    return jnp.where((column == 0) | (2 * column == side), 1.0, 2.0)
